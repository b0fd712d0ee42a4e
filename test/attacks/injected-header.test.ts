import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackStage } from '../kit/attack.ts';

// Git strips every header whose name begins with `gpgsig` from what a signature covers; readers differ on the rest
// (CVE-2026-44309).
const { first, second, judged, forged } = attackStage();

test('the control: the commits as made are allowed', async () => assert.deepEqual(await judged(second), []));
test('a header that only looks like a signature, which git accepts and does not cover', async () =>
  assert.deepEqual(await forged(first, (raw) => raw.replace('gpgsig ', 'gpgsig-evil hidden\ngpgsig ')), [
    'header-like-signature',
  ]));
test('a header behind the signature', async () =>
  assert.deepEqual(
    await forged(first, (raw) => raw.replace('END SSH SIGNATURE-----\n', 'END SSH SIGNATURE-----\nnote x\n')),
    ['bad-signature'],
  ));
test('a parent put in front of the author', async () =>
  assert.deepEqual(await forged(second, (raw) => raw.replace('author ', `parent ${first}\nauthor `)), [
    'bad-signature',
  ]));
test('a parent behind the author', async () =>
  assert.deepEqual(await forged(second, (raw) => raw.replace('committer ', `parent ${first}\ncommitter `)), [
    'headers-out-of-order',
  ]));
test('a parent behind the committer', async () =>
  assert.deepEqual(await forged(second, (raw) => raw.replace('gpgsig ', `parent ${first}\ngpgsig `)), [
    'headers-out-of-order',
  ]));
test('a header with a NUL', async () =>
  assert.deepEqual(await forged(first, (raw) => raw.replace('author d', 'author \0d')), ['malformed']));
