import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackStage } from '../kit/attack.ts';

// What stands in the signature's header is somebody else's text.
const { first, second, forged, judged } = attackStage();

test('an armored message instead of a signature', async () =>
  assert.deepEqual(await forged(second, (raw) => raw.replaceAll('PGP SIGNATURE', 'PGP MESSAGE')), [
    'signature-format-unknown',
  ]));
test('a cleartext signature', async () =>
  assert.deepEqual(
    await forged(second, (raw) =>
      raw.replace(
        'gpgsig -----BEGIN PGP SIGNATURE',
        'gpgsig -----BEGIN PGP SIGNED MESSAGE-----\n \n x\n -----BEGIN PGP SIGNATURE',
      ),
    ),
    ['signature-format-unknown'],
  ));
test('a header that holds no signature', async () =>
  assert.deepEqual(
    await forged(first, (raw) => raw.replace(/gpgsig [\s\S]*?END SSH SIGNATURE-----\n/, 'gpgsig trust me\n')),
    ['signature-format-unknown'],
  ));
test('no header at all', async () =>
  assert.deepEqual(await forged(first, (raw) => raw.replace(/gpgsig [\s\S]*?END SSH SIGNATURE-----\n/, '')), [
    'unsigned',
  ]));
test('text in front of the armor', async () =>
  assert.deepEqual(await forged(second, (raw) => raw.replace('gpgsig -----BEGIN', 'gpgsig hello\n -----BEGIN')), [
    'signature-format-unknown',
  ]));
test('text behind the armor', async () =>
  assert.deepEqual(
    await forged(second, (raw) => raw.replace('END PGP SIGNATURE-----\n', 'END PGP SIGNATURE-----\n hello\n')),
    ['bad-signature'],
  ));
test('a comment in the armor gives another id and the same signature: what is signed is what counts', async () => {
  assert.deepEqual(
    await forged(second, (raw) =>
      raw.replace('BEGIN PGP SIGNATURE-----\n', 'BEGIN PGP SIGNATURE-----\n Comment: hello\n'),
    ),
    [],
  );
});
test('the commits as made', async () => assert.deepEqual(await judged(second), []));
