import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { tool } from '../../scripts/tools.ts';
import { type Made, ReadingProcess, type Recipe } from '../../src/fence/index.ts';
import { renderMade } from '../../src/render/index.ts';
import { openSealed } from '../../src/sops/index.ts';
import { fenceOf, KUSTOMIZE, LIMITS, rendersChartsBelow, treeOf } from '../kit/rendering.ts';

const skip = (await rendersChartsBelow()) ? false : 'Kustomize 5.7 runs Helm 3 only';
const reading = new ReadingProcess();
after(() => reading.close());
let programs: (name: 'kustomize' | 'helm') => Promise<string>;
before(async () => {
  const found = { kustomize: await tool('kustomize'), helm: await tool('helm') };
  programs = async (name) => found[name];
});

type Files = Readonly<Record<string, string>>;

const make = (files: Files, recipe: Partial<Recipe> = {}): Promise<Made> =>
  fenceOf(programs, reading)({ ...KUSTOMIZE, ...recipe } as Recipe, 'k', treeOf(files), LIMITS);
const codes = ({ violations }: Made) => violations.map((v) => v.code);
const names = ({ documents }: Made) =>
  documents.map(({ value }) => {
    const { kind, metadata } = value as { kind: string; metadata: { name: string } };
    return `${kind} ${metadata.name}`;
  });
const dataOf = ({ documents, violations }: Made) => {
  assert.deepEqual(violations, []);
  const [configMap] = documents.flatMap(({ value }) =>
    'data' in (value as object) ? [value as { data: object }] : [],
  );
  return configMap?.data;
};

const CM = (data: string, more = '') =>
  `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-settings\n${more}data:\n${data}`;
const DEFINITION = 'apiVersion: v2\nname: web\nversion: 1.0.0\n';
const CHART = {
  'k/charts/web/Chart.yaml': DEFINITION,
  'k/charts/web/values.yaml': 'colour: blue\nsize: {a: 1, b: 1}\n',
  'k/charts/web/templates/cm.yaml': CM('  colour: {{ .Values.colour }}\n  b: "{{ .Values.size.b }}"\n'),
  'k/charts/web/crds/w.yaml':
    'apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: ws.example.test}\n',
};
const withTemplate = (template: string): Files => ({
  ...CHART,
  'k/charts/web/templates/cm.yaml': template,
  'k/kustomization.yaml': 'helmCharts: [{name: web, releaseName: shop}]\n',
});

test('a kustomization over charts of the repository is built as Kustomize builds it, and each object names its file', {
  skip,
}, async () => {
  const made = await make({
    ...CHART,
    'k/kustomization.yaml':
      'resources: [own.yaml]\nnamePrefix: prod-\n' +
      'patches: [{path: patch.yaml}]\n' +
      'helmCharts:\n' +
      '- {name: web, releaseName: shop, valuesFile: all.yaml, additionalValuesFiles: [eu.yaml], includeCRDs: true}\n',
    'k/patch.yaml': 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop-settings}\ndata: {added: x}\n',
    'k/own.yaml': 'apiVersion: v1\nkind: Service\nmetadata: {name: own}\n',
    'k/all.yaml': 'colour: red\nsize: {b: 2}\n',
    'k/eu.yaml': 'colour: green\n',
  });
  assert.deepEqual(made.violations, []);
  assert.deepEqual(
    made.documents.map(({ source }, i) => [names(made)[i], source.file, source.line]),
    [
      ['CustomResourceDefinition ws.example.test', 'k/kustomization.yaml', 5],
      ['ConfigMap prod-shop-settings', 'k/kustomization.yaml', 5],
      ['Service prod-own', 'k/own.yaml', 1],
    ],
  );
  assert.deepEqual(dataOf(made), { colour: 'green', b: '2', added: 'x' });
  assert.doesNotMatch(JSON.stringify(made.documents), /config\.kubernetes\.io/);
});

test('charts elsewhere in the repository, several of them, and in bases, as public fleets have them', {
  skip,
}, async () => {
  const moved = Object.fromEntries(Object.entries(CHART).map(([path, text]) => [path.replace('k/', ''), text]));
  const made = await make({
    ...moved,
    'charts/db-1.2.3/db/Chart.yaml': 'apiVersion: v2\nname: db\nversion: 1.2.3\n',
    'charts/db-1.2.3/db/values.yaml': 'x: 1\n',
    'charts/db-1.2.3/db/templates/cm.yaml': CM('  x: "{{ .Values.x }}"\n'),
    'k/kustomization.yaml': 'resources: [../base]\n',
    'base/kustomization.yaml':
      'helmGlobals: {chartHome: ../charts}\nhelmCharts:\n' +
      '- {name: web, releaseName: web, valuesFile: values.yaml, valuesInline: {colour: red}}\n' +
      '- {name: db, releaseName: db, repo: "https://charts.example.test", version: 1.2.3, valuesFile: values.yaml}\n',
    'base/values.yaml': 'x: 2\nsize: {b: 3}\n',
  });
  assert.deepEqual([made.violations, names(made)], [[], ['ConfigMap db-settings', 'ConfigMap web-settings']]);
  assert.deepEqual(
    made.documents.map((d) => (d.value as { data: object }).data),
    [{ x: '2' }, { colour: 'red', b: '3' }],
  );
  assert.equal(made.documents[0]?.source.file, 'base/kustomization.yaml');
});

test('a chart is told of the environment’s namespace and versions, unless the kustomization names its own', {
  skip,
}, async () => {
  const asks =
    '  ns: {{ .Release.Namespace }}\n  kube: {{ .Capabilities.KubeVersion.Minor | quote }}\n' +
    '  own: {{ .Capabilities.APIVersions.Has "a.b/v1/C" | quote }}\n';
  const files = withTemplate(CM(asks));
  const apiVersions = ['a.b/v1/C'];
  assert.deepEqual(dataOf(await make(files)), { ns: 'shop', kube: '34', own: 'false' });
  assert.deepEqual(dataOf(await make(files, { apiVersions, kubeVersion: '1.36' })), {
    ns: 'shop',
    kube: '36',
    own: 'true',
  });
  const own = {
    ...files,
    'k/kustomization.yaml': 'helmCharts: [{name: web, namespace: jobs, kubeVersion: "1.35", apiVersions: [x.y/v1]}]\n',
  };
  assert.deepEqual(dataOf(await make(own, { apiVersions })), { ns: 'jobs', kube: '35', own: 'false' });
  const nowhere = { namespace: undefined } as Partial<Recipe>;
  assert.deepEqual(dataOf(await make(own, nowhere)), { ns: 'jobs', kube: '35', own: 'false' });
  const refused = await make(files, nowhere);
  assert.deepEqual(codes(refused), ['kustomize-helm']);
  assert.match(refused.violations[0]?.hint ?? '', /`namespace` of the chart, or `spec\.target\.namespace`/);
});

test('tests of a chart are left out, its hooks stay, and other chance is refused', { skip }, async () => {
  const random = '  v: {{ randAlphaNum 12 | quote }}\n';
  const hook = (name: string) => CM(random, `  annotations: {helm.sh/hook: "${name}"}\n`);
  const plain = 'apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n';
  const tested = await make(withTemplate(`${plain}---\n${hook('test')}`));
  assert.deepEqual([codes(tested), names(tested)], [[], ['Service web']]);
  const unstable = await make(withTemplate(CM(random)));
  assert.deepEqual(codes(unstable), ['helm-not-reproducible']);
  assert.match(unstable.violations[0]?.message ?? '', /^the charts of `k` render differently each time$/);
  assert.deepEqual(codes(await make(withTemplate(hook('pre-install')))), ['helm-not-reproducible']);
  const hooked = withTemplate(CM('  v: x\n', '  annotations: {helm.sh/hook: pre-install}\n'));
  const { documents } = await make(hooked);
  assert.match(JSON.stringify(documents), /"helm\.sh\/hook":"pre-install"/);
  const skipped = {
    ...hooked,
    'k/kustomization.yaml': 'helmCharts: [{name: web, skipHooks: true}]\nresources: [s.yaml]\n',
  };
  assert.deepEqual(names(await make({ ...skipped, 'k/s.yaml': plain })), ['Service web']);
});

test('a document of the kustomization itself stays, whatever it is annotated with', { skip }, async () => {
  const test = 'apiVersion: v1\nkind: Pod\nmetadata: {name: own, annotations: {helm.sh/hook: test}}\n';
  const made = await make({
    ...CHART,
    'k/kustomization.yaml': 'helmCharts: [{name: web}]\nresources: [own.yaml]\n',
    'k/own.yaml': test,
  });
  assert.deepEqual(names(made), ['ConfigMap release-name-settings', 'Pod own']);
});

test('the digest covers the chart, its values and what it is told', async () => {
  const files: Files = {
    ...CHART,
    'k/kustomization.yaml': 'helmCharts: [{name: web, valuesFile: v.yaml}]\n',
    'k/v.yaml': 'size: {b: 1}\n',
  };
  const { content } = await make(files);
  assert.equal((await make({ ...files, 'k/unused.yaml': 'x' })).content, content);
  for (const path of Object.keys(files))
    assert.notEqual((await make({ ...files, [path]: `${files[path]}\n# x\n` })).content, content, path);
  assert.notEqual((await make(files, { namespace: 'jobs' })).content, content);
  assert.notEqual((await make(files, { kubeVersion: '1.35' })).content, content);
  const plain = {
    'k/kustomization.yaml': 'resources: [v.yaml]\n',
    'k/v.yaml': 'apiVersion: v1\nkind: X\nmetadata: {name: x}\n',
  };
  assert.equal((await make(plain)).content, (await make(plain, { namespace: 'jobs', kubeVersion: '1.35' })).content);
});

const REPO = 'repo: "https://charts.example.test"';
const INFLATOR = 'apiVersion: builtin\nkind: HelmChartInflationGenerator\nmetadata: {name: x}\nname: web\n';

for (const [what, kustomization, code, message, hint, more = {}] of [
  [
    'a chart that is not in the repository',
    `helmCharts: [{name: db, ${REPO}, version: 1.2.3}]`,
    'kustomize-helm',
    /there is no chart in `k\/charts\/db-1\.2\.3\/db`, so `db` was not signed/,
    /`helm pull db --repo https:\/\/charts\.example\.test --version 1\.2\.3 --untar --untardir k\/charts\/db-1\.2\.3`/,
  ],
  [
    'a chart of a registry',
    'helmCharts: [{name: db, repo: "oci://r.example.test/c"}]',
    'kustomize-helm',
    /no chart in `k\/charts\/db`/,
    /`helm pull oci:\/\/r\.example\.test\/c\/db --untar --untardir k\/charts`/,
  ],
  [
    'a chart that is there in another version than the one to be fetched',
    `helmCharts: [{name: web, ${REPO}, version: 2.0.0}]`,
    'kustomize-helm',
    /no chart in `k\/charts\/web-2\.0\.0\/web`/,
    /commit it/,
  ],
  [
    'charts outside of the repository',
    'helmGlobals: {chartHome: ../../x}',
    'kustomize-outside',
    /`\.\.\/\.\.\/x`/,
    /^$/,
  ],
  ['charts at an absolute path', 'helmGlobals: {chartHome: /charts}', 'kustomize-outside', /`\/charts`/, /^$/],
  [
    'a chart’s name that leads out',
    'helmCharts: [{name: ../../../web}]',
    'kustomize-outside',
    /the chart `\.\.\/\.\.\/\.\.\/web` is outside the repository/,
    /^$/,
  ],
  ['settings of Helm', 'helmGlobals: {configHome: ../h}', 'kustomize-helm', /`configHome`/, /remove `configHome`/],
  [
    'values outside of the repository',
    'helmCharts: [{name: web, valuesFile: ../../v.yaml}]',
    'kustomize-missing',
    /no values file `\.\.\/\.\.\/v\.yaml`/,
    /^$/,
  ],
  [
    'values that would be fetched',
    'helmCharts: [{name: web, additionalValuesFiles: ["https://example.test/v.yaml"]}]',
    'kustomize-missing',
    /no values file `https:/,
    /^$/,
  ],
  [
    'values that Kustomize does not read',
    'helmCharts: [{name: web, valuesFile: ../v.yaml}]',
    'kustomize-outside',
    /`\.\.\/v\.yaml` is not in or below `k`, so Kustomize does not read it/,
    /move it below `k`/,
    { 'v.yaml': 'a: 1\n' },
  ],
  [
    'default values that Kustomize does not read',
    'helmCharts: [{name: web}]\nhelmGlobals: {chartHome: ../charts}',
    'kustomize-outside',
    /`\.\.\/charts\/web\/values\.yaml` is not in or below `k`/,
    /set `valuesFile` to a file below `k`/,
    { 'charts/web/Chart.yaml': DEFINITION, 'charts/web/values.yaml': '' },
  ],
  [
    'a chart without the default values that Kustomize reads',
    'helmCharts: [{name: bare}]',
    'kustomize-missing',
    /no values file `charts\/bare\/values\.yaml`/,
    /^$/,
    { 'k/charts/bare/Chart.yaml': DEFINITION },
  ],
  [
    'a field in another spelling',
    'helmCharts: [{name: web, Repo: x}]',
    'kustomize-helm',
    /`Repo` is not a known/,
    /^$/,
  ],
  [
    'charts in another spelling',
    'HelmCharts: [{name: web}]',
    'kustomize-helm',
    /`HelmCharts` would run/,
    /`helmCharts`/,
  ],
  [
    'the older form of charts',
    'helmChartInflationGenerator: [{chartName: web}]',
    'kustomize-helm',
    /`helmChartInflationGenerator` would run a chart that was not read/,
    /write it as `helmCharts`/,
  ],
  ['a chart without a name', 'helmCharts: [{version: 1.0.0}]', 'kustomize-helm', /no `name`/, /^$/],
  [
    'a version that is a number',
    'helmCharts: [{name: web, version: 1}]',
    'kustomize-helm',
    /`version`.*quote it/,
    /^$/,
  ],
  [
    'a generator that runs a chart',
    `generators:\n- |\n  ${INFLATOR.replaceAll('\n', '\n  ').trim()}`,
    'kustomize-helm',
    /a `HelmChartInflationGenerator` would run/,
    /write it as `helmCharts`/,
  ],
] as const)
  test(`refused before anything runs: ${what}`, async () => {
    const made = await fenceOf(() => Promise.reject(new Error('it was run')), reading)(
      KUSTOMIZE,
      'k',
      treeOf({ ...CHART, ...more, 'k/kustomization.yaml': `${kustomization}\n` }),
      LIMITS,
    );
    assert.deepEqual(codes(made), [code]);
    const [violation] = made.violations;
    assert.deepEqual(violation?.source, { file: 'k/kustomization.yaml', line: 1 });
    assert.match(violation?.message ?? '', message);
    assert.match(violation?.hint ?? '', hint);
  });

test('refused before anything runs: links and dependencies of a chart, and generators in files and directories', async () => {
  const none = fenceOf(() => Promise.reject(new Error('it was run')), reading);
  const refused = async (files: Files) => {
    const { violations } = await none(KUSTOMIZE, 'k', treeOf({ ...CHART, ...files }), LIMITS);
    return violations.map((v) => [v.code, v.source?.file]);
  };
  const charts = { 'k/kustomization.yaml': 'helmCharts: [{name: web}]\n' };
  assert.deepEqual(await refused({ ...charts, 'k/charts/web/templates/l.yaml': '->/etc/passwd' }), [
    ['not-a-file', 'k/charts/web/templates/l.yaml'],
  ]);
  const dependent = `${DEFINITION}dependencies: [{name: redis, version: 1.0.0, repository: "https://x.example.test"}]\n`;
  assert.deepEqual(await refused({ ...charts, 'k/charts/web/Chart.yaml': dependent }), [
    ['helm-dependency', 'k/charts/web/Chart.yaml'],
  ]);
  const generators = (path: string) => ({ 'k/kustomization.yaml': `generators: [${path}]\n` });
  assert.deepEqual(await refused({ ...generators('g.yaml'), 'k/g.yaml': INFLATOR }), [['kustomize-helm', 'k/g.yaml']]);
  const escaped = INFLATOR.replace('HelmChartInflationGenerator', '"HelmChart\\x49nflationGenerator"');
  assert.deepEqual(await refused({ ...generators('g.yaml'), 'k/g.yaml': escaped }), [['kustomize-helm', 'k/g.yaml']]);
  assert.deepEqual(
    await refused({ ...generators('g'), 'k/g/kustomization.yaml': 'resources: [x.yaml]\n', 'k/g/x.yaml': INFLATOR }),
    [['kustomize-helm', 'k/g/x.yaml']],
  );
});

test('Helm’s own words say why a chart cannot be rendered, without the directory that it ran in', {
  skip,
}, async () => {
  const made = await make(withTemplate(CM('  v: {{ fail "not like this" }}\n')));
  assert.deepEqual(codes(made), ['kustomize-failed']);
  const message = made.violations[0]?.message ?? '';
  assert.match(message, /^kustomize, which runs helm, cannot build `k`: [^\n]*not like this/);
  assert.doesNotMatch(message, /countersign-fence|HELM_|unable to run/);
  const unread = { ...withTemplate(CM('  v: x\n')), 'k/charts/web/values.yaml': 'a: [\n' };
  assert.match((await make(unread)).violations[0]?.message ?? '', /failed to parse web-kustomize-values\.yaml/);
});

test('a chart below Kustomize that takes longer or more memory than it may is ended', { skip }, async () => {
  const loop = withTemplate(CM('  v: "{{ range until 30000 }}{{ range until 30000 }}{{ end }}{{ end }}"\n'));
  const made = await fenceOf(programs, reading)(KUSTOMIZE, 'k', treeOf(loop), { ...LIMITS, ms: 1500 });
  assert.deepEqual(codes(made), ['render-too-large']);
  assert.match(made.violations[0]?.hint ?? '', /spec\.render\.limits\.time/);
  const large = await make(withTemplate(CM('  v: "{{ range until 2000000000 }}{{ end }}"\n')));
  assert.deepEqual([codes(large), large.documents], [['render-too-large'], []]);
  assert.match(large.violations[0]?.hint ?? '', /spec\.render\.limits\.memory/);
});

test('a Secret that SOPS encrypted opens from a chart below Kustomize, and names its template', { skip }, async () => {
  const fixture = (name: string) => readFileSync(new URL(`../sops/fixtures/${name}`, import.meta.url), 'utf8');
  const made = await make({
    ...withTemplate(fixture('age.yaml')),
    'k/kustomization.yaml': 'namePrefix: prod-\nhelmCharts: [{name: web}]\n',
  });
  assert.deepEqual([made.violations, names(made)], [[], ['Secret prod-database']]);
  assert.equal(made.documents[0]?.source.file, 'k/charts/web/templates/cm.yaml');
  const [object] = renderMade(made.documents).objects;
  assert.ok(object !== undefined);
  const { object: opened } = await openSealed(object, { age: fixture('age.key'), openpgp: undefined });
  assert.equal((opened['stringData'] as Record<string, string>)['password'], 'correct horse battery staple');
});

const isPair = skip === false ? 'this Kustomize runs this Helm' : false;
test('Kustomize 5.7 with Helm 4 is refused with the versions that work', { skip: isPair }, async () => {
  const { violations } = await make(withTemplate(CM('  v: x\n')));
  assert.deepEqual(
    violations.map(({ message, hint }) => [message, hint]),
    [
      [
        'kustomize, which runs helm, cannot build `k`: this Kustomize runs Helm 3 only',
        'use Kustomize 5.8 or later, or Helm 3',
      ],
    ],
  );
});
