import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackStage } from '../kit/attack.ts';
import { trustDocument } from '../kit/documents.ts';
import { run } from '../kit/fleet.ts';
import { payloadOf, signBytes, signedCommit } from '../kit/objects.ts';

// The dates of a commit are whatever its maker types.
const { fleet, dana, first, judged } = attackStage();
const tree = run('git', ['rev-parse', `${first}^{tree}`], { cwd: fleet.work });
const NOW = Math.floor(Date.now() / 1000);
const signedAt = (time: number, parents = [first]) =>
  signedCommit(fleet, payloadOf(tree, parents, dana, time), (b) => signBytes(dana, b));
const ended = () => {
  const document = trustDocument([dana], { required: 0 }) as { spec: { principals: { keys: object[] }[] } };
  (document.spec.principals[0] as { keys: object[] }).keys = [
    { ssh: dana.publicKey, validBefore: '2025-01-01T00:00:00Z' },
  ];
  return document;
};

test('a commit dated into the life of a key that has ended, which git accepts', async () => {
  assert.deepEqual(await judged(signedAt(1_720_000_000, []), { trust: ended() }), ['key-expired']);
});
test('a commit dated before the one it builds on', async () =>
  assert.deepEqual(await judged(signedAt(NOW - 10 * 86_400)), ['backdated']));
test('a commit from the future', async () =>
  assert.deepEqual(await judged(signedAt(NOW + 86_400)), ['commit-from-the-future']));
