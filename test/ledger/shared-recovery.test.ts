import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createKey, type Ledger, openLedger } from '../../src/ledger/index.ts';
import { without } from '../kit/machine.ts';
import { Postgres } from '../kit/postgres.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// Replicas on one PostgreSQL: keys change while they run, one after the other.
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
const skip = without('PostgreSQL');
const [one, two] = [join(directory, 'one.pem'), join(directory, 'two.pem')];
let postgres: Postgres;
before(async () => {
  for (const file of [one, two]) writeFileSync(file, createKey());
  if (skip === false) postgres = await Postgres.start();
});
after(() => (skip === false ? postgres.stop() : undefined));

const body = (reason: string) => ({ type: 'service.stopped', reason }) as const;

test('replicas change their key one after the other while the others run, and each entry is taken', {
  skip,
}, async () => {
  const { url } = await postgres.ledger();
  const open = (name: string, ...files: string[]): Promise<Ledger> =>
    openLedger(join(directory, name), ORIGIN, { postgres: url, key: { files } });
  let [a, b] = [await open('a', one), await open('b', one)];
  await a.record(body('a1'));
  await b.record(body('b1'));
  for (const files of [[two, one], [two]]) {
    await a.close();
    a = await open('a', ...files);
    await Promise.all([a.record(body(`a ${files.length}`)), b.record(body(`b ${files.length}`))]);
    await b.close();
    b = await open('b', ...files);
    await Promise.all([a.record(body(`a ${files.length}`)), b.record(body(`b ${files.length}`))]);
  }
  const reasons = [...b.read.search({ types: ['service.stopped'] })].map(({ entry }) => entry.type);
  assert.equal(reasons.length, 10);
  assert.ok(b.read.all('key.rotated', '').length >= 1);
  assert.equal(b.read.all('key.retired', '').length, 1);
  await a.close();
  await b.close();
  for (const name of ['a', 'b']) {
    const { code, stdout } = await countersign(['ledger', 'verify', '--data', join(directory, name)]);
    assert.equal(code, 0, stdout);
  }
  const refused = await countersign(['ledger', 'rotate-key', '--data', join(directory, 'a')]);
  assert.deepEqual([refused.code, /--ledger-key NEW OLD/.test(refused.stderr)], [2, true], refused.stderr);
});

test('a database that was restored takes a new epoch with what a replica knows, and refuses where nothing is lost', {
  skip,
}, async () => {
  const at = await postgres.ledger();
  const data = join(directory, 'restored');
  const open = (): Promise<Ledger> => openLedger(data, ORIGIN, { postgres: at.url, key: { files: [one] } });
  const first = await open();
  for (let i = 0; i < 3; i++) await first.record(body(String(i)));
  const note = first.read.latestCheckpoint() ?? '';
  await first.close();
  const second = await open();
  for (let i = 0; i < 5; i++) await second.record(body(`lost ${i}`));
  await second.close();
  const epoch = (...more: string[]) =>
    countersign([
      ...['ledger', 'new-epoch', '--reason', 'restored', '--data', data],
      ...['--ledger', at.url, '--ledger-key', one, ...more],
    ]);
  const refused = await epoch();
  assert.deepEqual([refused.code, /nothing is lost/.test(refused.stderr)], [2, true], refused.stderr);
  const size = Number(note.split('\n')[1]);
  await postgres.ask(
    at.owner,
    `SET search_path TO countersign; ALTER TABLE entry DISABLE TRIGGER ALL; DELETE FROM entry WHERE seq >= ${size}; ALTER TABLE entry ENABLE TRIGGER ALL;
     DELETE FROM checkpoint; INSERT INTO checkpoint VALUES (${size}, '${note.replaceAll("'", "''")}')`,
  );
  await assert.rejects(open(), { code: 'ledger-inconsistent', message: /rolled back/, hint: /new-epoch/ });
  const opened = await epoch();
  assert.equal(opened.code, 0, opened.stderr);
  assert.match(opened.stdout, /5 entries of countersign\.dev\/test are lost/);
  const third = await open();
  await third.record(body('goes on'));
  await third.close();
  const verified = await countersign(['ledger', 'verify', '--data', data]);
  assert.equal(verified.code, 0, verified.stdout);
});
