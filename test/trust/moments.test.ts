import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { assess } from '../../src/gate/index.ts';
import { NativeRepository, sourceRepository } from '../../src/git/index.ts';
import { LedgerReader, ledgerFile } from '../../src/ledger/index.ts';
import {
  type CommitVerdict,
  type EntryOf,
  NO_REVISION,
  trustPolicySchema,
  type Verdict,
} from '../../src/model/index.ts';
import { openTrustStore } from '../../src/trust/index.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, run, sshPerson } from '../kit/fleet.ts';
import { codes, gateOf } from '../kit/judge.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { forge, payloadOf, signBytes, signedCommit } from '../kit/objects.ts';
import { recorderAt } from '../kit/recorder.ts';
import { scratch } from '../kit/scratch.ts';
import { verdictUnder } from '../kit/verdict.ts';

// The times a commit claims are its maker's; the time it was first seen is the ledger's.
const directory = scratch();
const fleet = new Fleet(directory);
fleet.remote(fleet.bare);
const dana = sshPerson(directory, 'dana');
const base = fleet.commit(dana, 'first', { 'clusters/production/ns.yaml': namespace('shop') });
fleet.push();
const tree = run('git', ['rev-parse', `${base}^{tree}`], { cwd: fleet.work });
const repository = new NativeRepository(`${fleet.work}/.git`, { file: 'git', path: process.env['PATH'] ?? '' });
after(() => repository.close());
const NOW = Math.floor(Date.now() / 1000);
const DAY = 86_400;
const iso = (seconds: number) => new Date(seconds * 1000).toISOString();
let n = 0;

const commitAt = (time: number, parents: readonly string[] = [base]) =>
  signedCommit(fleet, payloadOf(tree, parents, dana, time, `change ${++n}\n`), (b) => signBytes(dana, b));

async function verdictOn(
  commit: string,
  options: { key?: object; spec?: object; seen?: number; notBefore?: number } = {},
): Promise<CommitVerdict> {
  const document = trustDocument([dana], { required: 0 }) as { spec: { principals: { keys: object[] }[] } };
  (document.spec.principals[0] as { keys: object[] }).keys = [{ ssh: dana.publicKey, ...options.key }];
  const store = await openTrustStore(
    trustPolicySchema.parse({ ...document, spec: { ...document.spec, ...options.spec } }),
  );
  return verdictUnder(store, repository, commit, {
    at: (options.seen ?? NOW) * 1000,
    ...(options.notBefore === undefined ? {} : { notBefore: options.notBefore }),
  });
}

test('a key that has ended counts for what was seen before, and the commit’s own date does not help', async () => {
  const commit = commitAt(NOW - 60 * DAY);
  const ended = { validBefore: iso(NOW - 30 * DAY) };
  assert.equal((await verdictOn(commit, { key: ended, seen: NOW - 59 * DAY })).outcome, 'verified');
  assert.equal((await verdictOn(commit, { key: ended })).code, 'key-expired');
});

test('a commit that says it is older than its key is refused', async () => {
  const verdict = await verdictOn(commitAt(NOW - 60 * DAY), { key: { validAfter: iso(NOW - 30 * DAY) } });
  assert.equal(verdict.code, 'key-not-yet-valid');
});

test('a key that was retired or superseded counts for what was seen before that', async () => {
  const commit = commitAt(NOW - 60 * DAY);
  for (const reason of ['retired', 'superseded']) {
    const revoked = { revoked: { at: iso(NOW - 30 * DAY), reason } };
    assert.equal((await verdictOn(commit, { key: revoked, seen: NOW - 59 * DAY })).outcome, 'verified');
    assert.equal((await verdictOn(commit, { key: revoked })).code, 'key-revoked');
  }
});

test('a compromised key counts for nothing, but for what the ledger saw before it was stolen', async () => {
  const commit = commitAt(NOW - 60 * DAY);
  const revoked = { at: iso(NOW - 10 * DAY), reason: 'compromised' };
  assert.equal((await verdictOn(commit, { key: { revoked }, seen: NOW - 59 * DAY })).code, 'key-compromised');
  const since = { revoked: { ...revoked, compromisedSince: iso(NOW - 30 * DAY) } };
  assert.equal((await verdictOn(commit, { key: since, seen: NOW - 59 * DAY })).outcome, 'verified');
  assert.equal((await verdictOn(commit, { key: since })).code, 'key-compromised', 'dated before, seen after');
});

test('two windows of one key: either is enough', async () => {
  const document = trustDocument([dana], { required: 0 }) as { spec: { principals: { keys: object[] }[] } };
  (document.spec.principals[0] as { keys: object[] }).keys = [
    { ssh: dana.publicKey, validBefore: iso(NOW - 30 * DAY) },
    { ssh: dana.publicKey, validAfter: iso(NOW - 10 * DAY) },
  ];
  const store = await openTrustStore(trustPolicySchema.parse(document));
  assert.equal((await verdictUnder(store, repository, commitAt(NOW - 60), { at: NOW * 1000 })).outcome, 'verified');
  assert.notEqual(
    (await verdictUnder(store, repository, commitAt(NOW - 20 * DAY), { at: (NOW - 19 * DAY) * 1000 })).outcome,
    'verified',
  );
});

test('a commit from the future is refused; five minutes are an honest clock', async () => {
  assert.equal((await verdictOn(commitAt(NOW + 200))).outcome, 'verified');
  assert.equal((await verdictOn(commitAt(NOW + 400))).code, 'commit-from-the-future');
  assert.equal((await verdictOn(commitAt(NOW + 400), { spec: { times: { skew: '10m' } } })).outcome, 'verified');
});

test('a commit that is older than what it builds on is refused', async () => {
  assert.equal((await verdictOn(commitAt(NOW - 3600), { notBefore: NOW - 3500 })).outcome, 'verified');
  const verdict = await verdictOn(commitAt(NOW - 3600), { notBefore: NOW - 60 });
  assert.equal(verdict.code, 'backdated');
  assert.match(verdict.reason, /the time of the commit it builds on is/);
});

test('a commit may be told to be too old to be new', async () => {
  const commit = commitAt(NOW - 60 * DAY);
  assert.equal((await verdictOn(commit)).outcome, 'verified');
  assert.equal((await verdictOn(commit, { spec: { times: { maximumAge: '30d' } } })).code, 'commit-too-old');
});

test('a blocked commit stays blocked under every spelling of its signature', async () => {
  const commit = commitAt(NOW - 60);
  const { payload } = await verdictOn(commit);
  const blocked = { blocked: [{ payload, reason: 'signed on a stolen laptop' }] };
  const other = forge(fleet, commit, (raw) =>
    raw
      .replace(/gpgsig ([\s\S]*?-----END SSH SIGNATURE-----)\n/, (_, s) => `gpgsig ${s}\n \n`.replace('\n \n', '\n'))
      .replace(/\n ([A-Za-z0-9+/]{20})/, '\n $1\n '),
  );
  assert.notEqual(other, commit);
  assert.equal((await verdictOn(other)).outcome, 'verified', 'another id, the same signature');
  for (const id of [commit, other]) assert.equal((await verdictOn(id, { spec: blocked })).code, 'blocked');
});

test('the gate judges a commit at the time the ledger first named it, and says so', async () => {
  const data = join(directory, 'data');
  let now = new Date((NOW - 20 * DAY) * 1000);
  const { ledger, recorder } = await recorderAt(data, () => now);
  fleet.git(undefined, 'reset', '--quiet', '--hard', base);
  const start = signedCommit(fleet, payloadOf(tree, [], dana, NOW - 25 * DAY), (b) => signBytes(dana, b));
  const commit = commitWithFile(NOW - 21 * DAY, start);
  const trust = trustDocument([dana], { required: 1 }) as { spec: { principals: { keys: object[] }[] } };
  (trust.spec.principals[0] as { keys: object[] }).keys = [{ ssh: dana.publicKey, validBefore: iso(NOW - 10 * DAY) }];
  const gate = {
    ...(await gateOf(fleet, [dana], { trust })),
    recorder,
    clock: () => now,
    repository: sourceRepository(repository),
  };
  const first = await assess(gate, start, commit);
  assert.deepEqual(codes(first.verdict), ['approval-missing'], 'the key counts; only the approval is missing');
  now = new Date(NOW * 1000); // the key has ended since
  const second = await assess(gate, start, commit);
  assert.deepEqual(codes(second.verdict), ['approval-missing'], 'still judged at the time it was first seen');
  assert.equal(second.verdict.commits[0]?.seen, iso(NOW - 20 * DAY));
  assert.equal(second.verdict.commits[0]?.basis, 'ledger');
  assert.equal(second.verdict.consulted.time, 'ledger');
  const late = commitWithFile(NOW - 21 * DAY + 5, commit);
  assert.deepEqual(
    codes((await assess(gate, start, late)).verdict),
    ['approval-missing', 'key-expired'],
    'dated in the key’s time, seen after it',
  );
  const seen = recorder
    .all('commits.seen', 'production')
    .map(({ entry }: { entry: EntryOf<'commits.seen'> }) => entry.count);
  assert.deepEqual(seen, [1, 1], 'each commit is named once');
  const withoutLedger: Verdict = (await assess({ ...gate, recorder: undefined }, start, commit)).verdict;
  assert.equal(withoutLedger.consulted.time, 'now');
  assert.ok(codes(withoutLedger).includes('key-expired'), 'without a ledger there is only now');
  await ledger.close();
  const reader = new LedgerReader(ledgerFile(data));
  assert.equal(reader.all('commits.seen', 'production')[0]?.entry.time, iso(NOW - 20 * DAY));
  reader.close();
});

test('the seal is on the ledger before anything after it is judged', async () => {
  const { ledger, recorder } = await recorderAt(join(directory, 'sealed'));
  const gate = {
    ...(await gateOf(fleet, [dana], { trust: trustDocument([dana], { required: 0 }) })),
    recorder,
    repository: sourceRepository(repository),
  };
  const { source } = gate.environment.spec;
  const sealed = {
    ...gate,
    environment: { ...gate.environment, spec: { ...gate.environment.spec, source: { ...source, baseline: base } } },
  };
  const commit = commitWithFile(NOW - 50);
  await assess(sealed, base, commit);
  await assess(sealed, base, commit);
  assert.deepEqual(
    recorder.all('history.sealed', 'production').map((r) => [r.entry.commit, r.entry.tree]),
    [[base, tree]],
  );
  assert.ok(
    (recorder.all('history.sealed', 'production')[0]?.index ?? 9) <
      (recorder.all('change.judged', 'production')[0]?.index ?? 0),
  );
  assert.deepEqual(codes((await assess({ ...sealed, recorder: undefined }, NO_REVISION, commit)).verdict), []);
  await ledger.close();
});

function commitWithFile(time: number, parent = base): string {
  const blob = run('git', ['hash-object', '-w', '--stdin'], {
    cwd: fleet.work,
    input: configMap('shop', 'cm', { n: String(++n) }),
  });
  const ns = run('git', ['rev-parse', `${base}:clusters/production/ns.yaml`], { cwd: fleet.work });
  const make = (entries: string) => run('git', ['mktree'], { cwd: fleet.work, input: entries });
  const production = make(`100644 blob ${blob}\tcm.yaml\n100644 blob ${ns}\tns.yaml\n`);
  const root = make(`040000 tree ${make(`040000 tree ${production}\tproduction\n`)}\tclusters\n`);
  return signedCommit(fleet, payloadOf(root, [parent], dana, time, `file ${n}\n`), (b) => signBytes(dana, b));
}
