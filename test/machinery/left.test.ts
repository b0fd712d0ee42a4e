import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Approved,
  intoTemplate,
  leftDigest,
  type MachineryFacts,
  proveChild,
  templateDigest,
} from '../../src/machinery/index.ts';
import { type KubernetesObject, withoutPointers } from '../../src/model/index.ts';

type Json = Readonly<Record<string, unknown>>;
const IMAGE = '/spec/template/spec/containers/0/image';
const RESTARTED = '/spec/template/metadata/annotations/restartedAt';

const container = (more: Json = {}) => ({ name: 'web', image: 'web:1', command: ['serve'], ...more });
const templateOf = (containers: readonly Json[], metadata: Json = {}) => ({
  metadata: { labels: { app: 'web' }, ...metadata },
  spec: { containers },
});
const object = (kind: string, name: string, spec: Json, owner?: KubernetesObject, metadata: Json = {}) =>
  ({
    ...{ apiVersion: /Job$/.test(kind) ? 'batch/v1' : 'apps/v1', kind },
    metadata: {
      ...{ name, namespace: 'shop', uid: `uid of ${name}`, ...metadata },
      ...(owner === undefined
        ? {}
        : {
            ownerReferences: [
              {
                ...{ apiVersion: owner.apiVersion, kind: owner.kind, name: owner.metadata.name },
                ...{ uid: owner.metadata['uid'], controller: true, blockOwnerDeletion: true },
              },
            ],
          }),
    },
    spec,
  }) as KubernetesObject;

const WEB = object('Deployment', 'web', {
  selector: { matchLabels: { app: 'web' } },
  template: templateOf([container()]),
});
const NIGHTLY = object('CronJob', 'nightly', { jobTemplate: { spec: { template: templateOf([container()]) } } });

function approving(root: KubernetesObject, left: readonly string[]): Approved {
  const digests = [templateDigest(root), leftDigest(root, left)].filter((d) => d !== undefined);
  const isOwned = ({ kind, name }: { kind: string; name: string }) => kind === root.kind && name === root.metadata.name;
  return {
    ...{ injected: [], hasOperators: false, isOwned },
    templates: ({ kind, metadata: { name } }) => (isOwned({ kind, name }) ? digests : undefined),
    left: () => left,
  };
}

async function proofOf(root: KubernetesObject, child: KubernetesObject, left: readonly string[]): Promise<string> {
  const facts: MachineryFacts = {
    get: async ({ kind }) => (kind === root.kind ? root : undefined),
    list: async () => [],
  };
  const proof = await proveChild(child, approving(root, left), facts);
  return proof?.kind === 'unproven' ? proof.reason : String(proof?.kind);
}

function setOf(template: ReturnType<typeof templateOf>): KubernetesObject {
  const hash = { 'pod-template-hash': 'x1' };
  const labels = { ...(template.metadata.labels as Json), ...hash };
  const spec = {
    replicas: 1,
    selector: { matchLabels: { app: 'web', ...hash } },
    template: { ...template, metadata: { ...template.metadata, labels } },
  };
  return object('ReplicaSet', 'web-x1', spec, WEB, { labels });
}

test('a path into a template leaves that path to others, and nothing else of the template', async () => {
  const proof = (containers: readonly Json[], left: readonly string[], metadata: Json = {}) =>
    proofOf(WEB, setOf(templateOf(containers, metadata)), left);
  const not = /its template was not approved for the Deployment `web`/;
  assert.equal(await proof([container()], []), 'proven');
  assert.match(await proof([container({ image: 'web:2' })], []), not);
  assert.equal(await proof([container({ image: 'web:2' })], [IMAGE]), 'proven');
  for (const containers of [
    [container({ image: 'web:2', command: ['mine'] })],
    [container({ image: 'web:2', env: [{ name: 'A', value: 'b' }] })],
    [container({ image: 'web:2' }), container({ name: 'miner' })],
    [container({ name: 'miner' }), container()],
  ])
    assert.match(await proof(containers, [IMAGE]), not);
  const restarted = { annotations: { restartedAt: 'now' } };
  assert.equal(await proof([container()], [RESTARTED], restarted), 'proven', 'Git has no annotations at all');
  assert.match(await proof([container()], [RESTARTED], { annotations: { restartedAt: 'now', mine: 'x' } }), not);
  assert.equal(await proof([container({ image: 'web:2' })], [RESTARTED, IMAGE], restarted), 'proven');
  assert.match(await proof([container({ image: 'web:2' })], [RESTARTED]), not);
  assert.equal(await proof([container({ name: 'other' })], ['/spec/template']), 'proven', 'all of it is left');
});

test('runs of a CronJob and revisions follow the same paths', async () => {
  const left = ['/spec/jobTemplate/spec/template/spec/containers/0/image'];
  const run = (more: Json) =>
    object('Job', 'nightly-1', { template: templateOf([container(more)]) }, NIGHTLY, { labels: {} });
  assert.equal(await proofOf(NIGHTLY, run({ image: 'web:2' }), left), 'proven');
  assert.match(
    await proofOf(NIGHTLY, run({ image: 'web:2', command: ['mine'] }), left),
    /its template was not approved/,
  );
  assert.match(await proofOf(NIGHTLY, run({ image: 'web:2' }), []), /its template was not approved/);
});

test('a digest without some fields stands for these fields only', () => {
  const digests = [[], [IMAGE], [RESTARTED], [IMAGE, RESTARTED]].map((left) => leftDigest(WEB, left));
  assert.equal(digests[0], undefined);
  assert.equal(new Set([...digests, templateDigest(WEB)]).size, 5);
  assert.equal(leftDigest(WEB, [RESTARTED, IMAGE]), leftDigest(WEB, [IMAGE, RESTARTED]));
  assert.deepEqual(intoTemplate(['/spec/replicas', IMAGE, '/spec/templates', '/metadata/labels/a']), [IMAGE]);
});

test('what pointers name is removed, with maps and lists that only held it', () => {
  const value = { a: { b: { c: 1 }, d: {} }, e: ['1', '2', '3'], f: [{ g: 1 }, { g: 2, h: 3 }] };
  const left = (...pointers: string[]) => withoutPointers(value, pointers);
  assert.deepEqual(left('/a/b/c').a, { d: {} });
  assert.deepEqual(left('/a/d/x').a, { b: { c: 1 } }, 'it is empty either way');
  assert.deepEqual(left('/a/x', '/x/y', '/e/9'), value);
  assert.deepEqual(left('/e/0', '/e/2').e, ['2']);
  assert.deepEqual(left('/f/0/g', '/f/1/g').f, [{ h: 3 }]);
  assert.equal(value.e.length, 3, 'the value itself stays');
});
