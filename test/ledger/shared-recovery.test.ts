import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { signCheckpoint } from '../../src/ledger/checkpoint.ts';
import { createKey, type Ledger, openLedger, readSigner } from '../../src/ledger/index.ts';
import { prepare } from '../../src/ledger/sequencer.ts';
import { TreeWriter } from '../../src/ledger/tiles.ts';
import type { Entry } from '../../src/model/index.ts';
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

test('a replica with the new key is enrolled by a leader that knows only the old one', { skip }, async () => {
  const { url } = await postgres.ledger();
  const open = (name: string, ...files: string[]): Promise<Ledger> =>
    openLedger(join(directory, `late-${name}`), ORIGIN, { postgres: url, key: { files } });
  const old = await open('old', one);
  await old.record(body('old'));
  const renewed = await open('renewed', two, one);
  assert.equal(renewed.sharing?.sequencer, old.sharing?.replica);
  await renewed.record(body('renewed'));
  await renewed.close();
  await old.close();
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

/** Puts the database back to an older state, as a backup would. */
async function restore(owner: string, note: string): Promise<void> {
  const size = Number(note.split('\n')[1]);
  await postgres.ask(
    owner,
    `SET search_path TO countersign; ALTER TABLE entry DISABLE TRIGGER ALL; DELETE FROM entry WHERE seq >= ${size}; ALTER TABLE entry ENABLE TRIGGER ALL;
     DELETE FROM checkpoint; INSERT INTO checkpoint VALUES (${size}, '${note.replaceAll("'", "''")}')`,
  );
}

for (const leader of ['the one that opened it', 'one that knows less', 'one that knows more', 'a new one'] as const)
  test(`after a new epoch, every replica works, whatever its copy had; ${leader} begins`, { skip }, async () => {
    const at = await postgres.ledger();
    const dir = join(directory, `epoch-${leader.replaceAll(' ', '-')}`);
    const open = (name: string): Promise<Ledger> =>
      openLedger(join(dir, name), ORIGIN, { postgres: at.url, key: { files: [one] } });
    const less = await open('less');
    await less.record(body('1'));
    await less.close();
    const more = await open('more');
    await more.record(body('2'));
    const note = more.read.latestCheckpoint() ?? '';
    const same = await open('same');
    await same.close();
    for (let i = 0; i < 3; i++) await more.record(body(`lost ${i}`));
    await more.close();
    const opener = await open('opener'); // it knows the loss too
    await opener.close();
    await restore(at.owner, note);
    const { code, stderr } = await countersign([
      ...['ledger', 'new-epoch', '--reason', 'restored', '--data', join(dir, 'opener')],
      ...['--ledger', at.url, '--ledger-key', one],
    ]);
    assert.equal(code, 0, stderr);
    const names = { 'the one that opened it': 'opener', 'one that knows less': 'less', 'one that knows more': 'more' };
    const first = leader === 'a new one' ? 'new' : names[leader];
    const order = [first, ...['opener', 'less', 'same', 'more', 'new'].filter((name) => name !== first)];
    const running: Ledger[] = [];
    for (const name of order) running.push(await open(name));
    for (const [i, ledger] of running.entries()) await ledger.record(body(`after ${order[i]}`));
    for (const ledger of running.reverse()) await ledger.close();
    assert.ok(existsSync(join(dir, 'more', 'ledger.db.before')), 'the copy with lost entries is kept');
    for (const name of order) {
      const verified = await countersign(['ledger', 'verify', '--data', join(dir, name)]);
      assert.equal(verified.code, 0, `${name}: ${verified.stdout}${verified.stderr}`);
      const ledger = await open(name); // once more, by what it knows now
      assert.equal(ledger.read.all('epoch.opened', '').length, 1);
      await ledger.close();
    }
  });

test('a replica whose entries no epoch records as lost does not give them up', { skip }, async () => {
  const at = await postgres.ledger();
  const dir = join(directory, 'more-lost');
  const open = (name: string): Promise<Ledger> =>
    openLedger(join(dir, name), ORIGIN, { postgres: at.url, key: { files: [one] } });
  const a = await open('a');
  await a.record(body('1'));
  const note = a.read.latestCheckpoint() ?? '';
  await a.record(body('lost'));
  await a.close();
  const b = await open('b');
  await b.record(body('lost, and only b knows it'));
  await b.close();
  await restore(at.owner, note);
  const epoch = (name: string) =>
    countersign([
      ...['ledger', 'new-epoch', '--reason', 'restored', '--data', join(dir, name)],
      ...['--ledger', at.url, '--ledger-key', one],
    ]);
  assert.equal((await epoch('a')).code, 0);
  await assert.rejects(open('b'), { code: 'ledger-inconsistent', recover: 'halt', hint: /new-epoch/ });
  assert.ok(existsSync(join(dir, 'b', 'ledger.db.before')));
  const again = await epoch('b');
  assert.equal(again.code, 0, again.stderr);
  for (const name of ['b', 'a', 'new']) {
    const ledger = await open(name);
    await ledger.record(body(name));
    await ledger.close();
  }
});

test('what only a retired key signed is not taken by any replica, and nothing is signed over it', {
  skip,
}, async () => {
  const { url, owner } = await postgres.ledger();
  const open = (name: string, ...files: string[]): Promise<Ledger> =>
    openLedger(join(directory, `stolen-${name}`), ORIGIN, { postgres: url, key: { files } });
  for (const files of [[one], [two, one]]) await (await open('a', ...files)).close();
  const [a, b] = [await open('a', two), await open('b', two)];
  await b.record(body('b'));
  assert.equal(a.read.all('key.retired', '').length, 1);
  const forged = prepare({
    ...{ v: 1, time: new Date().toISOString(), type: 'breakglass.settled', environment: 'production', uses: [] },
    ...{ user: 'lee', reason: 'forged' },
  } as unknown as Entry);
  const leaves = await postgres.ask(owner, 'SELECT leaf FROM countersign.entry ORDER BY seq');
  const tree = new TreeWriter();
  for (const { leaf } of leaves) tree.append(leaf as Buffer);
  const at = tree.size;
  tree.append(forged.leaf);
  const note = signCheckpoint(tree.size, tree.root(), readSigner(ORIGIN, readFileSync(one, 'utf8')));
  await postgres.ask(
    owner,
    `INSERT INTO countersign.entry (seq, leaf, body, type, environment) VALUES (${at}, decode('${Buffer.from(forged.leaf).toString('hex')}', 'hex'),
     '${forged.body.replaceAll("'", "''")}', '${forged.type}', 'production'); INSERT INTO countersign.checkpoint VALUES (${tree.size}, '${note}')`,
  );
  await new Promise((resolve) => setTimeout(resolve, 1500));
  await assert.rejects(a.record(body('after')), { code: 'ledger-unusable', message: /did not sign is there/ });
  for (const ledger of [a, b]) assert.equal(ledger.read.all('breakglass.settled', 'production').length, 0);
  await postgres.ask(
    owner,
    `ALTER TABLE countersign.entry DISABLE TRIGGER ALL; DELETE FROM countersign.entry WHERE seq = ${at}; ALTER TABLE countersign.entry ENABLE TRIGGER ALL`,
  );
  for (const ledger of [a, b]) await ledger.record(body('goes on'));
  await a.close();
  await b.close();
  assert.equal((await countersign(['ledger', 'verify', '--data', join(directory, 'stolen-a')])).code, 0);
});
