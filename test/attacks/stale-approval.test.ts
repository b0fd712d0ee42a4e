import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NO_REVISION } from '../../src/model/index.ts';
import { attackStage } from '../kit/attack.ts';

// An approval is of one step: this base, this tree, this content, until its end.
const { lee, approved } = attackStage();

test('past its end', async () =>
  assert.deepEqual(await approved(lee, { expiresAt: '2020-01-01T00:00:00Z' }), ['approval-expired']));
test('from another base', async () =>
  assert.deepEqual(
    await approved(lee, { statement: (s) => ({ ...s, predicate: { ...s.predicate, fromID: NO_REVISION } }) }),
    ['approval-stale'],
  ));
test('with another change digest', async () =>
  assert.deepEqual(
    await approved(lee, {
      statement: (s) => ({ ...s, predicate: { ...s.predicate, changeDigest: { sha256: '0'.repeat(64) } } }),
    }),
    ['approval-stale'],
  ));
test('dated ahead, to be the last word for ever', async () =>
  assert.deepEqual(await approved(lee, { issuedAt: '2100-01-01T00:00:00.000Z' }), ['approval-from-the-future']));
