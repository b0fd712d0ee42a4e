import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { KubernetesObject } from '../../src/model/index.ts';
import { startMutator } from '../kit/injector.ts';
import { configMap, deployment } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

const directory = scratch();
const stage = await openStage(directory);
const PATH = 'clusters/production';
const EVIL = 'registry.example.test/evil/miner:1';
const IMAGE = '/spec/template/spec/containers/0/image';

type Containers = {
  readonly template: { readonly spec: { readonly containers: readonly { readonly image: string }[] } };
};

const web = (ns: string) => `/apis/apps/v1/namespaces/${ns}/deployments/web`;
const deployed = async (ns: string) => (await stage.get(web(ns))).body as KubernetesObject;
const imageOf = (object: KubernetesObject) => (object['spec'] as Containers).template.spec.containers[0]?.image;
// The Deployment controller writes the number of the rollout, which a webhook would change, too.
const rolledOut = (ns: string) =>
  stage.waitFor(async () => {
    const { annotations = {} } = (await deployed(ns)).metadata;
    return annotations['deployment.kubernetes.io/revision'] === '1';
  }, 'the first rollout');
const swapImage = (namespace: string) => ({
  name: `helpful-${namespace}`,
  namespace,
  rule: { apiGroups: ['apps'], operations: ['CREATE', 'UPDATE'], resources: ['deployments'] },
  patch: () => [{ op: 'replace', path: IMAGE, value: EVIL }],
});

test('a webhook that swaps the image of a Deployment stops the change, and the change goes through without it', async (t) => {
  const ns = 'swapped';
  const files = { [`${PATH}/web.yaml`]: deployment(ns, 'web') };
  const { fleet, service } = await stage.running(ns, {}, { files });
  await rolledOut(ns);
  const mutator = await startMutator(stage.admin, join(directory, 'swap'), swapImage(ns));
  t.after(() => mutator.stop());
  const label = deployment(ns, 'web').replace('team: shop', 'team: market');
  const change = await stage.change(fleet, 'label', {
    [`${PATH}/web.yaml`]: label,
    [`${PATH}/cm.yaml`]: configMap(ns, 'settings', { colour: 'red' }),
  });
  const { entry: refused } = await service.entry('apply.refused', 'production', (e) => e.revision === change);
  assert.equal(
    refused.error,
    `clusters/production/web.yaml:1: Deployment ${ns}/web would not be as in Git: ` +
      `the API server answers with a different \`${IMAGE}\`, ` +
      `perhaps changed by \`MutatingWebhookConfiguration helpful-${ns}\``,
  );
  await service.says('exclude the namespace from it, or list these fields in `spec.drift.ignore`');
  await service.looksAgain();
  const left = await deployed(ns);
  assert.notEqual(imageOf(left), EVIL);
  assert.equal(left.metadata.labels?.['team'], 'shop');
  assert.deepEqual(await stage.dataOf(ns, 'settings'), { colour: 'blue' }, 'nothing of the change is written');
  const intents = () => service.entries('apply.intent', 'production').filter((r) => r.entry.revision === change);
  assert.deepEqual(intents(), []);
  assert.equal(service.entries('apply.refused', 'production').length, 1, 'it is recorded once');
  await mutator.stop();
  await service.entry('apply.result', 'production', (e) => e.revision === change && e.outcome === 'applied');
  const now = await deployed(ns);
  assert.equal(now.metadata.labels?.['team'], 'market');
  assert.notEqual(imageOf(now), EVIL);
});

test('a repair of drift does not install what a webhook makes of it', async (t) => {
  const ns = 'repaired';
  const files = { [`${PATH}/web.yaml`]: deployment(ns, 'web') };
  const { service } = await stage.running(ns, {}, { files });
  await rolledOut(ns);
  const swap = swapImage(ns);
  const mutator = await startMutator(stage.admin, join(directory, 'repair'), {
    ...swap,
    // It leaves the drift alone, which is written by someone else.
    patch: (object) => (object.metadata.labels?.['team'] === 'mallory' ? [] : swap.patch()),
  });
  t.after(() => mutator.stop());
  const controller = await stage.as('controller');
  const labels = { team: 'mallory' };
  const merge = 'application/merge-patch+json';
  const drifted = await controller.request('PATCH', web(ns), { metadata: { labels } }, merge);
  assert.equal(drifted.status, 200, JSON.stringify(drifted.body['message']));
  controller.close();
  const { entry: refused } = await service.entry('apply.refused', 'production', () => true);
  assert.match(
    refused.error,
    new RegExp(`^clusters/production/\\S+:\\d+: Deployment ${ns}/web would not be as in Git: .*\`${IMAGE}\``),
  );
  const { entry: found } = await service.entry('drift.found', 'production', () => true);
  assert.deepEqual(found.details?.[0]?.fields, ['/metadata/labels/team'], 'what the webhook would do is no drift');
  await service.looksAgain();
  assert.notEqual(imageOf(await deployed(ns)), EVIL);
  assert.deepEqual(service.entries('drift.corrected', 'production'), []);
  await mutator.stop();
  await service.entry('drift.corrected', 'production', () => true);
  const now = await deployed(ns);
  assert.notEqual(imageOf(now), EVIL);
  assert.equal(now.metadata.labels?.['team'], 'shop');
});

test('a field that is left to others may be changed by a webhook', async (t) => {
  const ns = 'labelled';
  const mutator = await startMutator(stage.admin, join(directory, 'label'), {
    ...swapImage(ns),
    patch: () => [{ op: 'add', path: '/metadata/labels/cost-centre', value: '42' }],
  });
  t.after(() => mutator.stop());
  const ignore = [{ kind: 'Deployment', fields: ['/metadata/labels/cost-centre'] }];
  const { fleet, service } = await stage.running(
    ns,
    { drift: { ignore } },
    { files: { [`${PATH}/web.yaml`]: deployment(ns, 'web') } },
  );
  const next = await stage.change(fleet, 'scale', { [`${PATH}/web.yaml`]: deployment(ns, 'web', { replicas: 1 }) });
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  assert.equal((await deployed(ns)).metadata.labels?.['cost-centre'], '42');
});

test('a webhook that only changes what is really written is found, and the change is undone', async (t) => {
  const ns = 'wet';
  const files = { [`${PATH}/web.yaml`]: deployment(ns, 'web') };
  const { fleet, service, first } = await stage.running(ns, {}, { files, environment: { mode: 'off' } });
  await rolledOut(ns);
  const swap = swapImage(ns);
  const mutator = await startMutator(stage.admin, join(directory, 'wet'), {
    ...swap,
    patch: (object, isDryRun) => (isDryRun || object.metadata.labels?.['team'] !== 'market' ? [] : swap.patch()),
  });
  t.after(() => mutator.stop());
  await stage.change(fleet, 'label', {
    [`${PATH}/web.yaml`]: deployment(ns, 'web').replace('team: shop', 'team: market'),
  });
  const { entry: failed } = await service.entry('apply.result', 'production', (e) => e.outcome === 'failed');
  assert.match(
    failed.error ?? '',
    new RegExp(`^clusters/production/\\S+:\\d+: Deployment ${ns}/web would not be as in Git: .*\`${IMAGE}\``),
  );
  await service.entry('apply.intent', 'production', (e) => e.purpose === 'restore' && e.revision === first);
  await stage.waitFor(async () => imageOf(await deployed(ns)) !== EVIL, 'the restored image');
});

test('an object that is created again is compared, too', async (t) => {
  const ns = 'remade';
  const job = (image: string) => `apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: ${ns}, annotations: {countersign.dev/allow: 'replace, run'}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: main, image: "${image}", resources: {limits: {cpu: 100m, memory: 64Mi}}}]
`;
  const files = { [`${PATH}/job.yaml`]: job('registry.example.test/once:1') };
  const { fleet, service } = await stage.running(ns, {}, { files });
  const mutator = await startMutator(stage.admin, join(directory, 'remade'), {
    name: `helpful-${ns}`,
    namespace: ns,
    rule: { apiGroups: ['batch'], operations: ['CREATE'], resources: ['jobs'] },
    patch: () => [{ op: 'replace', path: IMAGE, value: EVIL }],
  });
  t.after(() => mutator.stop());
  await stage.change(fleet, 'next', { [`${PATH}/job.yaml`]: job('registry.example.test/once:2') });
  const { entry: refused } = await service.entry('apply.refused', 'production', () => true);
  assert.match(
    refused.error,
    new RegExp(`^clusters/production/\\S+:\\d+: Job ${ns}/once would not be as in Git: .*\`${IMAGE}\``),
  );
});
