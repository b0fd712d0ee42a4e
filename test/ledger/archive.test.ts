import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  LEDGER_FILES,
  LedgerReader,
  moveToArchive,
  openLedger,
  parseVerifiers,
  prepareArchive,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { oldLedger } from '../kit/old-ledger.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// Old bulky content goes elsewhere; what it was stays proven, and no reader takes a gap for an empty place.
const directory = scratch();
const BEFORE = '2025-01-01';
const ORIGIN = 'countersign.dev/test';
const ROUNDS = 20;
const whole = join(directory, 'whole'); // a ledger with everything in it
const archived = join(directory, 'archived'); // the same, archived
const place = join(directory, 'place');
let stays: Awaited<ReturnType<typeof oldLedger>>;
let serial = 0;

before(async () => {
  stays = await oldLedger(whole, ROUNDS);
  cpSync(whole, archived, { recursive: true });
  const { code, stderr } = await archive(archived, place);
  assert.equal(code, 0, stderr);
});

const archive = (data: string, to: string, date = BEFORE) =>
  countersign(['ledger', 'archive', '--before', date, '--to', to, '--data', data]);
const ledger = (data: string, ...args: string[]) => countersign(['ledger', ...args, '--data', data]);

/** A copy of the archived ledger and of its archive. Its recorded place is empty, as on a machine without the mount. */
function elsewhere(): { readonly data: string; readonly at: string; readonly file: string } {
  const [data, at] = [join(directory, `data-${serial++}`), join(directory, `at-${serial++}`)];
  cpSync(archived, data, { recursive: true });
  cpSync(existsSync(place) ? place : `${place}.away`, at, { recursive: true });
  const file = join(at, readdirSync(at)[0] ?? '');
  chmodSync(file, 0o600);
  return { data, at, file };
}

/** Runs with no file at the place that the ledger names. */
async function unmounted<T>(run: () => Promise<T>): Promise<T> {
  renameSync(place, `${place}.away`);
  try {
    return await run();
  } finally {
    renameSync(`${place}.away`, place);
  }
}

function verified(data: string, archiveAt?: string) {
  const reader = new LedgerReader(join(data, LEDGER_FILES.store), archiveAt);
  try {
    return verifyLedger(reader, parseVerifiers(readFileSync(join(data, LEDGER_FILES.verifier), 'utf8')));
  } finally {
    reader.close();
  }
}

function bodies(data: string, archiveAt?: string): string[] {
  const reader = new LedgerReader(join(data, LEDGER_FILES.store), archiveAt);
  try {
    return [...reader.stored()].map(({ body }) => body);
  } finally {
    reader.close();
  }
}

test('with its archive, a ledger has the bytes it had; without, each leaf and what is gone is known', async () => {
  const before = bodies(whole);
  const after = bodies(archived);
  assert.deepEqual(after.slice(0, before.length), before);
  assert.match(after.at(-1) ?? '', /"type":"segment.archived"/);
  const at = verified(archived);
  assert.deepEqual([at.finding, at.archived.map((a) => [a.entries, a.isRead])], [undefined, [[3 * ROUNDS, true]]]);
  await unmounted(async () => {
    const without = verified(archived);
    assert.deepEqual([without.finding, without.root], [undefined, at.root]);
    assert.deepEqual(
      without.archived.map((a) => [a.entries, a.place, a.isRead]),
      [[3 * ROUNDS, place, false]],
    );
    const { code, stdout } = await ledger(archived, 'verify');
    assert.equal(code, 0);
    assert.match(stdout, /60 entries from 2024-05-01 to 2024-05-01, in .*segment-.*not at hand.*content was not read/);
  });
});

test('a ledger goes on after it was archived, and more can be archived later', async () => {
  const { data } = elsewhere();
  const opened = await openLedger(data, ORIGIN);
  await opened.record({ type: 'heartbeat', everySeconds: 60, environments: [] });
  await opened.close();
  const second = join(directory, `place-${serial++}`);
  const { code, stdout, stderr } = await archive(data, second); // the old heartbeat is no longer the newest
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^1 entry from/);
  assert.deepEqual(
    verified(data).archived.map((a) => [a.entries, a.isRead]),
    [
      [3 * ROUNDS, true],
      [1, true],
    ],
  );
  assert.match((await archive(data, second)).stdout, /nothing more to archive/);
});

test('what decisions, the register and starts need stays, and evidence that something else names', () => {
  const reader = new LedgerReader(join(archived, LEDGER_FILES.store), join(directory, 'nowhere'));
  const isInStore = (index: number) => [...reader.rows(index, index + 1)].every(({ body }) => body.startsWith('{'));
  for (const [what, index] of Object.entries(stays)) assert.ok(isInStore(index), what);
  for (const { type, body } of reader.rows())
    if (!body.startsWith('{'))
      assert.ok(['admission.allowed', 'admission.denied', 'heartbeat'].includes(type), `${type} is gone`);
  assert.equal(reader.latest(['heartbeat'], '')?.index, stays.beat);
  reader.close();
  const db = new DatabaseSync(join(archived, LEDGER_FILES.store), { readOnly: true });
  assert.equal(db.prepare('SELECT count(*) AS n FROM evidence').get()?.['n'], 3); // shared, explaining, newest
  db.close();
});

test('a search that goes back in time ends before archived entries, by the time that stands in their place', () => {
  const reader = new LedgerReader(join(archived, LEDGER_FILES.store), join(directory, 'nowhere'));
  renameSync(place, `${place}.away`);
  try {
    const last = reader.latest(['heartbeat'], '');
    assert.equal(reader.latest(['heartbeat'], '', last?.index, last?.entry.time), undefined);
    assert.throws(() => reader.latest(['heartbeat'], '', last?.index), { code: 'entry-archived' });
    assert.equal(reader.all('heartbeat', '', last?.entry.time).length, 1);
    assert.throws(() => reader.all('heartbeat', ''), { code: 'entry-archived' });
    assert.equal(reader.firstAt('2024-05-01T00:00:03.000Z'), 2);
  } finally {
    renameSync(`${place}.away`, place);
    reader.close();
  }
});

const STEPS = ['write', 'place', 'record', 'move', 'compact'].flatMap((step) => [
  [step, 'before'],
  [step, 'after'],
]);
for (const [step = '', side = ''] of STEPS)
  test(`a run killed ${side} \`${step}\` loses nothing, and the next one finishes`, async () => {
    const [data, to] = [join(directory, `killed-${serial++}`), join(directory, `to-${serial++}`)];
    cpSync(whole, data, { recursive: true });
    const script = fileURLToPath(new URL('../kit/archive-killed.ts', import.meta.url));
    const { signal, stderr } = spawnSync(process.execPath, [script, data, to, step, side], { encoding: 'utf8' });
    assert.equal(signal, 'SIGKILL', stderr);
    assert.equal(verified(data).finding, undefined);
    assert.deepEqual(bodies(data).slice(0, bodies(whole).length), bodies(whole));
    const again = await archive(data, to);
    assert.equal(again.code, 0, again.stderr);
    const { finding, archived: parts } = verified(data);
    assert.deepEqual([finding, parts.map((p) => p.entries)], [undefined, [3 * ROUNDS]]);
    assert.deepEqual(bodies(data).slice(0, bodies(whole).length), bodies(whole));
    assert.equal(readdirSync(to).length, 1, 'no half file is left');
    assert.ok(statSync(join(data, LEDGER_FILES.store)).size < statSync(join(whole, LEDGER_FILES.store)).size);
    await (await openLedger(data, ORIGIN)).close();
  });

test('an archive that was changed before it was moved is not used: nothing is recorded, nothing removed', async () => {
  const changes: readonly [string, (db: DatabaseSync) => void, RegExp][] = [
    [
      'an entry',
      (db) => db.exec("UPDATE entry SET body = replace(body, 'Git', 'git')"),
      /entry \d+ in it is not the one/,
    ],
    [
      'an evidence',
      (db) => db.exec("UPDATE evidence SET bytes = replace(bytes, 'aa', 'ab')"),
      /evidence .* was altered/,
    ],
    ['a missing evidence', (db) => db.exec('DELETE FROM evidence'), /evidence of its entries is missing/],
    ['fewer entries', (db) => db.exec("DELETE FROM entry WHERE type = 'heartbeat'"), /the ledger changed since/],
  ];
  for (const [what, change, expected] of changes) {
    const [data, to] = [join(directory, `altered-${serial++}`), join(directory, `to-${serial++}`)];
    cpSync(whole, data, { recursive: true });
    const asked = { before: '2025-01-01T00:00:00.000Z', place: to, user: 'dana' };
    const request = await prepareArchive(data, asked, new Date());
    assert.ok(request?.file !== undefined);
    chmodSync(join(to, request.file), 0o600);
    const db = new DatabaseSync(join(to, request.file));
    change(db);
    db.close();
    await assert.rejects(moveToArchive(data, request), expected, what);
    assert.deepEqual(bodies(data), bodies(whole), what);
  }
});

test('an archive that is changed, cut or missing is named', async () => {
  const spoil: readonly [(file: string) => void, RegExp][] = [
    [(file) => truncateSync(file, 8192), /the archive `.*segment-.*` has 8192 bytes, not the \d+ of entry/],
    [(file) => writeFileSync(file, flipped(readFileSync(file))), /the archive `.*segment-.*` was changed/],
    [(file) => rmSync(file), /the archive `segment-.*` of entry \d+ is neither in/],
  ];
  await unmounted(async () => {
    for (const [change, expected] of spoil) {
      const { data, at, file } = elsewhere();
      assert.equal((await ledger(data, 'verify', '--archive', at)).code, 0);
      change(file);
      const { code, stdout } = await ledger(data, 'verify', '--archive', at);
      assert.equal(code, 1);
      assert.match(stdout, expected);
    }
  });
});

function flipped(bytes: Buffer): Buffer {
  const at = bytes.indexOf('not from Git');
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
}

test('a changed entry in an archive is not read as if it were true', async () => {
  const { data, at, file } = elsewhere();
  const db = new DatabaseSync(file);
  db.exec("UPDATE entry SET body = replace(body, 'dana', 'lee'), type = type");
  db.exec("UPDATE entry SET body = replace(body, 'not from Git', 'approved')");
  db.close();
  await unmounted(async () => {
    const { code, stderr } = await ledger(data, 'show', '3', '--archive', at);
    assert.equal(code, 2);
    assert.match(stderr, /entry 3 is altered in the archive `segment-/);
  });
});

test('content that is gone is not taken for archived: the service and the check refuse', async () => {
  const removals = {
    'a stub for an entry that no archive took': `UPDATE entry SET body = '2024-05-01T00:00:05.000Z 70' WHERE seq = 1`,
    'a stub more under a true archive': `UPDATE entry SET body = (body ->> '$.time') || ' ' ||
      (SELECT max(seq) FROM entry WHERE type = 'segment.archived') WHERE seq = ${stays.audited}`,
    'a later time for all': `UPDATE entry SET body = '2024-05-01T00:00:59.000' || substr(body, 24) WHERE body NOT LIKE '{%'`,
    'no body at all': `UPDATE entry SET body = '' WHERE seq = 1`,
  };
  for (const [what, sql] of Object.entries(removals)) {
    const { data } = elsewhere();
    const db = new DatabaseSync(join(data, LEDGER_FILES.store));
    db.exec(`DROP TRIGGER entry_is_fixed; ${sql}`);
    db.close();
    await unmounted(async () => {
      assert.notEqual(verified(data).finding, undefined, what);
      await assert.rejects(openLedger(data, ORIGIN), { code: 'ledger-inconsistent' }, what);
    });
  }
});

test('readers use an archive at hand, and otherwise refuse or say what they did not read', async () => {
  const out = () => join(directory, `out-${serial++}`);
  const reads: readonly (readonly string[])[] = [
    ['ledger', 'show', '3', '--evidence'],
    ['ledger', 'prove', '3', '--out', out()],
    ['ledger', 'export', out()],
    ['report', '--from', '2024-01-01', '--to', '2024-12-31', '--out', out()],
    ['ledger', 'show', '--type', 'admission'],
    ['ledger', 'show', '--object', 'web', '--output', 'json'],
  ];
  await unmounted(async () => {
    const { data, at } = elsewhere();
    for (const args of reads) {
      const without = await countersign([...args, '--data', data]);
      assert.equal(without.code, 2, args.join(' '));
      assert.match(without.stderr, /archived in `.*segment-.*--archive/s, args.join(' '));
      const { code, stderr } = await countersign([...args, '--data', data, '--archive', at]);
      assert.equal(code, 0, `${args.join(' ')}\n${stderr}`);
    }
    // A report of a period after them needs no archive.
    const later = ['report', '--from', '2025-01-01', '--out', out(), '--data', data];
    assert.equal((await countersign(later)).code, 0);
  });
});

test('an export with its archive is complete, and makes the store whole again', async () => {
  const [exported, imported] = [join(directory, `export-${serial++}`), join(directory, `import-${serial++}`)];
  assert.equal((await ledger(archived, 'export', exported)).code, 0);
  const key = join(archived, LEDGER_FILES.verifier);
  assert.equal((await ledger(imported, 'import', exported, '--key', key)).code, 0);
  assert.deepEqual(bodies(imported, join(directory, 'nowhere')), bodies(archived));
});

test('an archive names no one: a name can be forgotten, and is then gone from the archive’s entries too', async () => {
  const { data, file } = elsewhere();
  assert.ok(!readFileSync(file, 'latin1').includes('dana@example.com'));
  assert.match((await ledger(data, 'show', '3')).stdout, /dana@example.com/);
  const { code, stderr } = await ledger(data, 'forget', 'dana@example.com', '--reason', 'HR-311');
  assert.match(stderr, /exceptions? that name them/); // the rule for open exceptions reads the archive
  assert.equal(code, 2);
  const db = new DatabaseSync(join(data, LEDGER_FILES.store));
  db.exec("DELETE FROM subject WHERE text = 'dana@example.com'");
  db.close();
  const { stdout } = await ledger(data, 'show', '3');
  assert.match(stdout, /user subject:/);
  assert.equal(verified(data).finding, undefined);
  await unmounted(async () => {
    const refused = await ledger(data, 'forget', 'test', '--reason', 'HR-311');
    assert.notEqual(refused.code, 0);
  });
});

test('too young entries, and a ledger in PostgreSQL, are refused with what to do', async () => {
  const to = join(directory, `to-${serial++}`);
  const young = await archive(whole, to, new Date().toISOString());
  assert.deepEqual([young.code, /too young.*30 days/s.test(young.stderr)], [2, true]);
  const shared = await ledger(whole, 'archive', '--before', BEFORE, '--to', to, '--ledger', 'postgres://h/d');
  assert.deepEqual([shared.code, /PostgreSQL/.test(shared.stderr)], [2, true], shared.stderr);
  const db = new DatabaseSync(join(cp(whole), LEDGER_FILES.store));
  db.exec('PRAGMA user_version = 2');
  const copy = join(db.location() ?? '', '..');
  db.close();
  const refused = await archive(copy, to);
  assert.deepEqual([refused.code, /PostgreSQL/.test(refused.stderr)], [2, true], refused.stderr);
  assert.ok(!existsSync(to));
  mkdirSync(to);
  writeFileSync(join(to, 'file'), '');
  const nowhere = await archive(whole, join(to, 'file'));
  assert.deepEqual([nowhere.code, /nothing was removed/.test(nowhere.stderr)], [2, true], nowhere.stderr);
});

function cp(from: string): string {
  const to = join(directory, `copy-${serial++}`);
  cpSync(from, to, { recursive: true });
  return to;
}
