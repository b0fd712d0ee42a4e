import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubernetesObject } from '../../src/model/index.ts';
import { actingAs } from '../kit/acting-as.ts';
import { deployment } from '../kit/manifests.ts';
import { random } from '../kit/random.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// Whoever writes whatever: no pod is left running that does not come from an approved commit, without an exception.

const NS = 'anything';
const MERGE = 'application/merge-patch+json';
const PATCH = 'application/json-patch+json';
const STRATEGIC = 'application/strategic-merge-patch+json';
const GOOD = 'registry.example.test/shop/web:1.0.0';
const EVIL = 'registry.example.test/evil/miner:1';
const WRITES = 120;
const stage = await openStage(scratch());

type Who = {
  request(method: string, path: string, body?: unknown, type?: string): Promise<{ readonly status: number }>;
};
type Write = (who: Who, at: State) => Promise<{ readonly status: number }>;
type State = { readonly pods: KubernetesObject[]; readonly sets: KubernetesObject[]; readonly web: KubernetesObject };

const core = `/api/v1/namespaces/${NS}`;
const apps = `/apis/apps/v1/namespaces/${NS}`;

const container = (more: object = {}) => ({
  name: 'web',
  image: EVIL,
  resources: { limits: { cpu: '1', memory: '64Mi' } },
  ...more,
});
const owned = (by: KubernetesObject | undefined, kind: string, apiVersion: string) =>
  by === undefined
    ? {}
    : {
        ownerReferences: [
          {
            apiVersion,
            kind,
            name: by.metadata.name,
            uid: by.metadata['uid'],
            controller: true,
            blockOwnerDeletion: true,
          },
        ],
      };
let serial = 0;
const nameOf = (base: string) =>
  `${base}-${'bcdfg'[serial % 5]}${'hjklm'[Math.floor(serial / 5) % 5]}${serial++ % 10}zz`;
const templateOf = (o: KubernetesObject | undefined) =>
  structuredClone((o?.['spec'] as { template?: unknown } | undefined)?.template) as {
    metadata: { labels: Record<string, string> };
    spec: { containers: object[] };
  };

const TRIES: Readonly<Record<string, Write>> = {
  'a pod of nobody': (who) =>
    who.request('POST', `${core}/pods`, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: nameOf('free') },
      spec: { containers: [container()] },
    }),
  'a pod of a ReplicaSet of Git, with its labels': (who, { sets: [set] }) =>
    who.request('POST', `${core}/pods`, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: nameOf('web'), labels: set?.metadata.labels, ...owned(set, 'ReplicaSet', 'apps/v1') },
      spec: { containers: [container()] },
    }),
  'a pod of it with the right container and another': (who, { sets: [set] }) =>
    who.request('POST', `${core}/pods`, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: nameOf('web'), labels: set?.metadata.labels, ...owned(set, 'ReplicaSet', 'apps/v1') },
      spec: { containers: [...templateOf(set).spec.containers, container({ name: 'miner' })] },
    }),
  'a stray pod that a controller would adopt': (who, { sets: [set] }) =>
    who.request('POST', `${core}/pods`, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: nameOf('stray'), labels: set?.metadata.labels },
      spec: { containers: [container()] },
    }),
  'another image in the Deployment': (who) =>
    who.request(
      'PATCH',
      `${apps}/deployments/web`,
      { spec: { template: { spec: { containers: [container()] } } } },
      MERGE,
    ),
  'another container in the Deployment': (who) =>
    who.request(
      'PATCH',
      `${apps}/deployments/web`,
      [{ op: 'add', path: '/spec/template/spec/containers/-', value: container({ name: 'miner' }) }],
      PATCH,
    ),
  'another image in the ReplicaSet': (who, { sets: [set] }) =>
    who.request(
      'PATCH',
      `${apps}/replicasets/${set?.metadata.name}`,
      { spec: { template: { spec: { containers: [container()] } } } },
      MERGE,
    ),
  'a forged ReplicaSet, and the annotation that rolls it out': async (who, { web, sets: [set] }) => {
    const template = templateOf(set);
    const labels = { ...template.metadata.labels, 'pod-template-hash': 'forged' };
    const made = await who.request('POST', `${apps}/replicasets`, {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: {
        name: nameOf('web'),
        labels,
        annotations: { 'deployment.kubernetes.io/revision': '7' },
        ...owned(web, 'Deployment', 'apps/v1'),
      },
      spec: {
        replicas: 0,
        selector: { matchLabels: labels },
        template: { ...template, metadata: { labels }, spec: { containers: [container()] } },
      },
    });
    const annotations = { 'deprecated.deployment.rollback.to': '7' };
    await who.request('PATCH', `${apps}/deployments/web`, { metadata: { annotations } }, MERGE);
    return made;
  },
  'another image in a running pod': (who, { pods: [pod] }) =>
    who.request('PATCH', `${core}/pods/${pod?.metadata.name}`, { spec: { containers: [container()] } }, STRATEGIC),
  'an ephemeral container': (who, { pods: [pod] }) =>
    who.request(
      'PATCH',
      `${core}/pods/${pod?.metadata.name}/ephemeralcontainers`,
      { spec: { ephemeralContainers: [{ name: nameOf('debug'), image: EVIL }] } },
      STRATEGIC,
    ),
  'a Job': (who) =>
    who.request('POST', `/apis/batch/v1/namespaces/${NS}/jobs`, {
      apiVersion: 'batch/v1',
      kind: 'Job',
      metadata: { name: nameOf('job') },
      spec: { template: { spec: { restartPolicy: 'Never', containers: [container()] } } },
    }),
  'other labels through `status`': (who, { pods: [pod] }) =>
    who.request(
      'PATCH',
      `${core}/pods/${pod?.metadata.name}/status`,
      { metadata: { labels: { app: 'x' } } },
      STRATEGIC,
    ),
  'a scale of the ReplicaSet': (who, { sets: [set] }) =>
    who.request('PATCH', `${apps}/replicasets/${set?.metadata.name}/scale`, { spec: { replicas: 9 } }, MERGE),
};

test('random writes by random identities leave no pod running that nobody approved, without an exception', async (t) => {
  const seed = Number(process.env['COUNTERSIGN_TEST_SEED'] ?? Date.now() % 1_000_000_000);
  t.diagnostic(`seed ${seed}`);
  const next = random(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(next() * from.length)] as T;
  const { service } = await stage.running(NS, {}, { files: { 'clusters/production/web.yaml': deployment(NS, 'web') } });
  const controllers = ['replicaset', 'deployment', 'job', 'cronjob', 'statefulset', 'daemon-set'].map(
    (name) => `${name}-controller`,
  );
  const identities: readonly Who[] = [
    ...(await Promise.all(
      ['dev', 'oncall', 'operator', 'controller', 'node', 'scheduler', 'manager', 'nobody'].map((u) => stage.as(u)),
    )),
    ...[...controllers, 'generic-garbage-collector', 'horizontal-pod-autoscaler'].map((name) =>
      actingAs(stage.controlPlane.url, name),
    ),
  ];
  const listed = async (path: string) => (await stage.get(path)).body['items'] as KubernetesObject[];
  const look = async (): Promise<State> => ({
    pods: (await listed(`${core}/pods?labelSelector=app%3Dweb`)).filter(
      (p) => p.metadata['deletionTimestamp'] === undefined,
    ),
    sets: (await listed(`${apps}/replicasets`)).filter((s) => (s['spec'] as { replicas: number }).replicas > 0),
    web: (await stage.get(`${apps}/deployments/web`)).body as unknown as KubernetesObject,
  });
  await stage.waitFor(async () => (await look()).pods.length === 2, 'the pods of Git');
  const oncall = await stage.as('oncall');
  const webhook = `/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/${stage.webhook}`;
  const passed = new Map<string, number>();
  for (let i = 0; i < WRITES; i++) {
    // now and then someone who may takes the gate away for a moment
    if (next() < 0.04) await oncall.request('DELETE', webhook);
    const [what, write] = pick(Object.entries(TRIES));
    const { status } = await write(pick(identities), await look());
    if (status < 300) passed.set(what, (passed.get(what) ?? 0) + 1);
  }
  t.diagnostic(`passed in a gap: ${JSON.stringify([...passed])}`);
  const strangers = async () =>
    (await listed(`${core}/pods`)).filter((pod) => {
      const spec = pod['spec'] as Record<
        string,
        readonly { readonly image: string; readonly name: string }[] | undefined
      >;
      const all = [
        ...(spec['containers'] ?? []),
        ...(spec['initContainers'] ?? []),
        ...(spec['ephemeralContainers'] ?? []),
      ];
      return all.length !== 1 || all.some((c) => c.image !== GOOD || c.name !== 'web');
    });
  const told = () => {
    const entries = service.entries('content.unproven', 'production').map(({ entry }) => entry);
    return new Set(entries.map((e) => e.uid));
  };
  // Its own entry, or the one of what made it.
  const isTold = (pod: KubernetesObject) => {
    const owners = (pod.metadata['ownerReferences'] ?? []) as readonly { readonly uid: string }[];
    return [String(pod.metadata['uid']), ...owners.map((o) => o.uid)].some((uid) => told().has(uid));
  };
  let left: KubernetesObject[] = [];
  await stage
    .waitFor(async () => {
      left = (await strangers()).filter((pod) => !isTold(pod));
      return left.length === 0;
    }, 'an exception for each of these pods')
    .catch((thrown) =>
      assert.fail(`${thrown}\n${JSON.stringify(left.map((p) => [p.metadata.name, p['spec']]))}\nseed ${seed}`),
    );
  await stage.waitFor(async () => {
    const { web } = await look();
    const [only, ...more] = templateOf(web).spec.containers as { image: string }[];
    return more.length === 0 && only?.image === GOOD;
  }, 'the Deployment of Git');
});
