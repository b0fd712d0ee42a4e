import { evidenceRef, openLedger } from '../../src/ledger/index.ts';
import type { ObjectRef } from '../../src/model/index.ts';

export const POD: ObjectRef = { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: 'web' };

/** Returns a clock that begins at a time and goes on by a second whenever it is asked. */
export function clockFrom(time: string): () => Date {
  let now = Date.parse(time);
  return () => {
    now += 1000;
    return new Date(now);
  };
}

/** Makes a ledger of 2024: bulky entries, and some that must stay. Returns the indexes of those. */
export async function oldLedger(data: string, rounds = 20): Promise<Readonly<Record<Staying, number>>> {
  const ledger = await openLedger(data, 'countersign.dev/test', { clock: clockFrom('2024-05-01T00:00:00Z') });
  await ledger.record({ type: 'service.started', version: '1', environments: ['production'], configuration: 'c' });
  const refusal = { environment: 'production', operation: 'UPDATE', object: POD, reason: 'not from Git' } as const;
  const user = ledger.subject('dana@example.com');
  const denied = (mode: 'enforce' | 'audit', n: number) =>
    ledger.record({ type: 'admission.denied', ...refusal, user, mode, uid: String(n) });
  const allowed = (requests: readonly unknown[]) => {
    const evidence = evidenceRef(requests);
    const [from, to] = ['2024-05-01T00:00:00.000Z', '2024-05-01T00:00:01.000Z'];
    return ledger.record(
      { type: 'admission.allowed', environment: 'production', from, to, count: 1, evidence: evidence.ref },
      [evidence],
    );
  };
  for (let n = 0; n < rounds; n++) {
    await allowed([{ uid: String(n), user, object: POD, digest: 'a'.repeat(2000) }]);
    await denied('enforce', n);
    await ledger.record({ type: 'heartbeat', everySeconds: 60, environments: [] });
  }
  const { index: excepted } = await denied('enforce', 1000);
  const base = { environment: 'production', exception: `E${excepted}`, user, reason: 'INC-7' };
  await ledger.record({ type: 'exception.assigned', ...base, owner: user });
  const { index: explaining } = await allowed([{ uid: 'drift' }]);
  const details = [{ object: POD, fields: ['/spec'], manager: 'kubectl', at: '', admission: explaining }];
  await ledger.record({ type: 'drift.found', environment: 'production', revision: 'r', objects: [POD], details });
  const shared = evidenceRef([{ uid: '0', user, object: POD, digest: 'a'.repeat(2000) }]);
  const seen = { type: 'commits.seen', environment: 'production', ref: 'refs/heads/main', tip: 't', count: 1 } as const;
  const { index: sharing } = await ledger.record({ ...seen, evidence: shared.ref }, [shared]);
  const { index: audited } = await denied('audit', 1001);
  await allowed([{ uid: 'newest' }]);
  await denied('enforce', 1002);
  const { index: beat } = await ledger.record({ type: 'heartbeat', everySeconds: 60, environments: [] });
  await ledger.close();
  return { excepted, explaining, sharing, audited, beat };
}

type Staying = 'excepted' | 'explaining' | 'sharing' | 'audited' | 'beat';
