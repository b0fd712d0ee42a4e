import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Answer } from '../../src/cluster/api-server.ts';
import { StandingRefusals } from '../../src/cluster/standing-refusals.ts';
import { CountersignError } from '../../src/model/index.ts';

const answer = (status: number, message: string): Answer => ({ status, body: { message } }) as unknown as Answer;
const away = () => new CountersignError('cluster-unreachable', 'cannot apply Widget shop/a', { recover: 'retry' });
const CONVERSION = 'conversion webhook for acme.test/v1, Kind=Widget failed: spec.size 12 is unknown';

/** Asks several times over ten seconds, by a clock that the test moves. */
async function asked(message: (i: number) => string, { isWell = true, status = 500, times = 4, everyMs = 3000 } = {}) {
  const real = performance.now;
  let now = 0;
  performance.now = () => now;
  try {
    const standing = new StandingRefusals(async () => isWell);
    const codes: string[] = [];
    for (let i = 0; i < times; i++, now += everyMs)
      codes.push((await standing.judge('apply a', answer(status, message(i)), away())).code);
    return codes;
  } finally {
    performance.now = real;
  }
}

const RETRIED = ['cluster-unreachable', 'cluster-unreachable', 'cluster-unreachable', 'cluster-unreachable'];

test('the same words each time from an API server that is well are a refusal; numbers in them may differ', async () => {
  const stands = [...RETRIED.slice(1), 'cluster-refused'];
  assert.deepEqual(await asked(() => CONVERSION), stands);
  assert.deepEqual(await asked((i) => CONVERSION.replace('12', String(100 + i))), stands);
  assert.deepEqual(
    await asked(() => 'admission webhook "gate.countersign.dev" denied the request', { status: 403 }),
    stands,
  );
});

test('other words, an API server that is not well, and what is away and comes back are no refusal', async () => {
  assert.deepEqual(await asked((i) => `${CONVERSION} ${'x'.repeat(i)}`), RETRIED);
  assert.deepEqual(await asked(() => CONVERSION, { isWell: false }), RETRIED);
  assert.deepEqual(await asked(() => CONVERSION, { everyMs: 100 }), RETRIED, 'within a moment');
  assert.deepEqual(await asked(() => CONVERSION, { status: 503 }), RETRIED);
  for (const said of [
    'Internal error occurred: failed calling webhook "mesh.test": Post "https://…": dial tcp: connection refused',
    'etcdserver: request timed out',
    'conversion webhook for acme.test/v1, Kind=Widget failed: Post "https://…": context deadline exceeded',
  ])
    assert.deepEqual(await asked(() => said), RETRIED, said);
});

test('an answer that went well in between begins the count again', async () => {
  const standing = new StandingRefusals(async () => true);
  for (let i = 0; i < 6; i++) {
    const { code } = await standing.judge('apply a', answer(500, CONVERSION), away());
    assert.equal(code, 'cluster-unreachable');
    standing.forget('apply a');
  }
});
