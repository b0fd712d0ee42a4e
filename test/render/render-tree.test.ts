import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KnownFile } from '../../src/gate/index.ts';
import { type RenderParts, renderTree } from '../../src/gate/render-tree.ts';
import { environmentSchema, Recent, Turns } from '../../src/model/index.ts';
import { readFiles, withPlaces } from '../../src/render/index.ts';
import { environmentDocument } from '../kit/documents.ts';

const environment = environmentSchema.parse(
  environmentDocument({
    url: '/nowhere',
    namespaces: ['shop'],
    spec: { render: { with: 'plain', limits: { objects: 10 } } },
  }),
);
const object = (name: string) => `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}, namespace: shop}\n`;

/** Renders trees that are maps from paths to texts; what was read of a file is remembered from one to the next. */
function renderer() {
  const rendered = new Recent<KnownFile>(10_000);
  return (files: Readonly<Record<string, string>>) => {
    const repository = {
      files: async () => Object.entries(files).map(([path, blob]) => ({ path, mode: '100644', blob })),
      blob: async (text: string) => Buffer.from(text),
    };
    const read: RenderParts['read'] = async (all, limits, declared) =>
      readFiles(all, limits, declared).map((one, i) => withPlaces(all[i] as (typeof all)[number], one));
    return renderTree(
      {
        environment,
        repository,
        rendered,
        make: () => assert.fail(),
        read,
        turns: new Turns(),
      } as unknown as RenderParts,
      'tree',
    );
  };
}

test('a file that stood beside one that was too much has its objects when it stands alone', async () => {
  const render = renderer();
  const many = Array.from({ length: 20 }, (_, i) => object(`m${i}`)).join('---\n');
  const tooMuch = await render({ 'a.yaml': many, 'b.yaml': object('b') });
  assert.deepEqual(
    tooMuch.violations.map((v) => v.code),
    ['render-too-large'],
  );
  const { objects } = await render({ 'b.yaml': object('b'), 'c.yaml': object('c') });
  assert.deepEqual(
    objects.map((o) => o.ref.name),
    ['b', 'c'],
  );
});

test('of very many violations and warnings in a tree the first are kept, and it stays refused when it is looked at again', async () => {
  const render = renderer();
  const wrong = `apiVersion: v1\nkind: List\nitems: [${'1,'.repeat(200)}1]\nx: [${'yes,'.repeat(200)}yes]\n`;
  const files = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`${i}.yaml`, wrong]));
  for (let look = 0; look < 2; look++) {
    const { violations, warnings } = await render({ ...files, 'z.yaml': object('z') });
    assert.deepEqual([violations.length, violations[1000]?.code], [1001, 'too-many-violations']);
    assert.deepEqual([warnings.length, warnings[1000]?.code], [1001, 'too-many-warnings']);
  }
});
