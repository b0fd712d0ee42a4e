import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { alterations } from '../../src/cluster/unaltered.ts';
import type { KubernetesObject } from '../../src/model/index.ts';
import { parseYaml } from '../../src/yaml/index.ts';
import { without } from '../kit/machine.ts';
import { scratch } from '../kit/scratch.ts';
import { Stage } from '../kit/stage.ts';

type Json = Record<string, unknown>;
type Pair = readonly [sent: KubernetesObject, answered: KubernetesObject];

// --- a Deployment, as Git has it and as the API server answers

const object = (apiVersion: string, kind: string, content: object): KubernetesObject => ({
  apiVersion,
  kind,
  metadata: { name: 'a', namespace: 'shop' },
  ...content,
});
const deployment = (pod: object, spec: object = {}) =>
  object('apps/v1', 'Deployment', {
    spec: {
      selector: { matchLabels: { app: 'a' } },
      ...spec,
      template: { metadata: { labels: { app: 'a' } }, ...pod },
    },
  });

const SENT = deployment({
  spec: {
    containers: [
      {
        name: 'web',
        image: 'registry.example.test/web:1',
        command: ['/web'],
        args: ['--port', '80'],
        env: [
          { name: 'A', value: '1000m' },
          { name: 'B', valueFrom: { secretKeyRef: { name: 's', key: 'k' } } },
        ],
        envFrom: [{ configMapRef: { name: 'c' } }],
        ports: [{ containerPort: 80 }],
        resources: { limits: { cpu: '1000m' } },
        securityContext: { runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
        readinessProbe: { httpGet: { port: 80 } },
        volumeMounts: [{ name: 'data', mountPath: '/data', readOnly: true }],
      },
    ],
    automountServiceAccountToken: false,
    serviceAccountName: 'web',
    volumes: [{ name: 'data', secret: { secretName: 's' } }],
  },
});
const POD = '/spec/template/spec';
const WEB = `${POD}/containers/0`;

const ANSWERED = structuredClone(SENT);
for (const [pointer, value] of Object.entries({
  '/metadata/uid': '1',
  '/metadata/generation': 1,
  '/metadata/creationTimestamp': '2026-01-01T00:00:00Z',
  '/metadata/managedFields': [],
  '/metadata/annotations': { 'deployment.kubernetes.io/revision': '1' },
  '/spec/replicas': 1,
  '/spec/revisionHistoryLimit': 10,
  '/spec/progressDeadlineSeconds': 600,
  '/spec/strategy': { type: 'RollingUpdate', rollingUpdate: { maxSurge: '25%', maxUnavailable: '25%' } },
  '/spec/template/metadata/creationTimestamp': null,
  [`${POD}/restartPolicy`]: 'Always',
  [`${POD}/dnsPolicy`]: 'ClusterFirst',
  [`${POD}/schedulerName`]: 'default-scheduler',
  [`${POD}/securityContext`]: {},
  [`${POD}/serviceAccount`]: 'web',
  [`${POD}/terminationGracePeriodSeconds`]: 30,
  [`${POD}/volumes/0/secret/defaultMode`]: 420,
  [`${WEB}/imagePullPolicy`]: 'IfNotPresent',
  [`${WEB}/terminationMessagePath`]: '/dev/termination-log',
  [`${WEB}/terminationMessagePolicy`]: 'File',
  [`${WEB}/ports/0/protocol`]: 'TCP',
  [`${WEB}/resources/limits/cpu`]: '1',
  [`${WEB}/readinessProbe/timeoutSeconds`]: 1,
  [`${WEB}/readinessProbe/periodSeconds`]: 10,
  [`${WEB}/readinessProbe/successThreshold`]: 1,
  [`${WEB}/readinessProbe/failureThreshold`]: 3,
  [`${WEB}/readinessProbe/httpGet/path`]: '/',
  [`${WEB}/readinessProbe/httpGet/scheme`]: 'HTTP',
  '/status': { replicas: 1 },
}))
  set(ANSWERED, pointer, value);

test('the answer of the API server is not taken for an alteration', () => {
  assert.deepEqual(alterations(SENT, ANSWERED), []);
});

// Each change of the answer, and the pointer by which it is found.
const EVIL: Readonly<Record<string, unknown>> = {
  [`${WEB}/image`]: 'registry.example.test/evil:1',
  [`${WEB}/command/0`]: '/evil',
  [`${WEB}/args/1`]: '81',
  [`${WEB}/args/2`]: '--debug',
  [`${WEB}/env/0/value`]: '1',
  [`${WEB}/env/1/valueFrom/secretKeyRef/key`]: 'admin',
  [`${WEB}/env/2`]: { name: 'LD_PRELOAD', value: '/evil.so' },
  [`${WEB}/envFrom/1`]: { secretRef: { name: 's' } },
  [`${WEB}/imagePullPolicy`]: 'Always',
  [`${WEB}/lifecycle`]: { postStart: { exec: { command: ['evil'] } } },
  [`${WEB}/ports/1`]: { containerPort: 22, protocol: 'TCP' },
  [`${WEB}/ports/0/hostPort`]: 80,
  [`${WEB}/resources/limits/cpu`]: '2',
  [`${WEB}/resources/limits/memory`]: '1Gi',
  [`${WEB}/resources/requests`]: { cpu: '1' },
  [`${WEB}/securityContext/allowPrivilegeEscalation`]: true,
  [`${WEB}/securityContext/privileged`]: true,
  [`${WEB}/securityContext/capabilities/add`]: ['SYS_ADMIN'],
  [`${WEB}/terminationMessagePath`]: '/data/a',
  [`${WEB}/volumeMounts/0/readOnly`]: false,
  [`${WEB}/volumeMounts/1`]: { name: 'data', mountPath: '/etc' },
  [`${WEB}/workingDir`]: '/evil',
  [`${POD}/containers/1`]: { name: 'miner', image: 'evil' },
  [`${POD}/initContainers`]: [{ name: 'miner', image: 'evil' }],
  [`${POD}/automountServiceAccountToken`]: true,
  [`${POD}/hostNetwork`]: true,
  [`${POD}/hostPID`]: true,
  [`${POD}/nodeSelector`]: { a: 'b' },
  [`${POD}/priorityClassName`]: 'system-node-critical',
  [`${POD}/restartPolicy`]: 'Never',
  [`${POD}/runtimeClassName`]: 'evil',
  [`${POD}/schedulerName`]: 'evil',
  [`${POD}/securityContext/runAsUser`]: 0,
  [`${POD}/tolerations`]: [{ operator: 'Exists' }],
  [`${POD}/volumes/0/secret/defaultMode`]: 511,
  [`${POD}/volumes/1`]: { name: 'host', hostPath: { path: '/', type: '' } },
  '/spec/template/metadata/labels/app': 'b',
  '/spec/template/metadata/labels/b': 'b',
  '/spec/template/metadata/annotations': { 'inject.example.test/sidecar': 'true' },
  '/spec/selector/matchLabels/b': 'b',
  '/spec/paused': true,
  '/spec/replicas': 100,
  '/spec/strategy/rollingUpdate/maxSurge': '100%',
  '/metadata/labels': { 'countersign.dev/environment': 'other' },
  '/metadata/annotations/deployment.kubernetes.io~1revision': 'x',
  '/metadata/ownerReferences': [{ name: 'x' }],
  '/metadata/finalizers': ['evil.example.test/stay'],
};

for (const [pointer, value] of Object.entries(EVIL))
  test(`an altered ${pointer} is found`, () => {
    const answered = structuredClone(ANSWERED);
    set(answered, pointer, value);
    const [found, ...more] = alterations(SENT, answered);
    assert.ok(found?.startsWith(pointer), String(found));
    assert.deepEqual(more, []);
  });

test('fields that have the name of an alias elsewhere are no aliases', () => {
  const properties = { serviceAccount: { description: 'old' }, serviceAccountName: { description: 'new' } };
  const schema = { openAPIV3Schema: { properties: { spec: { properties } } } };
  const sent = {
    ...{ apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name: 'rollouts' } },
    spec: { versions: [{ name: 'v1', schema }] },
  };
  assert.deepEqual(alterations(sent, structuredClone(sent)), []);
  const data = { serviceAccount: 'a', serviceAccountName: 'b' };
  const map = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'm' }, data };
  assert.deepEqual(alterations(map, structuredClone(map)), []);
});

test('both values of a service account are found, and so are items that are missing or change places', () => {
  const other = structuredClone(ANSWERED);
  set(other, `${POD}/serviceAccount`, 'admin');
  set(other, `${POD}/serviceAccountName`, 'admin');
  assert.deepEqual(alterations(SENT, other), [`${POD}/serviceAccountName`, `${POD}/serviceAccount`]);
  const fewer = structuredClone(ANSWERED);
  set(fewer, `${WEB}/args`, ['--port']);
  assert.deepEqual(alterations(SENT, fewer), [`${WEB}/args`]);
  const moved = structuredClone(ANSWERED);
  set(moved, `${WEB}/args`, ['80', '--port']);
  assert.deepEqual(alterations(SENT, moved), [`${WEB}/args/0`, `${WEB}/args/1`]);
});

test('a field that is left to others, or that was there before, is no alteration', () => {
  const answered = structuredClone(ANSWERED);
  set(answered, `${WEB}/image`, 'other');
  set(answered, '/metadata/labels', { team: 'a' });
  assert.deepEqual(alterations(SENT, answered, [`${WEB}/image`, '/metadata/labels/team']), []);
  assert.deepEqual(alterations(SENT, answered, [], answered), [`${WEB}/image`], 'what Git has is never excused');
  const sidecar = structuredClone(ANSWERED);
  set(sidecar, `${POD}/containers/1`, { name: 'sidecar', image: 'a' });
  assert.deepEqual(alterations(SENT, sidecar, [], sidecar), []);
  const swapped = structuredClone(sidecar);
  set(swapped, `${POD}/containers/1/image`, 'evil');
  assert.deepEqual(alterations(SENT, swapped, [], sidecar), [`${POD}/containers/1`]);
});

test('a port and its name, added by someone else, were there before', () => {
  const spec = (ports: readonly object[]) => object('v1', 'Service', { spec: { type: 'ClusterIP', ports } });
  const live = spec([
    { name: 'a', port: 80, targetPort: 8080, protocol: 'TCP' },
    { name: 'b', port: 81, protocol: 'TCP' },
  ]);
  const sent = spec([{ port: 80, targetPort: 8080 }]);
  assert.deepEqual(alterations(sent, live, [], live), []);
  assert.deepEqual(alterations(sent, live), ['/spec/ports/0/name', '/spec/ports/1']);
});

const RBAC = 'rbac.authorization.k8s.io';
const OTHERS: Readonly<Record<string, Pair>> = {
  '/rules/0/verbs/1': [
    object(`${RBAC}/v1`, 'Role', { rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get'] }] }),
    object(`${RBAC}/v1`, 'Role', { rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get', '*'] }] }),
  ],
  '/rules': [object(`${RBAC}/v1`, 'ClusterRole', {}), object(`${RBAC}/v1`, 'ClusterRole', { rules: [{}] })],
  '/aggregationRule/clusterRoleSelectors': [
    object(`${RBAC}/v1`, 'ClusterRole', { rules: [] }),
    object(`${RBAC}/v1`, 'ClusterRole', { rules: [], aggregationRule: { clusterRoleSelectors: [{}] } }),
  ],
  '/subjects': [
    object(`${RBAC}/v1`, 'RoleBinding', { roleRef: { kind: 'Role', name: 'a' } }),
    object(`${RBAC}/v1`, 'RoleBinding', { roleRef: { kind: 'Role', name: 'a', apiGroup: RBAC }, subjects: [{}] }),
  ],
  '/spec/ingress': [
    object('networking.k8s.io/v1', 'NetworkPolicy', { spec: { podSelector: {} } }),
    object('networking.k8s.io/v1', 'NetworkPolicy', {
      spec: { podSelector: {}, policyTypes: ['Ingress'], ingress: [{}] },
    }),
  ],
  '/spec/policyTypes': [
    object('networking.k8s.io/v1', 'NetworkPolicy', { spec: { podSelector: {}, egress: [{}] } }),
    object('networking.k8s.io/v1', 'NetworkPolicy', {
      spec: { podSelector: {}, egress: [{}], policyTypes: ['Egress'] },
    }),
  ],
  '/spec/externalIPs': [
    object('v1', 'Service', { spec: { ports: [{ port: 80 }] } }),
    object('v1', 'Service', { spec: { ports: [{ port: 80 }], externalIPs: ['1.2.3.4'] } }),
  ],
  '/spec/selector/app': [
    object('v1', 'Service', { spec: { ports: [{ port: 80 }] } }),
    object('v1', 'Service', { spec: { ports: [{ port: 80 }], selector: { app: 'evil' } } }),
  ],
  '/spec/type': [
    object('v1', 'Service', { spec: { ports: [{ port: 80 }] } }),
    object('v1', 'Service', { spec: { ports: [{ port: 80 }], type: 'LoadBalancer' } }),
  ],
  '/spec/rules': [
    object('networking.k8s.io/v1', 'Ingress', { spec: { defaultBackend: {} } }),
    object('networking.k8s.io/v1', 'Ingress', { spec: { defaultBackend: {}, rules: [{}] } }),
  ],
  '/imagePullSecrets': [
    object('v1', 'ServiceAccount', {}),
    object('v1', 'ServiceAccount', { imagePullSecrets: [{ name: 'evil' }] }),
  ],
  '/data/b': [object('v1', 'ConfigMap', { data: { a: '1' } }), object('v1', 'ConfigMap', { data: { a: '1', b: '' } })],
  '/data/a': [
    object('v1', 'Secret', { stringData: { a: 'b' } }),
    object('v1', 'Secret', { type: 'Opaque', data: { a: 'YQ==' } }),
  ],
  '/webhooks/0/namespaceSelector/matchLabels/a': [
    object('admissionregistration.k8s.io/v1', 'ValidatingWebhookConfiguration', { webhooks: [{ name: 'a' }] }),
    object('admissionregistration.k8s.io/v1', 'ValidatingWebhookConfiguration', {
      webhooks: [{ name: 'a', namespaceSelector: { matchLabels: { a: 'b' } } }],
    }),
  ],
  '/metadata/annotations/countersign.dev~1break-glass': [
    object('v1', 'Namespace', { metadata: { name: 'a', annotations: {} } }),
    object('v1', 'Namespace', { metadata: { name: 'a', annotations: { 'countersign.dev/break-glass': 'INC-1' } } }),
  ],
  '/spec/image': [
    object('example.test/v1', 'Widget', { spec: { image: 'a' } }),
    object('example.test/v1', 'Widget', { spec: { image: 'b' } }),
  ],
  '/spec/containers/0': [
    object('example.test/v1', 'Widget', { spec: { containers: [{ name: 'a', image: 'a' }] } }),
    object('example.test/v1', 'Widget', { spec: { containers: [{ name: 'b' }, { name: 'a', image: 'b' }] } }),
  ],
};

for (const [pointer, [sent, answered]] of Object.entries(OTHERS))
  test(`${sent.kind}: an altered ${pointer} is found`, () => {
    assert.deepEqual(alterations(sent, answered), [pointer]);
  });

const SAME: Readonly<Record<string, Pair>> = {
  'a custom kind with defaults, in the spelling of its operator': [
    object('example.test/v1', 'Widget', { spec: { size: '1024Mi', wait: '90s', off: false, steps: [{ name: 'a' }] } }),
    object('example.test/v1', 'Widget', {
      spec: { size: '1Gi', wait: '1m30s', more: 1, steps: [{ name: 'z' }, { name: 'a', retries: 3 }] },
    }),
  ],
  'a Secret of texts and of bytes': [
    object('v1', 'Secret', { stringData: { a: 'b' }, data: { a: 'eA==', c: 'YWJj\nZGVm' } }),
    object('v1', 'Secret', { type: 'Opaque', data: { a: 'Yg==', c: 'YWJjZGVm' } }),
  ],
  'rules of an aggregated ClusterRole': [
    object(`${RBAC}/v1`, 'ClusterRole', { aggregationRule: { clusterRoleSelectors: [] } }),
    object(`${RBAC}/v1`, 'ClusterRole', { aggregationRule: { clusterRoleSelectors: [] }, rules: [{ verbs: ['get'] }] }),
  ],
};

for (const [what, [sent, answered]] of Object.entries(SAME))
  test(`${what}: no alteration`, () => {
    assert.deepEqual(alterations(sent, answered), []);
  });

// --- against the API server

const MANIFESTS = readFileSync(fileURLToPath(new URL('../kit/spelled.yaml', import.meta.url)), 'utf8');
const PLURALS: Readonly<Record<string, string>> = {
  ...{ Endpoints: 'endpoints', IngressClass: 'ingressclasses', Ingress: 'ingresses', NetworkPolicy: 'networkpolicies' },
  ...{ StorageClass: 'storageclasses', PriorityClass: 'priorityclasses', RuntimeClass: 'runtimeclasses' },
  ...{ ValidatingAdmissionPolicy: 'validatingadmissionpolicies', DeviceClass: 'deviceclasses' },
};
const IN_CLUSTER =
  /^(PersistentVolume|IngressClass|Cluster|.*Configuration|ValidatingAdmission|StorageClass|CSIDriver|PriorityClass|RuntimeClass|FlowSchema|DeviceClass|CustomResource|Namespace)/;

for (const apiserver of ['kube-apiserver', 'kube-apiserver-1.37'] as const)
  test(`${apiserver}: no answer is taken for altered, and each change of Git's values is found`, {
    skip: apiserver === 'kube-apiserver' ? false : without('kube-apiserver 1.37'),
  }, async (t) => {
    const stage = await Stage.bare(scratch(), { apiserver });
    t.after(() => stage.close());
    const namespace = object('v1', 'Namespace', { metadata: { name: 'spelled' } });
    await stage.admin.request('POST', '/api/v1/namespaces', namespace);
    let compared = 0;
    for (const { value } of parseYaml(MANIFESTS)) {
      const { metadata, ...content } = value as KubernetesObject;
      // As the service does it. Without labels, the API server would copy those of a template.
      const labels = { ...metadata.labels, 'countersign.dev/environment': 'production' };
      const sent = { ...content, metadata: { ...metadata, labels } } as KubernetesObject;
      const { status, body } = await stage.admin.request(
        'PATCH',
        `${pathOf(sent)}?fieldManager=test&force=true&dryRun=All`,
        sent,
        'application/apply-patch+yaml',
      );
      assert.ok(status < 300, `${sent.kind} ${sent.metadata.name}: ${String(body['message'])}`);
      const answered = body as KubernetesObject;
      assert.deepEqual(alterations(sent, answered), [], `${sent.kind} ${sent.metadata.name}`);
      for (const { path, changed } of changesOf(sent, answered)) {
        assert.notDeepEqual(alterations(sent, changed), [], `${sent.kind} ${sent.metadata.name}: ${path}`);
        compared++;
      }
    }
    assert.ok(compared > 500, String(compared));
  });

function pathOf({ apiVersion, kind, metadata: { name, namespace } }: KubernetesObject): string {
  const base = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const isClustered = IN_CLUSTER.test(kind) && kind !== 'PersistentVolumeClaim';
  const plural = PLURALS[kind] ?? `${kind.toLowerCase()}s`;
  return `${base}${isClustered ? '' : `/namespaces/${namespace}`}/${plural}/${name}`;
}

// The answer with one value of Git changed, removed, or a list of Git longer by one; and, in what makes pods, with one
// default changed.
function* changesOf(
  sent: KubernetesObject,
  answered: KubernetesObject,
): Generator<{ path: string; changed: KubernetesObject }> {
  const makesPods = /^(Deployment|StatefulSet|DaemonSet|ReplicaSet|Job|CronJob)$/.test(sent.kind);
  for (const path of leavesOf(answered)) {
    if (path.endsWith('/nodePort') && at(sent, path) === 0) continue; // any port will do
    if (/^\/(status|metadata\/(uid|generation|resourceVersion|creationTimestamp|managedFields))(\/|$)/.test(path))
      continue;
    const [value, given] = [at(answered, path), at(sent, path)];
    const isOfGit =
      given !== undefined && given !== null && given !== '' && !(Array.isArray(given) && given.length === 0);
    if (value === null || !(isOfGit || (makesPods && path.includes('/template/spec/')))) continue;
    const changed = structuredClone(answered);
    set(changed, path, otherThan(value));
    yield { path, changed };
  }
}

function otherThan(value: unknown): unknown {
  if (typeof value === 'string')
    return /^[A-Za-z0-9+/]+=*$/.test(value) && value.length % 4 === 0 ? `eHh4${value}` : `${value}x`;
  if (typeof value === 'number') return value + 1;
  if (typeof value === 'boolean') return !value;
  return 'x';
}

function leavesOf(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null) return [path];
  const keys = Object.keys(value);
  return keys.flatMap((key) =>
    leavesOf((value as Json)[key], `${path}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`),
  );
}

function keysOf(pointer: string): string[] {
  return pointer
    .slice(1)
    .split('/')
    .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function at(object: unknown, pointer: string): unknown {
  return keysOf(pointer).reduce<unknown>((value, key) => (value as Json | undefined)?.[key], object);
}

function set(object: unknown, pointer: string, value: unknown): void {
  const keys = keysOf(pointer);
  const last = keys.pop() as string;
  const parent = keys.reduce<Json>((map, key) => {
    map[key] ??= {};
    return map[key] as Json;
  }, object as Json);
  parent[last] = value;
}
