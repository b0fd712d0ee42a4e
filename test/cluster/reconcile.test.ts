import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Plan } from '../../src/model/index.ts';
import { startApiProxy } from '../kit/api-proxy.ts';
import { BROKEN, configMap, deployment, HELD, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { podsReady } from '../kit/status.ts';
import { openStage } from '../kit/test-stage.ts';

const PATH = 'clusters/production';
const directory = scratch();
const stage = await openStage(directory);

const job = (ns: string, name: string, image = 'busybox', annotations = '') =>
  `apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: ${name}\n  namespace: ${ns}\n${annotations}spec:\n  template:\n    spec:\n      restartPolicy: Never\n      containers:\n        - name: main\n          image: registry.example.test/${image}:1.0.0\n          resources: {limits: {cpu: 100m, memory: 64Mi}}\n`;

test('a change is applied once its objects are healthy, and not before', async () => {
  const health = { wait: true, timeout: '60s' };
  const { fleet, service } = await stage.running('healthy', { health });
  const next = await stage.change(fleet, 'web', {
    [`${PATH}/web.yaml`]: deployment('healthy', 'web', { image: HELD }),
  });
  await service.entry('apply.intent', 'production', (e) => e.revision === next);
  const node = await stage.as('node');
  const isReady = new Date();
  await podsReady(node, 'healthy', 'web');
  node.close();
  const result = await service.entry('apply.result', 'production', (e) => e.revision === next);
  assert.equal(result.entry.outcome, 'applied');
  assert.equal(result.entry.healthy, true);
  assert.ok(new Date(result.entry.time) >= isReady, 'it was not done while it was not healthy');
});

test('a rollout that fails is undone whole: what it changed, what it added, what it removed; and it is held there', async () => {
  const { fleet, service, first } = await stage.running(
    'undone',
    { health: { wait: true, timeout: '30s' } },
    { files: { [`${PATH}/old.yaml`]: configMap('undone', 'old', { k: '1' }) } },
  );
  const bad = await stage.change(fleet, 'bad', {
    [`${PATH}/web.yaml`]: deployment('undone', 'web', { image: BROKEN }),
    [`${PATH}/cm.yaml`]: configMap('undone', 'settings', { colour: 'red' }),
    [`${PATH}/old.yaml`]: undefined,
  });
  await service.entry('apply.intent', 'production', (e) => e.revision === bad);
  await stage.waitFor(async () => (await stage.dataOf('undone', 'settings'))?.['colour'] === 'red', 'the write');
  assert.notEqual(await stage.dataOf('undone', 'old'), undefined, 'removals wait for health');
  const controller = await stage.as('controller');
  const web = '/apis/apps/v1/namespaces/undone/deployments/web';
  await controller.request('PATCH', web, { spec: { progressDeadlineSeconds: 1 } }, 'application/merge-patch+json');
  controller.close();
  const failed = await service.entry('apply.result', 'production', (e) => e.outcome === 'failed');
  assert.match(failed.entry.error ?? '', /Deployment undone\/web: ReplicaSet "web-\w+" has timed out progressing/);
  assert.equal(failed.entry.revision, first, 'the environment is where it was');
  await service.entry('apply.intent', 'production', (e) => e.purpose === 'restore' && e.revision === first);
  await stage.waitFor(async () => (await stage.dataOf('undone', 'settings'))?.['colour'] === 'blue', 'the return');
  await stage.waitFor(
    async () => (await stage.get('/apis/apps/v1/namespaces/undone/deployments/web')).status === 404,
    'the removal',
  );
  assert.notEqual(await stage.dataOf('undone', 'old'), undefined);
  await service.looksAgain();
  assert.equal(
    service.entries('apply.intent', 'production').filter((e) => e.entry.revision === bad).length,
    1,
    'it is not tried again',
  );
  const good = await stage.change(fleet, 'good', {
    [`${PATH}/web.yaml`]: undefined,
    [`${PATH}/cm.yaml`]: configMap('undone', 'settings', { colour: 'green' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === good && e.outcome === 'applied');
  assert.equal(await stage.dataOf('undone', 'old'), undefined);
});

test('objects that do not become healthy in time are named, and the change is undone', async () => {
  const { fleet, service } = await stage.running('late', { health: { wait: true, timeout: '2s' } });
  await stage.change(fleet, 'web', { [`${PATH}/web.yaml`]: deployment('late', 'web', { image: HELD }) });
  const failed = await service.entry('apply.result', 'production', (e) => e.outcome === 'failed');
  assert.match(failed.entry.error ?? '', /Deployment late\/web: .*, after 2 s/);
  await stage.waitFor(
    async () => (await stage.get('/apis/apps/v1/namespaces/late/deployments/web')).status === 404,
    'the removal',
  );
});

test('a bad commit that is not healthy yet does not keep a newer good one waiting (Argo CD 11494)', async () => {
  const { fleet, service } = await stage.running('overtaken', { health: { wait: true, timeout: '10m' } });
  const stuck = await stage.change(fleet, 'stuck', {
    [`${PATH}/web.yaml`]: deployment('overtaken', 'web', { image: HELD }),
  });
  const intent = await service.entry('apply.intent', 'production', (e) => e.revision === stuck);
  const better = await stage.change(fleet, 'better', {
    [`${PATH}/web.yaml`]: undefined,
    [`${PATH}/cm.yaml`]: configMap('overtaken', 'settings', { colour: 'green' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === better && e.outcome === 'applied');
  const newer = await service.entry('apply.intent', 'production', (e) => e.revision === better);
  assert.equal(newer.entry.takesOver, intent.index);
  assert.equal(
    (await stage.get('/apis/apps/v1/namespaces/overtaken/deployments/web')).status,
    404,
    'what only the bad one had is gone',
  );
});

test('a health expression in CEL decides for a kind that says nothing itself', async () => {
  const expressions = [
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      current: 'object.data.colour != "red" || "ready" in object.data',
      failed: 'object.data.colour == "black"',
    },
  ];
  const { fleet, service } = await stage.running('cel', { health: { wait: true, timeout: '2s', expressions } });
  const change = (colour: string, more: Record<string, string> = {}) =>
    stage.change(fleet, colour, { [`${PATH}/cm.yaml`]: configMap('cel', 'settings', { colour, ...more }) });
  await change('red');
  const late = await service.entry('apply.result', 'production', (e) => e.outcome === 'failed');
  assert.match(late.entry.error ?? '', /its `current` expression does not hold, after 2 s/);
  await change('black');
  const hopeless = await service.entry(
    'apply.result',
    'production',
    (e) => e.outcome === 'failed' && /failed/.test(e.error ?? ''),
  );
  assert.doesNotMatch(hopeless.entry.error ?? '', /after/);
  const good = await change('red', { ready: 'yes' });
  await service.entry('apply.result', 'production', (e) => e.revision === good && e.outcome === 'applied');
});

test('a deleted or edited object is back long before the next look, and it is told which field and by whom', async () => {
  const { service, first } = await stage.running('watch', {}, { environment: { interval: '10m' } });
  const controller = await stage.as('controller');
  const path = '/api/v1/namespaces/watch/configmaps/settings';
  const edited = performance.now();
  await controller.request(
    'PATCH',
    `${path}?fieldManager=some-controller`,
    { data: { colour: 'red' } },
    'application/merge-patch+json',
  );
  await stage.waitFor(async () => (await stage.dataOf('watch', 'settings'))?.['colour'] === 'blue', 'the correction');
  assert.ok(performance.now() - edited < 5000);
  const found = await service.entry('drift.found', 'production', (e) => e.revision === first);
  assert.deepEqual(
    found.entry.details?.map((d) => [d.object.name, d.fields, d.manager]),
    [['settings', ['/data/colour'], 'some-controller']],
  );
  await stage.waitFor(async () => {
    const events = (await stage.get('/apis/events.k8s.io/v1/namespaces/watch/events')).body['items'] as
      | { reportingController?: string; reason?: string; type?: string; regarding?: { name: string } }[]
      | undefined;
    const ours = (events ?? []).filter(
      (e) => e.reportingController === 'countersign.dev/countersign' && e.regarding?.name === 'settings',
    );
    return ours.some((e) => e.reason === 'Drift' && e.type === 'Warning') && ours.some((e) => e.reason === 'Corrected');
  }, 'Events on the object');
  await controller.request('DELETE', path);
  await stage.waitFor(async () => (await stage.dataOf('watch', 'settings')) !== undefined, 'the return');
  await controller.request(
    'PATCH',
    path,
    { metadata: { labels: { 'countersign.dev/environment': null } } },
    'application/merge-patch+json',
  );
  await stage.waitFor(async () => {
    const { labels } = (await stage.get(path)).body['metadata'] as { labels?: Record<string, string> };
    return labels?.['countersign.dev/environment'] === 'production';
  }, 'the label');
});

test('when nothing changed, looking writes nothing and reads next to nothing', async () => {
  const proxy = await startApiProxy(stage.controlPlane, 'countersign');
  try {
    const files = Object.fromEntries(
      Array.from({ length: 50 }, (_, i) => [`${PATH}/c${i}.yaml`, configMap('quiet', `c${i}`, { k: String(i) })]),
    );
    // Looking at everything in the namespaces, every ten minutes and at each revision, is another matter.
    const { service } = await stage.running(
      'quiet',
      {},
      { files, kubeconfig: proxy.kubeconfig, arguments: ['--rescan', 'off'] },
    );
    await service.looksAgain(2);
    const before = proxy.seen.length;
    await service.looksAgain(6);
    const asked = proxy.seen.slice(before).filter((a) => !a.path.includes('leases'));
    assert.deepEqual(asked, []);
  } finally {
    await proxy.stop();
  }
});

test('drift is only reported where the environment says so, once, and ends when it ends', async () => {
  const { service } = await stage.running('report', { drift: { mode: 'report' } });
  const controller = await stage.as('controller');
  const edit = (colour: string) =>
    controller.request(
      'PATCH',
      '/api/v1/namespaces/report/configmaps/settings',
      { data: { colour } },
      'application/merge-patch+json',
    );
  await edit('red');
  await service.entry('drift.found', 'production', () => true);
  await service.looksAgain();
  assert.equal((await stage.dataOf('report', 'settings'))?.['colour'], 'red');
  assert.equal(service.entries('drift.found', 'production').length, 1);
  assert.deepEqual(service.entries('drift.corrected', 'production'), []);
});

test('fields that the environment leaves to others are no drift, and are not reset by a later change', async () => {
  const ignore = [{ kind: 'Deployment', name: 'web', fields: ['/spec/replicas'] }];
  const { fleet, service } = await stage.running(
    'ignore',
    { drift: { ignore } },
    { files: { [`${PATH}/web.yaml`]: deployment('ignore', 'web') } },
  );
  const controller = await stage.as('controller');
  const scale = '/apis/apps/v1/namespaces/ignore/deployments/web/scale';
  await controller.request('PATCH', scale, { spec: { replicas: 7 } }, 'application/merge-patch+json');
  await service.looksAgain();
  const next = await stage.change(fleet, 'image', {
    [`${PATH}/web.yaml`]: deployment('ignore', 'web', { image: 'registry.example.test/shop/web:2.0.0' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  const { body } = await stage.get('/apis/apps/v1/namespaces/ignore/deployments/web');
  const spec = body['spec'] as { replicas: number; template: { spec: { containers: { image: string }[] } } };
  assert.equal(spec.replicas, 7);
  assert.equal(spec.template.spec.containers[0]?.image, 'registry.example.test/shop/web:2.0.0');
  assert.deepEqual(service.entries('drift.found', 'production'), []);
});

test('somebody who keeps changing an object is fought a few times, then named, and not fought for ever', async () => {
  const { service } = await stage.running('storm', {}, { environment: { interval: '10m' } });
  const controller = await stage.as('controller');
  let n = 0;
  const edit = () =>
    controller.request(
      'PATCH',
      '/api/v1/namespaces/storm/configmaps/settings?fieldManager=stubborn',
      { data: { colour: `red-${n++}` } },
      'application/merge-patch+json',
    );
  for (let i = 0; i < 5; i++) {
    await edit();
    await stage.waitFor(async () => (await stage.dataOf('storm', 'settings'))?.['colour'] === 'blue', 'the correction');
    await stage.waitFor(async () => service.entries('drift.corrected', 'production').length === i + 1, 'its record');
  }
  const contested = await service.entry('drift.contested', 'production', () => true);
  assert.deepEqual(contested.entry.managers, ['stubborn']);
  await edit();
  await new Promise((resolve) => setTimeout(resolve, 2000));
  assert.equal((await stage.dataOf('storm', 'settings'))?.['colour'], 'red-5', 'left alone for a while');
  assert.equal(service.entries('drift.corrected', 'production').length, 5);
  const { code, stdout } = await countersign(['status', '--data', service.data]);
  assert.equal(code, 1);
  assert.match(
    stdout,
    /^production\s+drifted[^\n]*\n {2}someone keeps changing objects in Git, [^\n]*: ConfigMap storm\/settings$/m,
  );
});

test('a field that another manager has is refused with the manager’s name, and taken where the environment says so', async () => {
  const name = 'conflict';
  const { fleet, service, configuration } = await stage.running(name, {}, { environment: { mode: 'off' } });
  const theirs = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'theirs', namespace: name },
    data: { colour: 'red' },
  };
  await stage.admin.request(
    'PATCH',
    `/api/v1/namespaces/${name}/configmaps/theirs?fieldManager=another-tool`,
    theirs,
    'application/apply-patch+yaml',
  );
  const wanted = await stage.change(fleet, 'theirs', {
    [`${PATH}/theirs.yaml`]: configMap(name, 'theirs', { colour: 'blue' }),
  });
  const refused = await service.entry('apply.refused', 'production', (e) => e.revision === wanted);
  assert.match(refused.entry.error, /ConfigMap conflict\/theirs: `another-tool` owns `\.data\.colour`/);
  assert.equal((await stage.dataOf(name, 'theirs'))?.['colour'], 'red');
  await service.stop();
  stage.configuration(name, [
    { url: fleet.url, namespaces: [name], mode: 'off', spec: { apply: { conflicts: 'takeOver' } } },
  ]);
  const again = await stage.serve(configuration, name);
  await again.entry('apply.result', 'production', (e) => e.revision === wanted && e.outcome === 'applied');
  assert.equal((await stage.dataOf(name, 'theirs'))?.['colour'], 'blue');
});

test('an object of Flux, Argo CD or Helm is refused with its owner’s name before anything is written', async () => {
  const name = 'owners';
  const { fleet, service } = await stage.running(name, {}, { environment: { mode: 'off' } });
  const marks = [
    { labels: { 'kustomize.toolkit.fluxcd.io/name': 'shop' } },
    { annotations: { 'argocd.argoproj.io/tracking-id': 'shop:/ConfigMap:owners/c1' } },
    { annotations: { 'meta.helm.sh/release-name': 'shop' } },
  ];
  for (const [i, mark] of marks.entries())
    await stage.admin.request('POST', `/api/v1/namespaces/${name}/configmaps`, {
      metadata: { name: `c${i}`, ...mark },
      data: {},
    });
  for (const [i, owner] of [
    /the Flux Kustomization \(`shop`\)/,
    /the Argo CD application/,
    /the Helm release/,
  ].entries()) {
    const wanted = await stage.change(fleet, `c${i}`, {
      [`${PATH}/c.yaml`]: configMap(name, `c${i}`, { k: '1' }),
      [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: `green-${i}` }),
    });
    const refused = await service.entry('apply.refused', 'production', (e) => e.revision === wanted);
    assert.match(refused.entry.error, owner);
    assert.equal((await stage.dataOf(name, 'settings'))?.['colour'], 'blue');
  }
});

test('two services do not fight over one environment: the second is refused with the first one’s ledger named (kustomize-controller 1724)', async () => {
  const { service, fleet, first } = await stage.running('twice', {}, { environment: { mode: 'off' } });
  const other = stage.configuration('twice-other', [{ url: fleet.url, namespaces: ['twice'], mode: 'off' }]);
  const second = await stage.serve(other, 'twice-other');
  const refused = await second.entry('apply.refused', 'production', (e) => e.revision === first);
  assert.match(refused.entry.error, /belongs to another Countersign, with the ledger `[0-9a-f]{16}`/);
  await service.looksAgain(2);
  assert.deepEqual(service.entries('drift.found', 'production'), []);
});

test('a dry run writes nothing and deletes nothing (gitops-engine 699)', async () => {
  const name = 'rehearsal';
  const { fleet, service, configuration } = await stage.running(
    name,
    {},
    { environment: { mode: 'off' }, files: { [`${PATH}/old.yaml`]: configMap(name, 'old', { k: '1' }) } },
  );
  const uid = async () =>
    ((await stage.get(`/api/v1/namespaces/${name}/configmaps/old`)).body['metadata'] as { uid?: string })?.uid;
  const before = await uid();
  const bad = await stage.change(fleet, 'bad', {
    [`${PATH}/old.yaml`]: undefined,
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'green' }),
    [`${PATH}/zz.yaml`]: `apiVersion: v1\nkind: Service\nmetadata: {name: zz, namespace: ${name}}\nspec: {ports: [{port: 99999}]}\n`,
  });
  await service.entry('apply.refused', 'production', (e) => e.revision === bad);
  assert.equal((await stage.dataOf(name, 'settings'))?.['colour'], 'blue');
  const removal = await stage.change(fleet, 'a Job too', {
    [`${PATH}/zz.yaml`]: job(name, 'migrate'),
  });
  await service.entry('apply.refused', 'production', (e) => e.revision === removal);
  assert.equal(await uid(), before, 'the object that would be removed is still the same one');
  await service.stop();
  await stage.change(fleet, 'what is allowed', { [`${PATH}/zz.yaml`]: undefined });
  await stage.serveUntil('dry-run', configuration, name);
  assert.equal(await uid(), before, 'also when the whole rehearsal went well');
  assert.equal((await stage.dataOf(name, 'settings'))?.['colour'], 'blue');
});

test('two environments do not fight over one object across the cluster: the second is refused with the first one’s name', async () => {
  const fleet = stage.fleet('shared');
  const priority = 'apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: shared-by-two}\nvalue: 7\n';
  const clusterScoped = ['Namespace', 'PriorityClass'];
  const configuration = stage.configuration('shared', [
    { name: 'one', url: fleet.url, path: 'one', namespaces: ['shared-one'], mode: 'off', clusterScoped },
    {
      name: 'two',
      url: fleet.url,
      path: 'two',
      namespaces: ['shared-two'],
      mode: 'off',
      // The same cluster in other words: otherwise the documents are refused already.
      spec: { dependsOn: ['one'], target: { namespaces: ['shared-two'], clusterScoped, context: 'test' } },
    },
  ]);
  const commit = await stage.change(fleet, 'both', { 'one/class.yaml': priority, 'two/class.yaml': priority });
  const service = await stage.serve(configuration, 'shared');
  await service.entry('apply.result', 'one', (e) => e.revision === commit && e.outcome === 'applied');
  const refused = await service.entry('apply.refused', 'two', (e) => e.revision === commit);
  assert.match(refused.entry.error, /^PriorityClass shared-by-two belongs to the environment `one`$/);
});

test('what cannot be undone is named in advance, and done only when the commit says so', async () => {
  const name = 'meant';
  const pvc = `apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, namespace: ${name}}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n`;
  const { fleet, service } = await stage.running(name, {}, { files: { [`${PATH}/pvc.yaml`]: pvc } });
  const refused = async (message: string, files: Record<string, string | undefined>, expected: RegExp) => {
    const commit = await stage.change(fleet, message, files);
    const entry = await service.entry('apply.refused', 'production', (e) => e.revision === commit);
    assert.match(entry.entry.error, expected);
  };
  const claim = async () => (await stage.get(`/api/v1/namespaces/${name}/persistentvolumeclaims/data`)).status;
  await refused(
    'run',
    { [`${PATH}/job.yaml`]: job(name, 'migrate') },
    /Job meant\/migrate would run, which cannot be undone/,
  );
  const allowed = await stage.change(fleet, 'run it\n\nCountersign-Allow: run Job meant/migrate', {
    [`${PATH}/x.txt`]: '1',
  });
  const intent = await service.entry('apply.intent', 'production', (e) => e.revision === allowed);
  assert.deepEqual(
    service.evidence<Plan>(intent.entry.evidence).irreversible?.map((i) => `${i.action} ${i.object?.kind}`),
    ['run Job'],
    'and it stands in the plan',
  );
  await service.entry('apply.result', 'production', (e) => e.revision === allowed && e.outcome === 'applied');
  await refused(
    'delete',
    { [`${PATH}/pvc.yaml`]: undefined },
    /PersistentVolumeClaim meant\/data would be deleted with its content/,
  );
  assert.equal(await claim(), 200);
  await refused(
    'change the Job',
    { [`${PATH}/job.yaml`]: job(name, 'migrate', 'other'), [`${PATH}/pvc.yaml`]: pvc },
    /Job meant\/migrate has immutable fields \(`spec\.template`\)/,
  );
  const uid = async () =>
    ((await stage.get(`/apis/batch/v1/namespaces/${name}/jobs/migrate`)).body['metadata'] as { uid: string }).uid;
  const before = await uid();
  const controller = await stage.as('controller');
  const replaced = await stage.change(fleet, 'replace it', {
    [`${PATH}/job.yaml`]: job(name, 'migrate', 'other', '  annotations:\n    countersign.dev/allow: replace\n'),
  });
  await stage.waitFor(async () => {
    // Nobody else is here to take the Job's finalizers away, as its controller does.
    await controller.request(
      'PATCH',
      `/apis/batch/v1/namespaces/${name}/jobs/migrate`,
      { metadata: { finalizers: null } },
      'application/merge-patch+json',
    );
    return service
      .entries('apply.result', 'production')
      .some((r) => r.entry.revision === replaced && r.entry.outcome === 'applied');
  }, 'the replacement');
  assert.notEqual(await uid(), before);
  const deleted = await stage.change(
    fleet,
    `drop the data\n\nCountersign-Allow: delete PersistentVolumeClaim ${name}/data`,
    {
      [`${PATH}/pvc.yaml`]: undefined,
    },
  );
  await service.entry('apply.result', 'production', (e) => e.revision === deleted && e.outcome === 'applied');
});

test('an object with a finalizer stays known until the API server says that it is gone (kustomize-controller 1664)', async () => {
  const name = 'finalizer';
  const { fleet, service } = await stage.running(name);
  const held = configMap(name, 'held', { k: '1' }).replace(
    'metadata:\n',
    'metadata:\n  finalizers: [example.test/hold]\n',
  );
  const one = await stage.change(fleet, 'held', { [`${PATH}/held.yaml`]: held });
  await service.entry('apply.result', 'production', (e) => e.revision === one);
  const two = await stage.change(fleet, 'drop', { [`${PATH}/held.yaml`]: undefined });
  const result = await service.entry(
    'apply.result',
    'production',
    (e) => e.revision === two && e.outcome === 'applied',
  );
  assert.deepEqual(
    service.evidence<{ leaving?: { name: string }[] }>(result.entry.evidence).leaving?.map((r) => r.name),
    ['held'],
  );
  const controller = await stage.as('controller');
  await controller.request(
    'PATCH',
    `/api/v1/namespaces/${name}/configmaps/held`,
    { metadata: { finalizers: null } },
    'application/merge-patch+json',
  );
  const three = await stage.change(fleet, 'more', {
    [`${PATH}/cm.yaml`]: configMap(name, 'settings', { colour: 'green' }),
  });
  const last = await service.entry(
    'apply.result',
    'production',
    (e) => e.revision === three && e.outcome === 'applied',
  );
  assert.equal(service.evidence<{ leaving?: unknown }>(last.entry.evidence).leaving, undefined);
});

test('an object that lost our label is not ours to delete, and a finished Job that Kubernetes took away is not run again', async () => {
  const name = 'left';
  const spec = { ttlSecondsAfterFinished: 60 };
  const once = job(name, 'once', 'busybox', '  annotations:\n    countersign.dev/allow: run\n').replace(
    'spec:\n',
    `spec:\n  ttlSecondsAfterFinished: ${spec.ttlSecondsAfterFinished}\n`,
  );
  const files = { [`${PATH}/other.yaml`]: configMap(name, 'other', { k: '1' }), [`${PATH}/job.yaml`]: once };
  const { fleet, service } = await stage.running(
    name,
    { drift: { mode: 'report' } },
    { files, environment: { mode: 'off' } },
  );
  const unlabel = { metadata: { labels: { 'countersign.dev/environment': null } } };
  await stage.admin.request(
    'PATCH',
    `/api/v1/namespaces/${name}/configmaps/other`,
    unlabel,
    'application/merge-patch+json',
  );
  await stage.admin.request('DELETE', `/apis/batch/v1/namespaces/${name}/jobs/once`, {
    propagationPolicy: 'Background',
  });
  const drift = await service.entry('drift.found', 'production', (e) => e.objects.some((o) => o.name === 'other'));
  assert.deepEqual(
    drift.entry.objects.map((o) => o.kind),
    ['ConfigMap'],
    'the Job is not missing',
  );
  const next = await stage.change(fleet, 'drop', { [`${PATH}/other.yaml`]: undefined });
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  assert.notEqual(await stage.dataOf(name, 'other'), undefined, 'whoever took the label away has it now');
  assert.equal((await stage.get(`/apis/batch/v1/namespaces/${name}/jobs/once`)).status, 404);
});

test('an object larger than kubectl’s annotation can be is applied and changed (262,144 bytes)', async () => {
  const large = (n: string) => ({ [`${PATH}/large.yaml`]: configMap('large', 'large', { text: n.repeat(400_000) }) });
  const { fleet, service } = await stage.running('large', {}, { files: large('a') as Record<string, string> });
  const next = await stage.change(fleet, 'b', large('b'));
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  assert.equal((await stage.dataOf('large', 'large'))?.['text']?.length, 400_000);
});

test('a definition and its objects go together: what went with its kind does not wedge the removal (kustomize-controller 90)', async () => {
  const name = 'kindless';
  const crd = `apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: gizmos.example.test}\nspec:\n  group: example.test\n  scope: Namespaced\n  names: {kind: Gizmo, plural: gizmos, singular: gizmo, listKind: GizmoList}\n  versions:\n    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}\n`;
  const target = { namespaces: [name], clusterScoped: ['Namespace', 'CustomResourceDefinition'] };
  const files = {
    [`${PATH}/crd.yaml`]: crd,
    [`${PATH}/g.yaml`]: `apiVersion: example.test/v1\nkind: Gizmo\nmetadata: {name: g, namespace: ${name}}\n`,
  };
  const { fleet, service } = await stage.running(
    name,
    { target, drift: { mode: 'report' } },
    { files, environment: { mode: 'off' } },
  );
  const without = { [`${PATH}/crd.yaml`]: undefined, [`${PATH}/g.yaml`]: undefined };
  const both = await stage.change(fleet, 'both', without);
  const refused = await service.entry('apply.refused', 'production', (e) => e.revision === both);
  assert.match(refused.entry.error, /CustomResourceDefinition gizmos\.example\.test would be deleted with its content/);
  await stage.admin.request('DELETE', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gizmos.example.test');
  await stage.waitFor(
    async () => (await stage.get('/apis/example.test/v1/namespaces/kindless/gizmos')).status === 404,
    'the end of the kind',
  );
  const next = await stage.change(fleet, 'again', { [`${PATH}/x.txt`]: '1' });
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
});

test('most of an environment is not deleted by accident, nor all of it', async () => {
  const name = 'mass';
  const files = Object.fromEntries(
    Array.from({ length: 30 }, (_, i) => [`${PATH}/c${i}.yaml`, configMap(name, `c${i}`, { k: '1' })]),
  );
  const { fleet, service } = await stage.running(name, {}, { files });
  const gone = Object.fromEntries(Object.keys(files).map((f) => [f, undefined]));
  const bad = await stage.change(fleet, 'oops', gone);
  const refused = await service.entry('apply.refused', 'production', (e) => e.revision === bad);
  assert.match(refused.entry.error, /more than half of the 32 objects would be deleted/);
  assert.notEqual(await stage.dataOf(name, 'c7'), undefined);
  const meant = await stage.change(fleet, 'yes\n\nCountersign-Allow: prune', { [`${PATH}/x.txt`]: '1' });
  await service.entry('apply.result', 'production', (e) => e.revision === meant && e.outcome === 'applied');
  assert.equal(await stage.dataOf(name, 'c7'), undefined);
  const empty = await stage.change(fleet, 'nothing', {
    [`${PATH}/ns.yaml`]: undefined,
    [`${PATH}/cm.yaml`]: undefined,
  });
  await service.entry('change.judged', 'production', (e) => e.to === empty && e.outcome === 'denied');
  const really = await stage.change(fleet, 'nothing\n\nCountersign-Allow: empty', { [`${PATH}/x.txt`]: '2' });
  await service.entry('apply.result', 'production', (e) => e.revision === really && e.outcome === 'applied');
  assert.equal(await stage.dataOf(name, 'settings'), undefined);
  assert.equal(
    (await stage.get(`/api/v1/namespaces/${name}`)).status,
    200,
    'a namespace stays, unless the commit names it',
  );
});

test('a namespace goes when the commit names it, and stays when it does not', async () => {
  const fleet = stage.fleet('leave');
  const configuration = stage.configuration('leave', [
    { url: fleet.url, namespaces: ['leave', 'leave-b', 'leave-c'], mode: 'off' },
  ]);
  const files = Object.fromEntries(['leave', 'leave-b', 'leave-c'].map((ns) => [`${PATH}/${ns}.yaml`, namespace(ns)]));
  const first = await stage.change(fleet, 'first', files);
  const service = await stage.serve(configuration, 'leave');
  await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
  const gone = { [`${PATH}/leave-b.yaml`]: undefined, [`${PATH}/leave-c.yaml`]: undefined };
  const next = await stage.change(fleet, 'one of two\n\nCountersign-Allow: delete Namespace leave-b', gone);
  const result = await service.entry(
    'apply.result',
    'production',
    (e) => e.revision === next && e.outcome === 'applied',
  );
  const phase = async (ns: string) =>
    ((await stage.get(`/api/v1/namespaces/${ns}`)).body['status'] as { phase?: string } | undefined)?.phase;
  await stage.waitFor(async () => (await stage.get('/api/v1/namespaces/leave-b')).status === 404, 'its end');
  assert.deepEqual([await phase('leave'), await phase('leave-c')], ['Active', 'Active']);
  assert.equal(result.entry.pruned, 1);
});

test('a change of many commits in small steps leaves small records, and the state read from them is the same', async () => {
  const name = 'records';
  const files = Object.fromEntries(
    Array.from({ length: 100 }, (_, i) => [`${PATH}/c${i}.yaml`, configMap(name, `c${i}`, { k: '0' })]),
  );
  const { fleet, service, configuration } = await stage.running(name, {}, { files });
  for (let i = 1; i <= 3; i++) {
    const commit = await stage.change(fleet, `step ${i}`, {
      [`${PATH}/c${i}.yaml`]: configMap(name, `c${i}`, { k: String(i) }),
    });
    const result = await service.entry(
      'apply.result',
      'production',
      (e) => e.revision === commit && e.outcome === 'applied',
    );
    assert.ok(result.entry.evidence.size < 2000, `${result.entry.evidence.size} bytes for one object of 102`);
  }
  await service.stop();
  const again = await stage.serve(configuration, name);
  const last = await stage.change(fleet, 'last', { [`${PATH}/c50.yaml`]: undefined });
  await again.entry('apply.result', 'production', (e) => e.revision === last && e.pruned === 1 && e.applied === 0);
  const after = await stage.change(fleet, 'after', { [`${PATH}/c60.yaml`]: configMap(name, 'c60', { k: '60' }) });
  const done = await again.entry('apply.result', 'production', (e) => e.revision === after && e.outcome === 'applied');
  assert.deepEqual([done.entry.applied, done.entry.pruned], [1, 0], 'what was removed is known to be');
  assert.deepEqual(again.entries('drift.found', 'production'), []);
});

test('a Kustomize and a Helm environment run what the programs make; check says the same before the merge', async () => {
  const fleet = stage.fleet('made');
  const configuration = stage.configuration('made', [
    {
      name: 'kustomized',
      url: fleet.url,
      path: 'apps/k',
      namespaces: ['made-k'],
      spec: { render: { with: 'kustomize', substitute: { COLOUR: 'red' } } },
    },
    {
      name: 'helmed',
      url: fleet.url,
      path: 'apps/h',
      namespaces: ['made-h'],
      spec: { render: { with: 'helm', chart: 'chart', values: ['values.yaml'] } },
    },
  ]);
  const files = {
    'base/kustomization.yaml': 'resources: [cm.yaml]\n',
    'base/cm.yaml': 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: "${COLOUR}"}\n',
    'apps/k/kustomization.yaml': 'resources: [../../base, ns.yaml]\nnamespace: made-k\n',
    'apps/k/ns.yaml': namespace('made-k'),
    'apps/h/chart/Chart.yaml': 'apiVersion: v2\nname: web\nversion: 1.0.0\n',
    'apps/h/chart/templates/cm.yaml':
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: "{{ .Release.Namespace }}"}\ndata: {colour: "{{ .Values.colour }}"}\n',
    'apps/h/chart/templates/ns.yaml': 'apiVersion: v1\nkind: Namespace\nmetadata: {name: "{{ .Release.Namespace }}"}\n',
    'apps/h/values.yaml': 'colour: green\n',
  };
  const first = await stage.change(fleet, 'first', files);
  const service = await stage.serve(configuration, 'made');
  for (const environment of ['kustomized', 'helmed'])
    await service.entry('apply.result', environment, (e) => e.revision === first && e.outcome === 'applied');
  assert.deepEqual(
    [await stage.dataOf('made-k', 'settings'), await stage.dataOf('made-h', 'settings')],
    [{ colour: 'red' }, { colour: 'green' }],
  );
  const explained = await countersign(['explain', 'configmap/settings', '-n', 'made-k', '--data', service.data]);
  assert.match(explained.stdout, /^from\s+base\/cm\.yaml:1$/m);
  fleet.commit(stage.dana, 'remote', { 'apps/k/kustomization.yaml': 'resources: ["https://example.test/base"]\n' });
  const checked = await countersign([
    ...[
      'check',
      '--repo',
      fleet.work,
      '--config',
      configuration,
      '--environment',
      'kustomized',
      '--base',
      first,
      '--no-fetch',
    ],
  ]);
  assert.equal(checked.code, 1, checked.stderr);
  assert.match(checked.stdout, /`https:\/\/example\.test\/base` is not in the repository, so it was not signed/);
  await service.stop();
  const again = await stage.serve(configuration, 'made');
  await stage.admin.request(
    'DELETE',
    `/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/${stage.webhook}`,
  );
  await stage.admin.request('DELETE', '/api/v1/namespaces/made-h/configmaps/settings');
  await stage.waitFor(
    async () => (await stage.dataOf('made-h', 'settings'))?.['colour'] === 'green',
    'the return, made again',
  );
  await again.stop();
});
