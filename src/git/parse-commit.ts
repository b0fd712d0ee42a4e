import type { Author, Commit } from '../model/index.ts';

/** A commit, or why its bytes are refused. */
export type ParsedCommit =
  | { readonly kind: 'commit'; readonly commit: Commit }
  | { readonly kind: 'malformed'; readonly id: string; readonly reason: string };

type Header = { readonly name: string; readonly value: string; readonly start: number; readonly end: number };

const SINGLE = new Set(['tree', 'author', 'committer', 'encoding', 'gpgsig', 'gpgsig-sha256', 'change-id']);

/**
 * Splits a raw commit into its fields and its signature, strictly: `tree`, `parent`*, `author`, `committer` in
 * that order, then extra headers, none of the single ones twice, and no header that only starts like a signature's.
 * Git itself strips every `gpgsig…` header from what a signature covers, so anything looser lets two readers
 * see two commits (CVE-2026-44309, CVE-2026-45022).
 */
export function parseCommit(id: string, bytes: Uint8Array): ParsedCommit {
  try {
    return { kind: 'commit', commit: split(id, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)) };
  } catch (thrown) {
    if (thrown instanceof Malformed) return { kind: 'malformed', id, reason: thrown.message };
    throw thrown;
  }
}

class Malformed extends Error {}

function split(id: string, bytes: Buffer): Commit {
  const { headers, bodyAt } = readHeaders(bytes);
  const seen = new Set<string>();
  for (const header of headers) {
    if (SINGLE.has(header.name) && seen.has(header.name)) throw new Malformed(`the header \`${header.name}\` stands twice`);
    seen.add(header.name);
    if (header.name.startsWith('gpgsig') && header.name !== 'gpgsig' && header.name !== 'gpgsig-sha256')
      throw new Malformed('a header only looks like a signature');
  }
  const order = headers.map((h) => h.name);
  const parents = headers.filter((h) => h.name === 'parent');
  const expected = ['tree', ...parents.map(() => 'parent'), 'author', 'committer'];
  if (expected.some((name, i) => order[i] !== name))
    throw new Malformed('the headers `tree`, `parent`, `author`, `committer` are not in their places');
  const hexLength = id.length;
  const value = (name: string) => headers.find((h) => h.name === name)?.value;
  const signature = headers.find((h) => h.name === (hexLength === 64 ? 'gpgsig-sha256' : 'gpgsig'));
  return {
    id,
    tree: objectId(value('tree') ?? '', hexLength),
    parents: parents.map((h) => objectId(h.value, hexLength)),
    author: parseAuthor(value('author') ?? '', 'author'),
    committer: parseAuthor(value('committer') ?? '', 'committer'),
    message: bytes.subarray(bodyAt).toString('utf8'),
    payload: withoutSignatures(bytes, headers),
    signature: signature?.value,
  };
}

function readHeaders(bytes: Buffer): { headers: Header[]; bodyAt: number } {
  const headers: Header[] = [];
  let at = 0;
  while (true) {
    if (at >= bytes.length) throw new Malformed('the header has no end');
    if (bytes[at] === 0x0a) return { headers, bodyAt: at + 1 };
    const start = at;
    let line = lineFrom(bytes, at);
    const space = line.text.indexOf(' ');
    if (space <= 0) throw new Malformed('a header line has no value');
    const name = line.text.slice(0, space);
    if (!/^[a-z0-9-]+$/i.test(name)) throw new Malformed('a header has a name that Git does not write');
    const lines = [line.text.slice(space + 1)];
    at = line.next;
    while (bytes[at] === 0x20) {
      line = lineFrom(bytes, at);
      lines.push(line.text.slice(1));
      at = line.next;
    }
    headers.push({ name, value: lines.join('\n'), start, end: at });
  }
}

function lineFrom(bytes: Buffer, at: number): { text: string; next: number } {
  const end = bytes.indexOf(0x0a, at);
  if (end < 0) throw new Malformed('the header has no end');
  const text = bytes.subarray(at, end);
  if (text.includes(0)) throw new Malformed('the header holds a NUL byte');
  return { text: text.toString('utf8'), next: end + 1 };
}

// By bytes, never by rebuilding: a rebuilt payload differs for CR, latin-1 and trailing blank lines.
function withoutSignatures(bytes: Buffer, headers: readonly Header[]): Uint8Array {
  const parts: Buffer[] = [];
  let at = 0;
  for (const header of headers.filter((h) => h.name === 'gpgsig' || h.name === 'gpgsig-sha256')) {
    parts.push(bytes.subarray(at, header.start));
    at = header.end;
  }
  parts.push(bytes.subarray(at));
  return Buffer.concat(parts);
}

function objectId(text: string, length: number): string {
  if (text.length !== length || !/^[0-9a-f]+$/.test(text)) throw new Malformed('a tree or parent id is not a full object id');
  return text;
}

function parseAuthor(text: string, which: string): Author {
  const open = text.lastIndexOf('<');
  const close = text.lastIndexOf('>');
  const when = text.slice(close + 1);
  if (open < 0 || close < open || text.indexOf('<') !== open || !/^ \d{1,12} [+-]\d{4}$/.test(when))
    throw new Malformed(`the ${which} line is not \`name <address> time zone\``);
  return { name: text.slice(0, open).trim(), email: text.slice(open + 1, close), time: Number(when.trim().split(' ')[0]) };
}
