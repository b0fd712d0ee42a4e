import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NO_REVISION } from '../../src/model/index.ts';
import { approveAs } from '../kit/approve.ts';
import { attackStage } from '../kit/attack.ts';
import { configMap } from '../kit/manifests.ts';

// The tip alone proves nothing.
const { fleet, dana, second, judged } = attackStage();
const PATH = 'clusters/production';

test('an unsigned commit below a signed one', async () => {
  fleet.commit(dana, 'hidden', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: 'evil' }) }, { sign: false });
  const tip = fleet.commit(dana, 'on top', { 'README.md': 'x' });
  fleet.push('--force', 'main');
  assert.deepEqual(await judged(tip), ['unsigned']);
});
test('an unsigned commit on the second parent of a signed merge', async () => {
  fleet.git(undefined, 'reset', '--quiet', '--hard', second);
  fleet.git(undefined, 'switch', '--quiet', '-c', 'side');
  fleet.commit(dana, 'hidden', { [`${PATH}/cm2.yaml`]: configMap('shop', 'cm2', { a: 'evil' }) }, { sign: false });
  fleet.git(undefined, 'switch', '--quiet', 'main');
  fleet.git(dana, 'merge', '--quiet', '--no-ff', '-S', '-m', 'merge', 'side');
  fleet.push('--force', 'main');
  assert.deepEqual(await judged(fleet.head()), ['unsigned']);
});
test('an approval cannot make an unsigned commit good', async () => {
  fleet.git(undefined, 'reset', '--quiet', '--hard', second);
  const commit = fleet.commit(
    dana,
    'unsigned',
    { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '2' }) },
    { sign: false },
  );
  fleet.push('--force', 'main');
  await approveAs(dana, fleet, NO_REVISION, commit);
  assert.deepEqual(await judged(commit), ['unsigned']);
});
