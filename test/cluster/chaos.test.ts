import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { runChaos } from '../kit/chaos/run.ts';
import { inQuickRun, without } from '../kit/machine.ts';
import { scratch } from '../kit/scratch.ts';

// Three minutes of `npm run chaos`: one fault of each kind. How fast each duty is back is measured there; beside other
// tests, all that counts is that it comes back.
const FAULTS = [
  'kill -9 of the replica that runs alpha',
  'is told to stop',
  'is lost for ever',
  'disk of',
  'is deleted',
];
const skip = inQuickRun() || without('PostgreSQL');
const directory = scratch();

describe('three replicas and a database with a standby', { skip }, () => {
  test('lose nothing, do nothing twice, and write nothing unproven, whatever breaks', async (t) => {
    const { rows, problems, counts } = await runChaos({
      ...{ directory, minutes: 0, seed: 1, only: FAULTS, limit: 90 },
      say: (line) => t.diagnostic(line),
    });
    assert.deepEqual(problems, []);
    assert.equal(rows.length, FAULTS.length);
    for (const what of ['pushed', 'versions in the cluster', 'uses of break-glass', 'refusals'])
      assert.ok((counts[what] ?? 0) > 10, `${what}: ${counts[what]}`);
  });
});
