import type { Author, Commit } from '../model/index.ts';

/** Why the bytes of a commit or tag are refused. */
export type MalformedCode =
  /** A header that may appear once appears twice: two readers would see two commits. */
  | 'header-repeated'
  | 'headers-out-of-order'
  /** A header that Git strips from the signed bytes, because its name begins like a signature's. */
  | 'header-like-signature'
  /** Larger than the limit for commits and tags. */
  | 'commit-too-large'
  /** Anything else Git would not have written. */
  | 'malformed';

/** A commit, or why its bytes are refused. */
export type ParsedCommit =
  | { readonly kind: 'commit'; readonly commit: Commit }
  | { readonly kind: 'malformed'; readonly id: string; readonly code: MalformedCode; readonly reason: string };

type Header = { readonly name: string; readonly start: number; readonly valueAt: number; readonly end: number };

const MAX_AUTHOR = 2048; // a name, an address and a time; kept for every commit of a history
const SINGLE = new Set(['tree', 'author', 'committer', 'encoding', 'gpgsig', 'gpgsig-sha256', 'change-id']);

/**
 * Splits a raw commit into its fields and its signature, strictly. `tree`, `parent`*, `author`, `committer` come in
 * that order, followed by extra headers. No single header may repeat, and none may merely start like a signature's.
 *
 * Git itself strips every `gpgsig…` header from the signed bytes. Any looser parser lets two readers see two commits
 * (CVE-2026-44309, CVE-2026-45022).
 */
export function parseCommit(id: string, bytes: Uint8Array): ParsedCommit {
  try {
    return { kind: 'commit', commit: split(id, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)) };
  } catch (thrown) {
    if (thrown instanceof Malformed) return { kind: 'malformed', id, code: thrown.code, reason: thrown.message };
    throw thrown;
  }
}

/** Thrown for refused bytes, with the code. */
export class Malformed extends Error {
  readonly code: MalformedCode;
  constructor(message: string, code: MalformedCode = 'malformed') {
    super(message);
    this.code = code;
  }
}

function split(id: string, bytes: Buffer): Commit {
  const { headers, bodyAt } = readHeaders(bytes);
  const seen = new Set<string>();
  for (const { name } of headers) {
    if (SINGLE.has(name) && seen.has(name))
      throw new Malformed(`the header \`${name}\` appears twice`, 'header-repeated');
    seen.add(name);
    if (name.startsWith('gpgsig') && name !== 'gpgsig' && name !== 'gpgsig-sha256')
      throw new Malformed('a header only looks like a signature', 'header-like-signature');
  }
  let parents = 0;
  while (headers[1 + parents]?.name === 'parent') parents++;
  const [tree, author, committer] = [headers[0], headers[1 + parents], headers[2 + parents]];
  const late = headers.slice(1 + parents).some((h) => h.name === 'parent');
  if (tree?.name !== 'tree' || author?.name !== 'author' || committer?.name !== 'committer' || late)
    throw new Malformed('the headers `tree`, `parent`, `author`, `committer` are not in order', 'headers-out-of-order');
  const signature = headers.find((h) => h.name === (id.length === 64 ? 'gpgsig-sha256' : 'gpgsig'));
  return {
    id,
    tree: objectId(headerValue(bytes, tree), id.length),
    parents: headers.slice(1, 1 + parents).map((h) => objectId(headerValue(bytes, h), id.length)),
    author: parseAuthor(headerValue(bytes, author), 'author'),
    committer: parseAuthor(headerValue(bytes, committer), 'committer'),
    message: bytes.toString('utf8', bodyAt),
    payload: withoutSignatures(bytes, headers),
    signature: signature === undefined ? undefined : headerValue(bytes, signature),
    mergeTags: headers
      .filter((h) => h.name === 'mergetag')
      .map((h) => Buffer.from(`${headerValue(bytes, h, 'latin1')}\n`, 'latin1')),
  };
}

/** Returns the header lines, each with its continuation lines, and where the message begins. */
export function readHeaders(bytes: Buffer): { headers: Header[]; bodyAt: number } {
  const headers: Header[] = [];
  let at = 0;
  while (true) {
    if (at >= bytes.length) throw new Malformed('the header has no end');
    if (bytes[at] === 0x0a) return { headers, bodyAt: at + 1 };
    const start = at;
    at = lineEnd(bytes, at);
    const space = bytes.indexOf(0x20, start);
    if (space <= start || space >= at) throw new Malformed('a header line has no value');
    const name = bytes.toString('latin1', start, space);
    if (!/^[a-z0-9-]+$/i.test(name)) throw new Malformed('a header has a name that Git does not write');
    while (bytes[at] === 0x20) at = lineEnd(bytes, at);
    headers.push({ name, start, valueAt: space + 1, end: at });
  }
}

/** Returns a header's value without the space that begins each continuation line. */
export function headerValue(bytes: Buffer, header: Header, encoding: 'utf8' | 'latin1' = 'utf8'): string {
  const text = bytes.toString(encoding, header.valueAt, header.end - 1);
  return text.includes('\n') ? text.replaceAll('\n ', '\n') : text;
}

function lineEnd(bytes: Buffer, at: number): number {
  const end = bytes.indexOf(0x0a, at);
  if (end < 0) throw new Malformed('the header has no end');
  const nul = bytes.indexOf(0, at);
  if (nul >= 0 && nul < end) throw new Malformed('the header contains a NUL byte');
  return end + 1;
}

// Cuts bytes and never rebuilds them: a rebuilt payload differs for CR, latin-1 and trailing blank lines.
function withoutSignatures(bytes: Buffer, headers: readonly Header[]): Uint8Array {
  const signatures = headers.filter((h) => h.name === 'gpgsig' || h.name === 'gpgsig-sha256');
  if (signatures.length === 0) return bytes;
  const parts: Buffer[] = [];
  let at = 0;
  for (const header of signatures) {
    parts.push(bytes.subarray(at, header.start));
    at = header.end;
  }
  parts.push(bytes.subarray(at));
  return Buffer.concat(parts);
}

/** Checks for a full object id in lower-case hex, of the repository's length. */
export function objectId(text: string, length: number): string {
  if (text.length !== length || !/^[0-9a-f]+$/.test(text))
    throw new Malformed('a tree or parent id is not a full object id');
  return text;
}

/** Parses `name <address> seconds zone`, as written by Git. */
export function parseAuthor(text: string, which: string): Author {
  if (text.length > MAX_AUTHOR) throw new Malformed(`the ${which} line is longer than ${MAX_AUTHOR} characters`);
  const open = text.lastIndexOf('<');
  const close = text.lastIndexOf('>');
  const when = text.slice(close + 1);
  if (open < 0 || close < open || text.indexOf('<') !== open || !/^ \d{1,12} [+-]\d{4}$/.test(when))
    throw new Malformed(`the ${which} line is not \`name <address> time zone\``);
  return {
    name: text.slice(0, open).trim(),
    email: text.slice(open + 1, close),
    time: Number(when.trim().split(' ')[0]),
  };
}
