import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackStage } from '../kit/attack.ts';
import { trustDocument } from '../kit/documents.ts';

// Judged when it is first seen.
const { fleet, dana, first, judged } = attackStage();
const trusting = (key: object) => {
  const document = trustDocument([dana], { required: 0 }) as { spec: { principals: { keys: object[] }[] } };
  (document.spec.principals[0] as { keys: object[] }).keys = [{ ssh: dana.publicKey, ...key }];
  return document;
};

test('past its end', async () =>
  assert.deepEqual(
    await judged(first, { trust: trusting({ validBefore: new Date(Date.now() - 1000).toISOString() }) }),
    ['key-expired'],
  ));
test('before its beginning', async () =>
  assert.deepEqual(
    await judged(first, { trust: trusting({ validAfter: new Date(Date.now() + 86_400_000).toISOString() }) }),
    ['key-not-yet-valid'],
  ));
test('in its time', async () => {
  assert.deepEqual(
    await judged(first, {
      trust: trusting({ validBefore: '2100-01-01T00:00:00Z', validAfter: '2020-01-01T00:00:00Z' }),
    }),
    [],
  );
  assert.ok(fleet.head().length > 0);
});
