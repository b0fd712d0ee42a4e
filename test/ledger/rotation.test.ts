import assert from 'node:assert/strict';
import fs, { copyFileSync, cpSync, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { before, mock, test } from 'node:test';
import { signCheckpoint } from '../../src/ledger/checkpoint.ts';
import { createKey, LedgerReader, openEpoch, openLedger, readSigner, rotateKey } from '../../src/ledger/index.ts';
import { replaceFile } from '../../src/ledger/replace-file.ts';
import { prepare } from '../../src/ledger/sequencer.ts';
import { SqliteStore } from '../../src/ledger/sqlite-store.ts';
import { TreeWriter } from '../../src/ledger/tiles.ts';
import { scratch } from '../kit/scratch.ts';
import { type CliResult, countersign } from '../kit/service.ts';

// A change of the key that ended between any two of its steps is finished or undone by the same command.
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
const whole = join(directory, 'whole');
const rotated = join(directory, 'rotated');
let serial = 0;

async function add(at: string, entries = 1): Promise<void> {
  const ledger = await openLedger(at, ORIGIN);
  for (let i = 0; i < entries; i++) await ledger.record({ type: 'service.stopped', reason: String(i) });
  await ledger.close();
}

before(async () => {
  await add(whole, 2);
  cpSync(whole, rotated, { recursive: true });
  await rotateKey(rotated, false);
});

function copyOf(of: string): string {
  const at = join(directory, `copy-${serial++}`);
  cpSync(of, at, { recursive: true });
  return at;
}

const rotate = (at: string, ...more: string[]): Promise<CliResult> =>
  countersign(['ledger', 'rotate-key', '--data', at, ...more]);

async function succeeds(asked: Promise<CliResult>, step: string): Promise<void> {
  const { code, stdout, stderr } = await asked;
  assert.equal(code, 0, `${step}: ${stdout}${stderr}`);
}

function typesIn(at: string): string[] {
  const reader = new LedgerReader(join(at, 'ledger.db'));
  const types = [...reader.stored()].map((s) => s.type).filter((type) => type.startsWith('key.'));
  reader.close();
  return types;
}

/** Puts the files where a process leaves them that is killed after a step. */
const added: Record<string, (at: string) => void> = {
  'a new key is written': (at) => writeFileSync(join(at, 'ledger.key.new'), createKey()),
  'the copy of the old key is begun': (at) => writeFileSync(join(at, 'ledger.key.old.new'), ''),
  'an older version began to copy the old key': (at) => writeFileSync(join(at, 'ledger.key.old'), ''),
  'an older version copied half of the old key': (at) =>
    writeFileSync(join(at, 'ledger.key.old'), readFileSync(join(at, 'ledger.key')).subarray(0, 60)),
  'the old key is kept': (at) => copyFileSync(join(at, 'ledger.key'), join(at, 'ledger.key.old')),
  'the new key is in place': (at) => {
    copyFileSync(join(at, 'ledger.key'), join(at, 'ledger.key.old'));
    writeFileSync(join(at, 'ledger.key'), createKey());
  },
};

for (const [step, leave] of Object.entries(added))
  test(`a rotation that ends after “${step}” is finished by the same command, and the service starts in between`, async () => {
    for (const isStarted of [false, true]) {
      const at = copyOf(whole);
      leave(at);
      if (isStarted) await add(at);
      const { code, stderr } = await rotate(at);
      // A start finishes it, if the new key was in place: then the old one still signs.
      if (code !== 0) assert.match(stderr, /an older key still signs/, step);
      assert.deepEqual(typesIn(at), ['key.rotated'], step);
      await succeeds(rotate(at, '--drop-old'), step);
      await add(at);
      assert.deepEqual(typesIn(at), ['key.rotated', 'key.retired'], step);
      await succeeds(countersign(['ledger', 'verify', '--data', at]), step);
      for (const left of ['ledger.key.new', 'ledger.key.old', 'ledger.key.old.dropped'])
        assert.equal(existsSync(join(at, left)), false, `${step}: ${left}`);
    }
  });

const dropped: Record<string, (at: string) => void> = {
  'the old key is put aside': (at) => renameSync(join(at, 'ledger.key.old'), join(at, 'ledger.key.old.dropped')),
  'the old key is gone': (at) => rmSync(join(at, 'ledger.key.old')),
  'the old key cannot be read': (at) => writeFileSync(join(at, 'ledger.key.old'), ''),
};

for (const [step, leave] of Object.entries(dropped))
  test(`--drop-old that ends after “${step}” is finished by the same command, and the ledger says that the key is retired`, async () => {
    const at = copyOf(rotated);
    leave(at);
    await succeeds(rotate(at, '--drop-old'), step);
    assert.deepEqual(typesIn(at), ['key.rotated', 'key.retired'], step);
    assert.equal(existsSync(join(at, 'ledger.key.old.dropped')), false, 'the private key is removed');
    assert.match((await rotate(at, '--drop-old')).stderr, /there is no old key to drop/);
    await succeeds(countersign(['ledger', 'verify', '--data', at]), step);
  });

test('a key that was put aside is removed by the next start, which records its end', async () => {
  const at = copyOf(rotated);
  renameSync(join(at, 'ledger.key.old'), join(at, 'ledger.key.old.dropped'));
  await add(at);
  assert.deepEqual(typesIn(at), ['key.rotated', 'key.retired']);
  assert.equal(existsSync(join(at, 'ledger.key.old.dropped')), false);
});

test('--drop-old does not drop the only key that signed: it says how to finish the rotation first', async () => {
  const at = copyOf(whole);
  added['the new key is in place']?.(at);
  const { code, stderr } = await rotate(at, '--drop-old');
  assert.equal(code, 2);
  assert.match(stderr, /a rotation was interrupted.*\n.*countersign ledger rotate-key/);
  await succeeds(rotate(at), 'finish');
});

test('a key file that is needed and cannot be read is named', async () => {
  const at = copyOf(whole);
  writeFileSync(join(at, 'ledger.key.old'), '');
  writeFileSync(join(at, 'ledger.key'), createKey());
  const { code, stderr } = await rotate(at);
  assert.equal(code, 2);
  assert.match(stderr, /ledger\.key\.old` holds no Ed25519 private key in PEM\n.*backup/);
});

test('a file is synced before it gets its name, and its directory afterwards', () => {
  const steps: string[] = [];
  const opened = new Map<number, string>();
  const openSync = fs.openSync.bind(fs);
  mock.method(fs, 'openSync', (...args: Parameters<typeof fs.openSync>) => {
    const descriptor = openSync(...args);
    opened.set(descriptor, String(args[0]));
    return descriptor;
  });
  mock.method(fs, 'fsyncSync', (descriptor: number) => steps.push(`sync ${opened.get(descriptor)}`));
  const renameSyncOf = fs.renameSync.bind(fs);
  mock.method(fs, 'renameSync', (from: string, to: string) => {
    steps.push(`rename ${to}`);
    renameSyncOf(from, to);
  });
  syncBuiltinESMExports();
  const at = join(directory, 'synced');
  try {
    replaceFile(at, 'x');
  } finally {
    mock.restoreAll();
    syncBuiltinESMExports();
  }
  assert.deepEqual(steps, [`sync ${at}.new`, `rename ${at}`, `sync ${directory}`]);
});

test('a retired key does not count under any name of the ledger, whenever an epoch was opened', async () => {
  for (const order of [
    ['add', 'drop'],
    ['add', 'epoch', 'drop'],
    ['add', 'epoch', 'start', 'drop'],
    ['add', 'drop', 'epoch'],
    ['epoch', 'add', 'drop', 'epoch'],
  ]) {
    const at = copyOf(whole);
    const stolen = readFileSync(join(at, 'ledger.key'), 'utf8');
    for (const what of order)
      if (what === 'epoch') await openEpoch(at, { reason: 'lost', withoutCheckpoint: 1 });
      else if (what === 'start') await add(at);
      else await rotateKey(at, what === 'drop');
    await add(at, 2);
    assert.deepEqual(typesIn(at), ['key.rotated', 'key.retired'], order.join());
    await forge(at, stolen);
    const { code, stdout } = await countersign(['ledger', 'verify', '--data', at]);
    assert.deepEqual(
      [code, /only a key that had been retired|is not signed by this key/.test(stdout)],
      [1, true],
      `${order.join()}: ${stdout}`,
    );
  }
});

test('an epoch that is opened between the two commands retires no key that still signs', async () => {
  const at = copyOf(rotated);
  await openEpoch(at, { reason: 'lost', withoutCheckpoint: 1 });
  await add(at, 1);
  assert.deepEqual(typesIn(at), ['key.rotated']);
  await succeeds(rotate(at, '--drop-old'), 'drop');
  assert.deepEqual(typesIn(at), ['key.rotated', 'key.retired']);
});

/** Appends an entry under a checkpoint that only this key signs. */
async function forge(at: string, pem: string): Promise<void> {
  const reader = new LedgerReader(join(at, 'ledger.db'));
  const tree = new TreeWriter();
  for (const { leaf } of reader.stored()) tree.append(leaf);
  const [name = ''] = (reader.latestCheckpoint() ?? '').split('\n');
  const time = reader.entry(tree.size - 1)?.entry.time ?? '';
  reader.close();
  const first = tree.size;
  const forged = prepare({ v: 1, time, type: 'service.stopped', reason: 'forged' });
  tree.append(forged.leaf);
  const store = new SqliteStore(join(at, 'ledger.db'));
  const note = signCheckpoint(tree.size, tree.root(), readSigner(name, pem));
  await store.add({ first, entries: [forged], evidence: [], subjects: [], tiles: [] }, [{ size: tree.size, note }]);
  await store.close();
}
