import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import { evidenceRef, type Ledger, openLedger, WriteAhead } from '../../src/ledger/index.ts';
import { CountersignError, type EntryBody } from '../../src/model/index.ts';
import { scratch } from '../kit/scratch.ts';

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

/** A ledger that can be away (`refuses`), or silent until it is let go. */
async function setting(data = join(directory, `${serial++}`)) {
  const ledger: Ledger = await openLedger(data, 'test');
  open.push(ledger);
  const state = { mode: 'up' as 'up' | 'refuses' | 'silent' | 'halted', go: () => {} };
  const said: string[] = [];
  const ahead = new WriteAhead(
    join(data, 'write-ahead.jsonl'),
    {
      record: async (body, evidence) => {
        if (state.mode === 'refuses') throw new CountersignError('ledger-unusable', 'away', { recover: 'retry' });
        if (state.mode === 'halted') throw new CountersignError('ledger-inconsistent', 'forked', { recover: 'halt' });
        if (state.mode === 'silent')
          await new Promise<void>((done) => {
            state.go = done;
          });
        return ledger.record(body, evidence);
      },
      subject: (text) => ledger.subject(text),
      latest: (types, environment, before) => ledger.read.latest(types, environment, before),
    },
    { warn: (message) => said.push(message), clock: () => new Date(), patience: 100 },
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
  await assert.rejects(ahead.record({ type: 'environment.resumed', environment: 'production', user: 'x', reason: 'y' }, []), /away/);
  state.mode = 'up';
  const { index } = await ahead.record({ type: 'environment.resumed', environment: 'production', user: 'x', reason: 'y' }, []);
  assert.deepEqual(
    uses().map((e) => [e.uid, typeof e.at]),
    ['1', '2', '3'].map((uid) => [uid, 'string']),
  );
  assert.ok((ledger.read.latest(['breakglass.used'], 'production')?.index ?? index) < index);
  assert.equal(readFileSync(file, 'utf8'), '');
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
  assert.match(next.said.join(), /not whole/);
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
  const body = { type: 'admission.allowed', environment: 'production', from: 'a', to: 'b', count: 1, evidence: evidence.ref } as const;
  await first.ahead.recordSurely(body, [evidence]);
  const left = readFileSync(first.file);
  for (const one of open.splice(0).reverse()) await one.close();
  writeFileSync(first.file, left);
  const second = await setting(first.data);
  await second.ahead.merge();
  assert.equal(second.uses()[0]?.user, 'ola@example.com');
  const [allowed] = second.ledger.read.all('admission.allowed', 'production');
  assert.deepEqual(second.ledger.read.evidence(allowed?.entry.evidence ?? assert.fail()), [{ uid: '1', user: 'ola@example.com' }]);
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
  assert.match(said.join(), /does not fit it, and lies in/);
});

test('where neither can be written, and where the ledger must not be gone on with, nothing is let through on it', async () => {
  const halted = await setting();
  halted.state.mode = 'halted';
  await assert.rejects(halted.ahead.recordSurely(use('1'), []), /forked/);
  assert.equal(halted.ahead.waiting, 0);
  const full = new WriteAhead(
    join(directory, 'no', 'such', 'directory'),
    { record: () => Promise.reject(new Error('away')), subject: (t) => t, latest: () => undefined },
    { warn: () => {}, clock: () => new Date() },
  );
  await assert.rejects(full.recordSurely(use('1'), []), /neither the ledger nor/);
});
