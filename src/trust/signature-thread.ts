import { parentPort, workerData } from 'node:worker_threads';
import type { SignatureFact } from '../model/index.ts';
import type { ThreadData } from './examine-history.ts';
import { examineSignature } from './examine-signature.ts';
import type { SignatureAnswer, SignatureBatch } from './signature-threads.ts';
import { openTrustStore } from './trust-store.ts';

// Code of one thread: the same keys, read once, and the same function as everywhere else.
const store = await openTrustStore((workerData as ThreadData).policy);

parentPort?.on('message', async (batch: SignatureBatch) => {
  const facts: SignatureFact[] = [];
  let at = 0;
  for (const [i, length] of batch.lengths.entries()) {
    facts.push(await examineSignature(store, batch.bytes.subarray(at, at + length), batch.signatures[i]));
    at += length;
  }
  parentPort?.postMessage({ id: batch.id, facts } satisfies SignatureAnswer);
});
