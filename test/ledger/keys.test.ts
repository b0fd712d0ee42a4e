import assert from 'node:assert/strict';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import {
  createKey,
  LedgerReader,
  leafHash,
  openLedger,
  parseVerifier,
  parseVerifiers,
  readSigner,
  signCheckpoint,
  verifierText,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { Sequencer } from '../../src/ledger/sequencer.ts';
import { SqliteStore } from '../../src/ledger/sqlite-store.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

const directory = scratch();
const ORIGIN = 'countersign.dev/test';
let n = 0;
const place = () => join(directory, String(n++));
const body = (i: number) =>
  ({ type: 'apply.refused', environment: 'production', revision: 'r', verdict: i, error: `error ${i}` }) as const;

async function filled(at = place(), entries = 3): Promise<string> {
  const ledger = await openLedger(at, ORIGIN);
  for (let i = 0; i < entries; i++) await ledger.record(body(i));
  await ledger.close();
  return at;
}

function check(
  at: string,
  keyText = readFileSync(join(at, 'ledger.pub'), 'utf8'),
  trusted = [readFileSync(join(at, 'checkpoint'), 'utf8')],
) {
  const reader = new LedgerReader(join(at, 'ledger.db'));
  try {
    return verifyLedger(reader, parseVerifiers(keyText), { trusted });
  } finally {
    reader.close();
  }
}

function typesIn(at: string): string[] {
  const reader = new LedgerReader(join(at, 'ledger.db'));
  const types = [...reader.stored()].map((s) => s.type);
  reader.close();
  return types;
}

test('a key is rotated with an overlap: the ledger says so, old and new checkpoints hold, and the old key ends', async () => {
  const at = await filled();
  const oldKey = readFileSync(join(at, 'ledger.pub'), 'utf8').trim();
  const oldNote = readFileSync(join(at, 'checkpoint'), 'utf8');
  const rotated = await countersign(['ledger', 'rotate-key', '--data', at]);
  assert.equal(rotated.code, 0, rotated.stderr);
  const [newKey = ''] = readFileSync(join(at, 'ledger.pub'), 'utf8').trim().split('\n');
  assert.notEqual(newKey, oldKey);
  await filled(at, 2);
  for (const key of [oldKey, newKey])
    assert.equal(check(at, key, [oldNote]).finding, undefined, 'in the overlap either key is enough');
  const twice = await countersign(['ledger', 'rotate-key', '--data', at]);
  assert.match(twice.stderr, /an older key still signs/);
  const dropped = await countersign(['ledger', 'rotate-key', '--data', at, '--drop-old']);
  assert.equal(dropped.code, 0, dropped.stderr);
  await filled(at, 1);
  assert.deepEqual(
    typesIn(at).filter((t) => t.startsWith('key.')),
    ['key.rotated', 'key.retired'],
  );
  assert.equal(check(at, newKey, [oldNote]).finding, undefined, 'what the old key signed before still holds');
  assert.match(check(at, oldKey).finding?.message ?? '', /not signed by this key/);
  assert.equal(existsSync(join(at, 'ledger.key.old')), false);
});

test('what a retired key alone signs does not count any more', async () => {
  const at = await filled();
  const stolen = readFileSync(join(at, 'ledger.key'), 'utf8');
  await countersign(['ledger', 'rotate-key', '--data', at]);
  await countersign(['ledger', 'rotate-key', '--data', at, '--drop-old']);
  const reader = new LedgerReader(join(at, 'ledger.db'));
  const root = Buffer.from((reader.latestCheckpoint() ?? '').split('\n')[2] ?? '', 'base64');
  const forged = signCheckpoint(reader.size, root, readSigner(ORIGIN, stolen));
  reader.close();
  assert.match(check(at, undefined, [forged]).finding?.message ?? '', /only a key that had been retired/);
});

test('a key that does not continue the ledger is refused, and signs nothing', async () => {
  const at = await filled();
  const { size } = check(at);
  writeFileSync(join(at, 'ledger.key'), createKey());
  await assert.rejects(openLedger(at, ORIGIN), { code: 'key-missing', recover: 'halt', message: /does not continue/ });
  assert.equal(check(at).size, size);
  assert.equal(
    readFileSync(join(at, 'ledger.pub'), 'utf8').trim().split('\n').length,
    1,
    'nor is it trusted from then on',
  );
});

test('keys from elsewhere: the first signs, the next still does, and without it it is retired', async () => {
  const at = place();
  const [one, two] = [join(directory, 'one.pem'), join(directory, 'two.pem')];
  for (const file of [one, two]) writeFileSync(file, createKey());
  for (const files of [[one], [two, one], [two]]) {
    const ledger = await openLedger(at, ORIGIN, { key: { files } });
    await ledger.record(body(1));
    await ledger.close();
  }
  assert.deepEqual(
    typesIn(at).filter((t) => t.startsWith('key.')),
    ['key.rotated', 'key.retired'],
  );
  assert.equal(check(at).finding, undefined);
  await assert.rejects(
    openLedger(at, ORIGIN, { key: { files: [one] } }),
    { recover: 'halt' },
    'there is no way back to it',
  );
});

test('a program signs for a ledger whose key lies elsewhere; while it fails nothing is recorded, and then it goes on', async () => {
  const at = place();
  mkdirSync(at);
  const [pem, program, pub, stop] = [join(at, 'kms.pem'), join(at, 'kms'), join(at, 'kms.pub'), join(at, 'stop')];
  writeFileSync(pem, createKey());
  writeFileSync(pub, `${verifierText(readSigner(ORIGIN, readFileSync(pem, 'utf8')))}\n`);
  writeFileSync(
    program,
    `#!/bin/sh\nif [ -e ${stop} ]; then echo nothing; exit 0; fi\ncat > ${at}/text && openssl pkeyutl -sign -rawin -inkey ${pem} -in ${at}/text | base64 -w0\n`,
  );
  chmodSync(program, 0o755);
  const data = join(at, 'data');
  const ledger = await openLedger(data, ORIGIN, { key: { command: [program], publicKey: pub } });
  await ledger.record(body(1));
  writeFileSync(stop, '');
  await assert.rejects(ledger.record(body(2)), { code: 'signing-failed', recover: 'retry' });
  rmSync(stop);
  assert.equal((await ledger.record(body(3))).index, 2);
  await ledger.close();
  assert.equal(check(data).finding, undefined);
  assert.equal(existsSync(join(data, 'ledger.key')), false);
});

test('after its store was put back a ledger goes on only as a new epoch, which says what was lost', async () => {
  const at = await filled();
  const old = readFileSync(join(at, 'ledger.db'));
  await filled(at, 4);
  const lost = readFileSync(join(at, 'checkpoint'), 'utf8');
  writeFileSync(join(at, 'ledger.db'), old);
  await assert.rejects(openLedger(at, ORIGIN), {
    code: 'ledger-inconsistent',
    message: /rolled back to an older state/,
    hint: /new-epoch/,
  });
  const opened = await countersign(['ledger', 'new-epoch', '--data', at, '--reason', 'disk lost']);
  assert.equal(opened.code, 0, opened.stderr);
  await filled(at, 2);
  const reader = new LedgerReader(join(at, 'ledger.db'));
  const epoch = reader.latest(['epoch.opened'], '');
  assert.deepEqual(
    [epoch?.index, epoch?.entry.origin, epoch?.entry.epoch, epoch?.entry.reason, epoch?.entry.previous],
    [4, `${ORIGIN}/epoch-2`, 2, 'disk lost', lost],
  );
  reader.close();
  const result = check(at, undefined, [readFileSync(join(at, 'checkpoint'), 'utf8'), lost]);
  assert.equal(result.finding, undefined);
  assert.match(result.notes.join('\n'), /epoch 2, since entry 4/);
  assert.match(result.notes.join('\n'), /entries that the ledger itself records as lost/);
  const said = await countersign(['ledger', 'verify', '--data', at]);
  assert.match(said.stdout, /consistent.*\n.*\nnote: this is epoch 2/);
  const again = await countersign([
    'ledger',
    'new-epoch',
    '--data',
    at,
    '--reason',
    'again',
    '--without-checkpoint',
    '1',
  ]);
  assert.equal(again.code, 0, again.stderr);
  assert.match(again.stdout, /epoch-3/);
  assert.equal(check(at).finding, undefined);
});

test('a checkpoint of an older epoch that was never its is not accepted', async () => {
  const at = await filled();
  await countersign(['ledger', 'new-epoch', '--data', at, '--reason', 'test', '--without-checkpoint', '1']);
  const signer = readSigner(ORIGIN, readFileSync(join(at, 'ledger.key'), 'utf8'));
  const forged = signCheckpoint(40, Buffer.alloc(32, 1), signer);
  assert.notEqual(check(at, undefined, [forged]).finding, undefined);
});

test('names are kept beside the entries, are read in their place, and are gone once erased while everything verifies', async () => {
  const at = place();
  const ledger = await openLedger(at, ORIGIN);
  const user = ledger.subject('dana@example.com');
  assert.match(user, /^subject:[0-9a-f]{64}$/);
  await ledger.record({
    type: 'environment.suspended',
    environment: 'production',
    user,
    reason: `asked by ${user} "now"`,
  });
  const shown = ledger.read.latest(['environment.suspended'], 'production')?.entry;
  assert.deepEqual([shown?.user, shown?.reason], ['dana@example.com', 'asked by dana@example.com "now"']);
  const found = await countersign([
    'ledger',
    'show',
    '--data',
    at,
    '--principal',
    'dana@example.com',
    '--output',
    'jsonl',
  ]);
  assert.equal(JSON.parse(found.stdout).index, 1, 'and are found by');
  await ledger.close(); // a service that runs records it itself
  const erased = await countersign(['ledger', 'forget', 'dana@example.com', '--reason', 'HR-1', '--data', at]);
  assert.match(erased.stdout, /erased; 1 commitment/);
  const later = await openLedger(at, ORIGIN);
  assert.equal(later.read.latest(['environment.suspended'], 'production')?.entry.user, user);
  assert.notEqual(later.subject('dana@example.com'), user, 'what comes later is not tied to what was erased');
  await later.close();
  const files = ['ledger.db', 'ledger.db-wal'].filter((f) => existsSync(join(at, f)));
  for (const file of files)
    assert.equal(readFileSync(join(at, file), 'latin1').includes('dana@example.com'), false, file);
  assert.equal(check(at).finding, undefined);
  assert.equal((await countersign(['ledger', 'forget', 'dana@example.com', '--reason', 'HR-1', '--data', at])).code, 1);
});

test('a name that was altered is found, and is not shown in its place', async () => {
  const at = place();
  const ledger = await openLedger(at, ORIGIN);
  const user = ledger.subject('dana@example.com');
  await ledger.record({ type: 'environment.suspended', environment: 'production', user, reason: 'INC-7' });
  await ledger.close();
  const db = new DatabaseSync(join(at, 'ledger.db'));
  db.exec("UPDATE subject SET text = 'lee@example.com'");
  db.close();
  assert.match(check(at).finding?.message ?? '', /the name behind subject:\w+… was altered/);
  const shown = await countersign(['ledger', 'show', '1', '--data', at, '--output', 'jsonl']);
  assert.equal((JSON.parse(shown.stdout) as { user: string }).user, user);
});

test('a range is verified against the signed root, and an entry altered in it is named', async () => {
  const at = await filled(place(), 700);
  const whole = check(at);
  const range = await countersign([
    'ledger',
    'verify',
    '--data',
    at,
    '--from',
    '300',
    '--to',
    '400',
    '--output',
    'json',
  ]);
  assert.deepEqual([JSON.parse(range.stdout).checked, JSON.parse(range.stdout).root], [100, whole.root]);
  const copy = place();
  cpSync(at, copy, { recursive: true });
  const db = new DatabaseSync(join(copy, 'ledger.db'));
  db.exec("DROP TRIGGER entry_is_fixed; UPDATE entry SET body = replace(body, 'error', 'errur') WHERE seq = 350");
  const named = await countersign(['ledger', 'verify', '--data', copy, '--from', '300', '--to', '400']);
  assert.deepEqual([named.code, /entry 350 was altered/.test(named.stdout)], [1, true]);
  assert.equal(
    (await countersign(['ledger', 'verify', '--data', copy, '--from', '0', '--to', '300'])).code,
    0,
    'what is not asked for is not read',
  );
  db.exec('DROP TRIGGER tile_is_fixed; UPDATE tile SET nodes = zeroblob(16320) WHERE n = 0');
  db.close();
  assert.equal(
    (await countersign(['ledger', 'verify', '--data', copy, '--from', '600'])).code,
    1,
    'a node that was altered gives another root',
  );
});

test('in a range, an entry that was altered with its leaf made to fit gives another root than the signed one', async () => {
  const at = await filled(place(), 700);
  const reader = new LedgerReader(join(at, 'ledger.db'));
  const [stored] = reader.stored(350, 351);
  reader.close();
  const altered = stored?.body.replace('error', 'errur') ?? '';
  const db = new DatabaseSync(join(at, 'ledger.db'));
  db.exec('DROP TRIGGER entry_is_fixed');
  db.prepare('UPDATE entry SET body = ?, leaf = ? WHERE seq = 350').run(altered, leafHash(altered));
  db.close();
  const said = await countersign(['ledger', 'verify', '--data', at, '--from', '300', '--to', '400']);
  assert.deepEqual([said.code, /the root over 701 entries differs/.test(said.stdout)], [1, true], said.stdout);
});

test('an entry that is signed and not canonical is found', async () => {
  const at = place();
  mkdirSync(at);
  const store = new SqliteStore(join(at, 'ledger.db'));
  const signer = readSigner(ORIGIN, createKey());
  const options = {
    store,
    name: 'it',
    verifiers: [],
    anchor: join(at, 'checkpoint'),
    clock: () => new Date(),
    warn: () => {},
  };
  const sequencer = await Sequencer.open({ ...options, signers: [signer] });
  const body = '{"reason":"x", "time":"2030-01-01T00:00:00.000Z","type":"service.stopped","v":1}';
  await sequencer.append({
    entries: [{ body, leaf: leafHash(body), type: 'service.stopped', environment: '' }],
    evidence: [],
    subjects: [],
  });
  await store.close();
  assert.deepEqual(check(at, verifierText(signer)).finding, { index: 1, message: 'entry 1 is not canonical JSON' });
});

test('a tile that was altered is found, also where all entries are as they were', async () => {
  const at = await filled(place(), 300);
  const db = new DatabaseSync(join(at, 'ledger.db'));
  db.exec('DROP TRIGGER tile_is_fixed; UPDATE tile SET nodes = zeroblob(16320)');
  db.close();
  assert.match(check(at).finding?.message ?? '', /entry 0 differs from the one in tile 0\/0/);
  await assert.rejects(openLedger(at, ORIGIN), { code: 'ledger-inconsistent', message: /tile 0\/0/ });
});

test('the key in use is the first line of ledger.pub', async () => {
  const at = await filled();
  const ledger = await openLedger(at, ORIGIN);
  assert.deepEqual(
    parseVerifier(readFileSync(join(at, 'ledger.pub'), 'utf8').split('\n')[0] ?? '').publicKey,
    ledger.verifier.publicKey,
  );
  await ledger.close();
});
