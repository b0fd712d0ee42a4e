import { join } from 'node:path';
import { LEDGER_FILES, type LedgerReader } from '../ledger/index.ts';
import { CountersignError, count, type Entry } from '../model/index.ts';
import { askService, readLedger, readVerifiers } from '../open/index.ts';
import { readInput } from '../publish/index.ts';
import { buildReport, type ExceptionRecord, type ReportModel } from '../report/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type {
  ExceptionAssignOptions,
  ExceptionExplainOptions,
  ExceptionListOptions,
  ExceptionSettleOptions,
} from './exception-commands.ts';
import { localUser, recordWithoutService } from './operate.ts';
import { type DefinitionOptions, defined, periodOf } from './report-definition.ts';

type Where = { data: string; archive?: string | undefined; from?: string; to?: string; output: 'text' | 'json' };

/**
 * Implements `countersign exception list`: the register as a report would have it now. Exit code 0 if nothing is open,
 * 1 otherwise.
 */
export function exceptionList(options: ExceptionListOptions, io: Io): number {
  const { exceptions, asOf } = register(options);
  const wanted = exceptions.filter(
    (e) =>
      (options.all || e.disposition === 'open') &&
      (options.environment === undefined || e.environment === options.environment) &&
      (options.type === undefined || e.type === options.type),
  );
  if (options.output === 'json') io.out(`${JSON.stringify(wanted, null, 2)}\n`);
  else {
    for (const e of wanted) io.out(line(e, io));
    const open = wanted.filter((e) => e.disposition === 'open').length;
    io.out(
      `${count(open, 'exception')} open${options.all ? ` of ${wanted.length}` : ''}, ` +
        `by the ledger as of ${asOf.slice(0, 19)}Z\n`,
    );
    if (open > 0)
      io.out(
        '`countersign exception explain ID` shows one, `settle ID --as OUTCOME --reason "…"` records its outcome\n',
      );
  }
  return wanted.some((e) => e.disposition === 'open') ? EXIT.no : EXIT.yes;
}

/** Implements `countersign exception explain ID`: everything known about an exception, and its entry. */
export function exceptionExplain(id: string, options: ExceptionExplainOptions, io: Io): number {
  const model = register(options);
  const found = named(model, id);
  const change = model.changes.of([found.change])[0];
  const entry = entryAt(options, found.entry);
  if (options.output === 'json') {
    io.out(`${JSON.stringify({ ...found, change: change ?? null, ledger: entry }, null, 2)}\n`);
    return EXIT.yes;
  }
  const rows: readonly (readonly [string, string])[] = [
    ['detected', found.time],
    ['severity', found.severity],
    ['environment', found.environment || 'all'],
    ['object', found.object],
    ['actor', found.actor || 'not known'],
    ['cause', found.cause],
    ['exposed', found.exposed === undefined ? 'unknown' : `${found.exposed} s`],
    ['change', change === undefined ? 'none' : `${change.id}, ${change.to.slice(0, 12)}: ${change.subject}`],
    ['owner', found.owner || 'no one yet'],
    [
      'disposition',
      [found.disposition, found.by && `by ${found.by}`, found.at, found.reason, found.ticket, found.link]
        .filter((t) => t !== '')
        .join(', '),
    ],
    ['entry', `${found.entry}, ${entry?.type ?? 'missing'}: \`countersign ledger show ${found.entry}\``],
  ];
  io.out(`${found.id}  ${found.type}\n`);
  for (const [name, value] of rows) io.out(`  ${name.padEnd(12)} ${plain(value)}\n`);
  return EXIT.yes;
}

/** Implements `countersign exception assign ID`: records who is in charge of it. */
export async function exceptionAssign(id: string, options: ExceptionAssignOptions, io: Io): Promise<number> {
  const { reason, to: owner, data } = options;
  if (reason.trim() === '' || owner.trim() === '')
    throw new CountersignError('usage', 'an owner and a reason are needed');
  const found = named(register({ data, archive: options.archive, output: options.output }), id);
  if (found.disposition === 'prevented')
    throw new CountersignError(
      'usage',
      `${id} was prevented: nothing reached the cluster, so there is nothing to assign`,
    );
  const asked = { environment: found.environment, exception: id, reason };
  const answer = await askService(data, 'assign-exception', { ...asked, owner, user: localUser() });
  if (answer === undefined)
    await recordWithoutService(options, (user, subject) => ({
      type: 'exception.assigned',
      ...asked,
      owner: subject(owner),
      user,
    }));
  if (options.output === 'json') io.out(`${JSON.stringify({ ...asked, owner }, null, 2)}\n`);
  else io.out(`${id} (${found.type}) is assigned to ${plain(owner)}: ${plain(reason)}\n`);
  return EXIT.yes;
}

/** Implements `countersign exception settle ID`: records its outcome, and who states it. */
export async function exceptionSettle(id: string, options: ExceptionSettleOptions, io: Io): Promise<number> {
  if (options.reason.trim() === '')
    throw new CountersignError('usage', 'a reason is needed', { hint: 'give it with --reason' });
  const found = named(register(options), id);
  if (found.disposition === 'prevented')
    throw new CountersignError(
      'usage',
      `${id} was prevented: nothing reached the cluster, so there is nothing to settle`,
    );
  if ((found.type === 'break-glass' || found.type === 'late-emergency-review') && found.disposition === 'open')
    throw new CountersignError('usage', `${id} is break-glass, which is settled by its review`, {
      hint: `run \`countersign break-glass settle ${found.environment} --commit COMMIT\` or \`--reverted\``,
    });
  const { as: disposition, reason, ticket, link } = options;
  const asked = {
    environment: found.environment,
    exception: id,
    disposition,
    reason,
    ...(ticket === undefined ? {} : { ticket }),
    ...(link === undefined ? {} : { link }),
  };
  const answer = await askService(options.data, 'settle-exception', { ...asked, user: localUser() });
  if (answer === undefined)
    await recordWithoutService(options, (user) => ({ type: 'exception.settled', ...asked, user }));
  if (options.output === 'json') io.out(`${JSON.stringify(asked, null, 2)}\n`);
  else io.out(`${id} (${found.type}) is ${disposition}: ${plain(reason)}\n`);
  return EXIT.yes;
}

const PLAIN: DefinitionOptions = {
  classification: '',
  framework: [],
  sample: '1',
  failureHours: '24',
  reviewHours: '72',
};

function register(options: Where): ReportModel {
  const reader = readLedger(options.data, options.archive);
  try {
    const origin = readVerifiers(join(options.data, LEDGER_FILES.verifier))[0]?.name ?? '';
    return buildReport(
      readInput(reader, { ...periodOf(options), origin, definition: { ...defined(PLAIN), entity: origin } }),
    );
  } finally {
    reader.close();
  }
}

/** Returns open exceptions that name a text: as their actor, or in their entry. */
export function openExceptionsOf(
  texts: readonly string[],
  reader: LedgerReader,
  { data, archive }: Pick<Where, 'data' | 'archive'>,
): readonly string[] {
  const { exceptions } = register({ data, archive, output: 'json' });
  const isNamed = ({ actor, entry }: ExceptionRecord) =>
    texts.some((text) => {
      const behind = reader.search({ from: entry, to: entry + 1, holds: [{ text, as: 'value' }] });
      return actor === text || behind.next().done === false;
    });
  return exceptions.filter((e) => e.disposition === 'open' && isNamed(e)).map((e) => e.id);
}

function entryAt({ data, archive }: Pick<Where, 'data' | 'archive'>, index: number): Entry | undefined {
  const reader = readLedger(data, archive);
  try {
    return reader.entry(index)?.entry;
  } finally {
    reader.close();
  }
}

function named(model: ReportModel, id: string): ExceptionRecord {
  const found = model.exceptions.find((e) => e.id === id);
  if (found !== undefined) return found;
  throw new CountersignError('usage', `there is no exception \`${plain(id)}\``, {
    hint: '`countersign exception list --all` shows the existing ones',
  });
}

function line(e: ExceptionRecord, io: Io): string {
  const colour =
    e.disposition === 'open' ? (e.severity === 'critical' || e.severity === 'high' ? 'red' : 'yellow') : 'green';
  const where = [e.environment, e.object].filter((t) => t !== '').join(' ');
  return (
    `${e.id.padEnd(8)} ${e.time.slice(0, 19)}Z  ${paint(io, colour, e.disposition)}  ${e.type} (${e.severity})\n` +
    `         ${plain(where)}${e.actor === '' ? '' : `, by ${plain(e.actor)}`}` +
    `${e.owner === '' ? '' : `; owner ${plain(e.owner)}`}\n` +
    `         ${plain(e.cause)}\n`
  );
}
