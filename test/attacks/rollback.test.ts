import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NO_REVISION } from '../../src/model/index.ts';
import { approveAs } from '../kit/approve.ts';
import { attackStage } from '../kit/attack.ts';
import { namespace } from '../kit/manifests.ts';

// Going back to what was good is a change too.
const { fleet, dana, lee, first, second, judged } = attackStage();

test('the branch moved back to an older, good commit', async () =>
  assert.deepEqual(await judged(first, { from: second }), ['not-a-descendant']));
test('the branch rewritten', async () => {
  fleet.git(undefined, 'checkout', '--quiet', '--orphan', 'other');
  const other = fleet.commit(dana, 'another history', { 'clusters/production/ns.yaml': namespace('shop') });
  fleet.git(undefined, 'checkout', '--quiet', 'main');
  fleet.push('--force', 'other:main');
  assert.deepEqual(await judged(other, { from: first }), ['not-a-descendant']);
});
test('an approval of the old commit, made when it was new', async () => {
  await approveAs(lee, fleet, NO_REVISION, first);
  assert.deepEqual(await judged(first, { from: second }), ['not-a-descendant']);
});
