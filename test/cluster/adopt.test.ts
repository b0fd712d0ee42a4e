import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { tool } from '../../scripts/tools.ts';
import { BROKEN, configMap, deployment, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, until } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

// Objects that others applied before there was a gate.
const PATH = 'clusters/production';
const ADOPT = { apply: { conflicts: 'adopt' } };
const directory = scratch();
const stage = await openStage(directory);
const kubectl = await tool('kubectl');

type Metadata = {
  readonly uid: string;
  readonly generation: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly managedFields: readonly { readonly manager: string; readonly subresource?: string }[];
};

type Status = {
  readonly observedGeneration?: number;
  readonly replicas?: number;
  readonly updatedReplicas?: number;
};

const filesOf = (name: string) => ({
  [`${PATH}/ns.yaml`]: namespace(name),
  [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'blue', size: 'large' }),
  [`${PATH}/web.yaml`]: deployment(name, 'web'),
});

const apply = (...args: readonly string[]) =>
  execFileSync(kubectl, ['--kubeconfig', stage.controlPlane.kubeconfig('admin'), ...args], { encoding: 'utf8' });

// As it was done before: client-side, which leaves its annotation.
function applied(name: string): void {
  for (const [path, text] of Object.entries(filesOf(name))) {
    const file = join(directory, name, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    apply('apply', '-f', file);
  }
}

const web = async (name: string) => {
  const { body } = await stage.get(`/apis/apps/v1/namespaces/${name}/deployments/web`);
  return body as { metadata: Metadata; status?: Status };
};

/** Waits until the controller has seen the newest Deployment. */
const settledIn = (name: string) =>
  until(
    async () => {
      const { metadata, status } = await web(name);
      return status?.observedGeneration === metadata.generation && status.updatedReplicas === status.replicas;
    },
    60_000,
    () => 'the Deployment does not settle',
  );

const podsOf = async (name: string) => {
  const { body } = await stage.get(`/api/v1/namespaces/${name}/pods`);
  return (body as { items: readonly { metadata: Metadata }[] }).items.map((pod) => pod.metadata.uid).sort();
};

/** Returns the uids of the two pods of `web`, once they are there. */
const running = async (name: string) => {
  await until(
    async () => (await podsOf(name)).length === 2,
    60_000,
    () => 'no two pods',
  );
  return podsOf(name);
};

const guide = (fleet: { readonly work: string }, configuration: string, ...more: string[]) =>
  countersign([
    'adopt',
    ...['--repo', fleet.work, '--config', configuration],
    ...['--kubeconfig', stage.controlPlane.kubeconfig('admin'), ...more],
  ]);

test('what kubectl and Helm applied is taken over as it is: no restart, no marks, and what Git drops later goes', async () => {
  const name = 'adopted';
  applied(name);
  apply('-n', name, 'annotate', 'configmap', 'settings', 'meta.helm.sh/release-name=web');
  apply('-n', name, 'label', 'configmap', 'settings', 'app.kubernetes.io/managed-by=Helm');
  apply('-n', name, 'create', 'configmap', 'forgotten', '--from-literal=k=v');
  const before = await running(name);
  const fleet = stage.fleet(name);
  const configuration = stage.configuration(name, [
    { url: fleet.url, namespaces: [name], spec: { ...ADOPT, health: { wait: false } } },
  ]);
  const first = await stage.change(fleet, 'first', filesOf(name));

  const ready = await guide(fleet, configuration);
  assert.equal(ready.code, 0, ready.stdout + ready.stderr);
  assert.match(ready.stdout, /^ {5}3 {2}as in Git: taken over as they are, nothing restarts$/m);
  assert.match(
    ready.stdout,
    /^same ConfigMap adopted\/settings, of the Helm release \(`web`\), last written by `kubectl/m,
  );
  assert.match(ready.stdout, /1 object in the governed namespaces that Git does not have/);
  assert.match(ready.stdout, /^ {2}ConfigMap adopted\/forgotten\n {6}by kubectl-create since /m);
  assert.equal((await web(name)).metadata.labels?.['countersign.dev/environment'], undefined, 'it writes nothing');

  const service = await stage.serve(configuration, name);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  const after = await web(name);
  await settledIn(name);
  assert.deepEqual(await podsOf(name), before);
  const { metadata } = (await stage.get(`/api/v1/namespaces/${name}/configmaps/settings`)).body as {
    metadata: Metadata;
  };
  for (const marked of [after.metadata, metadata]) {
    assert.equal(marked.annotations?.['kubectl.kubernetes.io/last-applied-configuration'], undefined);
    assert.equal(marked.annotations?.['meta.helm.sh/release-name'], undefined);
    assert.equal(marked.labels?.['app.kubernetes.io/managed-by'], undefined);
    const owners = marked.managedFields.filter((m) => m.subresource === undefined).map((m) => m.manager);
    assert.deepEqual([...new Set(owners)], ['countersign']);
  }
  // Pods that were there before are proven by the adopted template; what Git does not have is told.
  await service.entry('cluster.scanned', 'production', (e) => e.revision === first && e.unmanaged > 0);
  const { stdout } = await countersign(['exception', 'list', '--data', service.data, '--output', 'json']);
  const rows = JSON.parse(stdout) as { type: string; object: string }[];
  assert.deepEqual(
    rows.filter((row) => row.type === 'out-of-band-change').map((row) => row.object),
    [`ConfigMap ${name}/forgotten`],
  );
  assert.match((await guide(fleet, configuration)).stdout, /nothing to do: production has everything/);

  const second = await stage.change(fleet, 'a key goes', {
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'blue' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  assert.deepEqual(await stage.dataOf(name, 'settings'), { colour: 'blue' });
  assert.deepEqual(service.entries('drift.found', 'production'), []);
});

test('one object that differs keeps all from being taken over; the message says what would restart, and Git can follow', async () => {
  const name = 'unlike';
  applied(name);
  apply('-n', name, 'rollout', 'restart', 'deployment/web');
  apply('-n', name, 'label', 'configmap', 'settings', 'team=shop');
  const fleet = stage.fleet(name);
  const configuration = stage.configuration(name, [
    { url: fleet.url, namespaces: [name], spec: { ...ADOPT, health: { wait: false } } },
  ]);
  const first = await stage.change(fleet, 'first', filesOf(name));
  const service = await stage.serve(configuration, name);
  const refused = await service.entry('apply.refused', 'production', (e) => e.revision === first);
  assert.match(refused.entry.error, /web\.yaml:1: Deployment unlike\/web exists, and adopting it would change/);
  assert.match(refused.entry.error, /`\/spec\/template\/metadata\/annotations`/);
  assert.match(refused.entry.error, /\(its pods would restart\); so would 1 more object/);
  assert.equal((await web(name)).metadata.labels?.['countersign.dev/environment'], undefined, 'nothing was written');

  const unlike = await guide(fleet, configuration);
  assert.equal(unlike.code, 1, unlike.stdout + unlike.stderr);
  assert.match(unlike.stdout, /^ {5}2 {2}different: not taken over by `adopt`$/m);
  assert.match(
    unlike.stdout,
    /^different Deployment unlike\/web, last written by `kubectl-rollout`\n {2}its pods would restart$/m,
  );
  assert.match(unlike.stdout, /^- {8}kubectl\.kubernetes\.io\/restartedAt: /m);
  assert.match(unlike.stdout, /^- {4}team: shop$/m);
  const shown = JSON.parse((await guide(fleet, configuration, '--output', 'json')).stdout) as {
    objects: readonly { object: string; state: string; fields: readonly string[]; effect?: string }[];
  };
  assert.deepEqual(
    shown.objects.map((o) => [o.object, o.state, o.effect]),
    [
      ['Deployment unlike/web', 'different', 'its pods would restart'],
      ['ConfigMap unlike/settings', 'different', undefined],
      ['Namespace unlike', 'same', undefined],
    ].sort(
      (a, b) => shown.objects.findIndex((o) => o.object === a[0]) - shown.objects.findIndex((o) => o.object === b[0]),
    ),
  );

  // Git follows the cluster.
  await settledIn(name);
  const before = await running(name);
  const live = await stage.get(`/apis/apps/v1/namespaces/${name}/deployments/web`);
  const at = (live.body as { spec: { template: { metadata: { annotations: Record<string, string> } } } }).spec.template
    .metadata.annotations['kubectl.kubernetes.io/restartedAt'];
  const second = await stage.change(fleet, 'as it is', {
    [`${PATH}/web.yaml`]: deployment(name, 'web').replace(
      '    metadata:\n      labels:',
      `    metadata:\n      annotations: {kubectl.kubernetes.io/restartedAt: ${JSON.stringify(at)}}\n      labels:`,
    ),
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'blue', size: 'large' }).replace(
      'metadata:\n',
      'metadata:\n  labels: {team: shop}\n',
    ),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  await settledIn(name);
  assert.deepEqual(await podsOf(name), before);
});

test('an object beside Git’s fields, of a controller or of another environment is not taken over', async () => {
  const name = 'foreign-owned';
  applied(name);
  apply(
    ...['-n', name, 'patch', 'deployment', 'web', '--type=json', '-p'],
    '[{"op":"add","path":"/spec/template/spec/containers/-","value":{"name":"miner","image":"registry.example.test/miner:1"}}]',
  );
  const fleet = stage.fleet(name);
  const configuration = stage.configuration(name, [
    { url: fleet.url, namespaces: [name], mode: 'off', spec: { ...ADOPT, health: { wait: false } } },
  ]);
  const first = await stage.change(fleet, 'first', filesOf(name));
  const service = await stage.serve(configuration, name);
  const added = await service.entry('apply.refused', 'production', (e) => e.revision === first);
  assert.match(added.entry.error, /Deployment foreign-owned\/web exists.*`\/spec\/template\/spec\/containers/);
  apply('-n', name, 'delete', 'deployment', 'web');
  // A controller would delete it again, and two environments would fight.
  const { uid } = (await stage.get(`/api/v1/namespaces/${name}`)).body['metadata'] as Metadata;
  const owner = { apiVersion: 'v1', kind: 'Namespace', name, uid };
  const cm = `/api/v1/namespaces/${name}/configmaps/settings`;
  const json = 'application/merge-patch+json';
  const change = (metadata: object) => stage.admin.request('PATCH', cm, { metadata }, json);
  for (const [label, metadata, says] of [
    ['owned', { ownerReferences: [{ ...owner, controller: true }] }, /`\/metadata\/ownerReferences`/],
    [
      'other',
      { ownerReferences: null, labels: { 'countersign.dev/environment': 'staging' } },
      /ConfigMap foreign-owned\/settings belongs to the environment `staging`/,
    ],
  ] as const) {
    await change(metadata);
    const next = await stage.change(fleet, label, { [`${PATH}/note.yaml`]: configMap(name, 'note', { k: label }) });
    const refused = await service.entry('apply.refused', 'production', (e) => e.revision === next);
    assert.match(refused.entry.error, says);
  }
  const { stdout, code } = await guide(fleet, configuration);
  assert.equal(code, 1, stdout);
  assert.match(stdout, /^other ConfigMap foreign-owned\/settings, of the environment `staging`/m);
});

test('objects of a ledger that is gone are adopted if they are as in Git', async () => {
  const name = 'new-ledger';
  const spec = { health: { wait: false } };
  const { fleet, service, first } = await stage.running(name, spec, {
    files: { [`${PATH}/web.yaml`]: deployment(name, 'web') },
  });
  await service.stop();
  const before = await running(name);
  const configuration = stage.configuration(name, [
    { url: fleet.url, namespaces: [name], spec: { ...ADOPT, ...spec } },
  ]);
  const again = await stage.serve(configuration, `${name}-2`);
  await again.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  await settledIn(name);
  assert.deepEqual(await podsOf(name), before);
});

test('a revision that fails does not remove what was there before it', async () => {
  const name = 'adopt-failed';
  applied(name);
  const { uid } = (await web(name)).metadata;
  const fleet = stage.fleet(name);
  const spec = { ...ADOPT, health: { wait: true, timeout: '60s' } };
  const configuration = stage.configuration(name, [{ url: fleet.url, namespaces: [name], spec }]);
  await stage.change(fleet, 'first', {
    ...filesOf(name),
    [`${PATH}/broken.yaml`]: deployment(name, 'broken', { image: BROKEN, deadline: 5 }),
  });
  const service = await stage.serve(configuration, name);
  await service.entry('apply.result', 'production', (e) => e.outcome === 'failed');
  const { entry } = await service.entry('apply.result', 'production', (e) => e.outcome === 'applied');
  assert.equal(entry.pruned, 1, 'the new Deployment');
  assert.equal((await web(name)).metadata.uid, uid);
  assert.deepEqual(await stage.dataOf(name, 'settings'), { colour: 'blue', size: 'large' });
  const good = await stage.change(fleet, 'without it', { [`${PATH}/broken.yaml`]: undefined });
  await service.entry('apply.result', 'production', (e) => e.revision === good && e.outcome === 'applied');
  assert.equal((await web(name)).metadata.uid, uid);
});

test('a definition and the first object of its kind can come in one change', async () => {
  const name = 'adopt-kind';
  const group = 'adopt.example.com';
  const definition = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `gauges.${group}` },
    spec: {
      ...{ group, scope: 'Namespaced', names: { kind: 'Gauge', plural: 'gauges' } },
      versions: [
        {
          ...{ name: 'v1', served: true, storage: true },
          schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
        },
      ],
    },
  };
  const fleet = stage.fleet(name);
  const names = [definition.metadata.name];
  const configuration = stage.configuration(name, [
    {
      ...{ url: fleet.url, namespaces: [name], spec: { ...ADOPT, health: { wait: false } } },
      clusterScoped: ['Namespace', { kind: 'CustomResourceDefinition', names }],
    },
  ]);
  const first = await stage.change(fleet, 'first', {
    [`${PATH}/ns.yaml`]: namespace(name),
    [`${PATH}/kind.json`]: JSON.stringify(definition),
    [`${PATH}/gauge.yaml`]: `apiVersion: ${group}/v1\nkind: Gauge\nmetadata: {name: load, namespace: ${name}}\n`,
  });
  const service = await stage.serve(configuration, name);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
});

const podOf = (name: string, more = '') =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: one, namespace: ${name}}\nspec:\n  containers:\n` +
  '    - name: main\n      image: registry.example.test/shop/web:1.0.0\n' +
  `      resources: {limits: {cpu: 100m, memory: 64Mi}}\n${more}`;

for (const conflicts of ['adopt', 'takeOver', 'refuse'])
  test(`a pod with a command and a container that Git does not have is not taken over: ${conflicts}`, async () => {
    const name = `adopt-pod-${conflicts.toLowerCase()}`;
    const file = join(directory, `${name}.yaml`);
    const more = '      command: [sh]\n    - {name: miner, image: "registry.example.test/miner:1"}\n';
    writeFileSync(file, `${namespace(name)}---\n${podOf(name, more)}`);
    apply('apply', '--server-side', '-f', file);
    const fleet = stage.fleet(name);
    const configuration = stage.configuration(name, [
      { url: fleet.url, namespaces: [name], mode: 'off', spec: { apply: { conflicts }, health: { wait: false } } },
    ]);
    const first = await stage.change(fleet, 'first', {
      [`${PATH}/ns.yaml`]: namespace(name),
      [`${PATH}/pod.yaml`]: podOf(name),
    });
    const service = await stage.serve(configuration, name);
    const { entry } = await service.entry('apply.refused', 'production', (e) => e.revision === first);
    assert.match(entry.error, /pod\.yaml:1: Pod \S+\/one exists, and a pod cannot be made as in Git/);
    const { code, stdout } = await guide(fleet, configuration);
    assert.equal(code, 1, stdout);
    assert.match(stdout, /^refused Pod \S+\/one$/m);
    apply('-n', name, 'delete', 'pod', 'one', '--grace-period=0', '--force');
    await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  });

test('an object that differs and is a hook in Git is not taken over either', async () => {
  const name = 'adopt-hook';
  applied(name);
  const fleet = stage.fleet(name);
  const configuration = stage.configuration(name, [
    { url: fleet.url, namespaces: [name], spec: { ...ADOPT, health: { wait: false } } },
  ]);
  const first = await stage.change(fleet, 'first', {
    ...filesOf(name),
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'red' }).replace(
      'metadata:\n',
      'metadata:\n  annotations: {helm.sh/hook: "pre-install,pre-upgrade"}\n',
    ),
  });
  const service = await stage.serve(configuration, name);
  const { entry } = await service.entry('apply.refused', 'production', (e) => e.revision === first);
  assert.match(entry.error, /cm\.yaml:1: ConfigMap adopt-hook\/settings exists, and adopting it would change/);
  assert.deepEqual(await stage.dataOf(name, 'settings'), { colour: 'blue', size: 'large' });
});

test('what Git drops goes also where `drift.ignore` leaves another field of the object to others', async () => {
  const name = 'adopt-left';
  applied(name);
  apply('-n', name, 'patch', 'configmap', 'settings', '--type=merge', '-p', '{"data":{"left":"theirs"}}');
  const fleet = stage.fleet(name);
  const drift = { ignore: [{ kind: 'ConfigMap', fields: ['/data/left'] }] };
  const configuration = stage.configuration(name, [
    { url: fleet.url, namespaces: [name], spec: { ...ADOPT, drift, health: { wait: false } } },
  ]);
  const first = await stage.change(fleet, 'first', filesOf(name));
  const service = await stage.serve(configuration, name);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  const second = await stage.change(fleet, 'a key goes', {
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'blue' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === second && e.outcome === 'applied');
  assert.deepEqual(await stage.dataOf(name, 'settings'), { colour: 'blue', left: 'theirs' });
});

test('once it is adopted, an object of which others own a field is refused as before where drift is only reported', async () => {
  const name = 'adopted-report';
  applied(name);
  const fleet = stage.fleet(name);
  const spec = { ...ADOPT, health: { wait: false }, drift: { mode: 'report' } };
  const configuration = stage.configuration(name, [{ url: fleet.url, namespaces: [name], mode: 'off', spec }]);
  const first = await stage.change(fleet, 'first', filesOf(name));
  const service = await stage.serve(configuration, name);
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  const theirs = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings' }, data: { colour: 'red' } };
  const path = `/api/v1/namespaces/${name}/configmaps/settings?fieldManager=another-tool&force=true`;
  assert.equal((await stage.admin.request('PATCH', path, theirs, 'application/apply-patch+yaml')).status, 200);
  const next = await stage.change(fleet, 'green', {
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'green', size: 'large' }),
  });
  const refused = await service.entry('apply.refused', 'production', (e) => e.revision === next);
  assert.match(refused.entry.error, /`another-tool` owns `\.data\.colour`/);
});

test('a kind that the account may not list leaves open what else is there', async () => {
  const name = 'adopt-unread';
  apply('create', 'namespace', name);
  const fleet = stage.fleet(name);
  const configuration = stage.configuration(name, [{ url: fleet.url, namespaces: [name], spec: ADOPT }]);
  await stage.change(fleet, 'first', { [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'blue' }) });
  // `edit` has no roles.
  apply('-n', name, 'create', 'rolebinding', 'editor', '--clusterrole=edit', '--user=nobody');
  const open = await guide(fleet, configuration, '--kubeconfig', stage.controlPlane.kubeconfig('nobody'));
  assert.equal(open.code, 2, open.stdout + open.stderr);
  assert.match(open.stdout, /^ {5}1 {2}not in the cluster yet: created$/m);
  assert.match(open.stdout, /not read: .*\bRole\b.*; use an account that may list these/);
  assert.equal((await guide(fleet, configuration)).code, 0);
});
