import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { SealedSecrets } from '../../src/gate/index.ts';
import { recorderAt } from '../kit/recorder.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const { ledger, recorder } = await recorderAt(join(directory, 'ledger'));
after(() => ledger.close());
const KEY = 'a'.repeat(64);
const sealed = (object: string, more = {}) => ({ environment: 'production', key: KEY, object, together: [], mayMove: false, ...more });

test('a data key opens for the objects it is first seen with, which are recorded before it is used', async () => {
  const secrets = new SealedSecrets(recorder);
  await secrets.bind(sealed('Secret shop/database', { together: ['Secret shop/database', 'Secret shop/queue'] }));
  const recorded = recorder.latest(['secret.bound'], '');
  assert.deepEqual(recorded?.entry.objects, ['Secret shop/database', 'Secret shop/queue']);
  await secrets.bind(sealed('Secret shop/queue'));
  assert.equal(recorder.latest(['secret.bound'], '')?.index, recorded?.index);
});

test('another object is refused, in the same process and in one that starts later', async () => {
  for (const secrets of [new SealedSecrets(recorder), new SealedSecrets(recorder)])
    await assert.rejects(secrets.bind(sealed('Secret mallory/database')), {
      code: 'decryption-failed',
      message: /Secret mallory\/database cannot be decrypted: its data key was encrypted for Secret shop\/database, Secret shop\/queue/,
    });
  assert.equal(recorder.all('secret.bound', '').length, 1);
});

test('one that may move is recorded, and the old name goes on: a revert must open it again', async () => {
  const secrets = new SealedSecrets(recorder);
  await secrets.bind(sealed('Secret shop/database-2', { mayMove: true }));
  await secrets.bind(sealed('Secret shop/database-2'));
  await secrets.bind(sealed('Secret shop/database'));
  assert.equal(recorder.all('secret.bound', '').length, 2);
});

test('two that come at once with one new key are judged one after the other', async () => {
  const secrets = new SealedSecrets(recorder);
  const both = ['Secret shop/one', 'Secret mallory/one'].map((object) => secrets.bind(sealed(object, { key: 'b'.repeat(64) })));
  assert.deepEqual(
    (await Promise.allSettled(both)).map((r) => r.status),
    ['fulfilled', 'rejected'],
  );
});

test('a key that cannot be recorded is not used', async () => {
  const away = { ...recorder, record: () => Promise.reject(new Error('the ledger is away')) };
  const secrets = new SealedSecrets(away);
  await assert.rejects(secrets.bind(sealed('Secret shop/x', { key: 'c'.repeat(64) })), { message: 'the ledger is away' });
  await assert.rejects(secrets.bind(sealed('Secret shop/x', { key: 'c'.repeat(64) })), { message: 'the ledger is away' });
});
