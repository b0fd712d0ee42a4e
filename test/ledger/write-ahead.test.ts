import assert from 'node:assert/strict';
import fs, { appendFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { afterEach, mock, test } from 'node:test';
import { evidenceRef, type Ledger, openLedger, openSeal, WriteAhead } from '../../src/ledger/index.ts';
import { Overloaded } from '../../src/ledger/ledger.ts';
import { CountersignError, type EntryBody } from '../../src/model/index.ts';
import { scratch } from '../kit/scratch.ts';

type Mode = 'up' | 'refuses' | 'silent' | 'halted' | 'overloaded';
const directory = scratch();
const open: { close(): Promise<void> }[] = [];
let serial = 0;
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close();
});

const use = (uid: string, user = 'ola'): EntryBody => ({
  type: 'breakglass.used',
  environment: 'production',
  user,
  operation: 'UPDATE',
  object: { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'settings' },
  reason: 'INC-1',
  until: '2026-01-01T01:00:00Z',
  uid,
});

const denied = (i: number): EntryBody => ({
  type: 'admission.denied',
  environment: 'production',
  user: 'dev',
  operation: 'CREATE',
  object: { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: `c-${i}` },
  mode: 'enforce',
  reason: 'not in Git',
  uid: `${i}`,
});

/** A ledger that can be away (`refuses`), or silent until it is let go. */
async function setting(data = join(directory, `${serial++}`), holdFor?: Record<string, number>) {
  const ledger: Ledger = await openLedger(data, 'test', { holdFor });
  open.push(ledger);
  const state = { mode: 'up' as Mode, go: () => {}, isSlowFor: '', refusesAfter: Number.POSITIVE_INFINITY };
  let recorded = 0;
  const said: string[] = [];
  const ahead = new WriteAhead(
    join(data, 'write-ahead.jsonl'),
    {
      record: async (body, evidence) => {
        if (state.mode === 'overloaded') throw new Overloaded();
        if (state.mode === 'refuses' || recorded++ >= state.refusesAfter)
          throw new CountersignError('ledger-unusable', 'away', { recover: 'retry' });
        if (state.mode === 'halted') throw new CountersignError('ledger-inconsistent', 'forked', { recover: 'halt' });
        if (state.mode === 'silent' || body.type === state.isSlowFor)
          await new Promise<void>((done) => {
            const others = state.go;
            state.go = () => {
              others();
              done();
            };
          });
        return ledger.record(body, evidence);
      },
      subject: (text) => ledger.subject(text),
      latest: (types, environment, before) => ledger.read.latest(types, environment, before),
      entry: (index) => ledger.read.entry(index),
      recorded: () => ledger.size,
    },
    {
      seal: openSeal(data, 'test', undefined, (message) => said.push(message)),
      warn: (message) => said.push(message),
      clock: () => new Date(),
      patience: 100,
    },
  );
  open.push(ahead);
  const uses = () => ledger.read.all('breakglass.used', 'production').map(({ entry }) => entry);
  return { data, file: join(data, 'write-ahead.jsonl'), ledger, ahead, state, said, uses };
}

test('what the ledger takes is not written beside it', async () => {
  const { ahead, uses, file } = await setting();
  assert.notEqual(await ahead.recordSurely(use('1'), []), undefined);
  assert.equal(uses().length, 1);
  assert.throws(() => statSync(file));
});

test('while the ledger refuses it is in the file before it resolves; once back it is on the ledger before anything else, in order, once', async () => {
  const { ahead, state, uses, file, ledger } = await setting();
  state.mode = 'refuses';
  for (const uid of ['1', '2', '3']) assert.equal(await ahead.recordSurely(use(uid), []), undefined);
  assert.equal(readFileSync(file, 'utf8').trim().split('\n').length, 3);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  await assert.rejects(
    ahead.record({ type: 'environment.resumed', environment: 'production', user: 'x', reason: 'y' }, []),
    /away/,
  );
  state.mode = 'up';
  const { index } = await ahead.record(
    { type: 'environment.resumed', environment: 'production', user: 'x', reason: 'y' },
    [],
  );
  assert.deepEqual(
    uses().map((e) => [e.uid, typeof e.at]),
    ['1', '2', '3'].map((uid) => [uid, 'string']),
  );
  assert.ok((ledger.read.latest(['breakglass.used'], 'production')?.index ?? index) < index);
  assert.equal(readFileSync(file, 'utf8'), '');
});

test('refusals in the file hold up nothing else, and come after it', async () => {
  const { ahead, state, ledger, uses } = await setting();
  state.mode = 'refuses';
  for (let i = 0; i < 40; i++) await ahead.recordSurely(denied(i), []);
  await ahead.recordSurely(use('1'), []);
  state.mode = 'up';
  state.isSlowFor = 'admission.denied';
  const resumed = { type: 'environment.resumed', environment: 'production', user: 'x', reason: 'y' } as const;
  const { index } = await ahead.record(resumed, []);
  assert.ok((ledger.read.latest(['breakglass.used'], 'production')?.index ?? index) < index, 'what must be first is');
  assert.notEqual(await ahead.recordSurely(use('2'), []), undefined, 'nor does the file take what the ledger can');
  assert.equal(ledger.read.all('admission.denied', 'production').length, 0);
  state.isSlowFor = '';
  state.go();
  await ahead.merge();
  assert.deepEqual(
    ledger.read.all('admission.denied', 'production').map(({ entry }) => entry.uid),
    Array.from({ length: 40 }, (_, i) => `${i}`),
  );
  assert.equal(uses().length, 2);
});

test('a merge that fails in the middle goes on where it was, with everything once', async () => {
  const { ahead, state, ledger } = await setting();
  state.mode = 'refuses';
  for (let i = 0; i < 600; i++) await ahead.recordSurely(denied(i), []);
  state.mode = 'up';
  state.refusesAfter = 550;
  await assert.rejects(ahead.merge(), /away/);
  state.refusesAfter = Number.POSITIVE_INFINITY;
  await ahead.merge();
  assert.equal(new Set(ledger.read.all('admission.denied', 'production').map(({ entry }) => entry.uid)).size, 600);
  assert.equal(ledger.read.all('admission.denied', 'production').length, 600);
});

test('refusals never fill the file: beyond a number they are given back to who refused', async () => {
  const { ahead, state, file } = await setting();
  const { fsyncSync } = fs;
  mock.method(fs, 'fsyncSync', () => {});
  syncBuiltinESMExports();
  state.mode = 'refuses';
  for (let i = 0; i < 5000; i++) await ahead.recordSurely(denied(i), []);
  await assert.rejects(ahead.recordSurely(denied(5000), []), /too many entries wait/);
  assert.equal(await ahead.recordSurely(use('1'), []), undefined, 'what was let through still fits');
  assert.equal(readFileSync(file, 'utf8').trim().split('\n').length, 5001);
  mock.restoreAll();
  syncBuiltinESMExports();
  assert.equal(fs.fsyncSync, fsyncSync);
  state.mode = 'up';
});

test('a ledger with too much to do does not send refusals to the file', async () => {
  const { ahead, state, file } = await setting();
  state.mode = 'overloaded';
  await assert.rejects(ahead.recordSurely(denied(1), []), /too many entries wait/);
  assert.throws(() => statSync(file));
  assert.equal(await ahead.recordSurely(use('1'), []), undefined, 'what was let through goes there');
  state.mode = 'up';
});

test('what the ledger took too long for, and has after all, is there once', async () => {
  const { ahead, state, uses } = await setting();
  state.mode = 'silent';
  assert.equal(await ahead.recordSurely(use('slow'), []), undefined);
  assert.equal(ahead.waiting, 1);
  state.mode = 'up';
  state.go();
  await ahead.merge();
  assert.equal(uses().length, 1);
});

test('a process that was killed leaves it to the next, also between the merge and the end of the file', async () => {
  const first = await setting();
  first.state.mode = 'refuses';
  await first.ahead.recordSurely(use('killed'), []);
  const left = readFileSync(first.file);
  for (const one of open.splice(0).reverse()) await one.close();
  writeFileSync(first.file, left);
  const second = await setting(first.data);
  await second.ahead.merge();
  assert.deepEqual(
    second.uses().map((e) => e.uid),
    ['killed'],
  );
  for (const one of open.splice(0).reverse()) await one.close();
  writeFileSync(first.file, left); // as if it had been killed before the file was emptied
  const third = await setting(first.data);
  await third.ahead.merge();
  assert.equal(third.uses().length, 1);
});

test('a line that was not finished is left out and written over', async () => {
  const { data, file } = await setting();
  for (const one of open.splice(0).reverse()) await one.close();
  const before = await setting(data);
  before.state.mode = 'refuses';
  await before.ahead.recordSurely(use('whole'), []);
  const whole = readFileSync(file);
  for (const one of open.splice(0).reverse()) await one.close();
  writeFileSync(file, whole);
  appendFileSync(file, '{"body":{"type":"breakgl');
  const next = await setting(data);
  assert.match(next.said.join(), /is incomplete/);
  next.state.mode = 'refuses';
  await next.ahead.recordSurely(use('after'), []);
  next.state.mode = 'up';
  await next.ahead.merge();
  assert.deepEqual(
    next.uses().map((e) => e.uid),
    ['whole', 'after'],
  );
});

test('names are put back also where the ledger never got them; evidence goes with its entry', async () => {
  const first = await setting();
  first.state.mode = 'refuses';
  const user = first.ahead.subject('ola@example.com');
  const evidence = evidenceRef([{ uid: '1', user }]);
  await first.ahead.recordSurely(use('named', user), []);
  const body = {
    type: 'admission.allowed',
    environment: 'production',
    from: 'a',
    to: 'b',
    count: 1,
    evidence: evidence.ref,
  } as const;
  await first.ahead.recordSurely(body, [evidence]);
  const left = readFileSync(first.file);
  for (const one of open.splice(0).reverse()) await one.close();
  writeFileSync(first.file, left);
  const second = await setting(first.data);
  await second.ahead.merge();
  assert.equal(second.uses()[0]?.user, 'ola@example.com');
  const [allowed] = second.ledger.read.all('admission.allowed', 'production');
  assert.deepEqual(second.ledger.read.evidence(allowed?.entry.evidence ?? assert.fail()), [
    { uid: '1', user: 'ola@example.com' },
  ]);
});

test('what the ledger will never take is refused at once; left by another version it is set aside, and holds up nobody', async () => {
  const { ahead, state, uses, file, said } = await setting();
  const unfit = { ...use('odd'), surprise: 1 } as unknown as EntryBody;
  await assert.rejects(ahead.recordSurely(unfit, []), /does not fit its schema/);
  assert.equal(ahead.waiting, 0);
  state.mode = 'refuses';
  await ahead.recordSurely(unfit, []);
  await ahead.recordSurely(use('after'), []);
  state.mode = 'up';
  await ahead.merge();
  assert.deepEqual(
    uses().map((e) => e.uid),
    ['after'],
  );
  assert.match(readFileSync(`${file}.refused`, 'utf8'), /"odd"/);
  assert.match(said.join(), /does not fit the ledger, and was moved to/);
});

test('where neither can be written, and where the ledger must not be gone on with, nothing is let through on it', async () => {
  const halted = await setting();
  halted.state.mode = 'halted';
  await assert.rejects(halted.ahead.recordSurely(use('1'), []), /forked/);
  assert.equal(halted.ahead.waiting, 0);
  const full = new WriteAhead(
    join(directory, 'no', 'such', 'directory'),
    {
      record: () => Promise.reject(new Error('away')),
      subject: (t) => t,
      latest: () => undefined,
      entry: () => undefined,
      recorded: () => 0,
    },
    { seal: { replica: 'r', keys: [new Uint8Array(32)] }, warn: () => {}, clock: () => new Date() },
  );
  await assert.rejects(full.recordSurely(use('1'), []), /cannot write the ledger or/);
});

const refusedOf = (ledger: Ledger) => ledger.read.all('record.refused', '').map(({ entry }) => entry);

/**
 * What a process that was killed while the ledger was away leaves: three uses, and a setting that begins with them
 * altered.
 */
async function left(alter: (lines: string[], file: string) => string | Promise<string>) {
  const first = await setting();
  first.state.mode = 'refuses';
  for (const uid of ['1', '2', '3']) await first.ahead.recordSurely(use(uid), []);
  const lines = readFileSync(first.file, 'utf8').trimEnd().split('\n');
  for (const one of open.splice(0).reverse()) await one.close();
  writeFileSync(first.file, await alter(lines, first.file));
  const second = await setting(first.data);
  await second.ahead.merge();
  return { ...second, lines, taken: second.uses().map((e) => e.uid), refused: refusedOf(second.ledger) };
}
const text = (lines: readonly string[]) => lines.map((line) => `${line}\n`).join('');
const change = (
  line: string | undefined,
  to: (sealed: { seq: number; line: { at: string; body: { uid: string } } }) => void,
) => {
  const sealed = JSON.parse(line ?? '');
  to(sealed);
  return JSON.stringify(sealed);
};

test('the control: what is as it was left becomes facts, and the ledger has how far it took them', async () => {
  const { taken, refused, ledger, file } = await left(text);
  assert.deepEqual([taken, refused], [['1', '2', '3'], []]);
  const merged = ledger.read.all('ahead.merged', '').map(({ entry }) => [entry.first, entry.last]);
  assert.deepEqual(merged, [[1, 3]]);
  assert.equal(readFileSync(file, 'utf8'), '');
});

test('a line that somebody put there is no fact, but on the ledger by its digest; nor is one of the form without authentication', async () => {
  const forged = JSON.stringify({ body: use('forged'), evidence: [], names: {}, at: new Date().toISOString() });
  const { taken, refused, file, ledger } = await left((lines) => text([forged, ...lines, '{"seq":4}', 'nonsense']));
  assert.deepEqual(taken, ['1', '2', '3']);
  assert.deepEqual(
    refused.map((r) => [r.source, r.count]),
    [
      ['write-ahead', 1],
      ['write-ahead', 2],
    ],
  );
  assert.match(refused[0]?.reason ?? '', /the older form, without authentication/);
  assert.match(refused[1]?.reason ?? '', /not authenticated by this service’s key/);
  assert.equal(readFileSync(`${file}.refused`, 'utf8').trimEnd().split('\n').length, 3);
  assert.equal([...ledger.read.search({ holds: [{ text: 'forged', as: 'value' }] })].length, 0);
});

test('lines that are altered, removed from the middle, moved or doubled are noticed', async () => {
  const altered = await left(([a, b, c]) =>
    text([a ?? '', change(b, (s) => Object.assign(s.line.body, { uid: 'other' })), c ?? '']),
  );
  assert.deepEqual(altered.taken, ['1', '3']);
  assert.deepEqual(altered.refused.map((r) => r.reason).sort(), [
    'it is not authenticated by this service’s key',
    'record 2 is missing from the file',
  ]);
  const removed = await left(([a, , c]) => text([a ?? '', c ?? '']));
  assert.deepEqual(
    [removed.taken, removed.refused.map((r) => r.reason)],
    [['1', '3'], ['record 2 is missing from the file']],
  );
  const begun = await left(([, , c]) => text([c ?? '']));
  assert.deepEqual(
    [begun.taken, begun.refused.map((r) => r.reason)],
    [['3'], ['records 1 to 2 are missing from the file']],
  );
  const moved = await left(([a, b, c]) => text([b ?? '', a ?? '', c ?? '']));
  assert.deepEqual(moved.taken, ['2', '3']);
  assert.ok(moved.refused.some((r) => r.reason === 'it is duplicated or out of order'));
  const doubled = await left(([a, b, c]) => text([a ?? '', a ?? '', b ?? '', c ?? '']));
  assert.deepEqual(
    [doubled.taken, doubled.refused.map((r) => r.reason)],
    [['1', '2', '3'], ['it is duplicated or out of order']],
  );
  for (const field of ['seq', 'prev', 'at'] as const) {
    const changed = await left(([a, b, c]) =>
      text([
        a ?? '',
        change(b, (s) =>
          Object.assign(field === 'at' ? s.line : s, { [field]: field === 'at' ? '2026-01-01T00:00:00.000Z' : 4 }),
        ),
        c ?? '',
      ]),
    );
    assert.deepEqual(changed.taken, ['1', '3'], field);
  }
});

test('a file that was merged before is not taken once more, nor one of another data directory', async () => {
  let older = '';
  const { data, file, lines } = await left((l) => {
    older = text(l);
    return older;
  });
  // Meanwhile more was beside the ledger and was merged.
  for (const one of open.splice(0).reverse()) await one.close();
  const between = await setting(data);
  between.state.mode = 'refuses';
  await between.ahead.recordSurely(use('4'), []);
  between.state.mode = 'up';
  await between.ahead.merge();
  for (const one of open.splice(0).reverse()) await one.close();
  writeFileSync(file, older);
  const again = await setting(data);
  await again.ahead.merge();
  assert.deepEqual(
    again.uses().map((e) => e.uid),
    ['1', '2', '3', '4'],
  );
  assert.deepEqual(
    refusedOf(again.ledger).map((r) => [r.reason, r.count]),
    [['the ledger already has it: an older file was restored', 3]],
  );
  const elsewhere = await left(() => text(lines));
  assert.deepEqual([elsewhere.taken, elsewhere.refused[0]?.count], [[], 3]);
});

test('values are looked at again: a time that cannot be, or a hold beyond what is configured, is no fact', async () => {
  const data = join(directory, `${serial++}`);
  const first = await setting(data);
  const sealed = openSeal(data, 'test', undefined, () => {});
  const { seal } = await import('../../src/ledger/write-ahead-seal.ts');
  const line = (at: string, after: number, body: EntryBody) => ({ body, evidence: [], names: {}, at, after });
  const now = new Date().toISOString();
  const late = new Date(Date.now() + 3_600_000).toISOString();
  const one = seal(sealed, 1, '', line(late, 1, use('late')));
  const two = seal(sealed, 2, one.mac, line(now, 900, use('ahead')));
  const three = seal(sealed, 3, two.mac, line('2020-01-01T00:00:00.000Z', 1, use('early')));
  const four = seal(sealed, 4, three.mac, line(now, 1, use('good')));
  const five = seal(sealed, 5, four.mac, line(new Date(Date.parse(now) - 1).toISOString(), 1, use('back')));
  const six = seal(
    sealed,
    6,
    five.mac,
    line(now, 1, { ...use('long'), until: '2126-12-25T00:00:00.000Z' } as EntryBody),
  );
  for (const it of open.splice(0).reverse()) await it.close();
  writeFileSync(first.file, text([one, two, three, four, five, six].map((s) => JSON.stringify(s))));
  const second = await setting(data, { production: 3_600_000 });
  await second.ahead.merge();
  assert.deepEqual(
    second.uses().map((e) => e.uid),
    ['good'],
  );
  const reasons = refusedOf(second.ledger)
    .map((r) => r.reason)
    .join('; ');
  for (const reason of [
    /its time is in the future/,
    /the ledger had 900 entries/,
    /earlier than the ledger’s was/,
    /earlier than that of the line before it/,
    /holdFor/,
  ])
    assert.match(reasons, reason);
  assert.match(readFileSync(`${first.file}.refused`, 'utf8'), /"long"/);
});

test('a program that signs keeps the key of the file too; one that signs differently each time is said to', async () => {
  const data = join(directory, `${serial++}`);
  await (await openLedger(data, 'test')).close();
  const program = join(directory, 'signer.ts');
  writeFileSync(
    program,
    "import { createPrivateKey, sign } from 'node:crypto'; import { readFileSync } from 'node:fs'; process.stdout.write(sign(null, readFileSync(0), createPrivateKey(readFileSync(process.argv[2], 'utf8'))));",
  );
  const key = { command: [process.execPath, program, join(data, 'ledger.key')], publicKey: join(data, 'ledger.pub') };
  const warned: string[] = [];
  const [a, b] = [
    openSeal(data, 'test', key, (m) => warned.push(m)),
    openSeal(data, 'test', undefined, (m) => warned.push(m)),
  ];
  assert.deepEqual([a.replica, a.keys, warned], [b.replica, b.keys, []], 'the same key, the same secret');
});

test('a record beside the ledger is synced to the disk before it is acknowledged', async () => {
  const { ahead, state, file } = await setting();
  const synced: string[] = [];
  const sync = mock.method(fs, 'fsyncSync', () => void synced.push(readFileSync(file, 'utf8')));
  syncBuiltinESMExports();
  try {
    state.mode = 'refuses';
    await ahead.recordSurely(use('durable'), []);
    assert.ok(
      synced.some((text) => text.includes('"durable"')),
      'the whole line was in the file when it was synced',
    );
  } finally {
    sync.mock.restore();
    syncBuiltinESMExports();
  }
});
