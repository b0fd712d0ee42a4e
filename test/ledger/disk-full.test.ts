import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type Ledger, openLedger, openSeal, placeWriteAhead, WriteAhead } from '../../src/ledger/index.ts';
import type { EntryBody } from '../../src/model/index.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, until } from '../kit/service.ts';
import { mountSmallDisk, type SmallDisk } from '../kit/small-disk.ts';

// A real disk that is full: break-glass and refusals stay recorded, and the ledger says how many are not.
after(() => {
  if (skip === false) disk.unmount(); // before its directory is removed
});
const directory = scratch();
const mounted = mountSmallDisk(join(directory, 'disk'), 12);
const skip = typeof mounted === 'string' ? mounted : false;
const disk = mounted as SmallDisk;
let serial = 0;
const [yes, no] = [() => true, () => false];

const use = (uid: string): EntryBody => ({
  type: 'breakglass.used',
  environment: 'production',
  user: 'ola',
  operation: 'UPDATE',
  object: { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'settings' },
  reason: `INC-1 ${'x'.repeat(1000)}`,
  until: '2126-01-01T01:00:00Z',
  uid,
});
const refusal = (uid: string): EntryBody => ({
  type: 'admission.denied',
  environment: 'production',
  user: 'dev',
  operation: 'UPDATE',
  object: { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'settings' },
  mode: 'enforce',
  reason: 'no commit has it',
  uid,
});

type Setting = {
  readonly data: string;
  readonly ledger: Ledger;
  readonly ahead: WriteAhead;
  readonly said: string[];
  readonly recorder: object;
  readonly options: ConstructorParameters<typeof WriteAhead>[2];
};

async function setting(elsewhere?: string, reserveBytes = 256 * 1024): Promise<Setting> {
  const data = join(disk.path, `data-${serial++}`);
  const ledger = await openLedger(data, 'countersign.dev/test', {
    holdFor: { production: Number.MAX_SAFE_INTEGER },
  });
  const said: string[] = [];
  const recorder = {
    record: (body: EntryBody, evidence: Parameters<Ledger['record']>[1]) => ledger.record(body, evidence),
    subject: (text: string) => ledger.subject(text),
    latest: ledger.read.latest.bind(ledger.read),
    entry: (index: number) => ledger.read.entry(index),
    recorded: () => ledger.size,
  };
  const warn = (message: string) => said.push(message);
  const options = {
    seal: openSeal(data, 'countersign.dev/test', undefined, warn),
    warn,
    clock: () => new Date(),
    reserveBytes,
  };
  const ahead = new WriteAhead(placeWriteAhead(data, elsewhere), recorder as never, options);
  return { data, ledger, ahead, said, recorder, options };
}

/** Records until it fails; returns how many were taken, and the failure. */
async function recordUntilFull(
  ahead: WriteAhead,
  most: number,
): Promise<{ taken: number; failure: Error | undefined }> {
  for (let taken = 0; taken < most; taken++) {
    try {
      await ahead.recordSurely(taken % 2 === 0 ? use(String(taken)) : refusal(String(taken)), []);
    } catch (thrown) {
      return { taken, failure: thrown as Error };
    }
  }
  return { taken: most, failure: undefined };
}

test('on a full disk, break-glass and refusals go into the space that was kept for them, and onto the ledger once there is room', {
  skip,
}, async () => {
  const { data, ledger, ahead, said } = await setting();
  disk.fill();
  const { taken, failure } = await recordUntilFull(ahead, 60);
  assert.deepEqual([taken, failure], [60, undefined]);
  assert.ok(ahead.waiting > 0, 'some were kept beside the ledger');
  assert.match(said.join('\n'), /is full: records go into the space that was kept for them/);
  disk.free();
  await ahead.merge();
  const uses = ledger.read.all('breakglass.used', 'production');
  assert.deepEqual(
    uses.map(({ entry }) => Number(entry.uid)).sort((a, b) => a - b),
    Array.from({ length: 30 }, (_, i) => 2 * i),
    'each is there once',
  );
  assert.equal(ledger.read.all('admission.denied', 'production').length, 30);
  assert.equal(ledger.read.all('records.missing', '').length, 0);
  assert.equal(statSync(join(data, 'write-ahead.jsonl.reserve')).size, 256 * 1024, 'the space is kept again');
  await ahead.close();
  await ledger.close();
  assert.equal((await countersign(['ledger', 'verify', '--data', data])).code, 0);
});

test('when every place is full, the request is refused with the way out, and the ledger says afterwards how many records are missing', {
  skip,
}, async () => {
  const { data, ledger, ahead } = await setting(undefined, 64 * 1024);
  disk.fill();
  const { taken, failure } = await recordUntilFull(ahead, 5000);
  assert.ok(taken > 10 && taken < 5000, String(taken));
  assert.match(
    failure?.message ?? '',
    /cannot write the ledger or .*free space on the disk of .* or give --write-ahead/,
  );
  for (const uid of ['lost-1', 'lost-2']) await assert.rejects(ahead.recordSurely(use(uid), []), { recover: 'retry' });
  await assert.rejects(ahead.record({ type: 'service.stopped', reason: 'x' }, []), 'nothing else is recorded before');
  disk.free();
  await ahead.record({ type: 'service.stopped', reason: 'x' }, []);
  const [missing, ...others] = ledger.read.all('records.missing', '');
  assert.deepEqual([missing?.entry.count, others.length], [3, 0]);
  assert.ok((missing?.entry.since ?? 'z') <= (missing?.entry.until ?? ''));
  assert.match(missing?.entry.reason ?? '', /ENOSPC/);
  assert.ok((missing?.index ?? 0) < (ledger.read.latest(['service.stopped'], '')?.index ?? 0));
  const kept =
    ledger.read.all('breakglass.used', 'production').length + ledger.read.all('admission.denied', 'production').length;
  assert.equal(kept, taken, 'what was acknowledged is there');
  await ahead.close();
  await ledger.close();
  assert.equal((await countersign(['ledger', 'verify', '--data', data])).code, 0);
});

test('refusals leave half of the space that was kept to break-glass', { skip }, async () => {
  const { data, ledger, ahead } = await setting(undefined, 128 * 1024);
  disk.fill();
  let refused = 0;
  const refuse = () => ahead.recordSurely(refusal(`r${refused}`), []);
  while (refused < 5000 && (await refuse().then(yes, no))) refused++;
  assert.ok(refused > 10 && refused < 5000, String(refused));
  assert.ok(statSync(join(data, 'write-ahead.jsonl.reserve')).size >= 64 * 1024);
  for (let i = 0; i < 20; i++) await ahead.recordSurely(use(`u${i}`), []);
  disk.free();
  await ahead.merge();
  assert.equal(ledger.read.all('breakglass.used', 'production').length, 20);
  assert.equal(ledger.read.all('admission.denied', 'production').length, refused);
  await ahead.close();
  await ledger.close();
});

test('with the file on another disk, a full data directory costs no record', { skip }, async () => {
  const elsewhere = join(directory, 'elsewhere');
  const { ledger, ahead, said } = await setting(elsewhere);
  disk.fill();
  const { taken } = await recordUntilFull(ahead, 300);
  assert.equal(taken, 300);
  assert.ok(readFileSync(join(elsewhere, 'write-ahead.jsonl'), 'utf8').length > 0);
  assert.doesNotMatch(said.join('\n'), /is full/);
  disk.free();
  await ahead.merge();
  assert.equal(ledger.read.all('breakglass.used', 'production').length, 150);
  await ahead.close();
  await ledger.close();
});

test('a disk that has no room for the reserve is reported at the start, and is not filled up by it', {
  skip,
}, async () => {
  const { ledger, ahead, said } = await setting(undefined, 64 * 1024 * 1024);
  assert.match(said.join('\n'), /has no space to keep for records/);
  assert.notEqual(await ahead.recordSurely(use('1'), []), undefined, 'the ledger has the room');
  await ahead.close();
  await ledger.close();
});

test('how many records are missing is known after the process was killed on the full disk', { skip }, async () => {
  const before = await setting(undefined, 64 * 1024);
  disk.fill();
  const { taken } = await recordUntilFull(before.ahead, 5000);
  assert.ok(taken < 5000);
  await assert.rejects(before.ahead.recordSurely(use('lost'), []));
  await new Promise((resolve) => setTimeout(resolve, 300));
  await assert.rejects(before.ahead.recordSurely(use('lost too'), []));
  disk.free();
  // The process is gone: only its files are left.
  const recorder = { ...before.recorder };
  Object.assign(before.recorder, { record: () => Promise.reject(new Error('killed')) });
  const file = join(before.data, 'write-ahead.jsonl');
  const later = new WriteAhead(file, recorder as never, before.options);
  await until(
    async () => before.ledger.read.all('records.missing', '').length > 0,
    10_000,
    () => 'the loss is forgotten',
  );
  await later.merge();
  assert.deepEqual(
    before.ledger.read.all('records.missing', '').map(({ entry }) => entry.count),
    [3],
  );
  await later.close();
  const third = new WriteAhead(file, recorder as never, before.options);
  await third.merge();
  assert.equal(before.ledger.read.all('records.missing', '').length, 1, 'it is told once');
  await third.close();
  await before.ledger.close();
});

test('an empty directory where the disk should be is not the place, and a place has one owner', () => {
  const [data, other, place] = ['mounted', 'other', 'mount'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  for (const dir of [data, other]) mkdirSync(dir);
  const file = placeWriteAhead(data, place);
  writeFileSync(file, 'waiting\n');
  assert.throws(() => placeWriteAhead(other, place), { code: 'ledger-unusable', message: /another data directory/ });
  renameSync(place, `${place}.away`); // unmounted: the mount point is there, and empty
  mkdirSync(place);
  for (const elsewhere of [place, undefined, join(directory, 'third')])
    assert.throws(() => placeWriteAhead(data, elsewhere), { message: /records may wait in/, hint: /mount that disk/ });
  rmSync(place, { recursive: true });
  renameSync(`${place}.away`, place);
  assert.equal(readFileSync(placeWriteAhead(data, place), 'utf8'), 'waiting\n');
});

test('records that wait come along when the file moves, in both directions, and are never left behind', () => {
  const data = join(directory, 'moving');
  const [one, two] = [join(directory, 'one'), join(directory, 'two')];
  const content = (file: string) => readFileSync(file, 'utf8');
  const inData = placeWriteAhead(data, undefined);
  writeFileSync(inData, 'waiting\n');
  const inOne = placeWriteAhead(data, one);
  assert.deepEqual([content(inOne), content(inData)], ['waiting\n', '']);
  const inTwo = placeWriteAhead(data, two);
  assert.deepEqual([content(inTwo), content(inOne)], ['waiting\n', '']);
  assert.equal(placeWriteAhead(data, two), inTwo);
  // a process that ended between the two steps
  writeFileSync(inData, 'waiting\n');
  assert.equal(content(placeWriteAhead(data, undefined)), 'waiting\n');
  assert.equal(content(inTwo), '');
  writeFileSync(inOne, 'older\n'); // left there by hand
  assert.throws(() => placeWriteAhead(data, one), { code: 'ledger-unusable', message: /records wait in .* and in / });
  writeFileSync(join(data, 'write-ahead.path'), join(directory, 'not-mounted'));
  assert.throws(() => placeWriteAhead(data, undefined), {
    code: 'ledger-unusable',
    message: /records may wait in .*not-mounted/,
    hint: /mount that disk/,
  });
});
