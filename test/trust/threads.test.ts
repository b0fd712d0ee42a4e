import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { sshSigner, writeHistory } from '../../bench/kit/signed-history.ts';
import { NativeRepository, sourceRepository } from '../../src/git/index.ts';
import { NO_REVISION, trustPolicySchema } from '../../src/model/index.ts';
import { examineHistory, KnownHistory, openTrustStore } from '../../src/trust/index.ts';
import { SignatureThreads } from '../../src/trust/signature-threads.ts';
import { scratch } from '../kit/scratch.ts';

const signer = sshSigner();
const bare = join(scratch(), 'history');
const ids = await writeHistory(bare, 2600, signer.sign, 10);
const policy = trustPolicySchema.parse({
  apiVersion: 'countersign.dev/v1alpha1',
  kind: 'TrustPolicy',
  metadata: { name: 'team' },
  spec: {
    principals: [{ name: 'dana', keys: [{ ssh: signer.line }] }],
    rules: [{ name: 'r', signers: ['dana'], approvals: { required: 0 } }],
  },
});
const store = await openTrustStore(policy);

test('threads beside this one find what it finds alone, in the same order', async () => {
  const repository = new NativeRepository(bare, { file: 'git', path: process.env['PATH'] ?? '' });
  const source = sourceRepository(repository);
  const examine = (threads: number) =>
    Array.fromAsync(
      examineHistory(
        { ids: source.commitIds, read: source.commits },
        { from: NO_REVISION, to: ids.at(-1) ?? '' },
        store,
        { threads },
      ),
    );
  const [alone, together] = [await examine(0), await examine(2)];
  assert.deepEqual(together, alone);
  assert.deepEqual(
    alone.map((e) => (e.kind === 'facts' ? e.facts.id : '')),
    ids,
  );
  assert.ok(alone.every((e) => e.kind === 'facts' && e.facts.signature.kind === 'good'));
  repository.close();
});

test('a thread that dies fails what it was asked, and nothing counts as examined', async () => {
  const unusable = {
    ...policy,
    spec: { ...policy.spec, principals: [{ ...policy.spec.principals[0], keys: [{ ssh: 'ssh-ed25519 AAAA' }] }] },
  } as typeof policy;
  const threads = new SignatureThreads(unusable, 1);
  const question = threads.examine([{ payload: new Uint8Array(1), signature: 'x' }]);
  await assert.rejects(question, { code: 'signatures-not-examined' });
  await assert.rejects(threads.examine([]), { code: 'signatures-not-examined' });
  await threads.close();
});

test('a history is known under the same keys and from the same start only', async () => {
  const known = new KnownHistory();
  known.keep(store, { from: 'a', to: 'b' }, []);
  assert.equal(known.last(store, 'a')?.to, 'b');
  assert.equal(known.last(store, 'x'), undefined);
  assert.equal(known.last({ ...store, digest: 'other' }, 'a'), undefined);
});
