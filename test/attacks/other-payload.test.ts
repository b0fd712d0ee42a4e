import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackStage } from '../kit/attack.ts';
import { rawObject, signBytes, signedCommit } from '../kit/objects.ts';

// A good signature over something else.
const { fleet, dana, first, second, forged, judged } = attackStage();

test('another message', async () =>
  assert.deepEqual(await forged(first, (raw) => raw.replace('first', 'fixed')), ['bad-signature']));
test('the same for OpenPGP', async () =>
  assert.deepEqual(await forged(second, (raw) => raw.replace('second', 'secund')), ['bad-signature']));
test('another tree', async () =>
  assert.deepEqual(
    await forged(first, (raw) => raw.replace(/^tree .{40}/, `tree ${'1'.repeat(40)}`)).catch((e: { code: string }) => [
      e.code,
    ]),
    ['git-object-missing'],
  ));
test('one more newline at the end, which a rebuilt payload would lose', async () =>
  assert.deepEqual(await forged(first, (raw) => `${raw}\n`), ['bad-signature']));
test('a carriage return in the message', async () =>
  assert.deepEqual(await forged(second, (raw) => raw.replace('second', 'second\r')), ['bad-signature']));
test('the signature of another commit', async () => {
  const signature = /gpgsig [\s\S]*?END SSH SIGNATURE-----\n/;
  const other = signature.exec(rawObject(fleet, fleet.commit(dana, 'third', { x: 'x' })).toString('latin1'))?.[0] ?? '';
  assert.deepEqual(await forged(first, (raw) => raw.replace(signature, other)), ['bad-signature']);
});
test('a signature made for files, not for git', async () => {
  const payload = rawObject(fleet, first)
    .toString('latin1')
    .replace(/gpgsig [\s\S]*?END SSH SIGNATURE-----\n/, '');
  assert.deepEqual(await judged(signedCommit(fleet, payload, (b) => signBytes(dana, b, { namespace: 'file' }))), [
    'signature-for-other-use',
  ]);
});
