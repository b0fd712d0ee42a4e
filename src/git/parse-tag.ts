import type { Tag } from '../model/index.ts';
import { headerValue, Malformed, type MalformedCode, objectId, parseAuthor, readHeaders } from './parse-commit.ts';

/** A tag, or why its bytes are refused. */
export type ParsedTag =
  | { readonly kind: 'tag'; readonly tag: Tag }
  | { readonly kind: 'malformed'; readonly code: MalformedCode; readonly reason: string };

const HEADERS = ['object', 'type', 'tag', 'tagger'];
const BEGINS = [
  '-----BEGIN PGP SIGNATURE-----\n',
  '-----BEGIN SSH SIGNATURE-----\n',
  '-----BEGIN PGP MESSAGE-----\n',
  '-----BEGIN SIGNED MESSAGE-----\n',
];

/**
 * Splits a raw tag object: `object`, `type commit`, `tag`, `tagger`, each once and in that order. The signature for the
 * repository's own hash ends the body and begins at its last BEGIN line (gitformat-signature). For the other hash it is
 * a `gpgsig` header, which does not count as a signature here.
 */
export function parseTag(bytes: Uint8Array, idLength: 40 | 64): ParsedTag {
  try {
    return { kind: 'tag', tag: split(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), idLength) };
  } catch (thrown) {
    if (thrown instanceof Malformed) return { kind: 'malformed', code: thrown.code, reason: thrown.message };
    throw thrown;
  }
}

function split(bytes: Buffer, idLength: number): Tag {
  const { headers, bodyAt } = readHeaders(bytes);
  const names = headers.map((h) => h.name);
  if (new Set(names).size !== names.length) throw new Malformed('a header of the tag appears twice', 'header-repeated');
  if (HEADERS.slice(0, 3).some((name, i) => names[i] !== name))
    throw new Malformed('the headers `object`, `type`, `tag` are not in order', 'headers-out-of-order');
  const extra = names.find((name) => !HEADERS.includes(name));
  if (extra !== undefined)
    throw new Malformed(
      'the tag has a header that Git does not write into tags',
      extra.startsWith('gpgsig') ? 'header-like-signature' : 'malformed',
    );
  const value = (name: string) => {
    const header = headers.find((h) => h.name === name);
    return header === undefined ? undefined : headerValue(bytes, header);
  };
  if (value('type') !== 'commit') throw new Malformed('the tag does not name a commit');
  const tagger = value('tagger');
  const at = signatureAt(bytes, bodyAt);
  return {
    object: objectId(value('object') ?? '', idLength),
    name: value('tag') ?? '',
    tagger: tagger === undefined ? undefined : parseAuthor(tagger, 'tagger'),
    payload: bytes.subarray(0, at),
    signature: at === bytes.length ? undefined : bytes.toString('utf8', at),
  };
}

function signatureAt(bytes: Buffer, bodyAt: number): number {
  let last = -1;
  for (const begin of BEGINS) {
    let at = bytes.lastIndexOf(begin);
    while (at > bodyAt && bytes[at - 1] !== 0x0a) at = bytes.lastIndexOf(begin, at - 1);
    if (at >= bodyAt) last = Math.max(last, at);
  }
  return last < 0 ? bytes.length : last;
}
