import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { tool } from '../../scripts/tools.ts';
import { buildBundle } from '../../src/bundle/index.ts';
import { Cluster, connect } from '../../src/cluster/index.ts';
import { startApiProxy } from '../kit/api-proxy.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { BROKEN, configMap, deployment, namespace, service as serviceOf } from '../kit/manifests.ts';
import { SERVICE_USER } from '../kit/plane.ts';
import { filesIn } from '../kit/rules.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, type Service } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

// A service with exactly the rights of `countersign manifests --rights derived`, as an account whose every request the
// API server writes down. A plane of its own, because other files need the account to have more.
const PATH = 'clusters/production';
const NS = 'shop';
const HOME = 'countersign';
const directory = scratch();
const auditLog = join(directory, 'audit.log');
const auditPolicy = join(directory, 'audit.yaml');
writeFileSync(
  auditPolicy,
  JSON.stringify({
    apiVersion: 'audit.k8s.io/v1',
    kind: 'Policy',
    omitStages: ['RequestReceived'],
    rules: [{ level: 'Metadata', users: [SERVICE_USER] }, { level: 'None' }],
  }),
);
const stage = await openStage(directory, {
  flags: ['--audit-policy-file', auditPolicy, '--audit-log-path', auditLog],
});
const kubectl = await tool('kubectl');
const fleet = stage.fleet('fleet');
const config = join(directory, 'config');
const RBAC = 'apiVersion: rbac.authorization.k8s.io/v1';

// Of the shape of prometheus-operator's roles: every verb of its own group, and addresses that are no objects.
const access = `apiVersion: v1
kind: ServiceAccount
metadata: {name: meter, namespace: ${NS}}
---
${RBAC}
kind: ClusterRole
metadata: {name: meter}
rules:
  - {apiGroups: [meters.example.com], resources: [gauges, gauges/status], verbs: ["*"]}
  - {apiGroups: [apps], resources: [statefulsets], verbs: ["*"]}
  - {apiGroups: [""], resources: [nodes], verbs: [list, watch]}
  - {nonResourceURLs: [/metrics, /metrics/slis], verbs: [get]}
---
${RBAC}
kind: ClusterRoleBinding
metadata: {name: meter}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: meter}
subjects: [{kind: ServiceAccount, name: meter, namespace: ${NS}}]
---
${RBAC}
kind: Role
metadata: {name: meter, namespace: ${NS}}
rules:
  - {apiGroups: [""], resources: [services, endpoints, pods], verbs: [get, list, watch]}
  - {apiGroups: [extensions], resources: [ingresses], verbs: [get, list, watch, patch]}
---
${RBAC}
kind: RoleBinding
metadata: {name: meter, namespace: ${NS}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: meter}
subjects: [{kind: ServiceAccount, name: meter, namespace: ${NS}}]
---
${RBAC}
kind: RoleBinding
metadata: {name: viewer, namespace: ${NS}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: meter, namespace: ${NS}}]
`;
const definition = JSON.stringify({
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'gauges.meters.example.com' },
  spec: {
    group: 'meters.example.com',
    scope: 'Namespaced',
    names: { kind: 'Gauge', plural: 'gauges' },
    versions: [
      {
        name: 'v1',
        served: true,
        storage: true,
        schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
      },
    ],
  },
});
const gauge = `apiVersion: meters.example.com/v1\nkind: Gauge\nmetadata: {name: load, namespace: ${NS}}\nspec: {max: 5}\n`;
const secret = `apiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: ${NS}}\nstringData: {key: one}\n`;
const ingress = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: ${NS}}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
`;

function run(user: string, input: string, ...args: string[]): string {
  return execFileSync(kubectl, ['--kubeconfig', stage.controlPlane.kubeconfig(user), ...args], {
    input,
    encoding: 'utf8',
    stdio: ['pipe', 'pipe', 'pipe'],
  });
}

async function manifests(...more: readonly string[]): Promise<string> {
  const args = ['manifests', '--rights', 'derived', '--rights-only', '--repo', fleet.work, '--config', config, ...more];
  const { code, stdout, stderr } = await countersign(args);
  assert.equal(code, 0, stderr);
  return stdout;
}

// With the cluster itself, the namespaces that it does not have are printed too, and reading covers every kind it serves.
const asked = () => ['--kubeconfig', stage.controlPlane.kubeconfig('admin')];

type Request = {
  readonly verb: string;
  readonly requestURI: string;
  readonly responseStatus?: { readonly code: number };
};
const requests = (): readonly Request[] =>
  readFileSync(auditLog, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Request);
const applied = (service: Service, commit: string) =>
  service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
const there = async (path: string) => (await stage.get(path)).status === 200;

before(async () => {
  const files = join(directory, 'files', HOME);
  mkdirSync(files, { recursive: true });
  const root = filesIn({
    'r.rego': 'package countersign.object\ndeny contains "never" if input.object.kind == "Never"',
  });
  const { archive } = await buildBundle({ opa: await tool('opa'), roots: [root] });
  const documents = [
    environmentDocument({
      url: fleet.url,
      namespaces: [NS],
      clusterScoped: [
        'Namespace',
        { kind: 'CustomResourceDefinition', names: ['gauges.meters.example.com'] },
        { kind: 'ClusterRole', names: ['meter'] },
        { kind: 'ClusterRoleBinding', names: ['meter'] },
      ],
      policies: { bundles: [{ file: 'rules.tar.gz' }] },
      spec: { health: { wait: true, timeout: '20s' } },
    }),
    trustDocument([stage.dana, stage.lee]),
  ];
  writeConfiguration(config, documents);
  for (const place of [files, config]) writeFileSync(join(place, 'rules.tar.gz'), archive);
  await stage.change(fleet, 'first', {
    [`${PATH}/ns.yaml`]: namespace(NS),
    [`${PATH}/web.yaml`]: deployment(NS, 'web'),
    [`${PATH}/service.yaml`]: serviceOf(NS, 'web'),
    [`${PATH}/cm.yaml`]: configMap(NS, 'settings', { colour: 'blue' }),
    [`${PATH}/old.yaml`]: configMap(NS, 'old', { colour: 'grey' }),
    [`${PATH}/secret.yaml`]: secret,
    [`${PATH}/definition.json`]: definition,
    [`${PATH}/gauge.yaml`]: gauge,
    [`${PATH}/access.yaml`]: access,
  });
  run('admin', (await countersign(['crds'])).stdout, 'apply', '-f', '-');
  run('admin', '', 'wait', '--for=condition=Established', 'crd', '--all');
  run('admin', await manifests('--grant-roles', ...asked()), 'apply', '-f', '-');
  for (const document of documents as { metadata: object }[])
    run(
      'admin',
      JSON.stringify({ ...document, metadata: { ...document.metadata, namespace: HOME } }),
      ...['apply', '-f', '-'],
    );
});

const serve = async (): Promise<Service> => {
  const args = await stage.arguments(writeConfiguration(join(directory, 'nothing'), []));
  const more = [
    ...['--config-namespace', HOME, '--config-files', join(directory, 'files')],
    ...['--webhook-tls', `secret:${HOME}/countersign-webhook`, '--rescan', '5s'],
  ];
  const service = stage.start(args, 'rights', more, { POD_NAMESPACE: HOME });
  await service.says('countersign is running');
  return service;
};

test('everything in Git is applied, defended, pruned and restored with exactly these rights', async () => {
  const service = await serve();
  await applied(service, fleet.head());
  for (const path of [
    `/apis/meters.example.com/v1/namespaces/${NS}/gauges/load`,
    '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/meter',
    `/apis/rbac.authorization.k8s.io/v1/namespaces/${NS}/rolebindings/viewer`,
    `/api/v1/namespaces/${NS}/secrets/keys`,
  ])
    assert.ok(await there(path), path);
  await service.entry('cluster.scanned', 'production', (e) => e.unmanaged === 0);

  const controller = await stage.as('controller');
  const path = `/api/v1/namespaces/${NS}/configmaps/settings`;
  await controller.request('PATCH', path, { data: { colour: 'red', more: 'x' } }, 'application/merge-patch+json');
  await stage.waitFor(
    async () => JSON.stringify(await stage.dataOf(NS, 'settings')) === '{"colour":"blue"}',
    'the correction',
  );
  await controller.request('DELETE', `/api/v1/namespaces/${NS}/services/web`);
  await stage.waitFor(() => there(`/api/v1/namespaces/${NS}/services/web`), 'the return of the Service');

  const pruned = await stage.change(fleet, 'prune', { [`${PATH}/old.yaml`]: undefined });
  await applied(service, pruned);
  assert.equal(await stage.dataOf(NS, 'old'), undefined);

  await stage.change(fleet, 'broken', {
    [`${PATH}/web.yaml`]: deployment(NS, 'web', { image: BROKEN, deadline: 5 }),
    [`${PATH}/cm.yaml`]: configMap(NS, 'settings', { colour: 'green' }),
  });
  const { entry } = await service.entry('apply.result', 'production', (e) => e.outcome === 'failed');
  assert.match(entry.error ?? '', /ErrImagePull/, 'pods and events are read');
  assert.deepEqual(service.entries('content.unproven', 'production'), [], 'the binding is the service’s own');
  await stage.waitFor(async () => (await stage.dataOf(NS, 'settings'))?.['colour'] === 'blue', 'the restore');
});

test('a kind that the rights do not have is refused with the command that prints them, and goes on by itself', async () => {
  const service = await serve();
  const good = service.entries('apply.result', 'production').findLast((r) => r.entry.outcome === 'applied');
  const commit = await stage.change(fleet, 'a way in', {
    [`${PATH}/web.yaml`]: deployment(NS, 'web'),
    [`${PATH}/cm.yaml`]: configMap(NS, 'settings', { colour: 'blue', way: 'in' }),
    [`${PATH}/ingress.yaml`]: ingress,
    [`${PATH}/gauge.yaml`]: undefined,
  });
  const { entry } = await service.entry('apply.refused', 'production', (e) => e.revision === commit);
  assert.match(entry.error, /ingress\.yaml:1: cannot dry-run Ingress shop\/web: .*cannot patch resource "ingresses"/);
  const command = `countersign manifests --rights derived --rights-only --revision ${good?.entry.revision} ${commit}`;
  await service.says(command);
  await stage.waitFor(async () => {
    const { stdout } = await countersign(['status', '--data', service.data, '--output', 'json']);
    const [{ state, message }] = JSON.parse(stdout) as [{ state: string; message: string }];
    return state === 'refused' && message.includes(`${command} | kubectl apply -f -`);
  }, 'a status with the command');
  await service.looksAgain();
  assert.equal((await stage.dataOf(NS, 'settings'))?.['way'], undefined, 'nothing is written');
  assert.equal(
    service.entries('apply.intent', 'production').some((r) => r.entry.revision === commit),
    false,
  );

  const args = ['--grant-roles', '--revision', good?.entry.revision ?? '', commit];
  run('oncall', await manifests(...args), 'apply', '-f', '-');
  await applied(service, commit);
  assert.ok(await there(`/apis/networking.k8s.io/v1/namespaces/${NS}/ingresses/web`));
  // The kind that the commit no longer has is in the commit before, which the command names.
  assert.equal(await there(`/apis/meters.example.com/v1/namespaces/${NS}/gauges/load`), false);
});

test('objects of a kind that cannot be read are not silently left out, and are read with the rights for this cluster', async () => {
  const group = 'strange.example.org';
  const strange = definition.replaceAll('meters.example.com', group).replaceAll('gauge', 'planet');
  run('admin', strange.replace('Gauge', 'Planet'), 'apply', '-f', '-');
  run('admin', '', 'wait', '--for=condition=Established', 'crd', `planets.${group}`);
  const planet = { apiVersion: `${group}/v1`, kind: 'Planet', metadata: { name: 'x' } };
  const controller = await stage.as('controller');
  await stage.waitFor(async () => {
    const { status } = await controller.request('POST', `/apis/${group}/v1/namespaces/${NS}/planets`, planet);
    return status === 201 || status === 409;
  }, 'the planet');
  const service = await serve();
  await service.says('objects of Planet in its namespaces cannot be read');
  const scan = ['admission', 'scan', '--data', service.data];
  await stage.waitFor(async () => (await countersign(scan)).code === 2, 'a scan that is not complete');
  assert.match((await countersign(scan)).stdout, /not read +Planet/);

  run(
    'oncall',
    await manifests('--grant-roles', '--kubeconfig', stage.controlPlane.kubeconfig('admin')),
    'apply',
    '-f',
    '-',
  );
  const isFound = async () => /in no commit.* Planet shop\/x/.test((await countersign(scan)).stdout);
  await stage.waitFor(isFound, 'the foreign object in the scan');
  assert.doesNotMatch((await countersign(scan)).stdout, /not read/);
});

test('a namespace that may not be read is not taken for one that is not there', async () => {
  const proxy = await startApiProxy(stage.controlPlane, 'admin');
  const { server, user } = await connect({ kubeconfig: proxy.kubeconfig, context: undefined, namedBy: 'operator' });
  const cluster = new Cluster(server, user, '', { warn: () => {} });
  try {
    const ref = (namespace: string) => ({ apiVersion: 'v1', kind: 'ConfigMap', namespace, name: 'settings' });
    assert.equal(await cluster.isReadyFor(ref(NS)), true);
    assert.deepEqual([await cluster.isReadyFor(ref('nowhere')), await cluster.labelsOf('nowhere')], [false, undefined]);
    const message = 'namespaces "x" is forbidden: User "admin" cannot get resource "namespaces"';
    const body = { kind: 'Status', code: 403, reason: 'Forbidden', message };
    proxy.fault = (asked) => (/namespaces\/[a-z]+$/.test(asked.path) ? { status: 403, body } : 'pass');
    await assert.rejects(cluster.isReadyFor(ref(NS)), { code: 'cluster-forbidden' });
    await assert.rejects(cluster.labelsOf(NS), { code: 'cluster-forbidden' });
  } finally {
    cluster.close();
    await proxy.stop();
  }
});

test('someone with every right may install the binding in a governed namespace, and nothing that gives more', async () => {
  await serve();
  const dev = await stage.as('dev');
  const path = `/apis/rbac.authorization.k8s.io/v1/namespaces/${NS}/rolebindings`;
  const patch = (body: object) =>
    dev.request('PATCH', `${path}/countersign?dryRun=All`, body, 'application/merge-patch+json');
  const subject = (namespace: string) => ({ kind: 'ServiceAccount', name: 'countersign', namespace });
  assert.equal((await patch({ metadata: { labels: { 'app.kubernetes.io/part-of': 'x' } } })).status, 200);
  for (const body of [{ subjects: [subject(HOME), subject(NS)] }, { subjects: [subject(NS)] }]) {
    const { status, body: said } = await patch(body);
    assert.equal(status, 403);
    assert.match(String(said['message']), /gate\.countersign\.dev/);
  }
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'countersign-governed' };
  for (const metadata of [{ name: 'countersign-2' }, { name: 'other' }]) {
    const object = { apiVersion: roleRef.apiGroup.concat('/v1'), kind: 'RoleBinding', metadata, roleRef };
    const { status } = await dev.request('POST', `${path}?dryRun=All`, { ...object, subjects: [subject(HOME)] });
    assert.equal(status, 403, metadata.name);
  }
  const role = '/apis/rbac.authorization.k8s.io/v1/clusterroles/countersign-governed?dryRun=All';
  const { status, body } = await dev.request('PATCH', role, { rules: [] }, 'application/merge-patch+json');
  assert.equal(status, 403);
  assert.match(String(body['message']), /this object protects the gate/);
});

test('no request was refused but those that ask whether the whole cluster may be read', () => {
  const refused = requests().filter((r) => r.responseStatus?.code === 403);
  const uris = [...new Set(refused.map(({ verb, requestURI }) => `${verb} ${requestURI.replace(/\?.*/, '')}`))];
  const isLook = (uri: string) => /^list \/apis?\/[^ ]*$/.test(uri) && !uri.includes('/namespaces/');
  const expected = [/ingresses\/web$/, /\/planets$/];
  const others = uris.filter((uri) => !isLook(uri) && !expected.some((of) => of.test(uri)));
  assert.deepEqual(others, []);
  assert.ok(refused.length > 0 && requests().length > 100, 'the log is read');
});
