import assert from 'node:assert/strict';
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

import { join } from 'node:path';
import { test } from 'node:test';
import { localUser } from '../../src/cli/operate.ts';
import {
  AnchorKeeper,
  createKey,
  fileAnchor,
  LedgerReader,
  openLedger,
  readSigner,
  verifierText,
} from '../../src/ledger/index.ts';
import { scratch } from '../kit/scratch.ts';
import { type CliResult, countersign } from '../kit/service.ts';

// A recovery command does what helps, or refuses and says what does.
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
let serial = 0;
const body = (i: number) =>
  ({ type: 'apply.refused', environment: 'production', revision: 'r', verdict: i, error: `error ${i}` }) as const;

async function add(at: string, entries: number): Promise<void> {
  const ledger = await openLedger(at, ORIGIN);
  for (let i = 0; i < entries; i++) await ledger.record(body(i));
  await ledger.close();
}

/** A start of the service as far as anchors go: the check of the anchor, and what it leaves in the data directory. */
async function start(at: string, anchor: string): Promise<void> {
  const ledger = await openLedger(at, ORIGIN);
  const keeper = new AnchorKeeper({
    ledger,
    keyText: readFileSync(join(at, 'ledger.pub'), 'utf8'),
    anchors: [fileAnchor(anchor)],
    clock: () => new Date(),
    warn: () => {},
    onConflict: (note) => writeFileSync(join(at, 'newer-checkpoint'), note),
  });
  try {
    await keeper.check();
    await ledger.record(body(1));
    await keeper.keep();
  } finally {
    await ledger.close();
  }
}

/** A data directory of 4 entries, restored from a backup, and an anchor elsewhere that knows of 9. */
async function restored(): Promise<{ readonly at: string; readonly anchor: string; readonly lost: string }> {
  const at = join(directory, `restored-${serial}`);
  const newer = join(directory, `newer-${serial}`);
  const anchor = join(directory, `anchor-${serial++}`);
  await add(at, 3);
  cpSync(at, newer, { recursive: true });
  await add(newer, 5);
  cpSync(join(newer, 'checkpoint'), anchor);
  await assert.rejects(start(at, anchor), { code: 'ledger-inconsistent', message: /rolled back/, hint: /new-epoch/ });
  return { at, anchor, lost: readFileSync(anchor, 'utf8') };
}

const newEpoch = (at: string, ...more: string[]): Promise<CliResult> =>
  countersign(['ledger', 'new-epoch', '--reason', 'disk lost', '--data', at, ...more]);

async function verified(at: string, ...more: string[]): Promise<void> {
  const { code, stdout, stderr } = await countersign(['ledger', 'verify', '--data', at, ...more]);
  assert.equal(code, 0, stdout + stderr);
}

test('a new epoch takes the checkpoint that an anchor left, and the service goes on with that anchor', async () => {
  const { at, anchor, lost } = await restored();
  const { code, stdout, stderr } = await newEpoch(at);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /entry 4 opens countersign\.dev\/test\/epoch-2/);
  assert.match(stdout, /5 entries of countersign\.dev\/test are lost/);
  await start(at, anchor);
  const file = join(directory, `lost-${serial++}`);
  writeFileSync(file, lost);
  await verified(at, '--checkpoint', file);
});

test('an epoch that was opened without the anchor’s checkpoint is no dead end: the next one names it, however much came after', async () => {
  for (const entries of [0, 1, 12]) {
    const { at, anchor, lost } = await restored();
    // as an older version did: the loss is not named
    writeFileSync(join(at, 'newer-checkpoint'), '');
    assert.equal((await newEpoch(at, '--without-checkpoint', '1')).code, 0);
    await add(at, entries);
    await assert.rejects(start(at, anchor), { code: 'ledger-inconsistent', hint: /new-epoch/ });
    const { code, stdout, stderr } = await newEpoch(at);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /epoch-3/);
    await start(at, anchor);
    const file = join(directory, `lost-${serial++}`);
    writeFileSync(file, lost);
    await verified(at, '--checkpoint', file);
    assert.match((await newEpoch(at)).stderr, /nothing is lost/);
  }
});

test('entries lost under two names take two epochs, opened by one command', async () => {
  const { at, anchor } = await restored();
  writeFileSync(join(at, 'newer-checkpoint'), '');
  assert.equal((await newEpoch(at, '--without-checkpoint', '1')).code, 0);
  await add(at, 2);
  const [backup, second] = [join(directory, `backup-${serial}`), join(directory, `second-${serial++}`)];
  cpSync(at, backup, { recursive: true });
  await add(at, 5);
  cpSync(join(at, 'checkpoint'), second);
  const { code, stdout, stderr } = await newEpoch(backup, '--checkpoint', anchor, second);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /opens countersign\.dev\/test\/epoch-3;.*opens countersign\.dev\/test\/epoch-4;/s);
  await start(backup, anchor);
  await start(backup, second);
  await verified(backup, '--checkpoint', second);
});

test('where nothing is lost, a new epoch is refused, and nothing changes', async () => {
  const at = join(directory, `whole-${serial++}`);
  await add(at, 3);
  const before = readFileSync(join(at, 'ledger.pub'), 'utf8');
  for (const more of [[], ['--checkpoint', join(at, 'checkpoint')]]) {
    const { code, stderr } = await newEpoch(at, ...more);
    assert.equal(code, 2);
    assert.match(stderr, /nothing is lost: the store holds all 4 entries/);
    assert.match(stderr, /--without-checkpoint/);
  }
  assert.equal(readFileSync(join(at, 'ledger.pub'), 'utf8'), before);
  await add(at, 1);
  await verified(at);
});

test('a checkpoint of a different history or of a different ledger is refused, since no epoch makes it fit', async () => {
  const at = join(directory, `forked-${serial}`);
  const other = join(directory, `fork-${serial}`);
  const foreign = join(directory, `foreign-${serial++}`);
  await add(at, 2);
  cpSync(at, other, { recursive: true });
  await add(other, 2);
  await add(at, 5);
  await add(foreign, 9);
  const before = readFileSync(join(at, 'ledger.pub'), 'utf8');
  const fork = await newEpoch(at, '--checkpoint', join(other, 'checkpoint'));
  assert.deepEqual([fork.code, /of a different history/.test(fork.stderr)], [2, true], fork.stderr);
  assert.match(fork.stderr, /verify --against/);
  const stranger = await newEpoch(at, '--checkpoint', join(foreign, 'checkpoint'));
  assert.deepEqual([stranger.code, /not signed by this ledger’s key/.test(stranger.stderr)], [2, true]);
  assert.equal(readFileSync(join(at, 'ledger.pub'), 'utf8'), before);
  await verified(at);
});

test('a new epoch that ended before it was recorded changes nothing: the ledger goes on under its name, and the next try opens it', async () => {
  const { at, anchor } = await restored();
  // the key of the epoch is known first
  const signer = readSigner(`${ORIGIN}/epoch-2`, readFileSync(join(at, 'ledger.key'), 'utf8'));
  const file = join(at, 'ledger.pub');
  writeFileSync(file, `${verifierText(signer)}\n${readFileSync(file, 'utf8')}`);
  await assert.rejects(start(at, anchor), { code: 'ledger-inconsistent', message: /rolled back/ });
  const { code, stdout, stderr } = await newEpoch(at);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /opens countersign\.dev\/test\/epoch-2/);
  await start(at, anchor);
  await verified(at);
});

test('a key that is not in the data directory is not rotated there, and the command says how it is', async () => {
  const at = join(directory, `elsewhere-${serial++}`);
  const key = `${at}.pem`;
  writeFileSync(key, createKey());
  const ledger = await openLedger(at, ORIGIN, { key: { files: [key] } });
  await ledger.close();
  const { code, stderr } = await countersign(['ledger', 'rotate-key', '--data', at]);
  assert.equal(code, 2);
  assert.match(stderr, /the ledger’s key is not in/);
  assert.match(stderr, /--ledger-key NEW OLD/);
});

test('a rotation that ended between two of its steps is finished by the same command, and keeps a key at every step', async () => {
  const rotate = (at: string, ...more: string[]) => countersign(['ledger', 'rotate-key', '--data', at, ...more]);
  const steps: Record<string, (at: string) => void> = {
    'a new key is written': (at) => writeFileSync(join(at, 'ledger.key.new'), createKey()),
    'the old key is kept': (at) => cpSync(join(at, 'ledger.key'), join(at, 'ledger.key.old')),
  };
  for (const [step, leave] of Object.entries(steps)) {
    const at = join(directory, `rotated-${serial++}`);
    await add(at, 2);
    const before = readFileSync(join(at, 'ledger.pub'), 'utf8').split('\n')[0];
    leave(at);
    await add(at, 1);
    assert.match((await rotate(at, '--drop-old')).stderr, /there is no old key to drop/, step);
    const { code, stderr } = await rotate(at);
    assert.equal(code, 0, `${step}: ${stderr}`);
    assert.notEqual(readFileSync(join(at, 'ledger.pub'), 'utf8').split('\n')[0], before);
    assert.equal((await rotate(at, '--drop-old')).code, 0, step);
    await add(at, 1);
    await verified(at);
  }
  const at = join(directory, `dropped-${serial++}`);
  await add(at, 2);
  assert.equal((await rotate(at)).code, 0);
  cpSync(join(at, 'ledger.key.old'), join(at, 'ledger.key.old.dropped'));
  await add(at, 1);
  assert.equal((await rotate(at, '--drop-old')).code, 0, 'the key was put aside, and its end was not recorded');
  await verified(at);
});

test('once an epoch names the lost entries, the checkpoint over them is in no one’s way', async () => {
  const { at, lost } = await restored();
  assert.equal((await newEpoch(at)).code, 0);
  assert.equal(existsSync(join(at, 'newer-checkpoint')), false);
  writeFileSync(join(at, 'newer-checkpoint'), lost); // as an older version left it
  const exported = join(directory, `export-${serial++}`);
  assert.equal((await countersign(['ledger', 'export', exported, '--data', at])).code, 0);
  const key = ['--key', join(at, 'ledger.pub')];
  const { code, stderr } = await countersign(['ledger', 'import', exported, '--data', at, ...key, '--replace']);
  assert.equal(code, 0, stderr);
});

test('verify reads the checkpoint that an anchor left: a rollback is not called consistent', async () => {
  const { at } = await restored();
  const { code, stdout } = await countersign(['ledger', 'verify', '--data', at]);
  assert.deepEqual([code, /a checkpoint over 9 entries was signed/.test(stdout)], [1, true], stdout);
  assert.equal((await newEpoch(at)).code, 0);
  await verified(at);
});

test('who checks with the key line from before an epoch is told to get the new one, which the command prints', async () => {
  const { at } = await restored();
  const old = join(directory, `old-${serial++}.pub`);
  cpSync(join(at, 'ledger.pub'), old);
  const { stdout } = await newEpoch(at);
  const [line = ''] = readFileSync(join(at, 'ledger.pub'), 'utf8').split('\n');
  assert.ok(stdout.includes(`give its new key line to everyone who checks this ledger:\n${line}\n`), stdout);
  const checked = await countersign(['ledger', 'verify', '--data', at, '--key', old]);
  assert.equal(checked.code, 1);
  assert.match(checked.stdout, /not signed by this key, but by the same key under the name `\S+epoch-2`/);
});

test('an epoch that names the loss of an older name says how many entries of that name are lost', async () => {
  const { at, anchor } = await restored();
  rmSync(join(at, 'newer-checkpoint'));
  assert.equal((await newEpoch(at, '--without-checkpoint', '5')).code, 0);
  await add(at, 12);
  const { code, stdout, stderr } = await newEpoch(at, '--checkpoint', anchor);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /5 entries of countersign\.dev\/test are lost/);
});

test('an epoch without a checkpoint needs a number of lost entries, and says who claimed it', async () => {
  const { at } = await restored();
  rmSync(join(at, 'newer-checkpoint'));
  for (const count of ['0', 'some', '-1', '1.5']) {
    const { code, stderr } = await newEpoch(at, `--without-checkpoint=${count}`);
    assert.deepEqual([code, /is not a number of lost entries/.test(stderr)], [2, true], stderr);
  }
  assert.equal((await newEpoch(at, '--without-checkpoint', '5')).code, 0);
  const reader = new LedgerReader(join(at, 'ledger.db'));
  const entry = reader.latest(['epoch.opened'], '')?.entry;
  const [stored] = reader.stored(4, 5);
  reader.close();
  assert.deepEqual([entry?.claimedLost, entry?.claimedBy], [5, localUser()]);
  assert.match(stored?.body ?? '', /"claimedBy":"subject:[0-9a-f]{64}"/, 'a name that can be erased');
  await verified(at);
});
