import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EnvironmentState } from '../../src/gate/environment-state.ts';
import { proveContent } from '../../src/gate/prove-machinery.ts';
import { belonging, scanned } from '../../src/gate/rescan.ts';
import {
  environmentSchema,
  type KubernetesObject,
  type OwnedObject,
  objectDigest,
  refKey,
} from '../../src/model/index.ts';
import { environmentDocument } from '../kit/documents.ts';

const binding = (uid: string, group = 'readers'): KubernetesObject => ({
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'RoleBinding',
  metadata: { name: 'hook', namespace: 'shop', uid },
  subjects: [{ kind: 'Group', name: group }],
});
const job = (uid: string): KubernetesObject => ({
  apiVersion: 'batch/v1',
  kind: 'Job',
  metadata: { name: 'migrate', namespace: 'shop', uid },
  spec: { template: { spec: { containers: [{ name: 'main', image: 'x' }] } } },
});
const environment = environmentSchema.parse(
  environmentDocument({ url: 'https://git.example.com/fleet', namespaces: ['shop'], mode: 'enforce' }),
);

async function judged(object: KubernetesObject, ran: Partial<OwnedObject>) {
  const { ref } = scanned(object);
  const owned = { ref, rendered: 'x', revision: 'r', entry: 1, file: 'a.yaml', line: 1, hook: 'ran', ...ran } as const;
  const inventory = { objects: [owned], leaving: [] };
  const state: EnvironmentState = {
    ...{ revision: 'r', verdict: 1, inventory, settled: 1, chain: 1, open: undefined },
    owned: new Map([[refKey(ref), owned]]),
  };
  const facts = {} as Parameters<typeof proveContent>[1];
  const proof = await proveContent(object, facts, environment, state, new Map());
  return [proof?.kind, ...belonging([{ ...scanned(object), digest: objectDigest(object) }], state)];
}

test('the object of a hook that ran is of Git, and another one with its name is not', async () => {
  assert.deepEqual(await judged(job('u1'), { uid: 'u1' }), [undefined, 'git']);
  assert.deepEqual(await judged(job('u2'), { uid: 'u1' }), ['unproven', 'unmanaged']);
});

test('without a uid, the object of a hook that ran is known by its content', async () => {
  const live = objectDigest(binding('u1'));
  assert.deepEqual(await judged(binding('u1'), { live }), [undefined, 'git']);
  assert.deepEqual(await judged(binding('u2', 'masters'), { live }), ['unproven', 'unmanaged']);
  assert.deepEqual(await judged(binding('u1'), {}), ['unproven', 'unmanaged']);
});
