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
const sealed = (object: string, more = {}) => ({
  environment: 'production',
  key: KEY,
  object,
  file: 'clusters/production/secrets.yaml',
  revision: 'r1',
  mayMove: false,
  ...more,
});
const bound = (environment = 'production') =>
  recorder.all('secret.bound', environment).map(({ entry }) => entry.object);

test('a data key opens for the objects of the file and revision it is first seen with, each recorded before it is used', async () => {
  const secrets = new SealedSecrets(recorder);
  await secrets.bind(sealed('Secret shop/database'));
  await secrets.bind(sealed('Secret shop/queue'));
  await secrets.bind(sealed('Secret shop/database'));
  assert.deepEqual(bound(), ['Secret shop/database', 'Secret shop/queue']);
  await secrets.bind(sealed('Secret shop/database', { revision: 'r7', file: 'elsewhere.yaml' }));
  assert.equal(bound().length, 2);
});

test('another object is refused: of another file, of a later revision of the same file, in this process and in one that starts later', async () => {
  for (const secrets of [new SealedSecrets(recorder), new SealedSecrets(recorder)])
    for (const more of [{ file: 'clusters/production/mallory.yaml' }, { revision: 'r2' }])
      await assert.rejects(secrets.bind(sealed('Secret mallory/database', more)), {
        code: 'decryption-failed',
        message:
          /Secret mallory\/database cannot be decrypted: its data key was encrypted for Secret shop\/database, Secret shop\/queue/,
      });
  assert.equal(bound().length, 2);
});

test('one that may move is recorded, and the old name goes on: a revert must open it again', async () => {
  const secrets = new SealedSecrets(recorder);
  await secrets.bind(sealed('Secret shop/database-2', { revision: 'r3', mayMove: true }));
  await secrets.bind(sealed('Secret shop/database-2', { revision: 'r4' }));
  await secrets.bind(sealed('Secret shop/database', { revision: 'r5' }));
  assert.equal(bound().length, 3);
});

test('another environment has bindings of its own: one file may be the base of several', async () => {
  const secrets = new SealedSecrets(recorder);
  await secrets.bind(sealed('Secret staging/database', { environment: 'staging', revision: 'r9' }));
  assert.deepEqual(bound('staging'), ['Secret staging/database']);
});

test('two that come at once with one new key are judged one after the other', async () => {
  const secrets = new SealedSecrets(recorder);
  const both = ['shop', 'mallory'].map((name) =>
    secrets.bind(sealed(`Secret ${name}/one`, { key: 'b'.repeat(64), file: `${name}.yaml` })),
  );
  assert.deepEqual(
    (await Promise.allSettled(both)).map((r) => r.status),
    ['fulfilled', 'rejected'],
  );
});

test('a key that cannot be recorded is not used', async () => {
  const away = { ...recorder, record: () => Promise.reject(new Error('the ledger is away')) };
  const secrets = new SealedSecrets(away);
  for (let i = 0; i < 2; i++)
    await assert.rejects(secrets.bind(sealed('Secret shop/x', { key: 'c'.repeat(64) })), {
      message: 'the ledger is away',
    });
});
