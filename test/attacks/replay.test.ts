import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackStage } from '../kit/attack.ts';

// A commit carries no context; an approval does, and is refused anywhere else.
const { lee, approved } = attackStage();

test('the control: a plain approval counts', async () => assert.deepEqual(await approved(lee), []));
test('to another repository', async () =>
  assert.deepEqual(await approved(lee, { repository: 'https://git.example.test/other.git' }), ['approval-elsewhere']));
test('to another branch, put where it does not belong', async () =>
  assert.deepEqual(
    await approved(lee, {
      statement: (s) => ({ ...s, predicate: { ...s.predicate, targetRef: 'refs/heads/staging' } }),
    }),
    ['approval-elsewhere'],
  ));
test('to another environment', async () =>
  assert.deepEqual(await approved(lee, { environments: ['staging'] }), ['approval-elsewhere']));
test('for this environment', async () => assert.deepEqual(await approved(lee, { environments: ['production'] }), []));
test('of a commit’s signature as an approval’s', async () =>
  assert.deepEqual(await approved(lee, { payload: () => Buffer.from('{}') }), ['bad-signature']));
