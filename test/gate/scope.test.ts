import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scopesOf } from '../../src/gate/place-objects.ts';
import { outOfScope } from '../../src/gate/scope.ts';
import { environmentSchema, type RenderedObject } from '../../src/model/index.ts';
import { renderFile } from '../../src/render/index.ts';
import { environmentDocument } from '../kit/documents.ts';

const FILE = 'clusters/production/role.yaml';

function rendered(name: string, kind = 'ClusterRole'): RenderedObject {
  const text = `apiVersion: rbac.authorization.k8s.io/v1\nkind: ${kind}\nmetadata:\n  name: ${name}\nrules: []\n`;
  const { objects } = renderFile({ path: FILE, mode: '100644', content: Buffer.from(text) });
  return objects[0] ?? assert.fail();
}

function refusals(clusterScoped: readonly unknown[], ...names: string[]) {
  const spec = { target: { namespaces: ['shop'], clusterScoped } };
  const environment = environmentSchema.parse(environmentDocument({ url: 'fleet.git', namespaces: ['shop'], spec }));
  return names.flatMap((name) => outOfScope(environment, rendered(name), scopesOf([])));
}

const SHOP = { kind: 'ClusterRole', names: ['shop-*', 'view'] };
const WHERE = '`names` of `ClusterRole` in `spec.target.clusterScoped`';

test('an object whose name is in the names of its kind may be owned; another is refused, and told which names are', () => {
  assert.deepEqual(refusals([SHOP], 'shop-a', 'view'), []);
  assert.deepEqual(refusals(['Namespace', SHOP, { kind: 'ClusterRole', names: ['edit'] }], 'edit'), []);
  assert.deepEqual(refusals(['ClusterRole'], 'anything'), []);
  const [violation, ...more] = refusals([SHOP], 'my-shop-a');
  assert.deepEqual(more, []);
  assert.deepEqual(
    [violation?.code, violation?.source?.file, violation?.message, violation?.hint],
    [
      'kind-not-governed',
      FILE,
      'ClusterRole my-shop-a is not among the ClusterRole names that this environment may own: `shop-*`, `view`',
      `rename it, or add its name to ${WHERE}`,
    ],
  );
});

test('the group of a kind counts', () => {
  assert.deepEqual(refusals(['ClusterRole.rbac.authorization.k8s.io'], 'a'), []);
  assert.deepEqual(
    refusals(['ClusterRole.example.com', { ...SHOP, group: 'example.com' }], 'shop-a').map((v) => v.message),
    [
      'ClusterRole shop-a is cluster-scoped, and the only cluster-scoped objects this environment may own are ' +
        '`ClusterRole.example.com`, `ClusterRole.example.com (shop-*, view)`',
    ],
  );
});

test('what belongs to Countersign’s own installation is owned only by an environment that names it', () => {
  const [violation] = refusals(['ClusterRole', SHOP], 'countersign');
  assert.deepEqual(
    [violation?.code, violation?.message, violation?.hint],
    [
      'kind-not-governed',
      'ClusterRole countersign is part of Countersign’s own installation, which this environment does not name',
      `remove it, or let the environment that installs Countersign name it: add \`countersign\` to ${WHERE}`,
    ],
  );
  assert.deepEqual(refusals(['ClusterRole', { kind: 'ClusterRole', names: ['countersign'] }], 'countersign'), []);
  assert.deepEqual(refusals(['ClusterRole'], 'countersign-viewer'), [], 'not one of its names');
});
