import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerOf, CountersignError, resultOf } from '../../src/model/index.ts';

test('an error of a thread arrives as it was thrown: with its code and its fix', async () => {
  const refused = new CountersignError('port-in-use', 'the port 9443 is in use', { hint: 'choose another' });
  const sent = structuredClone(await answerOf(() => Promise.reject(refused)));
  assert.throws(
    () => resultOf(sent),
    (thrown: unknown) =>
      thrown instanceof CountersignError &&
      thrown.code === 'port-in-use' &&
      thrown.message === refused.message &&
      thrown.hint === 'choose another',
  );
  assert.deepEqual(resultOf(structuredClone(await answerOf(async () => [1]))), [1]);
  await assert.rejects(
    answerOf(() => Promise.reject(new TypeError('a defect'))),
    TypeError,
  );
});
