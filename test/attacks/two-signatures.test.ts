import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackStage } from '../kit/attack.ts';

// Two signatures: one to show, one to check.
const { first, second, forged } = attackStage();

test('in two headers', async () =>
  assert.deepEqual(await forged(first, (raw) => raw.replace(/(gpgsig [\s\S]*?END SSH SIGNATURE-----\n)/, '$1$1')), [
    'header-repeated',
  ]));
test('in two armored blocks of one header, OpenPGP', async () =>
  assert.deepEqual(
    await forged(second, (raw) => raw.replace(/gpgsig ([\s\S]*?END PGP SIGNATURE-----\n)/, 'gpgsig $1 $1')),
    ['bad-signature'],
  ));
test('in two armored blocks of one header, SSH', async () =>
  assert.deepEqual(
    await forged(first, (raw) => raw.replace(/gpgsig ([\s\S]*?END SSH SIGNATURE-----\n)/, 'gpgsig $1 $1')),
    ['bad-signature'],
  ));
test('of two kinds in one header', async () =>
  assert.deepEqual(
    await forged(first, (raw) =>
      raw.replace(
        'END SSH SIGNATURE-----\n',
        'END SSH SIGNATURE-----\n -----BEGIN PGP SIGNATURE-----\n \n iHUEABYKAB0=\n -----END PGP SIGNATURE-----\n',
      ),
    ),
    ['bad-signature'],
  ));
