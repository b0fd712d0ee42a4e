import assert from 'node:assert/strict';
import { test } from 'node:test';
import { admissible, type EnvironmentState } from '../../src/gate/environment-state.ts';
import { type OwnedObject, type Plan, type Recorded, refKey } from '../../src/model/index.ts';

const owned = (name: string, hook?: OwnedObject['hook']): OwnedObject => ({
  ref: { apiVersion: 'batch/v1', kind: 'Job', namespace: 'shop', name },
  rendered: name,
  admitted: `digest of ${name}`,
  revision: 'r',
  entry: 1,
  file: 'a.yaml',
  line: 1,
  ...(hook === undefined ? {} : { hook }),
});

function state(plan?: Partial<Plan>, failed = false): EnvironmentState {
  const objects = [owned('plain'), owned('kept', 'stays'), owned('migrate', 'ran')];
  const intent = {} as Recorded<never>;
  const open = plan === undefined ? undefined : { intent, plan: { objects: [], prune: [], ...plan }, failed };
  const inventory = { objects, leaving: [] };
  return { revision: 'r', verdict: 1, inventory, settled: 2, chain: 1, owned: new Map(), open } as EnvironmentState;
}

const names = (keys: Iterable<string>) => [...keys].map((key) => key.split('/').at(-1));

test('a hook that ran is not admitted again: anyone could run it once more', () => {
  assert.deepEqual(names(admissible(state()).digests.keys()), ['plain', 'kept']);
});

test('while a change is open, its hooks may be made, and removed by their delete policies; afterwards neither', () => {
  const { ref } = owned('migrate');
  const plan = { objects: [owned('migrate')], hooks: [{ object: ref, phase: 'before', order: 0 }] } as const;
  const now = admissible(state(plan));
  assert.deepEqual(now.digests.get(refKey(ref)), ['digest of migrate']);
  assert.deepEqual([names(now.removable), names(now.ours)], [['migrate'], ['migrate']]);
  const failed = admissible(state(plan, true));
  assert.deepEqual([failed.digests.has(refKey(ref)), names(failed.removable)], [false, []]);
});

test('a hook that an open change does not run is not admitted', () => {
  assert.equal(admissible(state({ objects: [owned('wipe', 'ran')] })).digests.has('batch/Job/shop/wipe'), false);
});
