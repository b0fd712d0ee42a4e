import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import type { Verdict } from '../../src/model/index.ts';
import { approveAs } from '../kit/approve.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, type Person, run, sshPerson } from '../kit/fleet.ts';
import { importReview } from '../kit/forge-review.ts';
import { codes, judge } from '../kit/judge.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const [dana, lee, kim, robin] = ['dana', 'lee', 'kim', 'robin'].map((name) => sshPerson(directory, name)) as [
  Person,
  Person,
  Person,
  Person,
];
const importer: Person = { ...sshPerson(directory, 'importer'), name: 'importer' };
const PATH = 'clusters/production';
let fleet: Fleet;
let first = '';
let commit = '';
let n = 0;

beforeEach(() => {
  fleet = new Fleet(directory, `fleet-${++n}`);
  fleet.remote(fleet.bare);
  first = fleet.commit(dana, 'first', {
    [`${PATH}/ns.yaml`]: namespace('shop'),
    [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '1' }),
  });
  commit = fleet.commit(dana, 'change', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '2' }) });
  fleet.push();
});

const ago = (minutes: number) => new Date(Date.now() - minutes * 60_000).toISOString();

type Approvals = { required?: number; equivalent?: boolean; forgeReviews?: string };

function trust(approvals: Approvals = {}): object {
  const document = trustDocument([dana, lee, kim, robin, importer], {
    rules: [
      { name: 'everything', signers: ['developers'], approvals: { required: 1, from: ['developers'], ...approvals } },
    ],
  }) as { spec: { principals: { name: string; kind?: string; imports?: string[]; forgeAccounts?: object[] }[] } };
  for (const [i, p] of document.spec.principals.entries()) {
    if (p.name === 'importer') Object.assign(p, { kind: 'bot', imports: ['forge.example.test'] });
    else p.forgeAccounts = [{ forge: 'forge.example.test', id: String(100 + i), login: p.name }];
  }
  return document;
}
const account = { dana: '100', lee: '101', kim: '102', robin: '103' };

async function verdict(approvals: Approvals = {}, from = first, to = commit): Promise<Verdict> {
  return judge(fleet, [], to, { trust: trust(approvals), from });
}

test('a rejection stands against approvals until its maker approves or takes it back', async () => {
  await approveAs(lee, fleet, first, commit, { issuedAt: ago(9) });
  await approveAs(kim, fleet, first, commit, { decision: 'reject', issuedAt: ago(8), reason: 'opens port 22' });
  const refused = await verdict();
  assert.deepEqual(codes(refused), ['approval-rejected']);
  assert.match(refused.violations[0]?.message ?? '', /`kim` rejected .*opens port 22/);
  await approveAs(lee, fleet, first, commit, { decision: 'revoke', issuedAt: ago(7) });
  assert.deepEqual(
    codes(await verdict()),
    ['approval-missing', 'approval-rejected'],
    'lee cannot take back what kim said',
  );
  await approveAs(kim, fleet, first, commit, { decision: 'revoke', issuedAt: ago(6) });
  assert.deepEqual(codes(await verdict()), ['approval-missing']);
  await approveAs(kim, fleet, first, commit, { issuedAt: ago(5) });
  assert.deepEqual(codes(await verdict()), []);
});

test('a revoked approval no longer counts; the later word of one person is theirs', async () => {
  await approveAs(lee, fleet, first, commit, { issuedAt: ago(9) });
  assert.deepEqual(codes(await verdict()), []);
  await approveAs(lee, fleet, first, commit, { decision: 'revoke', issuedAt: ago(8) });
  assert.deepEqual(codes(await verdict()), ['approval-missing']);
  await approveAs(lee, fleet, first, commit, { decision: 'reject', issuedAt: ago(7) });
  await approveAs(lee, fleet, first, commit, { issuedAt: ago(6) });
  assert.deepEqual(codes(await verdict()), []);
});

test('a rejection by someone the rule does not ask is not in the way', async () => {
  const rules = [{ name: 'r', signers: ['developers'], approvals: { required: 1, from: ['lee'] } }];
  await approveAs(lee, fleet, first, commit);
  await approveAs(kim, fleet, first, commit, { decision: 'reject' });
  assert.deepEqual(
    codes(await judge(fleet, [], commit, { trust: trustDocument([dana, lee, kim], { rules }), from: first })),
    [],
  );
});

test('an approval dated ahead is not heard: it would be the last word for ever', async () => {
  await approveAs(lee, fleet, first, commit, { issuedAt: ago(-60) });
  assert.deepEqual(codes(await verdict()), ['approval-from-the-future']);
});

test('after a rebase over other files, an approval counts where the rule takes equivalent ones, and is labelled', async () => {
  await approveAs(lee, fleet, first, commit);
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
  const other = fleet.commit(kim, 'other', { [`${PATH}/other.yaml`]: configMap('shop', 'other', { x: '1' }) });
  const rebased = fleet.commit(dana, 'change', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '2' }) });
  fleet.push('--force', 'main');
  assert.deepEqual(codes(await verdict({}, other, rebased)), ['approval-missing']);
  const equivalent = await verdict({ equivalent: true }, other, rebased);
  assert.deepEqual(codes(equivalent), []);
  assert.equal(equivalent.approvals[0]?.match, 'equivalent');
});

test('an approval does not follow where the base moved in the same file, or sideways', async () => {
  await approveAs(lee, fleet, first, commit);
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
  const same = fleet.commit(kim, 'same file', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '1', b: '1' }) });
  const rebased = fleet.commit(dana, 'change', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '2', b: '1' }) });
  fleet.push('--force', 'main');
  assert.notDeepEqual(codes(await verdict({ equivalent: true }, same, rebased)), []);
  fleet.git(undefined, 'checkout', '--quiet', '--orphan', 'elsewhere');
  const root = fleet.commit(kim, 'another root', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '1' }) });
  const there = fleet.commit(dana, 'change', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '2' }) });
  fleet.push('--force', 'elsewhere:main');
  assert.notDeepEqual(codes(await verdict({ equivalent: true }, root, there)), []);
});

test('a forge’s review of this commit is of class B: two make one approval', async () => {
  await importReview(importer, fleet, first, commit, { reviewer: account.lee });
  const one = await verdict();
  assert.deepEqual(codes(one), ['approval-weak']);
  assert.match(one.violations[0]?.message ?? '', /class B/);
  assert.deepEqual(codes(await verdict({ forgeReviews: 'whole' })), []);
  await importReview(importer, fleet, first, commit, { reviewer: account.kim });
  const two = await verdict();
  assert.deepEqual(codes(two), []);
  assert.deepEqual(
    two.approvals.map((a) => [a.principal, a.class, a.importer]),
    [
      ['lee', 'B', 'importer'],
      ['kim', 'B', 'importer'],
    ],
  );
  assert.deepEqual(codes(await verdict({ forgeReviews: 'none' })), ['approval-weak']);
});

test('a review that names no commit, or an older one, is of class C and counts for nothing', async () => {
  for (const reviewer of [account.lee, account.kim, account.robin])
    await importReview(importer, fleet, first, commit, { reviewer, commit: undefined });
  await importReview(importer, fleet, first, commit, { reviewer: account.lee, commit: first });
  assert.deepEqual(codes(await verdict({ forgeReviews: 'whole' })), ['approval-weak']);
});

test('one person’s signature and review count once, by the stronger', async () => {
  await importReview(importer, fleet, first, commit, { reviewer: account.lee });
  await approveAs(lee, fleet, first, commit);
  assert.deepEqual(codes(await verdict({ required: 2 })), ['approval-missing']);
  assert.deepEqual(codes(await verdict({ required: 1 })), []);
});

test('changes requested on the forge stand against it; a dismissal takes back the forge’s word and no signature', async () => {
  await approveAs(kim, fleet, first, commit, { issuedAt: ago(9) });
  await importReview(importer, fleet, first, commit, { reviewer: account.lee, state: 'rejected', at: ago(8) });
  assert.deepEqual(codes(await verdict()), ['approval-rejected']);
  await importReview(importer, fleet, first, commit, { reviewer: account.lee, state: 'dismissed' });
  assert.deepEqual(codes(await verdict()), []);
  await importReview(importer, fleet, first, commit, { reviewer: account.kim, state: 'dismissed' });
  assert.deepEqual(codes(await verdict()), [], 'kim signed it');
});

test('whoever opened the request does not approve it, by whatever key the commits were signed', async () => {
  await importReview(importer, fleet, first, commit, { reviewer: account.kim, openedBy: account.lee });
  await approveAs(lee, fleet, first, commit);
  assert.deepEqual(codes(await verdict()), ['self-approval']);
});

test('reviews by unknown accounts, of other forges, and by importers without leave are not heard', async () => {
  await importReview(importer, fleet, first, commit, { reviewer: '999' });
  assert.deepEqual(codes(await verdict()), ['account-unknown']);
  fleet.git(undefined, 'update-ref', '-d', 'refs/countersign/approvals');
  fleet.git(undefined, 'push', '--quiet', 'origin', ':refs/countersign/approvals');
  await importReview(importer, fleet, first, commit, { reviewer: account.lee, forge: 'other.example.test' });
  assert.deepEqual(codes(await verdict()), ['importer-not-allowed']);
  fleet.git(undefined, 'update-ref', '-d', 'refs/countersign/approvals');
  fleet.git(undefined, 'push', '--quiet', 'origin', ':refs/countersign/approvals');
  await importReview(robin, fleet, first, commit, { reviewer: account.lee });
  assert.deepEqual(codes(await verdict()), ['importer-not-allowed']);
});

test('a link or submodule among the approvals stands in nobody’s way', async () => {
  await approveAs(lee, fleet, first, commit);
  const ref = 'refs/countersign/approvals';
  const index = { GIT_INDEX_FILE: `${directory}/index-${n}` };
  const git = (...args: string[]) => run('git', args, { cwd: fleet.work, env: index });
  git('read-tree', ref);
  const [path] = git('ls-tree', '-r', '--name-only', ref).split('\n');
  const place = path?.slice(0, path.lastIndexOf('/'));
  git('update-index', '--add', '--cacheinfo', `160000,${'1'.repeat(40)},${place}/submodule`);
  git(
    'update-index',
    '--add',
    '--cacheinfo',
    `120000,${run('git', ['hash-object', '-w', '--stdin'], { cwd: fleet.work, input: '/etc/passwd' })},${place}/link`,
  );
  const planted = git(
    '-c',
    'user.name=x',
    '-c',
    'user.email=x@example.test',
    'commit-tree',
    '-p',
    ref,
    '-m',
    'x',
    git('write-tree'),
  );
  fleet.push(`${planted}:${ref}`);
  assert.deepEqual(codes(await verdict()), []);
});
