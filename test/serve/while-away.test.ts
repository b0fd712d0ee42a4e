import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CountersignError } from '../../src/model/index.ts';
import { whileAway } from '../../src/serve/while-away.ts';

const TIMES = { firstMs: 1, mostMs: 4, sayEveryMs: 60_000 };
const away = (what = 'the API server is away') =>
  new CountersignError('cluster-unreachable', what, { recover: 'retry' });

function parts() {
  const said: string[] = [];
  const waited: string[] = [];
  const stop = new AbortController();
  const log = { warn: (_: object, message: string) => void said.push(message), info: () => {} };
  return {
    said,
    waited,
    stop,
    parts: { signal: stop.signal, log, waitsFor: (why: string) => void waited.push(why), times: TIMES },
  };
}

test('what is away is waited for, and said once', async () => {
  const { said, waited, parts: of } = parts();
  let left = 5;
  const done = await whileAway(async () => {
    if (left-- > 0) throw away();
    return 'done';
  }, of);
  assert.deepEqual([done, said, waited.length], ['done', ['waiting, and trying again: the API server is away'], 5]);
});

test('another trouble is said too', async () => {
  const { said, parts: of } = parts();
  const troubles = [away(), away('the database is away')];
  await whileAway(async () => {
    const trouble = troubles.shift();
    if (trouble !== undefined) throw trouble;
  }, of);
  assert.equal(said.length, 2);
});

test('what waiting does not mend is thrown at once', async () => {
  for (const thrown of [
    new CountersignError('config-invalid', 'x'),
    new CountersignError('ledger-inconsistent', 'x', { recover: 'halt' }),
    new TypeError('x'),
  ]) {
    let asked = 0;
    const { parts: of } = parts();
    await assert.rejects(
      whileAway(() => {
        asked++;
        throw thrown;
      }, of),
      thrown,
    );
    assert.equal(asked, 1);
  }
});

test('told to stop while it waits, it ends', async () => {
  const { stop, parts: of } = parts();
  const waiting = whileAway(() => Promise.reject(away()), of);
  setTimeout(() => stop.abort(), 20);
  assert.equal(await waiting, undefined);
});
