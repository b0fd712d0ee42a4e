import assert from 'node:assert/strict';
import { test } from 'node:test';
import { render, substitute } from '../../src/render/index.ts';

const from = (text: string, declared: Record<string, string>) =>
  substitute(render([{ path: 'a.yaml', mode: '100644', content: Buffer.from(text) }]), declared);

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
  const { objects, violations } = from('apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: "${A}", b: "${constructor}"}\n', {
    A: '${B}',
    B: 'secret',
  });
  assert.deepEqual(objects[0]?.object['data'], { a: '${B}', b: '${constructor}' });
  assert.deepEqual(
    violations.map((v) => v.message),
    ['`${constructor}` is not declared in `spec.render.substitute`'],
  );
});

test('the schema of a CustomResourceDefinition is left as it is (kustomize-controller 1694)', () => {
  const text = 'apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x}\nspec: {pattern: "${A}"}\n';
  const { objects, violations } = from(text, { A: 'red' });
  assert.deepEqual([objects[0]?.object['spec'], violations], [{ pattern: '${A}' }, []]);
});
