import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configMap, deployment } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// Manifests that the API server refuses with a status of 500: refused once, with the field, and drift goes on being put
// right.
const PATH = 'clusters/production';
const directory = scratch();
const stage = await openStage(directory);

const MISTAKES = {
  'a misspelt field': [
    (ns: string) => deployment(ns, 'web').replace('replicas:', 'replcias:'),
    /clusters\/production\/web\.yaml:\d+: \.spec\.replcias: field not declared in schema; did you mean `replicas`\?/,
  ],
  'a number where the schema has a text': [
    (ns: string) => configMap(ns, 'web', {}).replace(/\ndata:.*/s, '\ndata:\n  PORT: 8080\n'),
    /\.data\.PORT: expected string, got another type/,
  ],
  'a misspelt kind': [
    (ns: string) => deployment(ns, 'web').replace('kind: Deployment', 'kind: Deploymnet'),
    /clusters\/production\/web\.yaml:1: .*no kind `Deploymnet` in `apps\/v1`; did you mean `Deployment`\?/,
  ],
  'nothing in its spec': [
    (ns: string) => `apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: ${ns}}\nspec: {}\n`,
    /clusters\/production\/web\.yaml:1: .*spec\.selector: Required value/,
  ],
  'a time that is none': [
    (ns: string) => configMap(ns, 'web', {}).replace('metadata:', 'metadata:\n  creationTimestamp: yesterday'),
    /it has a time that is not RFC 3339/,
  ],
  'a text where a list belongs': [
    (ns: string) =>
      `apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: web\n  namespace: ${ns}\nspec:\n  template:\n    spec:\n      containers: x\n`,
    /\.spec\.template\.spec\.containers: expected list, got another type/,
  ],
} as const;

test('a manifest that does not fit the schema is refused once, by field, and drift is put right meanwhile', async () => {
  const name = 'mistakes';
  // One for each case: what is deleted again and again is reverted more and more seldom.
  const lost = (index: number) => `lost-${index}`;
  const files = Object.keys(MISTAKES).map((_, i) => [`${PATH}/lost-${i}.yaml`, configMap(name, lost(i), {})]);
  const { fleet, service } = await stage.running(name, {}, { files: Object.fromEntries(files) });
  const controller = await stage.as('controller');
  for (const [index, [what, [manifest, said]]] of Object.entries(MISTAKES).entries()) {
    const commit = await stage.change(fleet, what, { [`${PATH}/web.yaml`]: manifest(name) });
    const { entry } = await service.entry('apply.refused', 'production', (e) => e.revision === commit);
    assert.match(entry.error, said, what);
    assert.doesNotMatch(entry.error, /8080|yesterday/, 'no value is shown');
    const gone = await controller.request('DELETE', `/api/v1/namespaces/${name}/configmaps/${lost(index)}`);
    assert.equal(gone.status, 200, String(gone.body['message']));
    const at = performance.now();
    await stage.waitFor(
      async () => (await stage.get(`/api/v1/namespaces/${name}/configmaps/${lost(index)}`)).status === 200,
      `its return, after ${what}`,
    );
    assert.ok(performance.now() - at < 10_000, what);
  }
  const good = await stage.change(fleet, 'good', { [`${PATH}/web.yaml`]: configMap(name, 'web', { a: 'b' }) });
  await service.entry('apply.result', 'production', (e) => e.revision === good && e.outcome === 'applied');
  assert.equal(
    service.entries('apply.refused', 'production').length,
    Object.keys(MISTAKES).length,
    'each is told once',
  );
});
