import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { LedgerReader, openLedger, parseVerifiers, verifyLedger } from '../../src/ledger/index.ts';
import { trustDocument, writeConfiguration } from '../kit/documents.ts';
import { type Person, run, sshPerson } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// Erasing a name is a right; doing it so that no one can see that it was done is not.
const directory = scratch();
const NAME = 'alice.oncall';
let serial = 0;
const [dana, lee] = [sshPerson(directory, 'dana'), sshPerson(directory, 'lee')];
const configuration = writeConfiguration(join(directory, 'config'), [trustDocument([dana, lee])]);

async function ledgerWith(isSettled: boolean, name = NAME) {
  const data = join(directory, `data-${serial++}`);
  const ledger = await openLedger(data, 'countersign.dev/test');
  await ledger.record({ type: 'service.started', version: '1', environments: ['production'], configuration: 'c' });
  const { index } = await ledger.record({
    type: 'breakglass.used',
    environment: 'production',
    user: ledger.subject(name),
    operation: 'UPDATE',
    object: { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'shop', name: 'web' },
    reason: 'INC-1',
    until: new Date(Date.now() + 1000).toISOString(),
  });
  const settled = {
    type: 'breakglass.settled',
    environment: 'production',
    uses: [index],
    user: ledger.subject('lee'),
    reason: 'fine',
  } as const;
  if (isSettled) await ledger.record(settled);
  await ledger.close();
  return data;
}
const forget = (data: string, ...more: string[]) =>
  countersign(['ledger', 'forget', NAME, '--reason', 'HR-311', '--data', data, '--config', configuration, ...more]);

function signing(person: Person): string[] {
  const repo = join(directory, `repo-${person.name}-${serial++}`);
  mkdirSync(repo);
  run('git', ['-C', repo, 'init', '-q']);
  for (const [key, value] of [
    ['gpg.format', 'ssh'],
    ['user.signingkey', person.signingKey],
  ])
    run('git', ['-C', repo, 'config', key ?? '', value ?? '']);
  return ['--repo', repo];
}

function read(data: string) {
  const reader = new LedgerReader(join(data, 'ledger.db'));
  const entries = reader.all('subject.forgotten', '').map(({ entry }) => entry);
  const user = reader.latest(['breakglass.used'], 'production')?.entry.user;
  const { finding } = verifyLedger(reader, parseVerifiers(readFileSync(join(data, 'ledger.pub'), 'utf8')));
  reader.close();
  assert.equal(finding, undefined);
  const stays = readdirSync(data).some(
    (file) => file.startsWith('ledger.db') && readFileSync(join(data, file), 'latin1').includes(NAME),
  );
  return { entries, user, stays };
}

test('what is forgotten is on the ledger, without what it was', async () => {
  const data = await ledgerWith(true);
  assert.equal((await forget(data)).code, 0);
  const { entries, user, stays } = read(data);
  assert.deepEqual(
    entries.map((e) => [e.reason, e.commitments, e.exceptions, e.approvedBy]),
    [['HR-311', 1, undefined, undefined]],
  );
  assert.match(entries[0]?.claimedBy ?? '', /@/);
  assert.match(user ?? '', /^subject:/);
  assert.equal(stays, false);
  assert.equal((await forget(data)).code, 1, 'nothing is left of it');
  assert.equal(read(data).entries.length, 1, 'and nothing more is said');
});

test('an address matches every text that holds it, and no other; all of them go in one entry', async () => {
  const data = join(directory, `data-${serial++}`);
  const ledger = await openLedger(data, 'countersign.dev/test');
  const [mine, others] = [
    ['dana <dana@example.test>', 'dana@example.test', 'Dana Smith <DANA@example.test>', 'oidc:dana@example.test'],
    ['jordana@example.test', 'dana@example.test.org', 'x.dana@example.test', 'dana', 'lee <lee@example.test>'],
  ] as const;
  for (const text of [...mine, ...others])
    await ledger.record({
      type: 'environment.suspended',
      environment: 'production',
      user: ledger.subject(text),
      reason: 'x',
    });
  await ledger.close();
  const kept = () => {
    const reader = new LedgerReader(join(data, 'ledger.db'));
    const texts = [...reader.subjects()].map((s) => s.text);
    reader.close();
    return texts;
  };
  const erase = (text: string, ...more: string[]) =>
    countersign(['ledger', 'forget', text, '--reason', 'HR-1', '--data', data, '--config', configuration, ...more]);
  const short = await erase(' da ');
  assert.deepEqual([short.code, /`da` is too short/.test(short.stderr)], [2, true]);
  assert.match((await erase('example.test')).stdout, /an address matches every text that contains it/);
  const asked = await erase('dana@example.test');
  assert.equal(asked.code, 0, asked.stderr);
  assert.match(
    asked.stdout,
    /^4 stored texts with it:\n(?: {2}.+\n){4}erased; 4 commitments can no longer be opened\n$/,
  );
  for (const text of mine) assert.ok(asked.stdout.includes(`  ${text}\n`), text);
  const left = kept();
  for (const text of mine) assert.equal(left.includes(text), false, text);
  for (const text of others) assert.ok(left.includes(text), text);
  assert.deepEqual(
    read(data).entries.map((e) => e.commitments),
    [4],
  );
  const named = await erase('lee', '--output', 'json');
  assert.deepEqual(JSON.parse(named.stdout), { erased: 1, texts: ['lee <lee@example.test>'] });
});

test('an exception under any of the matched texts holds the erasure up', async () => {
  const data = await ledgerWith(false, `Dana <${dana.email}>`);
  const { code, stderr } = await countersign([
    ...['ledger', 'forget', dana.email, '--reason', 'HR-1', '--data', data, '--config', configuration],
  ]);
  assert.equal(code, 2);
  assert.match(stderr, /1 exception that name them is open/);
});

test('without a reason, or with one that names the person, nothing is forgotten', async () => {
  const data = await ledgerWith(true);
  for (const reason of ['', '  ', `asked by ${NAME.toUpperCase()}`]) {
    const { code, stderr } = await countersign(['ledger', 'forget', NAME, '--reason', reason, '--data', data]);
    assert.equal(code, 2);
    assert.match(stderr, /reason/);
  }
  assert.equal((await countersign(['ledger', 'forget', NAME, '--data', data])).code, 2);
  assert.equal(read(data).user, NAME);
});

test('somebody with an open exception is not forgotten unless another person signed for it', async () => {
  const data = await ledgerWith(false);
  const refused = await forget(data);
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /1 exception that name them is open: E\d+/);
  assert.deepEqual([read(data).user, read(data).entries], [NAME, []]);

  const approval = join(directory, 'approval.sig');
  assert.equal((await forget(data, '--sign', approval, ...signing(lee))).code, 0);
  assert.deepEqual([read(data).user, read(data).entries], [NAME, []], 'to approve is not to erase');
  const otherReason = await countersign([
    ...[
      'ledger',
      'forget',
      NAME,
      '--reason',
      'another',
      '--data',
      data,
      '--config',
      configuration,
      '--approved-by',
      approval,
    ],
  ]);
  assert.equal(otherReason.code, 2);
  assert.match(otherReason.stderr, /the approval does not count/);
  assert.equal((await forget(await ledgerWith(false), '--approved-by', approval)).code, 2, 'nor for another ledger');

  assert.equal((await forget(data, '--approved-by', approval)).code, 0);
  const { entries, user } = read(data);
  assert.deepEqual([entries[0]?.approvedBy, entries[0]?.exceptions?.length], ['lee', 1]);
  assert.match(entries[0]?.approval ?? '', /BEGIN SSH SIGNATURE/);
  assert.match(user ?? '', /^subject:/);
});

test('nor by a key that the TrustPolicy does not know, by junk, or by the person themselves', async () => {
  const data = await ledgerWith(false);
  const stranger = join(directory, 'stranger.sig');
  assert.equal((await forget(data, '--sign', stranger, ...signing(sshPerson(directory, 'mallory')))).code, 0);
  assert.match((await forget(data, '--approved-by', stranger)).stderr, /does not count/);
  assert.match((await forget(data, '--approved-by', configuration)).stderr, /cannot be read/);
  assert.match((await forget(data, '--approved-by', join(data, 'ledger.pub'))).stderr, /does not count/);

  const own = await ledgerWith(false, dana.email);
  const asked = ['ledger', 'forget', dana.email, '--reason', 'HR-1', '--data', own, '--config', configuration];
  const self = join(directory, 'self.sig');
  assert.equal((await countersign([...asked, '--sign', self, ...signing(dana)])).code, 0);
  const refused = await countersign([...asked, '--approved-by', self]);
  assert.match(refused.stderr, /`dana` is not a second person/);
  assert.deepEqual(read(own).entries, []);
});
