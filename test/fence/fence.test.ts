import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createTar } from 'nanotar';
import { tool } from '../../scripts/tools.ts';
import { type Made, ReadingProcess, type Recipe } from '../../src/fence/index.ts';
import { renderMade } from '../../src/render/index.ts';
import { openSealed } from '../../src/sops/index.ts';
import { fenceOf, KUSTOMIZE, LIMITS, treeOf } from '../kit/rendering.ts';
import { scratch } from '../kit/scratch.ts';

const reading = new ReadingProcess();
after(() => reading.close());
let programs: (name: 'kustomize' | 'helm') => Promise<string>;
before(async () => {
  const found = { kustomize: await tool('kustomize'), helm: await tool('helm') };
  programs = async (name) => found[name];
});

const make = (recipe: Recipe, directory: string, files: Readonly<Record<string, string>>): Promise<Made> =>
  fenceOf(programs, reading)(recipe, directory, treeOf(files), LIMITS);
const kustomize = (directory: string, files: Readonly<Record<string, string>>) => make(KUSTOMIZE, directory, files);
const codes = ({ violations }: Made) => violations.map((v) => v.code);

/** The data of the last object. */
function dataOf({ documents }: Made): object {
  return ((documents.at(-1) as Made['documents'][number]).value as { data: object }).data;
}

const CM = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: blue}\n';
const BASE = { 'base/kustomization.yaml': 'resources: [cm.yaml]\n', 'base/cm.yaml': CM };
const OVERLAY = {
  ...BASE,
  'clusters/prod/kustomization.yaml':
    'resources: [../../base]\nnamespace: shop\nnamePrefix: prod-\npatches: [{path: patch.yaml}]\nconfigMapGenerator: [{name: files, files: [a=notes.txt]}]\n',
  'clusters/prod/patch.yaml': 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: red}\n',
  'clusters/prod/notes.txt': 'hello\n',
};

test('a kustomization over a base outside of its directory is built, and each object names the file that it comes from', async () => {
  const { documents, violations } = await kustomize('clusters/prod', OVERLAY);
  assert.deepEqual(violations, []);
  const found = documents.map(({ value, source }) => {
    const { metadata, data } = value as {
      metadata: { name: string; namespace: string; annotations?: object };
      data: Record<string, string>;
    };
    return [metadata.name.replace(/-[a-z0-9]{10}$/, ''), metadata.namespace, data, source.file, metadata.annotations];
  });
  assert.deepEqual(found, [
    ['prod-files', 'shop', { a: 'hello\n' }, 'clusters/prod/kustomization.yaml', undefined],
    ['prod-settings', 'shop', { colour: 'red' }, 'base/cm.yaml', undefined],
  ]);
});

test('the digest covers every file that takes part, and none that does not', async () => {
  const first = (await kustomize('clusters/prod', OVERLAY)).content;
  assert.equal(
    (await kustomize('clusters/prod', { ...OVERLAY, 'README.md': 'x', 'clusters/prod/unused.yaml': 'x' })).content,
    first,
  );
  for (const path of Object.keys(OVERLAY))
    assert.notEqual(
      (await kustomize('clusters/prod', { ...OVERLAY, [path]: `${OVERLAY[path as keyof typeof OVERLAY]}\n# x\n` }))
        .content,
      first,
      path,
    );
});

for (const [what, kustomization, code] of [
  ['a remote base over HTTPS', 'resources: ["https://example.test/base.yaml"]', 'kustomize-remote'],
  ['a remote base by Git', 'resources: ["git@example.test:team/base.git"]', 'kustomize-remote'],
  ['a remote base as people write it', 'resources: ["github.com/team/base?ref=main"]', 'kustomize-remote'],
  ['a remote component', 'components: ["https://example.test/c"]', 'kustomize-remote'],
  ['a remote patch', 'patches: [{path: "https://example.test/p.yaml"}]', 'kustomize-remote'],
  [
    'a remote file in a generator',
    'secretGenerator: [{name: s, files: ["a=https://example.test/x"]}]',
    'kustomize-remote',
  ],
  ['a file outside of the repository (CVE-2022-24877)', 'resources: [../../../../etc/passwd]', 'kustomize-outside'],
  ['an absolute path', 'resources: [/etc/passwd]', 'kustomize-outside'],
  ['a chart to be fetched', 'helmCharts: [{name: x, repo: "https://example.test"}]', 'kustomize-helm'],
  ['a file that is not there', 'resources: [missing.yaml]', 'kustomize-missing'],
] as const)
  test(`refused before anything runs: ${what}`, async () => {
    const made = await fenceOf(() => Promise.reject(new Error('it was run')), reading)(
      KUSTOMIZE,
      'clusters/prod',
      treeOf({ 'clusters/prod/kustomization.yaml': `${kustomization}\n` }),
      LIMITS,
    );
    assert.deepEqual(codes(made), [code]);
    assert.equal(made.violations[0]?.source?.file, 'clusters/prod/kustomization.yaml');
  });

test('a kustomization that builds on itself is refused, not followed for ever (CVE-2022-24878)', async () => {
  const files = { 'a/kustomization.yaml': 'resources: [../b]\n', 'b/kustomization.yaml': 'resources: [../a]\n' };
  assert.deepEqual(codes(await kustomize('a', files)), ['kustomize-cycle']);
});

test('programs named in the repository do not run, and its mistakes are told in one line', async () => {
  const exec =
    'apiVersion: example.test/v1\nkind: Evil\nmetadata:\n  name: evil\n  annotations:\n    config.kubernetes.io/function: "exec: {path: ./evil.sh}"\n';
  const made = await kustomize('k', {
    'k/kustomization.yaml': 'generators: [gen.yaml]\n',
    'k/gen.yaml': exec,
    'k/evil.sh': '#!/bin/sh\ntouch /tmp/evil\n',
  });
  assert.deepEqual(codes(made), ['kustomize-failed']);
  assert.match(made.violations[0]?.message ?? '', /^kustomize cannot build `k`: [^\n]+$/);
});

const CHART = {
  'charts/web/Chart.yaml': 'apiVersion: v2\nname: web\nversion: 1.0.0\n',
  'charts/web/values.yaml': 'colour: blue\n',
  'charts/web/templates/cm.yaml':
    'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-settings\n  namespace: {{ .Release.Namespace }}\ndata:\n  colour: {{ .Values.colour | quote }}\n  text: |\n    a\n    ---\n    b\n',
  'charts/web/crds/w.yaml':
    'apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: ws.example.test}\n',
  'prod.yaml': 'colour: red\n',
};
const helm = (files: Readonly<Record<string, string>>, changes: Partial<Extract<Recipe, { with: 'helm' }>> = {}) =>
  make(
    {
      with: 'helm',
      chart: 'charts/web',
      values: ['prod.yaml'],
      release: 'shop',
      namespace: 'shop',
      kubeVersion: '1.34',
      apiVersions: [],
      ...changes,
    },
    '.',
    files,
  );

test('a chart of the repository with values of the repository is made, and each object names its template', async () => {
  const { documents, violations } = await helm(CHART);
  assert.deepEqual(violations, []);
  assert.deepEqual(
    documents.map(({ value, source }) => [(value as { kind: string }).kind, source.file]),
    [
      ['CustomResourceDefinition', 'charts/web/crds/w.yaml'],
      ['ConfigMap', 'charts/web/templates/cm.yaml'],
    ],
  );
  const { metadata, data } = (documents[1] as (typeof documents)[number]).value as { metadata: object; data: object };
  assert.deepEqual(
    [metadata, data],
    [
      { name: 'shop-settings', namespace: 'shop' },
      { colour: 'red', text: 'a\n---\nb\n' },
    ],
  );
});

test('of several files with values, later ones win, key by key', async () => {
  const files = {
    ...CHART,
    'charts/web/values.yaml': 'colour: blue\nsize: {a: 1, b: 1}\n',
    'charts/web/templates/cm.yaml':
      'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n' +
      'data: {colour: {{ .Values.colour }}, a: "{{ .Values.size.a }}", b: "{{ .Values.size.b }}"}\n',
    'all.yaml': 'colour: red\nsize: {b: 2}\n',
    'eu.yaml': 'colour: green\n',
  };
  const made = (values: readonly string[]) => helm(files, { values }).then(dataOf);
  assert.deepEqual(await made(['all.yaml', 'eu.yaml']), { colour: 'green', a: '1', b: '2' });
  assert.deepEqual(await made(['eu.yaml', 'all.yaml']), { colour: 'red', a: '1', b: '2' });
});

test('what a chart must not: other repositories, links, hooks, chance, the cluster, the network', async () => {
  const template = (text: string) => ({ ...CHART, 'charts/web/templates/cm.yaml': text });
  const cm = (value: string, more = '') =>
    template(`apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n${more}data:\n  v: ${value}\n`);
  assert.deepEqual(
    codes(
      await helm({
        ...CHART,
        'charts/web/Chart.yaml': `${CHART['charts/web/Chart.yaml']}dependencies: [{name: redis, version: 1.0.0, repository: "https://example.test"}]\n`,
      }),
    ),
    ['helm-dependency'],
  );
  assert.deepEqual(codes(await helm({ ...CHART, 'charts/web/templates/link.yaml': '->/etc/passwd' })), ['not-a-file']);
  assert.deepEqual(codes(await helm(CHART, { chart: '../elsewhere' })), ['helm-outside']);
  assert.deepEqual(codes(await helm(CHART, { values: ['missing.yaml'] })), ['helm-missing']);
  assert.deepEqual(codes(await helm(cm('{{ randAlphaNum 12 | quote }}'))), ['helm-not-reproducible']);
  // A test is not applied; what also runs in a change is, and what has Argo CD's annotation.
  const hook = (names: string, more = '') =>
    helm(cm('{{ randAlphaNum 12 | quote }}', `  annotations: {helm.sh/hook: "${names}"${more}}\n`));
  const tested = await hook('test');
  assert.deepEqual([codes(tested), tested.documents.map((d) => d.source.file)], [[], ['charts/web/crds/w.yaml']]);
  assert.deepEqual(codes(await hook('test-success, test-failure')), []);
  assert.deepEqual(codes(await hook('post-install,test')), ['helm-not-reproducible']);
  assert.deepEqual(codes(await hook('test', ', argocd.argoproj.io/hook: Sync')), ['helm-not-reproducible']);
  assert.deepEqual(codes(await helm(cm('{{ fail "not like this" }}'))), ['helm-failed']);
  const blind = await helm(cm('{{ (lookup "v1" "Secret" "kube-system" "x") | toJson | quote }}'));
  assert.deepEqual(dataOf(blind), { v: '{}' });
  const outside = await helm(cm('{{ .Files.Get "../../prod.yaml" | quote }}'));
  assert.deepEqual(dataOf(outside), { v: '' });
  const resolved = await helm(cm('{{ getHostByName "localhost" | quote }}'));
  assert.deepEqual(dataOf(resolved), { v: '' });
});

test('nothing is asked of the network while programs run', async () => {
  let asked = 0;
  const server = createServer((_, response) => {
    asked++;
    response.end(CM);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  try {
    // Past our own reading of the file: a list that kustomize reads and we do not know of would end up here.
    const files = {
      'k/kustomization.yaml': 'resources: [r]\n',
      'k/r/kustomization.yaml': `validators:\n- |-\n  apiVersion: v1\n  kind: X\n  metadata: {name: x}\n  spec: "http://127.0.0.1:${port}"\n`,
    };
    await kustomize('k', files);
    const { runFenced } = await import('../../src/fence/run-fenced.ts');
    const bytes = Buffer.from(`resources: ["http://127.0.0.1:${port}/x.yaml"]\n`);
    const ran = await runFenced(
      await programs('kustomize'),
      ['build', 'k'],
      [{ path: 'k/kustomization.yaml', content: bytes }],
      LIMITS,
    );
    assert.equal(ran.ok, false);
    assert.equal(asked, 0);
  } finally {
    server.close();
  }
});

test('the same files are made once, and are the same again from the store after a restart', async () => {
  let runs = 0;
  const counted = async (name: 'kustomize' | 'helm') => {
    runs++;
    return programs(name);
  };
  const kept = new Map<string, Made>();
  const store = { get: (c: string) => kept.get(c), put: (c: string, m: Made) => void kept.set(c, m) };
  const tree = treeOf(OVERLAY);
  const fence = fenceOf(counted, reading, store);
  const one = await fence(KUSTOMIZE, 'clusters/prod', tree, LIMITS);
  assert.deepEqual(await fence(KUSTOMIZE, 'clusters/prod', tree, LIMITS), one);
  assert.deepEqual(await fenceOf(counted, reading, store)(KUSTOMIZE, 'clusters/prod', tree, LIMITS), one);
  assert.equal(runs, 1);
});

const PIN = { url: 'oci://registry.example.test/charts/web', digest: `sha256:${'0'.repeat(64)}` };
const pinFile = (pin: object = PIN) => ({ 'web.yaml': JSON.stringify(pin), 'prod.yaml': 'colour: red\n' });

function pinnedMade(
  archive: Uint8Array,
  files: Readonly<Record<string, string>> = pinFile(),
  registries = ['registry.example.test'],
): Promise<Made> {
  const recipe: Recipe = {
    with: 'helm',
    chart: 'web.yaml',
    values: ['prod.yaml'],
    release: 'shop',
    namespace: 'shop',
    kubeVersion: '1.34',
    apiVersions: [],
  };
  return fenceOf(programs, reading)({ ...recipe, registries }, '.', treeOf(files), LIMITS, async () => archive);
}

/** Packaged by the real helm, as its users do. */
async function packaged(files: Readonly<Record<string, string>>): Promise<Uint8Array> {
  const directory = scratch();
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), text);
  }
  execFileSync(await programs('helm'), ['package', 'charts/web', '--destination', 'out'], { cwd: directory });
  return readFileSync(join(directory, 'out', 'web-1.0.0.tgz'));
}

test('a chart that a file of the repository pins by digest is made like one that is in it', async () => {
  const { documents, violations } = await pinnedMade(await packaged(CHART));
  assert.deepEqual(violations, []);
  assert.deepEqual(
    documents.map(({ value, source }) => [(value as { kind: string }).kind, source.file]),
    [
      ['CustomResourceDefinition', 'web@sha256:000000000000/crds/w.yaml'],
      ['ConfigMap', 'web@sha256:000000000000/templates/cm.yaml'],
    ],
  );
  assert.deepEqual(dataOf({ documents, violations, content: '' }), { colour: 'red', text: 'a\n---\nb\n' });
});

test('a pin that says too little or too much, another host, and archives that are no plain chart are refused', async () => {
  const archive = await packaged(CHART);
  for (const [pin, expected] of [
    [{ url: PIN.url }, /`digest` is required/],
    [{ ...PIN, digest: 'sha256:abc' }, /`digest` is required/],
    [{ ...PIN, url: 'charts/web' }, /`url` is required/],
    [{ ...PIN, url: 'https://user:password@registry.example.test/web.tgz' }, /`url` is required/],
    [{ ...PIN, version: '1.0.0' }, /`version` is not a known key/],
    [{ ...PIN, url: 'oci://169.254.169.254/charts/web' }, /charts from `169\.254\.169\.254` are not allowed/],
    [
      { ...PIN, url: 'oci://registry.example.test:444/charts/web' },
      /charts from `registry\.example\.test:444` are not allowed/,
    ],
  ] as const) {
    const made = await pinnedMade(archive, pinFile(pin));
    assert.deepEqual(codes(made), ['helm-pin']);
    assert.match(made.violations[0]?.message ?? '', expected);
  }
  const missing = await pinnedMade(archive, { 'prod.yaml': '' });
  assert.deepEqual(codes(missing), ['helm-missing']);
  const OUTSIDE = /is not a regular file|more than one directory/;
  const data = (text: string) => new TextEncoder().encode(text);
  const chart = { name: 'web/Chart.yaml', data: data('apiVersion: v2\nname: web\nversion: 1.0.0\n') };
  for (const [entries, expected] of [
    [[chart, { name: 'web/../../etc/passwd', data: data('x') }], OUTSIDE],
    [[chart, { name: '/etc/passwd', data: data('x') }], OUTSIDE],
    [[chart, { name: 'other/x.yaml', data: data('x') }], /more than one directory/],
    [[{ name: 'web/values.yaml', data: data('') }], /has no `Chart\.yaml`/],
  ] as const)
    await assert.rejects(pinnedMade(gzipSync(createTar(entries as never))), expected);
  const linked = scratch();
  mkdirSync(join(linked, 'web'));
  writeFileSync(join(linked, 'web', 'Chart.yaml'), chart.data);
  symlinkSync('/etc/passwd', join(linked, 'web', 'values.yaml'));
  await assert.rejects(
    pinnedMade(execFileSync('tar', ['-cz', 'web'], { cwd: linked })),
    /`web\/values\.yaml`, which is not a regular file/,
  );
  await assert.rejects(pinnedMade(data('no archive')), /not a gzipped tar archive/);
  await assert.rejects(pinnedMade(gzipSync(Buffer.alloc(65 * 1024 * 1024))), /at most 64 MiB/);
  const unvendored = {
    ...CHART,
    'charts/web/Chart.yaml': `${CHART['charts/web/Chart.yaml']}dependencies: [{name: redis, version: 1.0.0, repository: https://x.example.test}]\n`,
  };
  const { 'charts/web/Chart.yaml': definition, ...rest } = unvendored;
  const archived = gzipSync(
    createTar(
      [...Object.entries(rest), ['charts/web/Chart.yaml', definition] as const]
        .map(([name, text]) => ({ name: name.replace('charts/', ''), data: data(text) }))
        .filter((f) => f.name.startsWith('web/')),
    ),
  );
  assert.deepEqual(codes(await pinnedMade(archived)), ['helm-dependency']);
});

const DEFINITION = 'apiVersion: v2\nname: c\nversion: 1.0.0\n';
const PLAIN_CHART: Recipe = {
  with: 'helm',
  chart: 'chart',
  values: [],
  release: 'shop',
  namespace: 'shop',
  kubeVersion: '1.34',
  apiVersions: [],
};
const within = (limits: object, files: Readonly<Record<string, string>>) =>
  fenceOf(programs, reading)(PLAIN_CHART, 'k', treeOf({ 'k/chart/Chart.yaml': DEFINITION, ...files }), {
    ...LIMITS,
    ...limits,
  });
const withTemplate = (template: string) => ({ 'k/chart/templates/a.yaml': template });
const CONFIG = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: ';

test('a chart that takes more memory than it may is ended, and the refusal names the limit', async () => {
  const made = await within({}, withTemplate(`${CONFIG}{{ range until 2000000000 }}{{ end }}"x"}\n`));
  assert.deepEqual(codes(made), ['render-too-large']);
  assert.match(made.violations[0]?.message ?? '', /helm cannot build `k\/chart`: it takes more than 384 MiB of memory/);
  assert.match(made.violations[0]?.hint ?? '', /spec\.render\.limits\.memory/);
});

test('a chart that takes longer than it may is ended', async () => {
  const loop = `{{ range until 3000 }}{{ range until 30000 }}{{ end }}{{ end }}`;
  const made = await within({ ms: 700 }, withTemplate(`${CONFIG}${loop}"x"}\n`));
  assert.deepEqual(codes(made), ['render-too-large']);
  assert.match(made.violations[0]?.hint ?? '', /spec\.render\.limits\.time/);
});

test('a chart that writes more than it may is ended', async () => {
  const made = await within({ size: 100_000 }, withTemplate(`${CONFIG}"{{ repeat 200000 "x" }}"}\n`));
  assert.deepEqual([codes(made), made.documents], [['render-too-large'], []]);
});

test('files that come to more than they may, together, are not read to the end', async () => {
  const few = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`k/chart/files/${i}`, 'x'.repeat(10_000)]));
  let read = 0;
  const tree = treeOf({ 'k/chart/Chart.yaml': DEFINITION, ...few });
  const file = async (path: string) => {
    read++;
    return tree.file(path);
  };
  const made = await fenceOf(() => Promise.reject(new Error('it was run')), reading)(
    PLAIN_CHART,
    'k',
    { ...tree, file },
    { ...LIMITS, size: 100_000 },
  );
  assert.deepEqual(codes(made), ['render-too-large']);
  assert.match(made.violations[0]?.message ?? '', /the files `k` builds on have more than 100000 bytes/);
  assert.ok(read < 20, `${read} files were read`);
});

test('a Secret that SOPS encrypted and Kustomize renamed opens, and one that it changed below `data` does not', async () => {
  const fixture = (name: string) => readFileSync(new URL(`../sops/fixtures/${name}`, import.meta.url), 'utf8');
  const keys = { age: fixture('age.key'), openpgp: undefined };
  const opened = async (kustomization: string) => {
    const made = await kustomize('k', {
      'k/kustomization.yaml': `resources: [s.yaml]\n${kustomization}`,
      'k/s.yaml': fixture('age.yaml'),
    });
    const [object] = renderMade(made.documents).objects;
    assert.ok(object !== undefined, JSON.stringify(made.violations));
    return openSealed(object, keys);
  };
  const { object } = await opened('namePrefix: prod-\ncommonLabels: {app: shop}\n');
  assert.deepEqual([object.metadata.name, object.metadata.labels], ['prod-database', { app: 'shop' }]);
  assert.equal((object['stringData'] as Record<string, string>)['password'], 'correct horse battery staple');
  const patch =
    'patches: [{patch: "apiVersion: v1\\nkind: Secret\\nmetadata: {name: database, namespace: shop}\\nstringData: {added: clear}"}]\n';
  await assert.rejects(opened(patch), {
    code: 'decryption-failed',
    message: /its values differ from those in its file/,
  });
});

test('every Secret of a file that SOPS encrypted opens after Kustomize, also where keys look like numbers', async () => {
  const fixture = (name: string) => readFileSync(new URL(`../sops/fixtures/${name}`, import.meta.url), 'utf8');
  const made = await kustomize('k', {
    'k/kustomization.yaml': 'resources: [s.yaml]\n',
    'k/s.yaml': fixture('multi.yaml'),
  });
  const { objects } = renderMade(made.documents);
  assert.deepEqual(objects.map((o) => o.ref.name).sort(), ['database', 'queue']);
  for (const object of objects) {
    const opened = await openSealed(object, { age: fixture('age.key'), openpgp: undefined });
    assert.equal(JSON.stringify(opened.object).includes('ENC['), false);
  }
});

test('what helm makes is handed over only up to the limits, with aliases followed', async () => {
  const bomb = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nx: &a "{{ repeat 524288 "x" }}"\nb: [${'*a,'.repeat(40)}*a]\n`;
  const before = process.memoryUsage().rss;
  const made = await within({ size: 4 * 1024 * 1024 }, withTemplate(bomb));
  assert.deepEqual([codes(made), made.documents], [['render-too-large'], []], made.violations[0]?.message);
  assert.match(made.violations[0]?.message ?? '', /the output of helm for `k\/chart` holds more than 4194304 bytes/);
  assert.match(made.violations[0]?.hint ?? '', /spec\.render\.limits\.size/);
  assert.ok(process.memoryUsage().rss - before < 100 * 1024 * 1024);
});

test('what kustomize makes is handed over only up to the limits, with aliases followed', async () => {
  const bomb = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nx: &a [${'1,'.repeat(500)}1]\nb: [${'*a,'.repeat(60)}*a]\n`;
  const made = await fenceOf(programs, reading)(
    KUSTOMIZE,
    'k',
    treeOf({ 'k/kustomization.yaml': 'resources: [a.yaml]\n', 'k/a.yaml': bomb }),
    { ...LIMITS, values: 20_000 },
  );
  assert.deepEqual([codes(made), made.documents], [['render-too-large'], []], made.violations[0]?.message);
  assert.match(made.violations[0]?.hint ?? '', /spec\.render\.limits\.values/);
});
