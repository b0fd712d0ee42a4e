import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { importLedger, openEpoch, openLedger, parseVerifiers, rotateKey } from '../../src/ledger/index.ts';
import { takeLock } from '../../src/ledger/take-lock.ts';
import { readText } from '../../src/open/index.ts';
import { OTHER, type OtherAccount, otherAccount } from '../kit/other-account.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// Who may use a data directory, and what its lock is worth.
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
const isRoot = process.getuid?.() === 0;
if (isRoot) chmodSync(directory, 0o755);
const found = otherAccount(directory);
const other = found as OtherAccount;
const needsOther = { skip: typeof found === 'string' ? found : false };
const needsRoot = { skip: isRoot ? needsOther.skip : 'only root has two accounts' };
let serial = 0;

async function add(at: string): Promise<void> {
  const ledger = await openLedger(at, ORIGIN);
  await ledger.record({ type: 'service.stopped', reason: 'x' });
  await ledger.close();
}

/** Opens a ledger and records an entry, in a process of an account that is not root. Returns what it prints. */
async function addAsOther(at: string): Promise<string> {
  const script = `(async () => {
    const { openLedger } = await import(${JSON.stringify(other.path('src/ledger/index.ts'))});
    const ledger = await openLedger(${JSON.stringify(at)}, ${JSON.stringify(ORIGIN)});
    await ledger.record({ type: 'service.stopped', reason: 'x' });
    await ledger.close();
  })().catch((thrown) => console.log(thrown.code, thrown.message, thrown.hint))`;
  return other.node(['--eval', script]);
}

/** A data directory of the other account. */
async function theirs(): Promise<string> {
  const parent = join(directory, `theirs-${serial++}`);
  mkdirSync(parent);
  if (isRoot) chownSync(parent, OTHER, OTHER);
  const at = join(parent, 'data');
  assert.equal(await addAsOther(at), '');
  return at;
}

const owners = (at: string): string[] => readdirSync(at).filter((name) => statSync(join(at, name)).uid !== OTHER);

test('a lock file that may not be written is refused, since SQLite would take no lock on it', needsOther, async () => {
  const at = await theirs();
  chmodSync(join(at, 'ledger.lock'), 0o400);
  const said = await addAsOther(at);
  assert.match(said, /^ledger-unusable `\S+ledger\.lock` belongs to uid \d+: uid \d+ may not write it/);
  assert.match(said, /chmod u\+rwX \S+ledger\.lock/);
});

test('a lock that does not hold is refused: a second one must not be had', async () => {
  const file = join(directory, `nolock-${serial++}`);
  assert.throws(() => takeLock(`file:${file}?nolock=1`), { code: 'ledger-unusable', message: /cannot be locked/ });
  const lock = takeLock(file);
  assert.throws(() => takeLock(file), { code: 'ledger-held' });
  assert.throws(() => takeLock(file), { code: 'ledger-held' }, 'the proof of the second one did not end the first');
  lock.close();
  takeLock(file).close();
});

test('a lock that cannot be taken for another reason is not said to be held, and nothing waits for it', async () => {
  const at = join(directory, `damaged-${serial++}`);
  await add(at);
  writeFileSync(join(at, 'ledger.lock'), Buffer.alloc(4096, 0x5a));
  const begun = performance.now();
  const { code, stderr } = await countersign(['ledger', 'rotate-key', '--data', at]);
  assert.deepEqual([code, /lock file .* cannot be used/.test(stderr)], [2, true], stderr);
  assert.match(stderr, /remove it, while no service runs: it holds no data/);
  assert.doesNotMatch(stderr, /another process/);
  assert.ok(performance.now() - begun < 20_000);
  truncateSync(join(at, 'ledger.lock'));
  rmSync(join(at, 'ledger.lock'));
  assert.equal((await countersign(['ledger', 'rotate-key', '--data', at])).code, 0);
});

test('what root does in a data directory belongs to its account, and its service starts', needsRoot, async () => {
  const commands: Record<string, (at: string) => Promise<unknown>> = {
    'rotate-key': (at) => rotateKey(at, false),
    'new-epoch': (at) => openEpoch(at, { reason: 'lost', withoutCheckpoint: 1 }),
    'a rotation that is refused': (at) => assert.rejects(rotateKey(at, true)),
    'import --replace': async (at) => {
      const exported = join(directory, `export-${serial++}`);
      assert.equal((await countersign(['ledger', 'export', exported, '--data', at])).code, 0);
      const keys = parseVerifiers(readText(join(at, 'ledger.pub'), 'public key'));
      await importLedger(exported, keys, at, { replace: true });
    },
  };
  for (const [command, run] of Object.entries(commands)) {
    const at = await theirs();
    await run(at);
    assert.deepEqual(owners(at), [], command);
    assert.equal(await addAsOther(at), '', command);
  }
});

test('a volume of root, in which another account has its files, is that account’s', needsRoot, async () => {
  const at = await theirs();
  chownSync(at, 0, OTHER);
  chmodSync(at, 0o2770);
  await rotateKey(at, false);
  assert.deepEqual(owners(at), []);
});

test('a file of another account is named with its owner and the fix', needsRoot, async () => {
  for (const name of ['checkpoint', 'ledger.pub', 'ledger.key', 'ledger.db', 'ledger.lock']) {
    const at = await theirs();
    chownSync(join(at, name), 0, 0);
    chmodSync(join(at, name), 0o600);
    const said = await addAsOther(at);
    assert.match(said, new RegExp(`^ledger-unusable \\S+${name}\` belongs to uid 0: uid ${OTHER} may not`), name);
    assert.ok(said.includes(`chown ${OTHER} ${at}/${name}`), said);
  }
  const at = await theirs();
  chownSync(at, 0, 0);
  const said = await other.node([other.path('bin/countersign.mjs'), 'ledger', 'rotate-key', '--data', at]);
  assert.match(said, /belongs to uid 0: uid 65534 may not/);
});
