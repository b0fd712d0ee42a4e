import { CountersignError } from '../model/index.ts';

/** One line of a tree object. */
export type TreeLine = { readonly mode: string; readonly name: string; readonly id: string };

/**
 * Reads a raw tree object (`mode SP name NUL id`, ids of 20 or 32 bytes). Throws `git-object-corrupt` for names that
 * could leave the tree (`..`, `/`, `.git`), duplicate names and modes that Git does not write.
 */
export function parseTree(id: string, bytes: Uint8Array): TreeLine[] {
  const raw = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const idLength = id.length / 2;
  const lines: TreeLine[] = [];
  const names = new Set<string>();
  let at = 0;
  while (at < raw.length) {
    const space = raw.indexOf(0x20, at);
    const nul = raw.indexOf(0, space);
    if (space < 0 || nul < 0 || nul + 1 + idLength > raw.length) throw corrupt(id, 'it ends in the middle of a line');
    const mode = raw.toString('latin1', at, space);
    const name = raw.toString('utf8', space + 1, nul);
    if (!/^(100644|100755|100664|120000|40000|160000)$/.test(mode)) throw corrupt(id, `it has the mode \`${mode}\``);
    if (name === '' || name === '.' || name === '..' || name.includes('/') || name.toLowerCase() === '.git')
      throw corrupt(id, 'it has a name that leaves the tree');
    if (names.has(name)) throw corrupt(id, 'it has a duplicate name');
    names.add(name);
    lines.push({ mode, name, id: raw.toString('hex', nul + 1, nul + 1 + idLength) });
    at = nul + 1 + idLength;
  }
  return lines;
}

function corrupt(id: string, why: string): CountersignError {
  return new CountersignError('git-object-corrupt', `the tree \`${id}\` is refused: ${why}`, {
    hint: 'run `git fsck` on the repository',
  });
}
