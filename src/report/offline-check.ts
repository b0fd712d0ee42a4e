// A single file for someone who received a report and does not trust us. It needs Node 20 or later and nothing else,
// and follows docs/report-format.md and docs/ledger-format.md section by section. It deliberately shares no code with
// the service.
import { createHash, createHmac, createPublicKey, verify } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

type Key = { name: string; id: Buffer; publicKey: Buffer };
type Row = Record<string, string>;
type Model = {
  period: { from: string; to: string };
  summary: Record<string, number>;
  sample: { seed: string; size: number; items: { stratum: string; rank: string; change: string }[] } | null;
  changes: { id: string; entry: number; leaf: string; to: string }[];
};
type Span = { from: string; to: string; first: number; before: string[]; checkpoint: string };

const sha256 = (...parts: (Uint8Array | string)[]): Buffer => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};
const leafOf = (entry: string): Buffer => sha256(Buffer.from([0]), entry);
const nodeOf = (left: Uint8Array, right: Uint8Array): Buffer => sha256(Buffer.from([1]), left, right);

class Wrong extends Error {}
function demand(fine: boolean, message: string): asserts fine {
  if (!fine) throw new Wrong(message);
}

// Checks a report in this order and stops at the first failure.
function checkReport(directory: string, keyText: string, say: (line: string) => void): void {
  const read = (name: string) => readFileSync(join(directory, name));
  const text = (name: string) => read(name).toString('utf8');
  const linesOf = (name: string) => text(name).split('\n').slice(0, -1);
  const keys = keyText.trim().split('\n').map(readKey);

  const [title, ...named] = openNote(text('manifest.txt'), keys, 'manifest.txt').trimEnd().split('\n');
  demand(title === 'countersign.dev/report/v2', 'manifest.txt is of another format');
  for (const line of named) {
    const [, digest, name = ''] = /^([0-9a-f]{64}) {2}([0-9a-z.-]+)$/.exec(line) ?? [];
    demand(digest !== undefined, 'a line of manifest.txt names no file');
    demand(existsSync(join(directory, name)), `${name} is missing`);
    demand(sha256(read(name)).toString('hex') === digest, `${name} is not the file that was signed`);
  }
  say(`${named.length} files are those that manifest.txt names, which is signed`);

  const span = JSON.parse(text('range.json')) as Span;
  demand(text('checkpoint') === span.checkpoint, 'checkpoint is not the one of range.json');
  const [, size = '', root = ''] = openNote(span.checkpoint, keys, 'the checkpoint').split('\n');
  const entries = linesOf('entries.jsonl');
  demand(span.first + entries.length === Number(size), 'the entries do not end where the checkpoint does');
  const before = span.before.map((node) => Buffer.from(node, 'base64'));
  demand(
    rootAfter(span.first, before, entries.map(leafOf)).toString('base64') === root,
    'the entries do not give the root',
  );
  say(
    `${entries.length} entries, from ${span.first} on, ` +
      `give the signed root of ${size}: none is missing, none was added`,
  );

  const evidence = new Set(linesOf('evidence.jsonl').map((line) => sha256(line).toString('hex')));
  for (const entry of entries.map((e) => JSON.parse(e) as { type: string; evidence?: { sha256: string } }))
    demand(
      entry.type !== 'change.judged' || evidence.has(entry.evidence?.sha256 ?? ''),
      'the evidence of a verdict is missing',
    );
  for (const line of linesOf('subjects.jsonl')) {
    const { commitment, salt, text: name } = JSON.parse(line) as { commitment: string; salt: string; text: string };
    demand(
      commitment === `subject:${sha256(Buffer.from(salt, 'hex'), name).toString('hex')}`,
      `a name is not the one behind ${commitment}`,
    );
  }
  say(
    `${evidence.size} verdicts and other evidence are those that entries name; ` +
      'names are those behind their commitments',
  );

  const model = JSON.parse(text('report.json')) as Model;
  demand(model.period.from === span.from && model.period.to === span.to, 'report.json is of another period');
  const population = tableOf(text('population.csv'));
  const exceptions = tableOf(text('exceptions.csv'));
  checkCounts(model, population, exceptions);
  for (const row of population) {
    const entry = entries[Number(row['ledger_index']) - span.first] ?? '';
    demand(leafOf(entry).toString('hex') === row['leaf_hash'], `${row['change_id']} has another leaf`);
    const judged = JSON.parse(entry) as { type: string; to: string };
    demand(judged.type === 'change.judged' && judged.to === row['commit'], `${row['change_id']} is another change`);
  }
  say(
    `${population.length} changes are in the log, each at its entry; ` +
      `${exceptions.length} exceptions; counts agree in every form`,
  );
  const signed = linesOf('signed.jsonl');
  demand(signed.every(isItsOwn), 'a line of signed.jsonl does not match its hash');
  say(`${signed.length} commits, approvals and TrustPolicies are those that verdicts name by their hashes`);
  if (model.sample !== null) {
    checkSample(model, population, root);
    say(`the sample is what the seed draws: ${model.sample.items.length} changes`);
  }
  say(
    'not checked here, but by `countersign verify`: ' +
      'that every figure follows from the entries, and signatures of commits and approvals',
  );
}

// A commit is stored under Git's own name for it (gitformat-signature preserves it), an envelope under the digest of
// its bytes, a policy under RFC 8785.
function isItsOwn(line: string): boolean {
  const { commit, object, envelope, text, trustPolicy, policy } = JSON.parse(line) as Record<
    string,
    string | undefined
  >;
  if (envelope !== undefined) return sha256(text ?? '').toString('hex') === envelope;
  if (trustPolicy !== undefined) return sha256(JSON.stringify(policy)).toString('hex') === trustPolicy;
  const bytes = Buffer.from(object ?? '', 'base64');
  const name = createHash(commit?.length === 64 ? 'sha256' : 'sha1').update(`commit ${bytes.length}\0`);
  return name.update(bytes).digest('hex') === commit;
}

function checkCounts({ summary, changes }: Model, population: readonly Row[], exceptions: readonly Row[]): void {
  demand(
    population.length === summary['changes'] && changes.length === summary['changes'],
    'changes are not counted alike',
  );
  for (const outcome of ['applied', 'denied', 'failed'])
    demand(
      population.filter((r) => r['outcome'] === outcome).length === summary[outcome],
      `${outcome} changes are not counted alike`,
    );
  demand(exceptions.length === summary['exceptions'], 'exceptions are not counted alike');
  demand(
    exceptions.filter((r) => r['disposition'] === 'open').length === summary['open'],
    'open exceptions are not counted alike',
  );
}

function checkSample({ period, sample }: Model, population: readonly Row[], root: string): void {
  const applied = population.filter((r) => r['outcome'] === 'applied');
  const strata = [...new Set(applied.map((r) => r['change_type'] ?? ''))].sort();
  const made = strata.flatMap((stratum) => {
    const key = [root, period.from, period.to, stratum, sample?.seed].join('|');
    return applied
      .filter((r) => r['change_type'] === stratum)
      .map((r) => ({
        stratum,
        rank: createHmac('sha256', key)
          .update(r['change_id'] ?? '')
          .digest('hex'),
        change: r['change_id'] ?? '',
      }))
      .sort((a, b) => (a.rank < b.rank ? -1 : 1))
      .slice(0, sample?.size);
  });
  const shown = (items: readonly { stratum: string; rank: string; change: string }[]) =>
    items.map((i) => `${i.stratum} ${i.rank} ${i.change}`).join('\n');
  demand(shown(made) === shown(sample?.items ?? []), 'the sample is not what the seed draws');
}

// --- the tree: RFC 6962 section 2.1; subtree roots before the first entry, largest first, then the leaves from it on
// ---

function rootAfter(first: number, before: readonly Buffer[], leaves: readonly Buffer[]): Buffer {
  const stack: { width: number; node: Buffer }[] = [];
  let left = first;
  for (const node of before) {
    const width = 2 ** Math.floor(Math.log2(left));
    stack.push({ width, node });
    left -= width;
  }
  demand(left === 0, 'the subtrees are not those before the first entry');
  for (const node of leaves) {
    stack.push({ width: 1, node });
    for (
      let [a, b] = stack.slice(-2);
      a !== undefined && b !== undefined && a.width === b.width;
      [a, b] = stack.slice(-2)
    )
      stack.splice(-2, 2, { width: a.width * 2, node: nodeOf(a.node, b.node) });
  }
  return stack.map((s) => s.node).reduceRight((right, l) => nodeOf(l, right));
}

// --- RFC 4180 ---

function tableOf(csv: string): Row[] {
  const rows: string[][] = [[]];
  const cells = /("(?:[^"]|"")*"|[^,\r\n]*)(,|\r\n)/g;
  for (const [, cell = '', end] of csv.matchAll(cells)) {
    rows.at(-1)?.push(cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell);
    if (end === '\r\n') rows.push([]);
  }
  const [columns = [], ...others] = rows.slice(0, -1);
  return others.map((row) => Object.fromEntries(columns.map((column, i) => [column, row[i] ?? ''])));
}

// --- signed notes (C2SP signed-note, Ed25519) ---

function readKey(text: string): Key {
  const match = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text.trim());
  const bytes = Buffer.from(match?.[3] ?? '', 'base64');
  demand(match !== null && bytes.length === 33 && bytes[0] === 1, 'the key is not of the form name+id+key');
  const name = match[1] as string;
  const id = sha256(`${name}\n`, bytes).subarray(0, 4);
  demand(id.toString('hex') === match[2], 'the key does not have the id that it bears');
  return { name, id, publicKey: bytes.subarray(1) };
}

function openNote(note: string, keys: readonly Key[], what: string): string {
  const at = note.lastIndexOf('\n\n');
  demand(at >= 0 && note.endsWith('\n'), `${what} is no signed note`);
  const text = note.slice(0, at + 1);
  const isSigned = note
    .slice(at + 2, -1)
    .split('\n')
    .some((line) => {
      const [, name, encoded = ''] = /^— (\S+) ([A-Za-z0-9+/=]+)$/.exec(line) ?? [];
      const bytes = Buffer.from(encoded, 'base64');
      return keys.some((key) => {
        if (key.name !== name || !bytes.subarray(0, 4).equals(key.id)) return false;
        const der = Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), key.publicKey]);
        return verify(
          null,
          Buffer.from(text),
          createPublicKey({ key: der, format: 'der', type: 'spki' }),
          bytes.subarray(4),
        );
      });
    });
  demand(isSigned, `${what} is not signed by this key`);
  return text;
}

// --- command line: node verify.mjs --key FILE [DIR] ---

const args = process.argv.slice(2);
const at = args.indexOf('--key');
const keyFile = at < 0 ? undefined : args[at + 1];
const directory = args.find((arg, i) => !arg.startsWith('--') && i !== at + 1) ?? join(process.argv[1] ?? '', '..');
try {
  demand(
    keyFile !== undefined,
    'name the ledger’s public key, which you have from elsewhere: node verify.mjs --key ledger.pub',
  );
  checkReport(directory, readFileSync(keyFile, 'utf8'), (line) => console.log(`ok    ${line}`));
} catch (thrown) {
  console.log(`WRONG ${thrown instanceof Wrong ? thrown.message : `it cannot be read: ${(thrown as Error).message}`}`);
  process.exitCode = 1;
}
