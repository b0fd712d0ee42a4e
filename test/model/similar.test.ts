import assert from 'node:assert/strict';
import { test } from 'node:test';
import { similar } from '../../src/model/index.ts';

const FIELDS = ['replicas', 'selector', 'template', 'strategy', 'paused'];

for (const [written, meant] of [
  ['replcias', 'replicas'],
  ['replica', 'replicas'],
  ['replicaas', 'replicas'],
  ['replixas', 'replicas'],
  ['Replicas', 'replicas'],
  ['tempalte', 'template'],
  ['eplicas', 'replicas'],
  ['rpelicas', 'replicas'],
  ['repliacsx', undefined],
  ['', undefined],
  ['image', undefined],
  ['replicas', undefined],
] as const)
  test(`\`${written}\` means ${meant === undefined ? 'nothing that is certain' : `\`${meant}\``}`, () => {
    assert.equal(similar(written, FIELDS), meant);
  });

test('of two that are as near, neither is named', () => {
  assert.equal(similar('por', ['port', 'pods', 'for']), undefined);
});
