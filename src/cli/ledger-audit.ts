import { AuditAccount, type LedgerView, type Recorder, type Unmatched, viewOf } from '../gate/index.ts';
import { evidenceRef } from '../ledger/index.ts';
import { CountersignError, count } from '../model/index.ts';
import { type LedgerOptions, openConfiguration, openOwnLedger, readLedger, recorderOf } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import { auditEvents } from './audit-log.ts';
import type { LedgerAuditOptions } from './ledger-commands.ts';

/**
 * Implements `countersign ledger audit FILE…`: compares the API server's audit log with the ledger. Every write to a
 * governed namespace is accounted for, or listed.
 */
export async function ledgerAudit(files: readonly string[], options: LedgerAuditOptions, io: Io): Promise<number> {
  const { environments } = openConfiguration(options);
  const opened = options.record ? await openToRecord(options) : openToRead(options.data);
  try {
    const account = new AuditAccount(
      environments.map((environment) => ({ environment, applier: options.applier })),
      opened.ledger,
    );
    let events = 0;
    let unmatched = 0;
    for await (const batch of auditEvents(files)) {
      events += batch.length;
      for (const one of await taken(account, batch)) {
        unmatched++;
        tell(one, options, io);
      }
    }
    await account.settle();
    if (options.output === 'text')
      io.out(
        unmatched === 0
          ? `${paint(io, 'green', 'accounted for')}: every write among ${count(events, 'event')}\n`
          : `${paint(io, 'red', 'not accounted for')}: ${count(unmatched, 'write')} among ${count(events, 'event')}\n`,
      );
    return unmatched === 0 ? EXIT.yes : EXIT.no;
  } finally {
    await opened.close();
  }
}

type Opened = { readonly ledger: LedgerView & Recorder; readonly close: () => void | Promise<void> };

// Writes nothing: records are only reported.
function openToRead(data: string): Opened {
  const reader = readLedger(data);
  const record: Recorder['record'] = async (body) => ({ index: -1, entry: { v: 1, time: '', ...body } });
  return {
    ledger: { ...viewOf(reader), record, asEvidence: evidenceRef, subject: (text) => text },
    close: () => reader.close(),
  };
}

async function openToRecord(options: LedgerOptions): Promise<Opened> {
  const ledger = await openOwnLedger(options);
  return { ledger: recorderOf(ledger), close: () => ledger.close() };
}

async function taken(account: AuditAccount, batch: readonly unknown[]): Promise<readonly Unmatched[]> {
  try {
    return await account.take(batch);
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new CountersignError('usage', cause.message, { cause, hint: 'give the API server’s audit log, in JSON' });
  }
}

function tell({ environment, write }: Unmatched, { output }: LedgerAuditOptions, io: Io): void {
  if (output === 'jsonl') {
    io.out(`${JSON.stringify({ environment, ...write })}\n`);
    return;
  }
  const { received, user, verb, resource, subresource, namespace, name } = write;
  const at = Number.isFinite(received)
    ? new Date(received).toISOString().slice(0, 19).replace('T', ' ')
    : 'at an unknown time';
  io.out(
    `${at}  ${paint(io, 'red', verb)} ` +
      `${plain(`${resource}${subresource === '' ? '' : `/${subresource}`} ${namespace}/${name}`)}\n` +
      `    by ${plain(user)} in ${environment}\n`,
  );
}
