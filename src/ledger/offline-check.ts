// A single file for someone who received an export and does not trust us. It needs Node 20 or later and nothing else,
// and follows docs/ledger-format.md section by section. It deliberately shares no code with the service.
import { createHash, createPublicKey, verify } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';

type Key = { name: string; id: Buffer; type: number; publicKey: Buffer };
type Checkpoint = { origin: string; size: number; root: Buffer; by: string[] };

/** Result of the check: a line for each passed check, and the first failure. */
export type OfflineResult = { ok: boolean; lines: string[] };

const sha256 = (...parts: (Uint8Array | string)[]): Buffer => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};
const leafOf = (entry: Uint8Array): Buffer => sha256(Buffer.from([0]), entry);
const nodeOf = (left: Uint8Array, right: Uint8Array): Buffer => sha256(Buffer.from([1]), left, right);

class Wrong extends Error {}
function demand(fine: boolean, message: string): asserts fine {
  if (!fine) throw new Wrong(message);
}

/** Checks an export with the keys in a text, one `name+id+key` per line. */
export function checkExport(directory: string, keyText: string): OfflineResult {
  const lines: string[] = [];
  try {
    const keys = keyText.trim().split('\n').map(readKey);
    const files = checkManifest(directory);
    lines.push(`${files} files match manifest.json`);
    const checkpoint = readCheckpoint(readFileSync(join(directory, 'checkpoint'), 'utf8'), keys);
    demand(checkpoint !== undefined, 'the checkpoint is not signed by this key');
    lines.push(`the checkpoint over ${checkpoint.size} entries is signed by ${checkpoint.origin}`);
    const entries = checkEntries(directory, checkpoint, lines);
    checkEarlier(directory, checkpoint, keys, entries, lines);
    checkReceipts(directory, keys, lines);
    checkSubjects(directory, lines);
    return { ok: true, lines };
  } catch (thrown) {
    const why = thrown instanceof Wrong ? thrown.message : `it cannot be read: ${(thrown as Error).message}`;
    return { ok: false, lines: [...lines, why] };
  }
}

function checkManifest(directory: string): number {
  const manifest = JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8')) as {
    format: string;
    files: Record<string, string>;
  };
  demand(
    manifest.format === 'countersign-ledger-export/1',
    'manifest.json is not of the format countersign-ledger-export/1',
  );
  const there = filesUnder(directory).filter((file) => file !== 'manifest.json');
  const canonical = `${JSON.stringify({
    files: Object.fromEntries(
      Object.keys(manifest.files)
        .sort()
        .map((f) => [f, manifest.files[f]]),
    ),
    format: manifest.format,
  })}\n`;
  demand(
    readFileSync(join(directory, 'manifest.json'), 'utf8') === canonical,
    'manifest.json does not have the exact spelling of an export',
  );
  for (const file of there) demand(Object.hasOwn(manifest.files, file), `${file} is not listed in manifest.json`);
  for (const [file, digest] of Object.entries(manifest.files)) {
    demand(there.includes(file), `${file} is missing`);
    demand(
      sha256(readFileSync(join(directory, file))).toString('hex') === digest,
      `${file} differs from the exported file`,
    );
  }
  return there.length;
}

function filesUnder(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((file) => statSync(join(directory, file)).isFile())
    .map((file) => relative('.', file).replaceAll('\\', '/'));
}

// --- the tree: RFC 6962 section 2.1, read out of C2SP tiles of 256 entries ---

function checkEntries(directory: string, checkpoint: Checkpoint, lines: string[]): (index: number) => Buffer {
  const peaks: { height: number; hash: Buffer }[] = [];
  const levels: Buffer[][] = [];
  const rootNow = () => peaks.map((p) => p.hash).reduceRight((right, left) => nodeOf(left, right));
  const missing = new Set<string>();
  let [index, evidence, last] = [0, 0, ''];
  for (const { n, width } of tilesOf(checkpoint.size)) {
    const leaves: Buffer[] = [];
    for (const entry of bundle(join(directory, tilePath('entries', n, width)))) {
      last = checkEntry(entry, index, last);
      evidence += checkEvidence(directory, entry, missing);
      leaves.push(leafOf(entry));
      let peak = { height: 0, hash: leafOf(entry) };
      for (let top = peaks.at(-1); top !== undefined && top.height === peak.height; top = peaks.at(-1)) {
        peak = { height: peak.height + 1, hash: nodeOf((peaks.pop() as typeof peak).hash, peak.hash) };
        if (peak.height % 8 === 0) listAt(levels, peak.height / 8).push(peak.hash);
      }
      peaks.push(peak);
      index++;
    }
    demand(leaves.length === width, `tile ${n} of the entries holds ${leaves.length}, not ${width}`);
    listAt(levels, 0).push(...leaves);
  }
  demand(index === checkpoint.size, `there are ${index} entries, but the checkpoint covers ${checkpoint.size}`);
  const root = index === 0 ? sha256() : rootNow();
  demand(root.equals(checkpoint.root), 'the entries do not give the signed root');
  lines.push(`${index} entries are canonical, in order, and give the signed root ${root.toString('base64')}`);
  checkTiles(directory, checkpoint.size, levels);
  lines.push('the tiles belong to this tree');
  lines.push(
    `${evidence} pieces of evidence match their ` +
      `entries${missing.size === 0 ? '' : `; ${missing.size} are not part of this export`}`,
  );
  return (size) => rootOfFirst(levels[0] ?? [], size);
}

function listAt(levels: Buffer[][], level: number): Buffer[] {
  while (levels.length <= level) levels.push([]);
  return levels[level] as Buffer[];
}

function rootOfFirst(leaves: readonly Buffer[], size: number): Buffer {
  if (size === 0) return sha256();
  let nodes = leaves.slice(0, size);
  // Nodes are paired from the left; a node left over moves up. The tree is the same as by the definition, which splits
  // at powers of two.
  while (nodes.length > 1)
    nodes = Array.from({ length: Math.ceil(nodes.length / 2) }, (_, i) =>
      nodes[2 * i + 1] === undefined
        ? (nodes[2 * i] as Buffer)
        : nodeOf(nodes[2 * i] as Buffer, nodes[2 * i + 1] as Buffer),
    );
  return nodes[0] as Buffer;
}

function tilesOf(count: number): { n: number; width: number }[] {
  return Array.from({ length: Math.ceil(count / 256) }, (_, n) => ({ n, width: Math.min(256, count - n * 256) }));
}

function tilePath(level: string | number, n: number, width: number): string {
  const parts = [String(n % 1000).padStart(3, '0')];
  for (let rest = Math.floor(n / 1000); rest > 0; rest = Math.floor(rest / 1000))
    parts.unshift(`x${String(rest % 1000).padStart(3, '0')}`);
  return `tile/${level}/${parts.join('/')}${width === 256 ? '' : `.p/${width}`}`;
}

function* bundle(file: string): Generator<Buffer> {
  const bytes = readFileSync(file);
  for (let at = 0; at < bytes.length; ) {
    demand(at + 2 <= bytes.length, `${file} ends in the middle of an entry`);
    const end = at + 2 + bytes.readUInt16BE(at);
    demand(end <= bytes.length, `${file} ends in the middle of an entry`);
    yield bytes.subarray(at + 2, end);
    at = end;
  }
}

function checkTiles(directory: string, size: number, levels: readonly (readonly Buffer[])[]): void {
  for (let level = 0, count = size; count > 0; level++, count = Math.floor(count / 256)) {
    for (const { n, width } of tilesOf(count)) {
      const expected = Buffer.concat((levels[level] ?? []).slice(n * 256, n * 256 + width));
      const path = tilePath(level, n, width);
      demand(readFileSync(join(directory, path)).equals(expected), `${path} does not belong to this tree`);
    }
  }
}

// --- entries ---

function checkEntry(entry: Buffer, index: number, last: string): string {
  const text = entry.toString('utf8');
  const value = JSON.parse(text) as { v?: unknown; time?: unknown; type?: unknown };
  demand(canonical(value) === text && Buffer.from(text).equals(entry), `entry ${index} is not canonical JSON`);
  demand(
    typeof value.v === 'number' && typeof value.type === 'string' && typeof value.time === 'string',
    `entry ${index} lacks v, type or time`,
  );
  demand(value.time >= last, `entry ${index} is older than the one before it`);
  return value.time;
}

// RFC 8785: keys sorted by UTF-16 code units, scalars as written by JSON.stringify.
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${fields.map(([key, field]) => `${JSON.stringify(key)}:${canonical(field)}`).join(',')}}`;
}

function checkEvidence(directory: string, entry: Buffer, missing: Set<string>): number {
  const { evidence } = JSON.parse(entry.toString('utf8')) as { evidence?: { sha256: string; size: number } };
  if (evidence === undefined) return 0;
  const file = join(directory, 'evidence', `${evidence.sha256}.json`);
  if (!existsSync(file)) {
    missing.add(evidence.sha256);
    return 0;
  }
  const bytes = readFileSync(file);
  demand(
    sha256(bytes).toString('hex') === evidence.sha256 && bytes.length === evidence.size,
    `${file} is not the evidence its entry names`,
  );
  return 1;
}

// --- signed notes ---

function readKey(text: string): Key {
  const match = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text.trim());
  const bytes = Buffer.from(match?.[3] ?? '', 'base64');
  demand(match !== null && bytes.length === 33 && bytes[0] === 1, 'the key does not have the form name+id+key');
  const name = match[1] as string;
  const id = sha256(`${name}\n`, bytes).subarray(0, 4);
  demand(id.toString('hex') === match[2] && bytes.toString('base64') === match[3], 'the key id does not match the key');
  return { name, id, type: 1, publicKey: bytes.subarray(1) };
}

function readCheckpoint(note: string, keys: readonly Key[]): Checkpoint | undefined {
  const at = note.lastIndexOf('\n\n');
  if (at < 0 || !note.endsWith('\n')) return undefined;
  const text = note.slice(0, at + 1);
  const match = /^([^\n]+)\n(0|[1-9][0-9]{0,15})\n([A-Za-z0-9+/]{43}=)\n(?:[^\n]+\n)*$/.exec(text);
  const root = Buffer.from(match?.[3] ?? '', 'base64');
  if (match === null || root.toString('base64') !== match[3]) return undefined;
  const by: string[] = [];
  for (const line of note.slice(at + 2, -1).split('\n')) {
    const [, name, encoded = ''] = /^— (\S+) ([A-Za-z0-9+/=]+)$/.exec(line) ?? [];
    const bytes = Buffer.from(encoded, 'base64');
    if (name === undefined || bytes.toString('base64') !== encoded) return undefined;
    for (const key of keys.filter((k) => k.name === name && bytes.subarray(0, 4).equals(k.id))) {
      const publicKey = createPublicKey({
        key: Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), key.publicKey]),
        format: 'der',
        type: 'spki',
      });
      if (!verify(null, Buffer.from(text), publicKey, bytes.subarray(4))) return undefined;
      if (name === match[1]) by.push(name);
    }
  }
  return by.length === 0 ? undefined : { origin: match[1] as string, size: Number(match[2]), root, by };
}

// Checks the earlier checkpoints: the ledger must begin with the tree of each.
function checkEarlier(
  directory: string,
  newest: Checkpoint,
  keys: readonly Key[],
  rootAt: (size: number) => Buffer,
  lines: string[],
): void {
  const folder = join(directory, 'checkpoints');
  if (!existsSync(folder)) return;
  let [checked, others] = [0, 0];
  for (const file of readdirSync(folder)) {
    const note = readFileSync(join(folder, file), 'utf8');
    const earlier = readCheckpoint(note, keys);
    if (earlier === undefined) {
      others++; // by a key that was rotated away from, or under the name of an earlier epoch
      continue;
    }
    demand(
      earlier.size <= newest.size && rootAt(earlier.size).equals(earlier.root),
      `the tree does not begin with the tree of checkpoints/${file}`,
    );
    checked++;
  }
  lines.push(
    `${checked} earlier checkpoints belong to this ` +
      `tree${others === 0 ? '' : `; ${others} were signed by keys that were not given`}`,
  );
}

// --- receipts: C2SP tlog-proof ---

function checkReceipts(directory: string, keys: readonly Key[], lines: string[]): void {
  const folder = join(directory, 'receipts');
  if (!existsSync(folder)) return;
  const names = readdirSync(folder).filter((file) => file.endsWith('.tlog-proof'));
  for (const name of names) {
    const entry = readFileSync(join(folder, name.replace(/\.tlog-proof$/, '.json')));
    demand(
      isProven(readFileSync(join(folder, name), 'utf8'), entry, keys),
      `receipts/${name} does not prove its entry`,
    );
  }
  lines.push(`${names.length} receipts prove their entries`);
}

function isProven(receipt: string, entry: Buffer, keys: readonly Key[]): boolean {
  const match = /^c2sp\.org\/tlog-proof@v1\nindex (0|[1-9][0-9]{0,15})\n((?:[A-Za-z0-9+/]{43}=\n)*)\n([\s\S]*)$/.exec(
    receipt,
  );
  const checkpoint = readCheckpoint(match?.[3] ?? '', keys);
  if (match === null || checkpoint === undefined) return false;
  let [node, at, last] = [leafOf(entry), Number(match[1]), checkpoint.size - 1];
  if (at > last) return false;
  for (const line of (match[2] ?? '').split('\n').slice(0, -1)) {
    if (last === 0) return false;
    const hash = Buffer.from(line, 'base64');
    if (at % 2 === 1 || at === last) {
      node = nodeOf(hash, node);
      while (at % 2 === 0 && at !== 0) [at, last] = [Math.floor(at / 2), Math.floor(last / 2)];
    } else node = nodeOf(node, hash);
    [at, last] = [Math.floor(at / 2), Math.floor(last / 2)];
  }
  return last === 0 && node.equals(checkpoint.root);
}

// Checks the names behind commitments: each must open a commitment in an entry or in evidence.
function checkSubjects(directory: string, lines: string[]): void {
  const file = join(directory, 'subjects.jsonl');
  if (!existsSync(file)) return;
  const subjects = readFileSync(file, 'utf8').split('\n').slice(0, -1);
  for (const line of subjects) {
    const { commitment, salt, text } = JSON.parse(line) as { commitment: string; salt: string; text: string };
    demand(
      commitment === `subject:${sha256(Buffer.from(salt, 'hex'), text).toString('hex')}`,
      `a name in subjects.jsonl does not match its commitment ${commitment}`,
    );
  }
  lines.push(`${subjects.length} names match their commitments`);
}

// --- command line: node verify.mjs [DIR] [--key FILE] ---

if (
  process.argv[1] !== undefined &&
  import.meta.url.endsWith('/verify.mjs') &&
  process.argv[1].endsWith('verify.mjs')
) {
  const args = process.argv.slice(2);
  const at = args.indexOf('--key');
  const keyFile = at < 0 ? undefined : args[at + 1];
  const directory = args.find((arg, i) => !arg.startsWith('--') && i !== at + 1) ?? join(process.argv[1], '..');
  if (keyFile === undefined)
    console.log(
      'note: no --key was given, so the key in the export is used; that only proves that the export is complete',
    );
  const { ok, lines } = checkExport(directory, readFileSync(keyFile ?? join(directory, 'ledger.pub'), 'utf8'));
  for (const [i, line] of lines.entries()) console.log(`${ok || i < lines.length - 1 ? 'ok   ' : 'WRONG'} ${line}`);
  process.exitCode = ok ? 0 : 1;
}
