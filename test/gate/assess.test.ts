import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { assess, recall } from '../../src/gate/index.ts';
import { NO_REVISION } from '../../src/model/index.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { codes, gateOf, judge } from '../kit/judge.ts';
import { configMap, deployment, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const dana = sshPerson(directory, 'dana');
const trust = trustDocument([dana], { required: 0 });
const PATH = 'clusters/production';
let fleet: Fleet;
before(() => {
  fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
});

async function judged(files: Record<string, string | undefined>, environment = {}) {
  const commit = fleet.commit(dana, 'x', files);
  fleet.push();
  return judge(fleet, [dana], commit, { trust, environment });
}

test('what an environment may not own is refused with file and line', async () => {
  const verdict = await judged({
    [`${PATH}/ns.yaml`]: namespace('shop'),
    [`${PATH}/other.yaml`]: configMap('kube-system', 'evil', {}),
    [`${PATH}/ns2.yaml`]: namespace('billing'),
    [`${PATH}/role.yaml`]: 'apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: all\n',
  });
  assert.deepEqual(codes(verdict), ['kind-not-governed', 'namespace-not-governed', 'rbac-approvers']);
  assert.deepEqual(verdict.violations.find((v) => v.object?.namespace === 'kube-system')?.source, {
    file: `${PATH}/other.yaml`,
    line: 5,
  });
  assert.equal(verdict.violations.filter((v) => v.code === 'namespace-not-governed').length, 2);
});

test('all reasons are given at once: signature, manifests and rules', async () => {
  const commit = fleet.commit(
    dana,
    'all wrong',
    {
      [`${PATH}/other.yaml`]: undefined,
      [`${PATH}/ns2.yaml`]: undefined,
      [`${PATH}/role.yaml`]: undefined,
      [`${PATH}/broken.yaml`]: 'a: [',
      [`${PATH}/web.yaml`]: deployment('shop', 'web', { privileged: true, image: 'web' }),
    },
    { sign: false },
  );
  fleet.push();
  const verdict = await judge(fleet, [dana], commit, { trust, from: fleet.git(undefined, 'rev-parse', 'HEAD~1') });
  assert.deepEqual(codes(verdict), ['manifest-unreadable', 'pinned-images', 'privileged', 'unsigned']);
});

test('an empty directory is refused, not applied', async () => {
  fleet.git(undefined, 'reset', '--quiet', '--hard', 'HEAD~1');
  fleet.push('--force', 'main');
  const verdict = await judged({ 'README.md': 'x' }, { path: 'clusters/nowhere' });
  assert.deepEqual(codes(verdict), ['nothing-rendered']);
});

test('the same commit gives the same verdict, to the byte', async () => {
  const at = new Date();
  const commit = fleet.head();
  const [a, b] = [await judge(fleet, [dana], commit, { trust, at }), await judge(fleet, [dana], commit, { trust, at })];
  assert.equal(JSON.stringify(a), JSON.stringify(b));
});

test('without a recorder nothing can be allowed to run', async () => {
  const commit = fleet.commit(
    dana,
    'good',
    Object.fromEntries(['other', 'ns2', 'role'].map((f) => [`${PATH}/${f}.yaml`, undefined])),
  );
  fleet.push();
  const gate = await gateOf(fleet, [dana], { trust });
  const { verdict, allowed, recorded } = await assess(gate, NO_REVISION, commit);
  assert.deepEqual([verdict.outcome, allowed, recorded], ['allowed', undefined, undefined]);
});

test('a revision is recalled only by a verdict on the ledger that allows it', async () => {
  const gate = await gateOf(fleet, [dana], { trust });
  const view = (entry: object | undefined) =>
    ({ entry: () => entry, latest: () => undefined, all: () => [], evidence: () => ({}) }) as never;
  for (const entry of [
    undefined,
    { index: 1, entry: { type: 'change.judged', outcome: 'denied', environment: 'production' } },
    { index: 1, entry: { type: 'change.judged', outcome: 'allowed', environment: 'staging' } },
  ]) {
    await assert.rejects(recall(gate, view(entry), 1), { code: 'ledger-inconsistent' });
  }
});

test('files that are not those that were judged are not applied, whatever their SHA-1 names', async () => {
  const gate = await gateOf(fleet, [dana], { trust });
  const { verdict } = await assess(gate, NO_REVISION, fleet.head());
  const entry = {
    index: 1,
    entry: { type: 'change.judged', outcome: 'allowed', environment: 'production', to: verdict.to, tree: verdict.tree },
  };
  const view = (judged: object) =>
    ({ entry: () => entry, latest: () => undefined, all: () => [], evidence: () => judged }) as never;
  assert.equal((await recall(gate, view(verdict), 1)).revision, verdict.to);
  await assert.rejects(recall(gate, view({ ...verdict, content: '0'.repeat(64) }), 1), { code: 'git-object-corrupt' });
});
