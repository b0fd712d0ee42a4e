import assert from 'node:assert/strict';
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { before, test } from 'node:test';
import { createKey, evidenceRef, LEDGER_FILES, openLedger } from '../../src/ledger/index.ts';
import { openReplicaKey } from '../../src/ledger/replica-key.ts';
import { SqliteStore } from '../../src/ledger/sqlite-store.ts';
import { dropDamagedCopy } from '../../src/ledger/store-trouble.ts';
import { CountersignError } from '../../src/model/index.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// What SQLite finds, `ledger verify` finds; and what it prints mends the store.
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
const PAGE = 8192;
const good = join(directory, 'good');
const exported = join(directory, 'export');
let serial = 0;

before(async () => {
  const ledger = await openLedger(good, ORIGIN);
  await Promise.all(
    Array.from({ length: 200 }, async (_, i) => {
      const evidence = evidenceRef({ ids: [String(i), 'x'.repeat(200)] });
      const [environment, ref, tip] = [`environment-${i % 7}`, 'refs/heads/main', String(i)];
      await ledger.record({ type: 'commits.seen', environment, ref, tip, count: i, evidence: evidence.ref }, [
        evidence,
      ]);
      const user = ledger.subject(`person-${i}@example.com`);
      await ledger.record({ type: 'environment.suspended', environment, user, reason: 'INC-7' });
    }),
  );
  await ledger.close();
  assert.equal((await countersign(['ledger', 'export', exported, '--data', good])).code, 0);
});

/** A copy of the data directory with 2 KiB of a page overwritten. */
function damagedAt(page: number): string {
  const at = join(directory, `damaged-${serial++}`);
  cpSync(good, at, { recursive: true });
  const file = openSync(join(at, LEDGER_FILES.store), 'r+');
  writeSync(file, Buffer.alloc(2048, 0x5a), 0, 2048, page * PAGE);
  closeSync(file);
  return at;
}

function isSoundToSqlite(at: string): boolean {
  try {
    const db = new DatabaseSync(join(at, LEDGER_FILES.store), { readOnly: true });
    const answer = db.prepare('PRAGMA integrity_check(1)').get()?.['integrity_check'];
    db.close();
    return answer === 'ok';
  } catch {
    return false;
  }
}

/** Runs the commands that a message prints, with this place for EXPORT. */
async function followed(text: string, place: string): Promise<void> {
  const lines = text.split('\n').filter((line) => line.startsWith('  countersign '));
  assert.notEqual(lines.length, 0, text);
  for (const line of lines) {
    const words = line.trim().split(' ').slice(1);
    const { code, stderr } = await countersign(words.map((word) => (word === 'EXPORT' ? place : word)));
    assert.equal(code, 0, `${line}\n${stderr}`);
  }
}

test('every damaged page that SQLite sees is reported, and the printed commands mend the store', async () => {
  const pages = Math.floor(statSync(join(good, LEDGER_FILES.store)).size / PAGE);
  assert.ok(pages > 25, String(pages));
  const counts = { unseen: 0, whole: 0, lost: 0 };
  for (let page = 0; page < pages; page++) {
    const at = damagedAt(page);
    const { code, stdout, stderr } = await countersign(['ledger', 'verify', '--data', at]);
    if (isSoundToSqlite(at)) {
      counts.unseen += code === 0 ? 1 : 0; // free space, or content that the log itself finds
      rmSync(at, { recursive: true });
      continue;
    }
    assert.equal(code, 1, `page ${page}: ${stdout}${stderr}`);
    assert.match(stdout, /damaged: /, `page ${page}`);
    const isWhole = stdout.includes('can be read and are what was signed');
    counts[isWhole ? 'whole' : 'lost']++;
    const place = isWhole ? join(directory, `mended-${page}`) : exported;
    await followed(stdout, place);
    const again = await countersign(['ledger', 'verify', '--data', at]);
    assert.equal(again.code, 0, `page ${page}: ${again.stdout}`);
    assert.ok(existsSync(join(at, `${LEDGER_FILES.store}.replaced`)), 'the damaged one is kept');
    const ledger = await openLedger(at, ORIGIN);
    assert.equal(ledger.size, 401);
    await ledger.close();
    rmSync(at, { recursive: true });
  }
  assert.ok(counts.whole > 3 && counts.lost > 3, JSON.stringify(counts));
});

test('a service does not open a damaged store, and names the command that says what still stands', async () => {
  let refused = 0;
  for (let page = 0; page < 30; page++) {
    const at = damagedAt(page);
    const file = join(at, LEDGER_FILES.store);
    if (!isSoundToSqlite(at)) {
      assert.throws(
        () => new SqliteStore(file),
        (thrown) =>
          thrown instanceof CountersignError &&
          thrown.code === 'store-damaged' &&
          thrown.recover === 'halt' &&
          /is damaged: /.test(thrown.message) &&
          /countersign ledger verify/.test(thrown.hint ?? '') &&
          !/may read and write/.test(thrown.hint ?? ''),
        `page ${page}`,
      );
      refused++;
    }
    rmSync(at, { recursive: true });
  }
  assert.ok(refused > 10, String(refused));
  const at = damagedAt(0);
  await assert.rejects(openLedger(at, ORIGIN), { code: 'store-damaged', recover: 'halt' });
});

test('a damaged copy of a database is dropped, since a replica makes it again; a sound one stays', async () => {
  const copy = join(directory, 'copy.db');
  await new SqliteStore(copy, 'copy').close();
  const said: string[] = [];
  dropDamagedCopy(copy, (message) => said.push(message));
  assert.deepEqual([existsSync(copy), said], [true, []]);
  const file = openSync(copy, 'r+');
  writeSync(file, Buffer.alloc(2048, 0x5a), 0, 2048, PAGE);
  closeSync(file);
  dropDamagedCopy(copy, (message) => said.push(message));
  assert.equal(existsSync(copy), false);
  assert.match(said.join(), /is damaged and is made again/);
});

test('a store that this user may not open is not called damaged', () => {
  const at = join(directory, 'no-file');
  mkdirSync(join(at, LEDGER_FILES.store), { recursive: true });
  assert.throws(() => new SqliteStore(join(at, LEDGER_FILES.store)), {
    code: 'ledger-unusable',
    hint: /this user may read and write/,
  });
});

test('an export with fewer entries than a checkpoint in the data directory is refused, unless it is the newest there is', async () => {
  const at = damagedAt(0);
  const older = join(directory, 'older');
  cpSync(good, older, { recursive: true });
  const ledger = await openLedger(older, ORIGIN);
  await ledger.record({ type: 'service.stopped', reason: 'x' });
  await ledger.close();
  cpSync(join(older, LEDGER_FILES.anchor), join(at, LEDGER_FILES.anchor));
  const importing = (...more: string[]) =>
    countersign(['ledger', 'import', exported, '--data', at, '--key', join(at, 'ledger.pub'), ...more]);
  const plain = await importing();
  assert.deepEqual([plain.code, /is not empty/.test(plain.stderr), /--replace/.test(plain.stderr)], [2, true, true]);
  const before = readFileSync(join(at, LEDGER_FILES.store));
  const refused = await importing('--replace');
  assert.deepEqual([refused.code, /covers 402/.test(refused.stderr), /--behind/.test(refused.stderr)], [2, true, true]);
  assert.ok(before.equals(readFileSync(join(at, LEDGER_FILES.store))), 'nothing was changed');
  const behind = await importing('--replace', '--behind');
  assert.equal(behind.code, 1, 'a service would refuse it');
  assert.match(behind.stdout, /1 entry is missing.*\n {2}countersign ledger new-epoch --data \S+ --reason/);
  await assert.rejects(openLedger(at, ORIGIN), { code: 'ledger-inconsistent', hint: /new-epoch/ });
  const epoch = await countersign(['ledger', 'new-epoch', '--reason', 'damaged', '--data', at]);
  assert.equal(epoch.code, 0, epoch.stderr);
  assert.match(epoch.stdout, /1 entry of countersign\.dev\/test is lost/);
  await (await openLedger(at, ORIGIN)).close();
});

test('the store of a running service is not replaced', async () => {
  const at = join(directory, 'running');
  cpSync(good, at, { recursive: true });
  const ledger = await openLedger(at, ORIGIN);
  const args = ['ledger', 'import', exported, '--data', at, '--key', join(at, 'ledger.pub'), '--replace', '--behind'];
  const { code, stderr } = await countersign(args);
  assert.deepEqual([code, /another process holds the ledger/.test(stderr)], [2, true], stderr);
  await ledger.record({ type: 'service.stopped', reason: 'x' });
  await ledger.close();
});

test('a replacement that ended between two steps leaves a store that is refused or whole, and the next try works', async () => {
  const steps: Record<string, (at: string) => void> = {
    'the new store is made': (at) => cpSync(good, `${at}.importing`, { recursive: true }),
    'the write-ahead log of SQLite is put aside': (at) =>
      cpSync(join(at, LEDGER_FILES.key), join(at, `${LEDGER_FILES.store}.replaced-wal`)),
    'the old store is kept': (at) => cpSync(join(at, LEDGER_FILES.store), join(at, `${LEDGER_FILES.store}.replaced`)),
  };
  for (const [step, leave] of Object.entries(steps)) {
    const at = damagedAt(0);
    leave(at);
    await assert.rejects(openLedger(at, ORIGIN), { code: 'store-damaged' }, step);
    const args = ['ledger', 'import', exported, '--data', at, '--key', join(at, 'ledger.pub'), '--replace'];
    assert.equal((await countersign(args)).code, 0, step);
    await (await openLedger(at, ORIGIN)).close();
  }
});

test('a cell of the wrong type is named as damage, with what still stands, and never as a defect of ours', async () => {
  const cells: Record<string, readonly [sql: string, said: RegExp]> = {
    'the text of an entry': [
      'DROP TRIGGER entry_is_fixed; UPDATE entry SET body = CAST(body AS BLOB) WHERE seq = 120',
      /damaged: entry 120 .*\n120 entries before it can be read\n/,
    ],
    'a leaf': [
      'DROP TRIGGER entry_is_fixed; UPDATE entry SET leaf = 7 WHERE seq = 120',
      /damaged: entry 120 .*\n120 entries before it can be read\n/,
    ],
    evidence: [
      'DROP TRIGGER evidence_is_fixed; UPDATE evidence SET bytes = CAST(bytes AS BLOB)',
      /the evidence of entry \d+ was altered/,
    ],
    'a tile': ['DROP TRIGGER tile_is_fixed; UPDATE tile SET nodes = 1.5', /tile 0\/0/],
    'a salt': ['UPDATE subject SET salt = 1.5', /damaged: the table of names cannot be read/],
  };
  for (const [cell, [sql, said]] of Object.entries(cells)) {
    const at = join(directory, `cell-${serial++}`);
    cpSync(good, at, { recursive: true });
    withoutTypes(join(at, LEDGER_FILES.store), sql);
    const { code, stdout, stderr } = await countersign(['ledger', 'verify', '--data', at]);
    assert.equal(code, 1, `${cell}: ${stdout}${stderr}`);
    assert.match(stdout, said, cell);
    if (stdout.includes('damaged: ')) assert.match(stdout, /ledger import EXPORT/, cell);
  }
});

/** Changes cells past the types of their columns, as a flipped bit does. */
function withoutTypes(file: string, sql: string): void {
  const db = new DatabaseSync(file, { defensive: false });
  db.exec(`PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, ') STRICT', ')')`);
  db.exec('PRAGMA writable_schema = RESET');
  db.close();
  const loose = new DatabaseSync(file);
  loose.exec(sql);
  loose.close();
}

test('a store that is missing or empty beside what it signed is not begun again: everyone prints the line that helps', async () => {
  const stores: Record<string, (file: string) => Promise<void>> = {
    missing: async () => {},
    empty: async (file) => writeFileSync(file, ''),
    'with tables only': (file) => new SqliteStore(file).close(),
  };
  for (const [state, leave] of Object.entries(stores))
    for (const gone of state === 'with tables only' ? [[]] : [[], [LEDGER_FILES.anchor]]) {
      const at = join(directory, `lost-${serial++}`);
      const file = join(at, LEDGER_FILES.store);
      cpSync(good, at, { recursive: true });
      for (const name of gone) rmSync(join(at, name));
      openReplicaKey(at); // a service has made it
      for (const end of ['', '-wal', '-shm']) rmSync(`${file}${end}`, { force: true });
      await leave(file);
      const size = statSync(file, { throwIfNoEntry: false })?.size;
      const line = `countersign ledger import EXPORT --data ${at} --key ${join(at, LEDGER_FILES.verifier)} --replace`;
      await assert.rejects(openLedger(at, ORIGIN), (thrown: CountersignError) => {
        assert.deepEqual([thrown.code, thrown.recover, thrown.hint?.includes(line)], ['store-damaged', 'halt', true]);
        return true;
      });
      for (const command of [
        ['new-epoch', '--reason', 'x'],
        ['rotate-key'],
        ['verify'],
        ['show'],
        ['export', `${at}.x`],
      ]) {
        const { code, stdout, stderr } = await countersign(['ledger', ...command, '--data', at]);
        assert.notEqual(code, 0, `${state}: ${command[0]}`);
        assert.ok((stdout + stderr).includes(line), `${state}: ${command[0]}: ${stdout}${stderr}`);
      }
      assert.equal(statSync(file, { throwIfNoEntry: false })?.size, size, 'nothing is made there');
      await followed(`  ${line}`, exported);
      await (await openLedger(at, ORIGIN)).close();
      rmSync(at, { recursive: true });
    }
});

test('a first start that ended before its first entry is continued', async () => {
  const at = join(directory, `first-${serial++}`);
  cpSync(good, at, { recursive: true });
  for (const name of [LEDGER_FILES.store, LEDGER_FILES.anchor]) rmSync(join(at, name));
  await new SqliteStore(join(at, LEDGER_FILES.store)).close();
  const ledger = await openLedger(at, ORIGIN);
  assert.equal(ledger.size, 1);
  await ledger.close();
});

const replacing = (at: string, from: string, ...more: string[]) =>
  countersign(['ledger', 'import', from, '--data', at, '--key', join(good, 'ledger.pub'), '--replace', ...more]);

async function recorded(at: string, entries: number): Promise<void> {
  const ledger = await openLedger(at, ORIGIN);
  for (let i = 0; i < entries; i++) await ledger.record({ type: 'service.stopped', reason: `${at} ${i}` });
  await ledger.close();
}

/** Two copies of the ledger that went on by themselves, and an export of the second. */
async function forked(mine: number, theirs: number): Promise<{ readonly at: string; readonly fork: string }> {
  const [at, other] = [join(directory, `mine-${serial}`), join(directory, `other-${serial}`)];
  const fork = join(directory, `fork-${serial++}`);
  for (const copy of [at, other]) cpSync(good, copy, { recursive: true });
  await recorded(at, mine);
  await recorded(other, theirs);
  assert.equal((await countersign(['ledger', 'export', fork, '--data', other])).code, 0);
  return { at, fork };
}

test('an export of a different history is refused by content, however many entries it has, and nothing changes', async () => {
  for (const [mine, theirs] of [[5, 9] as const, [9, 5] as const, [5, 5] as const])
    for (const gone of [[], [LEDGER_FILES.anchor]]) {
      const { at, fork } = await forked(mine, theirs);
      for (const name of gone) rmSync(join(at, name));
      const before = readFileSync(join(at, LEDGER_FILES.store));
      const { code, stderr } = await replacing(at, fork, '--behind');
      assert.deepEqual([code, /of a different history/.test(stderr)], [2, true], `${mine} ${theirs}: ${stderr}`);
      assert.ok(before.equals(readFileSync(join(at, LEDGER_FILES.store))));
    }
});

test('a checkpoint beside a damaged store decides which export may replace it', async () => {
  const { at, fork } = await forked(5, 9);
  const file = openSync(join(at, LEDGER_FILES.store), 'r+');
  writeSync(file, Buffer.alloc(2048, 0x5a), 0, 2048, 0);
  closeSync(file);
  assert.match((await replacing(at, fork)).stderr, /of a different history/);
});

test('every store that was replaced is kept under a name of its own', async () => {
  const at = join(directory, `kept-${serial++}`);
  cpSync(good, at, { recursive: true });
  await recorded(at, 3);
  const original = readFileSync(join(at, LEDGER_FILES.store));
  assert.equal((await replacing(at, exported, '--behind')).code, 1);
  assert.equal((await replacing(at, exported, '--behind')).code, 1);
  assert.ok(original.equals(readFileSync(join(at, `${LEDGER_FILES.store}.replaced`))));
  assert.ok(existsSync(join(at, `${LEDGER_FILES.store}.replaced-2`)));
});

test('an import that a service would refuse says so, with the next line: a damaged checkpoint, a different key', async () => {
  const cases: Record<string, readonly [leave: (at: string) => void, line: RegExp]> = {
    'a damaged checkpoint': [
      (at) => writeFileSync(join(at, LEDGER_FILES.anchor), 'garbage'),
      /checkpoint` is damaged.*\n {2}rm \S+\/checkpoint\n/,
    ],
    'a different key': [
      (at) => writeFileSync(join(at, LEDGER_FILES.key), createKey()),
      /did not sign this ledger.*\n {2}cp KEY \S+\/ledger\.key\n/,
    ],
  };
  for (const [what, [leave, line]] of Object.entries(cases)) {
    const at = damagedAt(0);
    leave(at);
    const { code, stdout, stderr } = await replacing(at, exported);
    assert.deepEqual([code, line.test(stdout)], [1, true], `${what}: ${stdout}${stderr}`);
  }
});

test('a damaged checkpoint or public key file is named with the way out, which works', async () => {
  const at = join(directory, `file-${serial++}`);
  cpSync(good, at, { recursive: true });
  const anchor = join(at, LEDGER_FILES.anchor);
  writeFileSync(anchor, 'garbage');
  await assert.rejects(openLedger(at, ORIGIN), {
    message: `the checkpoint in \`${anchor}\` is damaged`,
    hint: /^remove the file: the store has a checkpoint of its own\. Without the file, only an anchor elsewhere/,
  });
  for (const command of [['verify'], ['new-epoch', '--reason', 'x']]) {
    const { code, stderr } = await countersign(['ledger', ...command, '--data', at]);
    assert.deepEqual([code, stderr.includes(`${anchor}\` is damaged`)], [2, true], stderr);
  }
  rmSync(anchor);
  await recorded(at, 1);
  for (const text of ['', '\n', undefined]) {
    const verifier = join(at, LEDGER_FILES.verifier);
    const before = readFileSync(verifier, 'utf8');
    if (text === undefined) rmSync(verifier);
    else writeFileSync(verifier, text);
    if (text === '') {
      const epoch = ['ledger', 'new-epoch', '--reason', 'x', '--data', at];
      assert.match((await countersign(epoch)).stderr, /nothing is lost/);
    } else await recorded(at, 1);
    assert.equal(readFileSync(verifier, 'utf8'), before, 'it is written again');
  }
  writeFileSync(anchor, ''); // after a power cut
  writeFileSync(join(at, LEDGER_FILES.verifier), 'garbage');
  await assert.rejects(openLedger(at, ORIGIN), { message: /ledger\.pub` is damaged/, hint: /remove it/ });
  const { stderr } = await countersign(['ledger', 'verify', '--data', at]);
  assert.match(stderr, /ledger\.pub` has no public key.*\n.*remove it and start the service/);
  rmSync(join(at, LEDGER_FILES.verifier));
  await recorded(at, 1);
  assert.equal((await countersign(['ledger', 'verify', '--data', at])).code, 0);
});
