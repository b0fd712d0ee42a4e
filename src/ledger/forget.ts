import type { EntryBody } from '../model/index.ts';
import { type Ledger, ledgerFile } from './ledger.ts';
import { eraseSharedSubjects, eraseSubjects } from './subjects.ts';

/** Fields of the entry, except who asked for the erasure. */
export type Forgotten = Omit<Extract<EntryBody, { type: 'subject.forgotten' }>, 'type' | 'claimedBy'>;

/** Records an erasure, then erases. Returns how many commitments can no longer be opened. */
export async function forgetOn(
  ledger: Pick<Ledger, 'record' | 'subject' | 'file'>,
  texts: readonly string[],
  forgotten: Forgotten,
  user: string,
  postgres: string | undefined,
): Promise<number> {
  await ledger.record({ type: 'subject.forgotten', claimedBy: ledger.subject(user), ...forgotten });
  // If replicas share a database, it is erased there; their copies follow within a minute.
  return postgres === undefined ? eraseSubjects(ledgerFile(ledger.file), texts) : eraseSharedSubjects(postgres, texts);
}
