import assert from 'node:assert/strict';
import { test } from 'node:test';
import { namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

const PATH = 'clusters/production';
const GROUP = 'namespaces.example.test';
const stage = await openStage(scratch());

const settings = (colour: string) =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: ${colour}}\n`;
const WIDGET = `apiVersion: ${GROUP}/v1\nkind: Widget\nmetadata: {name: w}\n`;

/** Has the API server serve Widgets, without the repository knowing. */
async function serveWidgets(): Promise<void> {
  const definition = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `widgets.${GROUP}` },
    spec: {
      group: GROUP,
      scope: 'Namespaced',
      names: { plural: 'widgets', kind: 'Widget' },
      versions: [
        {
          name: 'v1',
          served: true,
          storage: true,
          schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
        },
      ],
    },
  };
  const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
  assert.equal((await stage.admin.request('POST', path, definition)).status, 201);
  await stage.waitFor(async () => (await stage.get(`/apis/${GROUP}/v1`)).status === 200, 'the Widgets');
}

async function removeWidgets(): Promise<void> {
  await stage.admin.request('DELETE', `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.${GROUP}`);
  await stage.waitFor(async () => (await stage.get(`/apis/${GROUP}/v1`)).status === 404, 'the end of the Widgets');
}

test('check, service, diff and admission have an object that names no namespace in the same place', async (t) => {
  const name = 'placed';
  const files = { [`${PATH}/ns.yaml`]: namespace(name), [`${PATH}/cm.yaml`]: settings('blue') };
  const { fleet, service, configuration } = await stage.running(name, {}, { files });
  assert.deepEqual(await stage.dataOf(name, 'settings'), { colour: 'blue' });
  const ask = (command: string, ...more: string[]) =>
    countersign([command, '--repo', fleet.work, '--config', configuration, ...more]);
  const kubeconfig = ['--kubeconfig', stage.controlPlane.kubeconfig('admin')];
  assert.match((await ask('diff', ...kubeconfig)).stdout, /no difference: all 2 objects match Git/);
  const dev = await stage.as('dev');
  const edited = await dev.request(
    'PATCH',
    `/api/v1/namespaces/${name}/configmaps/settings`,
    { data: { colour: 'black' } },
    'application/merge-patch+json',
  );
  assert.equal(edited.status, 403, 'it is an object of Git');
  const applied = fleet.git(undefined, 'rev-parse', 'HEAD').trim();
  const next = await stage.change(fleet, 'green', { [`${PATH}/cm.yaml`]: settings('green') });
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  assert.deepEqual(await stage.dataOf(name, 'settings'), { colour: 'green' }, 'the webhook admits the write');
  const checked = await ask('check', '--base', applied, '--head', next, '--no-fetch');
  assert.equal(checked.code, 0, checked.stdout + checked.stderr);

  await serveWidgets();
  t.after(removeWidgets);
  fleet.commit(stage.dana, 'a custom kind', { [`${PATH}/w.yaml`]: WIDGET });
  const told = await ask('diff', ...kubeconfig);
  assert.match(told.stdout, /^create Widget placed\/w$/m, 'diff has a cluster to ask');
  const alone = await ask('check', '--base', next, '--no-fetch');
  assert.equal(alone.code, 1);
  assert.match(
    alone.stdout,
    /Widget w has no namespace, and the scope of `Widget\.namespaces\.example\.test` is unknown/,
  );
});

test('the service waits until the cluster has a kind, asks in which namespaces it is, and applies it again as it was', async (t) => {
  const name = 'asked';
  const { fleet, service, configuration, first } = await stage.running(name);
  const commit = await stage.change(fleet, 'a custom kind', { [`${PATH}/w.yaml`]: WIDGET });
  await stage.waitFor(async () => {
    const { stdout } = await countersign(['status', '--data', service.data]);
    return stdout.includes(`\`Widget.${GROUP}\` is not served by the cluster`);
  }, 'the message that it waits');
  assert.deepEqual(
    service.entries('change.judged', 'production').map((e) => e.entry.to),
    [first],
    'nothing is denied for good',
  );
  await serveWidgets();
  t.after(removeWidgets);
  await service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
  const at = `/apis/${GROUP}/v1/namespaces/${name}/widgets/w`;
  assert.equal((await stage.get(at)).status, 200);
  await service.stop();
  const again = await stage.serve(configuration, name);
  t.after(() => again.stop());
  const controller = await stage.as('controller');
  assert.equal((await controller.request('DELETE', at)).status, 200);
  await stage.waitFor(async () => (await stage.get(at)).status === 200, 'the return of what was recorded');
});
