import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackStage } from '../kit/attack.ts';

// Of two `tree` headers, one reader takes the first and another the last (CVE-2026-45022): neither is taken here.
const { first, forged } = attackStage();
const evil = `tree ${'1'.repeat(40)}\n`;

test('a second tree behind the first', async () =>
  assert.deepEqual(await forged(first, (raw) => raw.replace(/^(tree .*\n)/, `$1${evil}`)), ['header-repeated']));
test('a second tree in front of the first', async () =>
  assert.deepEqual(await forged(first, (raw) => evil + raw), ['header-repeated']));
test('a second tree behind the signature', async () =>
  assert.deepEqual(
    await forged(first, (raw) => raw.replace('END SSH SIGNATURE-----\n', `END SSH SIGNATURE-----\n${evil}`)),
    ['header-repeated'],
  ));
test('a second author', async () =>
  assert.deepEqual(await forged(first, (raw) => raw.replace(/^(author .*\n)/m, '$1$1')), ['header-repeated']));
