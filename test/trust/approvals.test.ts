import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { NO_REVISION } from '../../src/model/index.ts';
import { repositoryUri } from '../../src/trust/approval.ts';
import { approveAs } from '../kit/approve.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { codes, judge } from '../kit/judge.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const [dana, lee, kim] = [sshPerson(directory, 'dana'), sshPerson(directory, 'lee'), sshPerson(directory, 'kim')];
const people = [dana, lee, kim];
const PATH = 'clusters/production';
let fleet: Fleet;
let number = 0;
let first = '';

before(async () => {
  fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  first = fleet.commit(dana, 'first', { [`${PATH}/ns.yaml`]: namespace('shop') });
  fleet.push();
  await approveAs(lee, fleet, NO_REVISION, first);
});

function change(signer = dana, options: { author?: typeof dana; message?: string } = {}): string {
  const commit = fleet.commit(
    signer,
    options.message ?? `change ${++number}`,
    { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { n: String(++number) }) },
    options.author === undefined ? {} : { author: options.author },
  );
  fleet.push('--force', 'main');
  return commit;
}

test('one approval by someone else lets a change through', async () => {
  const commit = change();
  assert.deepEqual(codes(await judge(fleet, people, commit, { from: first })), ['approval-missing']);
  await approveAs(lee, fleet, first, commit);
  const verdict = await judge(fleet, people, commit, { from: first });
  assert.equal(verdict.outcome, 'allowed', JSON.stringify(verdict.violations));
  assert.deepEqual(
    verdict.approvals.map((a) => a.principal),
    ['lee'],
  );
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
});

test('two pushes, each approved by itself, are approved together', async () => {
  const a = change();
  await approveAs(lee, fleet, first, a);
  const b = change(lee);
  assert.notEqual((await judge(fleet, people, b, { from: first })).outcome, 'allowed');
  await approveAs(dana, fleet, a, b);
  assert.equal((await judge(fleet, people, b, { from: first })).outcome, 'allowed');
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
});

test('one approval over both pushes does too, but not by one who made either', async () => {
  change();
  const b = change(lee);
  await approveAs(lee, fleet, first, b);
  assert.deepEqual(codes(await judge(fleet, people, b, { from: first })), ['self-approval']);
  await approveAs(kim, fleet, first, b);
  assert.equal((await judge(fleet, people, b, { from: first })).outcome, 'allowed');
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
});

test('an approval survives a squash that gives the same tree', async () => {
  fleet.git(undefined, 'switch', '--quiet', '-c', 'work');
  change();
  const head = change();
  await approveAs(lee, fleet, first, head);
  fleet.git(undefined, 'switch', '--quiet', 'main');
  fleet.git(dana, 'merge', '--quiet', '--squash', 'work');
  fleet.git(dana, 'commit', '--quiet', '-S', '-m', 'squashed');
  const squashed = fleet.head();
  fleet.push('--force', 'main');
  assert.notEqual(squashed, head);
  assert.equal((await judge(fleet, people, squashed, { from: first })).outcome, 'allowed');
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
});

test('two approvals mean two people, not one person twice', async () => {
  const commit = change();
  const trust = trustDocument(people, { required: 2 });
  await approveAs(lee, fleet, first, commit);
  await approveAs(lee, fleet, first, commit, { expiresAt: '2100-01-01T00:00:00Z' });
  assert.deepEqual(codes(await judge(fleet, people, commit, { from: first, trust })), ['approval-missing']);
  await approveAs(kim, fleet, first, commit);
  assert.equal((await judge(fleet, people, commit, { from: first, trust })).outcome, 'allowed');
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
});

test('a rule for a path asks for its own approvers and signers', async () => {
  const rules = [
    { name: 'everything', signers: ['developers'], approvals: { required: 1, from: ['developers'] } },
    { name: 'secure', paths: [`${PATH}/cm.yaml`], signers: ['dana'], approvals: { required: 1, from: ['kim'] } },
  ];
  const trust = trustDocument(people, { rules });
  const commit = change();
  await approveAs(lee, fleet, first, commit);
  const verdict = await judge(fleet, people, commit, { from: first, trust });
  assert.deepEqual(
    verdict.violations.map((v) => v.message.includes('`secure`')),
    [true],
  );
  await approveAs(kim, fleet, first, commit);
  assert.equal((await judge(fleet, people, commit, { from: first, trust })).outcome, 'allowed');
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
  const other = change(lee);
  await approveAs(kim, fleet, first, other);
  assert.deepEqual(codes(await judge(fleet, people, other, { from: first, trust })), ['signer-not-allowed']);
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
});

test('a rule for an environment speaks there and nowhere else', async () => {
  const rules = [
    { name: 'everywhere', signers: ['developers'], approvals: { required: 0 } },
    {
      name: 'in-production',
      environments: ['prod*'],
      signers: ['developers'],
      approvals: { required: 1, from: ['kim'] },
    },
  ];
  const trust = trustDocument(people, { rules });
  const commit = change();
  assert.deepEqual(codes(await judge(fleet, people, commit, { from: first, trust })), ['approval-missing']);
  assert.deepEqual(
    codes(await judge(fleet, people, commit, { from: first, trust, environment: { name: 'staging' } })),
    [],
  );
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
});

test('a path that no rule covers is refused', async () => {
  const trust = trustDocument(people, {
    rules: [{ name: 'docs', paths: ['docs/**'], signers: ['developers'], approvals: { required: 0 } }],
  });
  assert.deepEqual(codes(await judge(fleet, people, change(), { from: first, trust })), ['path-not-covered']);
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
});

test('one repository has one spelling', () => {
  const spellings = [
    'https://git.example.test/team/fleet.git',
    'https://user:token@git.example.test/team/fleet',
    'ssh://git@git.example.test/team/fleet.git/',
    'git@git.example.test:team/fleet.git',
  ];
  assert.equal(new Set(spellings.map(repositoryUri)).size, 1);
  assert.notEqual(repositoryUri('https://git.example.test/team/other.git'), repositoryUri(spellings[0] ?? ''));
});
