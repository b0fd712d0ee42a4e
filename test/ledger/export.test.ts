import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tool } from '../../scripts/tools.ts';
import { evidenceRef, LedgerReader, openLedger, parseVerifiers, verifyLedger } from '../../src/ledger/index.ts';
import { checkExport } from '../../src/ledger/offline-check.ts';
import { sha256 } from '../../src/model/index.ts';
import { run } from '../kit/fleet.ts';
import { inQuickRun, without } from '../kit/machine.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

const directory = scratch();
const data = join(directory, 'data');
const good = join(directory, 'export');
const key = join(data, 'ledger.pub');
const PYTHON = fileURLToPath(new URL('check_export.py', import.meta.url));
let n = 0;

// 600 entries: two full tiles, and one that is not; one of the entries in each has evidence, one a name.
before(async () => {
  const ledger = await openLedger(data, 'countersign.dev/test');
  const record = async (i: number) => {
    const evidence = evidenceRef({ ids: [String(i), 'ü\u0001"\\'] });
    await ledger.record(
      {
        type: 'commits.seen',
        environment: 'production',
        ref: 'refs/heads/main',
        tip: String(i),
        count: i,
        evidence: evidence.ref,
      },
      [evidence],
    );
  };
  await record(1);
  await ledger.record({
    type: 'environment.suspended',
    environment: 'prödüction',
    user: ledger.subject('dana@example.com'),
    reason: 'INC-7\n\u2028\u0007',
  });
  await Promise.all(
    Array.from({ length: 596 }, (_, i) =>
      ledger.record({ type: 'apply.refused', environment: 'production', revision: 'r', verdict: i, error: `e${i}` }),
    ),
  );
  await record(2);
  await ledger.close();
  const made = await countersign(['ledger', 'export', good, '--data', data, '--receipt', '0', '255', '256', '599']);
  assert.equal(made.code, 0, made.stderr);
  assert.equal(made.stderr, '');
});

const check = (at: string, keyText = readFileSync(key, 'utf8')) => checkExport(at, keyText);
const python = (at: string) => said('python3', [PYTHON, at, key]);
const filesIn = (at: string) =>
  readdirSync(at, { recursive: true, encoding: 'utf8' }).filter((f) => statSync(join(at, f)).isFile());

/** A copy that was changed, and whose manifest was made to fit again: only what is signed can tell. */
function altered(change: (at: string) => void): string {
  const at = join(directory, `altered-${n++}`);
  cpSync(good, at, { recursive: true });
  change(at);
  fitManifest(at);
  return at;
}

function fitManifest(at: string): void {
  const files = Object.fromEntries(
    filesIn(at)
      .filter((f) => f !== 'manifest.json')
      .sort()
      .map((f) => [f, sha256(readFileSync(join(at, f)))]),
  );
  writeFileSync(join(at, 'manifest.json'), `${JSON.stringify({ files, format: 'countersign-ledger-export/1' })}\n`);
}

function edit(at: string, file: string, change: (bytes: Buffer) => Buffer): void {
  writeFileSync(join(at, file), change(readFileSync(join(at, file))));
}

describe('an export', () => {
  test('is found whole by its own checker, with Node alone and nothing else of ours', () => {
    const alone = join(directory, 'alone');
    cpSync(good, alone, { recursive: true });
    const said = run(process.execPath, [join(alone, 'verify.mjs'), '--key', key], { cwd: '/' });
    assert.match(said, /ok {4}600 entries are canonical/);
    assert.match(said, /ok {4}4 receipts prove their entries/);
    assert.doesNotMatch(said, /WRONG|note:/);
    assert.match(
      run(process.execPath, [join(alone, 'verify.mjs')], { cwd: '/' }),
      /only proves that the export is complete/,
    );
  });

  test('is found whole by a checker in Python that was written from docs/ledger-format.md', () => {
    assert.match(python(good), /^ok: 600 entries/m);
  });

  const needsGo = inQuickRun() || without('Go'); // which builds Tessera's fsck and a reader on golang.org/x/mod/sumdb

  test('is found whole by fsck of Tessera', { skip: needsGo }, async () => {
    assert.match(await tessera(good, key), /Successfully fsck'd log with size 600/);
    const cut = altered((at) => edit(at, 'tile/0/001', (b) => Buffer.concat([b.subarray(32), b.subarray(0, 32)])));
    assert.doesNotMatch(await tessera(cut, key), /Successfully/);
  });

  test('is read by Go’s sumdb/note and tlog: checkpoint, tiles and receipts', { skip: needsGo }, async () => {
    assert.match(await sumdb(good, key), /ok: 600 entries, 4 receipts/);
    const other = altered((at) => edit(at, 'receipts/255.json', (b) => Buffer.from(b.toString().replace('"e', '"f'))));
    assert.match(await sumdb(other, key), /wrong: receipt 255/);
  });

  test('of which any byte was changed is found wrong', { skip: inQuickRun() }, async () => {
    // A small one, so that every byte of every file can have its turn. What is only listed in the manifest is the same
    // case at each byte: of the checker and the page, some are enough where there is little time.
    const isLong = process.env['COUNTERSIGN_ALL_BYTES'] === 'true'; // `npm run test:long`
    const small = join(directory, 'small');
    const at = join(directory, 'flipped');
    await writeSmall(small);
    cpSync(small, at, { recursive: true });
    const keyText = readFileSync(join(directory, 'small-data', 'ledger.pub'), 'utf8');
    assert.deepEqual(checkExport(at, keyText).ok, true);
    let flips = 0;
    for (const file of filesIn(at)) {
      const bytes = readFileSync(join(at, file));
      const step = isLong || bytes.length < 2000 ? 1 : 37;
      for (let i = 0; i < bytes.length; i += step, flips++) {
        const flipped = Buffer.from(bytes);
        flipped[i] = (bytes[i] as number) ^ (1 << (i % 8));
        writeFileSync(join(at, file), flipped);
        assert.equal(checkExport(at, keyText).ok, false, `byte ${i} of ${file}`);
      }
      writeFileSync(join(at, file), bytes);
    }
    assert.ok(flips > (isLong ? 10_000 : 1000), String(flips));
    assert.equal(checkExport(at, keyText).ok, true);
  });

  const withEntries = (change: (entries: Buffer[]) => Buffer[]) => (at: string) =>
    edit(at, 'tile/entries/000', (bytes) => {
      const entries: Buffer[] = [];
      for (let i = 0; i < bytes.length; i += 2 + bytes.readUInt16BE(i))
        entries.push(bytes.subarray(i, i + 2 + bytes.readUInt16BE(i)));
      return Buffer.concat(change(entries));
    });
  for (const [what, change] of [
    ['an entry dropped', withEntries(([first, , ...rest]) => [first as Buffer, ...rest])],
    ['two entries swapped', withEntries(([a, b, ...rest]) => [b as Buffer, a as Buffer, ...rest])],
    [
      'an entry altered',
      withEntries((e) =>
        e.map((b) => (b.includes('INC-7') ? Buffer.from(b.toString('latin1').replace('INC-7', 'INC-8'), 'latin1') : b)),
      ),
    ],
    ['an entry twice', withEntries(([a, ...rest]) => [a as Buffer, a as Buffer, ...rest])],
    ['the tail cut off', (at: string) => rmSync(join(at, 'tile/entries/002.p'), { recursive: true })],
    [
      'a tile altered',
      (at: string) => edit(at, 'tile/1/000.p/2', (b) => Buffer.concat([b.subarray(32), b.subarray(0, 32)])),
    ],
    [
      'a root that was not signed',
      (at: string) => edit(at, 'checkpoint', (b) => Buffer.from(b.toString().replace(/^(.*\n)600/, '$1599'))),
    ],
    [
      'evidence altered',
      (at: string) =>
        edit(at, join('evidence', readdirSync(join(at, 'evidence'))[0] as string), (b) =>
          Buffer.from(b.toString().replace('ids', 'idz')),
        ),
    ],
    [
      'a name altered',
      (at: string) => edit(at, 'subjects.jsonl', (b) => Buffer.from(b.toString().replace('dana@', 'lee@'))),
    ],
    [
      'a receipt of another entry',
      (at: string) => cpSync(join(at, 'receipts/255.tlog-proof'), join(at, 'receipts/256.tlog-proof')),
    ],
  ] as const) {
    test(`with ${what} is found wrong, by both checkers, although its manifest fits`, () => {
      const at = altered(change);
      const { ok, lines } = check(at);
      assert.equal(ok, false, lines.join('\n'));
      assert.match(python(at), /^wrong: /m);
    });
  }

  test('with the checkpoint of a fork, by the same key and over as many entries, is found wrong by both checkers', async () => {
    const [one, two] = [join(directory, 'fork-1'), join(directory, 'fork-2')];
    for (const at of [one, two]) {
      mkdirSync(at);
      cpSync(join(data, 'ledger.key'), join(at, 'ledger.key'));
      const ledger = await openLedger(at, 'countersign.dev/test');
      await ledger.record({ type: 'service.stopped', reason: at });
      await ledger.close();
    }
    const at = join(directory, 'fork');
    assert.equal((await countersign(['ledger', 'export', at, '--data', one])).code, 0);
    cpSync(join(two, 'checkpoint'), join(at, 'checkpoint'));
    fitManifest(at);
    assert.match(check(at).lines.at(-1) ?? '', /do not give the signed root/);
    assert.match(python(at), /do not give the signed root/);
  });

  test('of another ledger is found wrong', async () => {
    const other = await openLedger(join(directory, 'other'), 'countersign.dev/test');
    await other.close();
    assert.match(
      check(good, readFileSync(join(directory, 'other', 'ledger.pub'), 'utf8')).lines.at(-1) ?? '',
      /not signed by this key/,
    );
  });

  test('without names holds all the same, and has none', async () => {
    const at = join(directory, 'nameless');
    assert.equal((await countersign(['ledger', 'export', at, '--data', data, '--no-names'])).code, 0);
    assert.equal(check(at).ok, true);
    assert.ok(filesIn(at).every((file) => !readFileSync(join(at, file)).includes('dana@example.com')));
    assert.ok(filesIn(good).some((file) => readFileSync(join(good, file)).includes('dana@example.com')));
  });

  test('becomes a ledger on another machine, that goes on once it has its key; a wrong one becomes nothing', async () => {
    const at = join(directory, 'imported');
    const made = await countersign(['ledger', 'import', good, '--data', at, '--key', key]);
    assert.equal(made.code, 0, made.stderr);
    const reader = new LedgerReader(join(at, 'ledger.db'));
    assert.equal(verifyLedger(reader, parseVerifiers(readFileSync(key, 'utf8'))).finding, undefined);
    assert.equal(reader.latest(['environment.suspended'], 'prödüction')?.entry.user, 'dana@example.com');
    reader.close();
    await assert.rejects(openLedger(at, 'x'), { code: 'key-missing' });
    cpSync(join(data, 'ledger.key'), join(at, 'ledger.key'));
    const ledger = await openLedger(at, 'x');
    assert.equal((await ledger.record({ type: 'service.stopped', reason: 'moved' })).index, 600);
    await ledger.close();
    const wrong = altered(withEntries(([first, , ...rest]) => [first as Buffer, ...rest]));
    const refused = await countersign(['ledger', 'import', wrong, '--data', join(directory, 'nothing'), '--key', key]);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /the export is incomplete or altered/);
    assert.throws(() => statSync(join(directory, 'nothing')), { code: 'ENOENT' });
  });

  test('goes into no directory that holds something', async () => {
    mkdirSync(join(directory, 'full'));
    writeFileSync(join(directory, 'full', 'mine'), '');
    const refused = await countersign(['ledger', 'export', join(directory, 'full'), '--data', data]);
    assert.deepEqual([refused.code, /is not empty/.test(refused.stderr)], [2, true]);
  });
});

async function writeSmall(out: string): Promise<void> {
  const at = join(directory, 'small-data');
  const ledger = await openLedger(at, 'l.test/1');
  const evidence = evidenceRef(['a']);
  await ledger.record(
    { type: 'commits.seen', environment: 'e', ref: 'r', tip: 't', count: 1, evidence: evidence.ref },
    [evidence],
  );
  await ledger.record({ type: 'service.stopped', reason: ledger.subject('dana') });
  await ledger.close();
  assert.equal((await countersign(['ledger', 'export', out, '--data', at, '--receipt', '1'])).code, 0);
}

async function tessera(at: string, keyFile: string): Promise<string> {
  const fsck = await tool('tessera-fsck', { pinned: true });
  return said(fsck, ['--ui=false', `--storage_url=file://${at}/`, `--public_key=${keyFile}`]);
}

async function sumdb(at: string, keyFile: string): Promise<string> {
  return said(await tool('ledger-sumdb', { pinned: true }), [at, keyFile]);
}

/** What a program says on both outputs, however it ends; fsck looks again and again at a tile that is wrong. */
function said(program: string, args: readonly string[]): string {
  const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', timeout: 15_000, killSignal: 'SIGKILL' });
  return stdout + stderr;
}
