import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { readProcessSettings } from '../../src/config/index.ts';
import { assess } from '../../src/gate/index.ts';
import { NO_REVISION, refText } from '../../src/model/index.ts';
import { openRendering } from '../../src/open/index.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { gateOf } from '../kit/judge.ts';
import { rendersChartsBelow } from '../kit/rendering.ts';
import { scratch } from '../kit/scratch.ts';

const skip = (await rendersChartsBelow()) ? false : 'Kustomize 5.7 runs Helm 3 only';
const rendering = openRendering(readProcessSettings());
after(() => rendering.close());
const dana = sshPerson(scratch(), 'dana');
const trust = trustDocument([dana], { required: 0 });
const PATH = 'clusters/production';

/** The objects of a directory as the gate has them, and its refusals that are not of rules. */
async function judged(render: object, files: Readonly<Record<string, string>>, target: object = {}) {
  const fleet = new Fleet(scratch());
  fleet.remote(fleet.bare);
  const commit = fleet.commit(dana, 'x', files);
  fleet.push();
  const spec = { render, target: { namespaces: ['shop'], ...target } };
  const gate = await gateOf(fleet, [dana], { trust, environment: { namespaces: ['shop'], spec } });
  const { verdict, objects } = await assess({ ...gate, ...rendering }, NO_REVISION, commit);
  return {
    objects,
    names: objects.map((o) => refText(o.ref)).sort(),
    refused: verdict.violations.filter((v) => v.rule === undefined).map((v) => [v.code, v.source?.file, v.hint]),
  };
}

const SERVICE = 'apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n';
// As `helm create` writes them: names from the release, and no namespace but in one value.
const CHART = {
  [`${PATH}/web/Chart.yaml`]: 'apiVersion: v2\nname: web\nversion: 1.0.0\n',
  [`${PATH}/web/templates/service.yaml`]: SERVICE.replace('web', '{{ .Release.Name }}-web'),
  [`${PATH}/web/templates/settings.yaml`]:
    'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n' +
    'data: {host: "web.{{ .Release.Namespace }}.svc"}\n',
  [`${PATH}/web/templates/account.yaml`]:
    'apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web, namespace: "{{ .Release.Namespace }}"}\n',
};
const HELM = { with: 'helm', chart: 'web' };

test('a chart that names no namespace is rendered into the environment’s, which is also its release namespace', async () => {
  const { names, refused, objects } = await judged(HELM, CHART);
  assert.deepEqual(names, ['ConfigMap shop/settings', 'Service shop/production-web', 'ServiceAccount shop/web']);
  assert.deepEqual(refused, []);
  const settings = objects.find((o) => o.ref.kind === 'ConfigMap');
  assert.deepEqual(settings?.object['data'], { host: 'web.shop.svc' });
  const chosen = await judged(HELM, CHART, { namespaces: ['shop', 'jobs'], namespace: 'jobs' });
  assert.deepEqual(chosen.names, ['ConfigMap jobs/settings', 'Service jobs/production-web', 'ServiceAccount jobs/web']);
});

test('a chart that asks for a kind is told of those that every supported Kubernetes serves, as in a cluster', async () => {
  const asks = (kind: string) => `{{ .Capabilities.APIVersions.Has "${kind}" | quote }}`;
  const files = {
    [`${PATH}/web/Chart.yaml`]: 'apiVersion: v2\nname: web\nversion: 1.0.0\n',
    [`${PATH}/web/templates/asked.yaml`]:
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: asked}\ndata:\n' +
      `  job: ${asks('batch/v1/CronJob')}\n  old: ${asks('batch/v1beta1/CronJob')}\n  own: ${asks('a.b/v1/C')}\n`,
  };
  const dataOf = async (render: object) => (await judged({ ...HELM, ...render }, files)).objects[0]?.object['data'];
  assert.deepEqual(await dataOf({}), { job: 'true', old: 'false', own: 'false' });
  assert.deepEqual(await dataOf({ apiVersions: ['a.b/v1/C'] }), { job: 'true', old: 'false', own: 'true' });
});

test('a kustomization without a namespace is rendered into the environment’s, and one with its own keeps it', async () => {
  const files = {
    'base/kustomization.yaml': 'resources: [service.yaml]\n',
    'base/service.yaml': SERVICE,
    [`${PATH}/kustomization.yaml`]: 'resources: [../../base]\nconfigMapGenerator: [{name: c, literals: [a=b]}]\n',
  };
  const { names, refused } = await judged({ with: 'kustomize' }, files);
  assert.deepEqual(
    [names.map((n) => n.replace(/-[a-z0-9]{10}$/, '')), refused],
    [['ConfigMap shop/c', 'Service shop/web'], []],
  );
  const several = { namespaces: ['shop', 'jobs'] };
  const own = { ...files, [`${PATH}/kustomization.yaml`]: 'resources: [../../base]\nnamespace: jobs\n' };
  assert.deepEqual((await judged({ with: 'kustomize' }, own, several)).names, ['Service jobs/web']);
  const neither = await judged(
    { with: 'kustomize' },
    { ...files, [`${PATH}/kustomization.yaml`]: 'resources: [../../base]\n' },
    several,
  );
  assert.deepEqual(neither.refused, [
    [
      'namespace-missing',
      'base/service.yaml',
      'set `metadata.namespace` in `base/service.yaml`, `namespace` in the kustomization, ' +
        'or `spec.target.namespace` of the Environment `production`',
    ],
  ]);
});

test('one environment has several charts through a chart that depends on them, each object with its own template', async () => {
  const under = (name: string) =>
    Object.fromEntries(
      Object.entries(CHART).map(([path, text]) => [path.replace('/web/', `/all/charts/${name}/`), text]),
    );
  const named = (name: string) => ({
    ...under(name),
    [`${PATH}/all/charts/${name}/Chart.yaml`]: `apiVersion: v2\nname: ${name}\nversion: 1.0.0\n`,
    [`${PATH}/all/charts/${name}/templates/settings.yaml`]: `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}}\ndata: {colour: "{{ .Values.colour }}"}\n`,
    [`${PATH}/all/charts/${name}/templates/account.yaml`]: '',
    [`${PATH}/all/charts/${name}/templates/service.yaml`]: '',
  });
  const files = {
    ...named('web'),
    ...named('db'),
    [`${PATH}/all/Chart.yaml`]:
      'apiVersion: v2\nname: all\nversion: 1.0.0\n' +
      'dependencies: [{name: web, version: 1.0.0}, {name: db, version: 1.0.0, condition: db.enabled}]\n',
    [`${PATH}/values.yaml`]: 'web: {colour: red}\ndb: {colour: blue}\n',
  };
  const render = { with: 'helm', chart: 'all', values: ['values.yaml'] };
  const { objects, refused } = await judged(render, files);
  assert.deepEqual(refused, []);
  assert.deepEqual(objects.map((o) => [refText(o.ref), o.object['data'], o.source.file]).sort(), [
    ['ConfigMap shop/db', { colour: 'blue' }, `${PATH}/all/charts/db/templates/settings.yaml`],
    ['ConfigMap shop/web', { colour: 'red' }, `${PATH}/all/charts/web/templates/settings.yaml`],
  ]);
  const without = { ...files, [`${PATH}/values.yaml`]: 'web: {colour: red}\ndb: {enabled: false}\n' };
  assert.deepEqual((await judged(render, without)).names, ['ConfigMap shop/web']);
});

test('one environment has several directories through a kustomization, each in its namespace', async () => {
  const files = {
    [`${PATH}/kustomization.yaml`]: 'resources: [web, ../../jobs]\n',
    [`${PATH}/web/kustomization.yaml`]: 'resources: [service.yaml]\n',
    [`${PATH}/web/service.yaml`]: SERVICE,
    'jobs/kustomization.yaml': 'resources: [service.yaml]\nnamespace: jobs\n',
    'jobs/service.yaml': SERVICE,
  };
  const target = { namespaces: ['shop', 'jobs'], namespace: 'shop' };
  const { names, refused } = await judged({ with: 'kustomize' }, files, target);
  assert.deepEqual([names, refused], [['Service jobs/web', 'Service shop/web'], []]);
});

test('a kustomization over a chart has its objects and its release in the environment’s namespace', {
  skip,
}, async () => {
  const chart = Object.fromEntries(
    Object.entries(CHART).map(([path, text]) => [path.replace('/web/', '/charts/web/'), text]),
  );
  const kustomization = (text: string) => ({
    ...chart,
    [`${PATH}/charts/web/values.yaml`]: '',
    [`${PATH}/kustomization.yaml`]: text,
  });
  const render = { with: 'kustomize' };
  const plain = await judged(render, kustomization('helmCharts: [{name: web, releaseName: production}]\n'));
  assert.deepEqual(
    [plain.names, plain.refused],
    [['ConfigMap shop/settings', 'Service shop/production-web', 'ServiceAccount shop/web'], []],
  );
  const settings = plain.objects.find((o) => o.ref.kind === 'ConfigMap');
  assert.deepEqual(settings?.object['data'], { host: 'web.shop.svc' });
  assert.deepEqual(settings?.source.file, `${PATH}/kustomization.yaml`);
  // The namespace of the chart is for what its templates write; Kustomize sets none on the other objects.
  const several = { namespaces: ['shop', 'jobs'], namespace: 'shop' };
  const own = 'helmCharts: [{name: web, releaseName: production, namespace: jobs}]\n';
  assert.deepEqual((await judged(render, kustomization(own), several)).names, [
    'ConfigMap shop/settings',
    'Service shop/production-web',
    'ServiceAccount jobs/web',
  ]);
});
