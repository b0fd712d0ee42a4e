import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackStage } from '../kit/attack.ts';

// What is approved is a tree.
const { lee, approved } = attackStage();
const other = '1'.repeat(40);

test('another tree under the same commit', async () =>
  assert.deepEqual(
    await approved(lee, { statement: (s) => ({ ...s, predicate: { ...s.predicate, targetID: other } }) }),
    ['approval-unreadable'],
  ));
test('another tree, told consistently', async () =>
  assert.deepEqual(
    await approved(lee, {
      statement: (s) => ({
        ...s,
        subject: s.subject.map((x) => ({ ...x, digest: { ...x.digest, gitTree: other } })),
        predicate: { ...s.predicate, targetID: other },
      }),
    }),
    ['approval-stale'],
  ));
test('content that was changed after signing', async () =>
  assert.deepEqual(await approved(lee, { payload: (p) => Buffer.from(p.toString().replace('reviewed', 'approved')) }), [
    'bad-signature',
  ]));
test('more than one statement in an envelope, or more in a statement', async () =>
  assert.deepEqual(await approved(lee, { statement: (s) => ({ ...s, extra: 1 }) as typeof s }), [
    'approval-unreadable',
  ]));
