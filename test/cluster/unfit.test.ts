import assert from 'node:assert/strict';
import { test } from 'node:test';
import { located } from '../../src/cluster/unfit.ts';
import type { KubernetesObject, RenderedObject } from '../../src/model/index.ts';
import { parseYaml } from '../../src/yaml/index.ts';

const MANIFEST = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  replcias: 2
  template:
    spec:
      containers:
      - name: first
        image: a
      - name: second
        imgae: b
        ports:
        - containerPort: 80
          protocol: TCP
          nmae: http
`;

const ref = { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'shop', name: 'web' };
const [document] = parseYaml(MANIFEST);
assert.ok(document);
const rendered: RenderedObject = {
  object: document.value as unknown as KubernetesObject,
  ref,
  source: { file: 'web.yaml', line: 1 },
  lineOf: document.lineOf,
  positionOf: document.positionOf,
  digest: '',
};

const schema = (properties: object) => ({ properties });
const OPENAPI = {
  components: {
    schemas: {
      'io.k8s.api.apps.v1.Deployment': {
        ...schema({ spec: { allOf: [{ $ref: '#/components/schemas/Spec' }] } }),
        'x-kubernetes-group-version-kind': [{ group: 'apps', version: 'v1', kind: 'Deployment' }],
      },
      Spec: schema({ replicas: {}, selector: {}, template: { $ref: '#/components/schemas/Template' } }),
      Template: schema({
        spec: schema({ containers: { items: { allOf: [{ $ref: '#/components/schemas/Container' }] } } }),
      }),
      Container: schema({ name: {}, image: {}, ports: { items: schema({ containerPort: {}, name: {} }) } }),
    },
  },
};
const answers = async (path: string) => ({
  status: path === '/openapi/v3/apis/apps/v1' ? 200 : 404,
  body: OPENAPI,
  warnings: [],
  retryAfter: undefined,
});

test('each mistake that is shown has the line of its field, and the name that was meant', async () => {
  const mistakes = [
    '.spec.replcias: field not declared in schema',
    '.spec.template.spec.containers[name="second"].imgae: field not declared in schema',
    '.spec.template.spec.containers[name="second"].ports[containerPort=80,protocol="TCP"].nmae: field not declared in schema',
    '.spec.template.spec.containers[name="first"].image: expected string, got another type',
    '.spec.unheard: field not declared in schema',
    'it has a time that is not RFC 3339',
  ];
  assert.deepEqual(await located(mistakes, rendered, answers), [
    'web.yaml:7: .spec.replcias: field not declared in schema; did you mean `replicas`?',
    `web.yaml:14: ${mistakes[1]}; did you mean \`image\`?`,
    `web.yaml:18: ${mistakes[2]}; did you mean \`name\`?`,
    `web.yaml:12: ${mistakes[3]}`,
    'web.yaml:6: .spec.unheard: field not declared in schema',
    'it has a time that is not RFC 3339',
  ]);
  assert.deepEqual(await located(mistakes.slice(5), rendered, answers), [
    'web.yaml:1: it has a time that is not RFC 3339',
  ]);
});

test('a schema that cannot be read, or means something else, takes nothing away', async () => {
  const mistake = '.spec.replcias: field not declared in schema';
  const place = `web.yaml:7: ${mistake}`;
  for (const body of [{}, { components: 1 }, { components: { schemas: { a: null } } }, { components: { schemas: [] } }])
    assert.deepEqual(await located([mistake], rendered, async (path) => ({ ...(await answers(path)), body })), [place]);
  assert.deepEqual(await located([mistake], rendered, () => Promise.reject(new Error('away'))), [place]);
});

test('a field that the manifest does not have, or that cannot be followed, has the line that is nearest', async () => {
  for (const [field, line] of [
    ['.spec.template.spec.containers[name="third"].image', 10],
    ['.spec.template.spec.containers[7].image', 10],
    ['.spec[x', 6],
    ['.', 1],
  ] as const) {
    const [said] = await located([`${field}: wrong`], rendered, answers);
    assert.match(said ?? '', new RegExp(`^web\\.yaml:${line}: `), field);
  }
});

test('however many mistakes there are, the schema is read once', async () => {
  let asked = 0;
  const mistakes = Array.from({ length: 3000 }, (_, i) => `.spec.unheard${i}: field not declared in schema`);
  const said = await located(mistakes, rendered, (path) => {
    asked++;
    return answers(path);
  });
  assert.equal(said.length, 3000);
  assert.equal(asked, 1);
});
