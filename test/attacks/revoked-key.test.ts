import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadConfiguration } from '../../src/config/index.ts';
import { attackStage } from '../kit/attack.ts';
import { trustDocument, writeConfiguration } from '../kit/documents.ts';
import { run } from '../kit/fleet.ts';
import { payloadOf, signBytes, signedCommit } from '../kit/objects.ts';

// A key that was taken back signs nothing, whatever date the commit bears.
const { fleet, dana, first, judged } = attackStage();
const tree = run('git', ['rev-parse', `${first}^{tree}`], { cwd: fleet.work });
const old = signedCommit(fleet, payloadOf(tree, [], dana, 1_720_000_000), (b) => signBytes(dana, b));
const trusting = (key: object, spec: object = {}) => {
  const document = trustDocument([dana], { required: 0 }) as { spec: { principals: { keys: object[] }[] } };
  (document.spec.principals[0] as { keys: object[] }).keys = [{ ssh: dana.publicKey, ...key }];
  return { ...document, spec: { ...document.spec, ...spec } };
};

test('compromised', async () =>
  assert.deepEqual(
    await judged(old, { trust: trusting({ revoked: { at: '2026-01-01T00:00:00Z', reason: 'compromised' } }) }),
    ['key-compromised'],
  ));
test('compromised later than the commit says it is', async () =>
  assert.deepEqual(
    await judged(old, {
      trust: trusting({
        revoked: { at: '2026-01-01T00:00:00Z', reason: 'compromised', compromisedSince: '2025-12-01T00:00:00Z' },
      }),
    }),
    ['key-compromised'],
  ));
test('retired', async () =>
  assert.deepEqual(
    await judged(old, { trust: trusting({ revoked: { at: '2026-01-01T00:00:00Z', reason: 'retired' } }) }),
    ['key-revoked'],
  ));
test('on the revocation list', async () =>
  assert.deepEqual(await judged(old, { trust: trusting({}, { sshRevocations: dana.publicKey }) }), ['key-revoked']));
test('a revocation list that is missing is no empty list', () => {
  const file = writeConfiguration(`${fleet.work}-config`, [trusting({}, { sshRevocationsFile: 'gone.krl' })]);
  assert.throws(
    () => loadConfiguration([file]),
    (e: { code: string }) => e.code === 'config-invalid',
  );
});
