import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Approved,
  type MachineryFacts,
  proveChild,
  proveWrite,
  templateDigest,
} from '../../src/machinery/index.ts';
import type { KubernetesObject, ObjectRef } from '../../src/model/index.ts';

type Json = Readonly<Record<string, unknown>>;
const ACCOUNT = 'system:serviceaccount:kube-system:';

const templateOf = (image: string, labels: Json = {}) => ({
  metadata: { labels: { app: 'web', ...labels } },
  spec: { containers: [{ name: 'web', image }], automountServiceAccountToken: false },
});
const object = (apiVersion: string, kind: string, name: string, spec: Json, metadata: Json = {}, status: Json = {}) =>
  ({
    ...{ apiVersion, kind },
    metadata: { name, namespace: 'shop', uid: `uid of ${name}`, ...metadata },
    ...{ spec, status },
  }) as KubernetesObject;
const ownedBy = ({ apiVersion, kind, metadata: { name, uid } }: KubernetesObject) => ({
  ownerReferences: [{ apiVersion, kind, name, uid, controller: true, blockOwnerDeletion: true }],
});

const deployment = (image: string, more: Json = {}) =>
  object('apps/v1', 'Deployment', 'web', {
    ...{ replicas: 2, selector: { matchLabels: { app: 'web' } }, template: templateOf(image) },
    ...more,
  });
const [NEW, OLD] = [deployment('web:2'), deployment('web:1')];
const set = (hash: string, image: string, replicas: number, availableReplicas = replicas) => {
  const own = { 'pod-template-hash': hash };
  const spec = { replicas, selector: { matchLabels: { app: 'web', ...own } }, template: templateOf(image, own) };
  const metadata = { labels: { app: 'web', ...own }, ...ownedBy(NEW) };
  return object('apps/v1', 'ReplicaSet', `web-${hash}`, spec, metadata, { availableReplicas });
};
const cron = (image: string) =>
  object('batch/v1', 'CronJob', 'nightly', { jobTemplate: { spec: { template: templateOf(image) } } });
const daemons = (image: string) => object('apps/v1', 'DaemonSet', 'agent', { template: templateOf(image) });

const APPROVED: Readonly<Record<string, readonly string[]>> = Object.fromEntries(
  [
    [NEW, OLD],
    [cron('web:2'), cron('web:1')],
    [daemons('web:2'), daemons('web:1')],
  ].map(([now, before]) => [
    (now as KubernetesObject).kind,
    [now, before].map((o) => templateDigest(o as KubernetesObject) ?? ''),
  ]),
);
const approved: Approved = {
  ...{ injected: [], hasOperators: false },
  isOwned: ({ kind }: Pick<ObjectRef, 'kind'>) => Object.hasOwn(APPROVED, kind),
  templates: ({ kind }) => APPROVED[kind],
};
const factsOf = (all: readonly KubernetesObject[]): MachineryFacts => ({
  get: async ({ kind, name }) => all.find((o) => o.kind === kind && o.metadata.name === name),
  list: async (_, kind) => all.filter((o) => o.kind === kind),
});

async function created(controller: string, made: KubernetesObject, around: readonly KubernetesObject[]) {
  const { apiVersion, kind, metadata } = made;
  const write = {
    ...{ operation: 'CREATE', user: `${ACCOUNT}${controller}`, groups: [], subresource: '' },
    ref: { apiVersion, kind, namespace: 'shop', name: metadata.name },
    ...{ object: made, oldObject: undefined },
  };
  const proof = await proveWrite(write, approved, factsOf(around));
  return proof?.kind === 'unproven' ? proof.reason : String(proof?.kind);
}

test('an earlier ReplicaSet that is kept up after the new one is available is superseded', async () => {
  const proof = async (old: KubernetesObject, now: KubernetesObject, of = NEW) =>
    proveChild(old, approved, factsOf([of, old, now]));
  const found = await proof(set('a1', 'web:1', 1), set('b2', 'web:2', 2));
  assert.deepEqual(found, {
    kind: 'unproven',
    reason: 'its template was approved, but a newer one took its place and is available',
    lateMs: 10_000,
  });
  for (const [what, old, now, of] of [
    ['it runs nothing', set('a1', 'web:1', 0), set('b2', 'web:2', 2)],
    ['the rollout is not done', set('a1', 'web:1', 1), set('b2', 'web:2', 2, 1)],
    ['the rollout waits', set('a1', 'web:1', 1), set('b2', 'web:2', 2), deployment('web:2', { paused: true })],
    ['it is the current one', set('b2', 'web:2', 2), set('a1', 'web:1', 0)],
    ['Git went back to it', set('a1', 'web:1', 2), set('b2', 'web:2', 2), OLD],
  ] as const)
    assert.deepEqual(await proof(old, now, of), { kind: 'proven' }, what);
});

test('a ReplicaSet without replicas makes no pods, under any account', async () => {
  const pod = (of: KubernetesObject) => {
    const { spec, metadata } = (of['spec'] as { template: { spec: object; metadata: object } }).template;
    const added = {
      ...{ enableServiceLinks: true, serviceAccountName: 'default', serviceAccount: 'default', priority: 0 },
      preemptionPolicy: 'PreemptLowerPriority',
      tolerations: ['not-ready', 'unreachable'].map((taint) => ({
        ...{ key: `node.kubernetes.io/${taint}`, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 },
      })),
    };
    return object('v1', 'Pod', `${of.metadata.name}-bcdfg`, { ...spec, ...added }, { ...metadata, ...ownedBy(of) });
  };
  const [idle, current] = [set('a1', 'web:1', 0), set('b2', 'web:2', 2)];
  const around = [NEW, idle, current];
  assert.equal(await created('replicaset-controller', pod(current), around), 'proven');
  assert.equal(await created('replicaset-controller', pod(idle), around), 'the ReplicaSet `web-a1` has no replicas');
  const leaving = await proveChild(pod(idle), approved, factsOf(around));
  assert.deepEqual(leaving, { kind: 'proven' }, 'one that is there is about to go');
});

test('new Jobs of a CronJob and new pods of a DaemonSet have the current template', async () => {
  const job = (image: string) =>
    object('batch/v1', 'Job', 'nightly-1', { template: templateOf(image) }, { labels: {}, ...ownedBy(cron('')) });
  const nightly = [cron('web:2')];
  assert.equal(await created('cronjob-controller', job('web:2'), nightly), 'proven');
  assert.match(await created('cronjob-controller', job('web:1'), nightly), /a newer one took its place/);
  assert.match(await created('cronjob-controller', job('web:3'), nightly), /was not approved/);
  assert.deepEqual(await proveChild(job('web:1'), approved, factsOf(nightly)), { kind: 'proven' }, 'it ran before');
  const template = { ...templateOf('web:1'), $patch: 'replace' };
  const before = {
    ...object('apps/v1', 'ControllerRevision', 'agent-1', {}, ownedBy(daemons(''))),
    data: { spec: { template } },
  } as KubernetesObject;
  const pod = object('v1', 'Pod', 'agent-bcdfg', templateOf('web:1').spec, ownedBy(daemons('')));
  const reason = await created('daemon-set-controller', pod, [daemons('web:2'), before]);
  assert.match(reason, /`spec.containers\[web\].image` differs \(`web:1` instead of `web:2`\)/);
});
