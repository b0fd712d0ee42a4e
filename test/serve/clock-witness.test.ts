import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ApiServer } from '../../src/cluster/index.ts';
import { ClockWitness } from '../../src/serve/clock-witness.ts';

test('what has ended is decided by this machine’s clock, unless the API server’s is seconds away from it', () => {
  const witness = new ClockWitness();
  const isHere = () => Math.abs(witness.now().getTime() - Date.now()) < 500;
  assert.ok(isHere(), 'nobody to ask');
  let off: number | undefined;
  const now = () => (off === undefined ? undefined : new Date(Date.now() + off));
  witness.follow({ now } as unknown as ApiServer);
  assert.ok(isHere(), 'it has not answered yet');
  for (const ms of [900, -900]) {
    off = ms;
    assert.ok(isHere(), 'its answers state whole seconds');
  }
  for (const ms of [5_400_000, -5_400_000, 259_200_000]) {
    off = ms;
    assert.ok(Math.abs(witness.now().getTime() - Date.now() - ms) < 500, String(ms));
  }
});
