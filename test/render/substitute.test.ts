import assert from 'node:assert/strict';
import { test } from 'node:test';
import { render } from '../../src/render/index.ts';

const from = (text: string, declared: Record<string, string>) =>
  render([{ path: 'a.yaml', mode: '100644', content: Buffer.from(text) }], declared);

test('declared texts stand in values; a name that is not declared is refused at its line (kustomize-controller 1671)', () => {
  const text =
    'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${NAME}\ndata:\n  a: "x-${COLOUR}-${COLOUR}"\n  b: $${COLOUR} $COLOUR ${}\n  c: ${MISSING}\n';
  const { objects, violations } = from(text, { NAME: 'settings', COLOUR: 'red' });
  assert.deepEqual(objects[0]?.object['data'], { a: 'x-red-red', b: '${COLOUR} $COLOUR ${}', c: '${MISSING}' });
  assert.equal(objects[0]?.ref.name, 'settings');
  assert.deepEqual(
    violations.map((v) => [v.code, v.source?.line]),
    [['variable-undeclared', 8]],
  );
});

test('no text gets in by the way of another, and nothing beside the declared (constructor, __proto__)', () => {
  const { objects, violations } = from(
    'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: "${A}", b: "${constructor}"}\n',
    {
      A: '${B}',
      B: 'secret',
    },
  );
  assert.deepEqual(objects[0]?.object['data'], { a: '${B}', b: '${constructor}' });
  assert.deepEqual(
    violations.map((v) => v.message),
    ['`${constructor}` is not declared in `spec.render.substitute`'],
  );
});

test('the schema of a CustomResourceDefinition is left as it is (kustomize-controller 1694)', () => {
  const text =
    'apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x}\nspec: {pattern: "${A}"}\n';
  const { objects, violations } = from(text, { A: 'red' });
  assert.deepEqual([objects[0]?.object['spec'], violations], [{ pattern: '${A}' }, []]);
});

test('a kind is the one of the final text, so that no rule is asked about another', () => {
  const text =
    'apiVersion: rbac.authorization.k8s.io/v1\nkind: Role${E}Binding\nmetadata: {name: all, namespace: "${N}"}\n';
  const [object] = from(text, { E: '', N: 'shop' }).objects;
  assert.deepEqual(object?.ref, {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'RoleBinding',
    namespace: 'shop',
    name: 'all',
  });
  assert.equal(object?.object.kind, 'RoleBinding');
});

test('two objects that substitution gives one identity are refused', () => {
  const of = (name: string, colour: string) =>
    `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "${name}", namespace: shop}\ndata: {colour: ${colour}}\n`;
  const { violations } = from(`${of('settings', 'first')}---\n${of('${WEB}', 'second')}`, { WEB: 'settings' });
  assert.deepEqual(
    violations.map((v) => v.code),
    ['object-twice'],
  );
});

test('a list, a mark of our own and a name that is none are found in the final text', () => {
  const of = (more: string) => `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: shop${more}}\n`;
  const codes = (text: string, declared: Record<string, string>) => from(text, declared).violations.map((v) => v.code);
  const list = `apiVersion: v1\nkind: "\${L}"\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}\n`;
  assert.deepEqual(
    from(list, { L: 'List' }).objects.map((o) => o.ref.kind),
    ['ConfigMap'],
  );
  assert.deepEqual(codes(of(', labels: {a: "${A}"}'), { A: 'x' }), []);
  assert.deepEqual(
    codes('apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "${N}", namespace: shop}\n', { N: '../secrets/x' }),
    ['not-an-object'],
  );
  assert.deepEqual(codes('apiVersion: "${V}"\nkind: ConfigMap\nmetadata: {name: x}\n', { V: 'v1/../v1' }), [
    'not-an-object',
  ]);
});

test('a definition named by a variable is left as it is below its kind', () => {
  const text =
    'apiVersion: apiextensions.k8s.io/v1\nkind: ${K}\nmetadata: {name: x.example.test}\nspec: {pattern: "${A}"}\n';
  const { objects, violations } = from(text, { K: 'CustomResourceDefinition' });
  assert.deepEqual(
    [objects[0]?.ref.kind, objects[0]?.object['spec'], violations],
    ['CustomResourceDefinition', { pattern: '${A}' }, []],
  );
});

test('names that Kubernetes takes are taken, and those that lead elsewhere in a path are not', () => {
  const codes = (name: string) =>
    from(
      `apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: ${JSON.stringify(name)}}\n`,
      {},
    ).violations.map((v) => v.code);
  for (const name of ['system:controller:x', 'my role', 'équipe', 'a.b-c_d@e', '...'])
    assert.deepEqual(codes(name), [], name);
  for (const name of ['.', '..', 'a/b', 'a%2fb', 'a\u0000b', 'a\u202eb', 'x'.repeat(254)])
    assert.deepEqual(codes(name), ['not-an-object'], name);
});
