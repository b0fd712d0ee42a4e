import assert from 'node:assert/strict';
import { test } from 'node:test';
import { minorOf } from '../../scripts/admission-matrix.ts';
import { type Approved, DUTIES, type MachineryFacts, proveChild, templateDigest } from '../../src/machinery/index.ts';
import type { KubernetesObject, ObjectRef } from '../../src/model/index.ts';
import { actingAs } from '../kit/acting-as.ts';
import { changesOf } from '../kit/changes-of.ts';
import { deployment, service as serviceManifest } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

const PATH = 'clusters/production';
const IMAGE = 'registry.example.test/shop/web:1.0.0';
const EVIL = 'registry.example.test/shop/evil:1.0.0';
const stage = await openStage(scratch());
const controller = (name: string) => actingAs(stage.controlPlane.url, name);

const limits = 'resources: {limits: {cpu: 100m, memory: 64Mi}}';
const others = (ns: string) => `
apiVersion: v1
kind: LimitRange
metadata: {name: defaults, namespace: ${ns}}
spec:
  limits:
    - type: Container
      default: {ephemeral-storage: 1Gi}
      defaultRequest: {cpu: 10m}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: ${ns}}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: ${ns}}
spec:
  replicas: 2
  serviceName: db
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}, annotations: {note: "1"}}
    spec:
      automountServiceAccountToken: false
      containers:
        - name: db
          image: ${IMAGE}
          ${limits}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: disk, namespace: ${ns}}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: disk}}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
  template:
    metadata: {labels: {app: disk}}
    spec:
      containers:
        - name: disk
          image: ${IMAGE}
          ${limits}
          volumeMounts: [{name: data, mountPath: /data}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: ${ns}}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      tolerations: [{operator: Exists, effect: NoExecute}]
      affinity:
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
            - {weight: 1, preference: {matchExpressions: [{key: disk, operator: Exists}]}}
      containers:
        - name: agent
          image: ${IMAGE}
          ports: [{containerPort: 9100}]
          ${limits}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, namespace: ${ns}, annotations: {countersign.dev/allow: run}}
spec:
  completions: 2
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      initContainers:
        - name: before
          image: ${IMAGE}
          ${limits}
      containers:
        - name: migrate
          image: ${IMAGE}
          env: [{name: A, value: b}]
          ${limits}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tidy, namespace: ${ns}, annotations: {countersign.dev/allow: run}}
spec:
  schedule: "* * * * *"
  jobTemplate:
    metadata: {labels: {made-by: tidy}}
    spec:
      template:
        spec:
          restartPolicy: OnFailure
          containers:
            - name: tidy
              image: ${IMAGE}
              ${limits}
`;

const podsOf = async (ns: string, label = '') =>
  (await stage.get(`/api/v1/namespaces/${ns}/pods?labelSelector=${label}`)).body['items'] as KubernetesObject[];

test('what the cluster’s controllers make of Git’s objects is proven: pods of every kind, claims, rollouts', async () => {
  const ns = 'made';
  const { fleet, service } = await stage.running(ns, {}, { files: { [`${PATH}/web.yaml`]: deployment(ns, 'web') } });
  const second = await stage.change(fleet, 'the others', { [`${PATH}/others.yaml`]: others(ns) });
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  const made = async (label: string, count: number) =>
    stage.waitFor(async () => (await podsOf(ns, label)).length >= count, `${count} pods of ${label}`);
  await made('app=web', 2);
  await made('app=db', 2);
  await made('app=disk', 1);
  await made('app=agent', 2);
  await made('job-name=migrate', 2);
  await stage.waitFor(
    async () => (await podsOf(ns)).some((p) => p.metadata.name.startsWith('tidy-')),
    'a run of the CronJob',
  );
  const third = await stage.change(fleet, 'roll out', {
    [`${PATH}/web.yaml`]: deployment(ns, 'web', { image: IMAGE.replace('1.0.0', '1.1.0'), replicas: 3 }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === third && e.outcome === 'applied');
  await stage.waitFor(async () => {
    const images = (await podsOf(ns, 'app=web')).map(
      (p) => (p['spec'] as { containers: { image: string }[] }).containers[0]?.image,
    );
    return images.length === 3 && images.every((i) => i?.endsWith(':1.1.0') === true);
  }, 'the rollout');
  assert.deepEqual(
    service.entries('admission.denied', 'production').map(({ entry: e }) => [e.user, e.object.kind, e.reason]),
    [],
  );
  assert.deepEqual(
    service.entries('content.unproven', 'production').map(({ entry: e }) => [e.object.kind, e.object.name, e.reason]),
    [],
  );
  const proven = await mutated(ns);
  assert.deepEqual([...proven].sort(), HARMLESS);
});

// What may change in a pod that exists without making it unproven: the node that the scheduler or the DaemonSet chose,
// the order of lists whose order has no meaning, limits that a LimitRange may have set earlier, and what decides nothing.
const HARMLESS = [
  'added metadata',
  'added spec.containers.resources.limits',
  'added spec.containers.resources.requests',
  'added spec.initContainers.resources.limits',
  'added spec.initContainers.resources.requests',
  'backwards spec.containers.volumeMounts',
  'backwards spec.tolerations',
  'backwards spec.volumes',
  'changed metadata.annotations.kubernetes.io/limit-ranger',
  'changed metadata.generateName',
  'changed spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.matchFields.values',
  'changed spec.containers.resources.limits.ephemeral-storage',
  'changed spec.containers.resources.requests.ephemeral-storage',
  'changed spec.initContainers.resources.limits.ephemeral-storage',
  'changed spec.initContainers.resources.requests.ephemeral-storage',
  'changed spec.nodeName',
  'removed metadata.generateName',
  'removed metadata.labels.pod-template-generation',
  'removed spec.containers.resources.limits.ephemeral-storage',
  'removed spec.containers.resources.requests.ephemeral-storage',
  'removed spec.initContainers.resources.limits.ephemeral-storage',
  'removed spec.initContainers.resources.requests.ephemeral-storage',
  'removed spec.nodeName',
];

/** Changes each leaf of each pod in turn. Returns the changes that leave a pod proven. */
async function mutated(ns: string): Promise<ReadonlySet<string>> {
  const names = new Set(['web', 'db', 'disk', 'agent', 'migrate', 'tidy']);
  const isOwned = (ref: ObjectRef) => names.has(ref.name) && ref.kind !== 'Pod';
  const approved: Approved = {
    injected: [],
    hasOperators: false,
    isOwned,
    templates: (o) => (isOwned({ ...o, name: o.metadata.name, namespace: ns }) ? [templateDigest(o) ?? ''] : undefined),
  };
  const facts = remembered(ns);
  const still = new Set<string>();
  let count = 0;
  const seen = new Set<string>();
  for (const pod of await podsOf(ns)) {
    const kind = pod.metadata.name.replace(/-.*/, '');
    const object: KubernetesObject = { ...pod, apiVersion: 'v1', kind: 'Pod' };
    if (pod.metadata['deletionTimestamp'] !== undefined || seen.has(kind)) continue;
    seen.add(kind);
    assert.deepEqual(await proveChild(object, approved, facts), { kind: 'proven' }, pod.metadata.name);
    for (const [what, changed] of changesOf(object)) {
      count++;
      if ((await proveChild(changed, approved, facts))?.kind === 'proven') still.add(what);
    }
  }
  assert.deepEqual([...seen].sort(), [...names].sort());
  assert.ok(count > 1000, `${count} changes`);
  return still;
}

// Each kind is read once: nothing changes any more.
function remembered(ns: string): MachineryFacts {
  const kinds: Readonly<Record<string, string>> = {
    ...{ ReplicaSet: 'apps/v1', Deployment: 'apps/v1', StatefulSet: 'apps/v1', DaemonSet: 'apps/v1' },
    ...{ ControllerRevision: 'apps/v1', Job: 'batch/v1', CronJob: 'batch/v1', ServiceAccount: 'v1', LimitRange: 'v1' },
    PriorityClass: 'scheduling.k8s.io/v1',
  };
  const known = new Map<string, Promise<readonly KubernetesObject[]>>();
  const list = (kind: string) => {
    const apiVersion = kinds[kind] ?? assert.fail(kind);
    const root = apiVersion === 'v1' ? '/api/v1' : `/apis/${apiVersion}`;
    const place = kind === 'PriorityClass' ? '' : `/namespaces/${ns}`;
    const plural = `${kind.toLowerCase()}${kind.endsWith('s') ? 'es' : 's'}`;
    const read =
      known.get(kind) ??
      stage
        .get(`${root}${place}/${plural}`)
        .then(({ body }) => (body['items'] as KubernetesObject[]).map((o) => ({ ...o, apiVersion, kind })));
    known.set(kind, read);
    return read;
  };
  return {
    get: async ({ kind, name }) => (await list(kind)).find((o) => o.metadata.name === name),
    list: (_, kind) => list(kind),
  };
}

test('every controller that the API server has a role for has its duties, and no other', async () => {
  const { body } = await stage.get('/apis/rbac.authorization.k8s.io/v1/clusterroles');
  const roles = (body['items'] as KubernetesObject[]).map((r) => r.metadata.name);
  const prefix = 'system:controller:';
  const known = roles.filter((r) => r.startsWith(prefix)).map((r) => r.slice(prefix.length));
  assert.ok(known.length > 30);
  assert.deepEqual(
    known.filter((name) => !Object.hasOwn(DUTIES, name)),
    [],
  );
  const minor = Number((await minorOf(stage.admin)).split('.')[1]);
  const expected = Object.entries(SINCE)
    .filter(([, since]) => minor < since)
    .map(([name]) => name);
  assert.deepEqual(
    Object.keys(DUTIES).filter((name) => !known.includes(name)),
    expected,
  );
});

/** Roles that the oldest version lacks, with the minor version that first has them without a feature gate. */
const SINCE: Readonly<Record<string, number>> = {
  'device-taint-eviction-controller': 36,
  'kube-apiserver-serving-clustertrustbundle-publisher': 37,
  podcertificaterequestcleaner: 37,
  'storage-version-migrator-controller': 37,
};

test('a controller’s name alone makes nothing: no pod, no ReplicaSet, no Job of content that was not approved', async () => {
  const ns = 'forged';
  const files = { [`${PATH}/web.yaml`]: deployment(ns, 'web'), [`${PATH}/svc.yaml`]: serviceManifest(ns, 'web') };
  const { service } = await stage.running(ns, {}, { files });
  const find = async (path: string) => (await stage.get(path)).body as unknown as KubernetesObject;
  const pod = (more: object = {}, image = EVIL) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'evil', namespace: ns, ...more },
    spec: { containers: [{ name: 'web', image, resources: { limits: { cpu: '1', memory: '64Mi' } } }] },
  });
  const at = `/api/v1/namespaces/${ns}/pods`;
  const withVersion = async (object: KubernetesObject) => {
    const now = await find(`/apis/apps/v1/namespaces/${ns}/deployments/web`);
    return { ...object, metadata: { ...object.metadata, resourceVersion: now.metadata['resourceVersion'] } };
  };
  const refused = async (
    who: string,
    method: string,
    path: string,
    body: object | undefined,
    why: RegExp,
    type?: string,
  ) => {
    const answer = await controller(who).request(method, path, body, type);
    assert.equal(answer.status, 403, `${who} ${method} ${path}: ${JSON.stringify(answer.body).slice(0, 300)}`);
    assert.match(String(answer.body['message']), why);
  };
  await refused('replicaset-controller', 'POST', at, pod(), /no apps\/ReplicaSet owns it/);
  await refused('job-controller', 'POST', at, pod(), /no batch\/Job owns it/);
  await refused('persistent-volume-binder', 'POST', at, pod(), /no duty of/);

  const web = await find(`/apis/apps/v1/namespaces/${ns}/deployments/web`);
  await stage.waitFor(async () => (await podsOf(ns, 'app=web')).length === 2, 'pods');
  const [set] = (await stage.get(`/apis/apps/v1/namespaces/${ns}/replicasets`)).body['items'] as KubernetesObject[];
  assert.ok(set !== undefined);
  const ownedBy = (owner: KubernetesObject, kind: string, apiVersion = 'apps/v1') => ({
    ownerReferences: [
      {
        ...{ apiVersion, kind, name: owner.metadata.name, uid: owner.metadata['uid'] },
        ...{ controller: true, blockOwnerDeletion: true },
      },
    ],
  });
  const labels = { labels: set.metadata.labels };
  const name = `${set.metadata.name}-bcdfg`;
  const owned = { name, ...labels, ...ownedBy(set, 'ReplicaSet') };
  await refused('replicaset-controller', 'POST', at, pod(owned), /web.*image.*evil:1\.0\.0` instead of/);
  const template = (set['spec'] as { template: { metadata: object; spec: { containers: object[] } } }).template;
  const good = { apiVersion: 'v1', kind: 'Pod', metadata: { ...owned, namespace: ns }, spec: template.spec };
  const [container] = template.spec.containers;
  for (const [what, spec] of [
    ['a second container', { containers: [container, { ...container, name: 'miner', image: EVIL }] }],
    ['an init container', { initContainers: [{ name: 'first', image: EVIL }] }],
    ['a command', { containers: [{ ...container, command: ['sh'] }] }],
    ['an environment variable', { containers: [{ ...container, env: [{ name: 'LD_PRELOAD', value: '/x' }] }] }],
    ['privileges', { containers: [{ ...container, securityContext: { privileged: true } }] }],
    ['a volume of the host', { volumes: [{ name: 'host', hostPath: { path: '/' } }] }],
    ['another account', { serviceAccountName: 'other' }],
    ['a node', { nodeName: 'node-a' }],
  ] as const) {
    const answer = await controller('replicaset-controller').request('POST', at, {
      ...good,
      spec: { ...template.spec, ...spec },
    });
    assert.equal(answer.status, 403, `${what}: ${JSON.stringify(answer.body).slice(0, 300)}`);
  }
  const forged = {
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    metadata: { name: 'web-evil', namespace: ns, labels: { app: 'web', 'pod-template-hash': 'evil' } },
    spec: {
      replicas: 0,
      selector: { matchLabels: { app: 'web', 'pod-template-hash': 'evil' } },
      template: { ...template, metadata: { labels: { app: 'web', 'pod-template-hash': 'evil' } }, spec: pod().spec },
    },
  };
  const sets = `/apis/apps/v1/namespaces/${ns}/replicasets`;
  await refused('deployment-controller', 'POST', sets, forged, /no controller owns it/);
  const asItsOwn = { ...forged, metadata: { ...forged.metadata, ...ownedBy(web, 'Deployment') } };
  await refused(
    'deployment-controller',
    'POST',
    sets,
    asItsOwn,
    /its template was not approved for the Deployment `web`/,
  );
  const MERGE = 'application/merge-patch+json';
  const deployments = `/apis/apps/v1/namespaces/${ns}/deployments/web`;
  const { annotations } = web.metadata;
  const back = {
    ...web,
    metadata: { ...web.metadata, annotations: { ...annotations, 'deprecated.deployment.rollback.to': '1' } },
  };
  await refused('deployment-controller', 'PUT', deployments, await withVersion(back), /no duty of/);
  const image = { spec: { template: { spec: { containers: [{ ...container, image: EVIL }] } } } };
  await refused('generic-garbage-collector', 'PATCH', deployments, image, /more than its duty changes/, MERGE);
  await refused('deployment-controller', 'PATCH', `${sets}/${set.metadata.name}`, image, /more than its scale/, MERGE);
  const job = {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: 'evil', namespace: ns },
    spec: { template: { spec: { ...pod().spec, restartPolicy: 'Never' } } },
  };
  await refused('cronjob-controller', 'POST', `/apis/batch/v1/namespaces/${ns}/jobs`, job, /no controller owns it/);
  const [running] = await podsOf(ns, 'app=web');
  const swap = { spec: { containers: [{ ...container, image: EVIL }] } };
  const path = `${at}/${running?.metadata.name}`;
  await refused(
    'replicaset-controller',
    'PATCH',
    path,
    swap,
    /more than its duty/,
    'application/strategic-merge-patch+json',
  );
  const debug = { spec: { ephemeralContainers: [{ name: 'debug', image: EVIL, targetContainerName: 'web' }] } };
  const strategic = 'application/strategic-merge-patch+json';
  await refused('generic-garbage-collector', 'PATCH', `${path}/ephemeralcontainers`, debug, /no duty of/, strategic);
  const scale = {
    apiVersion: 'autoscaling/v1',
    kind: 'Scale',
    metadata: { name: 'web', namespace: ns },
    spec: { replicas: 9 },
  };
  await refused('horizontal-pod-autoscaler', 'PUT', `${deployments}/scale`, scale, /no HorizontalPodAutoscaler/);
  await refused('generic-garbage-collector', 'DELETE', deployments, undefined, /it is an object of Git/);
  const relabel = { metadata: { labels: { app: 'other' } } };
  await refused('generic-garbage-collector', 'PATCH', `${path}/status`, relabel, /no duty of/, strategic);
  const certificate = { data: { 'ca.crt': 'mine' } };
  const published = `/api/v1/namespaces/${ns}/configmaps/kube-root-ca.crt`;
  await refused('generic-garbage-collector', 'PATCH', published, certificate, /more than its duty/, MERGE);
  const root = await find(published);
  const forgedRoot = { ...root, ...certificate };
  await refused('root-ca-cert-publisher', 'PUT', published, forgedRoot, /it is not the one of kube-system/);
  // What a cloud's controller does to a Service, under whatever name.
  const dev = await stage.as('dev');
  const balancer = 'service.kubernetes.io/load-balancer-cleanup';
  const mark = (finalizers: readonly string[]) =>
    dev.request('PATCH', `/api/v1/namespaces/${ns}/services/web/status`, { metadata: { finalizers } }, MERGE);
  assert.equal((await mark([balancer])).status, 200);
  assert.equal((await mark([balancer, 'example.test/mine'])).status, 403);
  assert.ok(service.entries('admission.denied', 'production').length >= 10);
});
