import { hostname, userInfo } from 'node:os';
import { type BreakGlassNow, breakGlassNow, viewOf } from '../gate/index.ts';
import type { ControlAnswer } from '../http/index.ts';
import type { LedgerReader } from '../ledger/index.ts';
import {
  CountersignError,
  type EntryBody,
  type EntryOf,
  isNoRevision,
  type Recorded,
  type Verdict,
} from '../model/index.ts';
import { askService, environmentsOf, type LedgerOptions, openOwnLedger, readLedger } from '../open/index.ts';
import type { ReconcilerStatus } from '../reconcile/index.ts';
import type { LedgerStanding } from '../serve/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type { ReconcileOptions, RollbackOptions, StatusOptions } from './operate-commands.ts';
import { showWait } from './show-wait.ts';

export type OperateOptions = { data: string; reason: string; output: 'text' | 'json' };

/** Implements `countersign suspend|resume ENVIRONMENT`, also while no service runs. */
export async function suspendOrResume(
  command: 'suspend' | 'resume',
  environment: string,
  options: OperateOptions,
  io: Io,
): Promise<number> {
  const answer = await ask(command, environment, options);
  if (answer === undefined) await recordAlone(command, environment, options);
  const done = command === 'suspend' ? 'suspended: nothing is applied and no drift is reverted' : 'resumed';
  if (options.output === 'json')
    io.out(`${JSON.stringify({ environment, command, running: answer !== undefined }, null, 2)}\n`);
  else io.out(`\`${environment}\` is ${done}${answer === undefined ? ' once the service runs again' : ''}\n`);
  return EXIT.yes;
}

/** Implements `countersign reconcile ENVIRONMENT`: checks now, or writes everything again, and prints the result. */
export async function reconcile(environment: string, options: ReconcileOptions, io: Io): Promise<number> {
  const answer = running(
    await showWait(
      io,
      `${environment}: ${options.fromScratch ? 'every object is written again' : 'fetching and reconciling'}`,
      ask(options.fromScratch ? 'restore' : 'reconcile', environment, options),
      () => standing(environment, options.data),
    ),
    options.data,
  );
  if (options.fromScratch) {
    const { outcome, applied, seconds, error } = answer.result as {
      outcome: string;
      applied: number;
      seconds: number;
      error?: string;
    };
    if (options.output === 'json') io.out(`${JSON.stringify(answer.result, null, 2)}\n`);
    else if (answer.ok) io.out(`restored \`${environment}\`: ${applied} objects in ${seconds.toFixed(1)} s\n`);
    else io.out(`cannot restore \`${environment}\`: ${plain(error ?? outcome)}\n`);
  } else show([answer.result as ReconcilerStatus], options.output, io);
  return answer.ok ? EXIT.yes : EXIT.no;
}

/**
 * Implements `countersign rollback ENVIRONMENT --to REVISION`: goes back to an earlier good revision after the same
 * checks, and prints how to bring Git in line.
 */
export async function rollback(environment: string, options: RollbackOptions, io: Io): Promise<number> {
  const answer = running(
    await showWait(
      io,
      `${environment}: going back to ${options.to}`,
      ask('rollback', environment, options, { to: options.to }),
      () => standing(environment, options.data),
    ),
    options.data,
  );
  const result = answer.result as { outcome: string; error?: string; status: ReconcilerStatus };
  if (options.output === 'json') io.out(`${JSON.stringify(answer.result, null, 2)}\n`);
  else if (!answer.ok)
    io.out(`\`${environment}\` stays at its revision (${result.outcome}): ${plain(result.error ?? '')}\n`);
  else {
    const { revision, tip } = result.status;
    io.out(`\`${environment}\` is at ${revision.slice(0, 12)}, and stays there until a commit changes its objects\n`);
    io.out(
      `Git still has ${tip.slice(0, 12)}. To bring it in line:\n  git revert --no-edit ` +
        `${revision.slice(0, 12)}..${tip.slice(0, 12)}\n  countersign ` +
        'approve HEAD    # done by someone else; then push\n',
    );
  }
  return answer.ok ? EXIT.yes : EXIT.no;
}

/** Implements `countersign status`: an overview of every environment; exit code 1 if one differs from Git. */
export async function status(options: StatusOptions, io: Io): Promise<number> {
  const asked = options.environment === undefined ? {} : { environment: options.environment };
  const answer = await askService(options.data, 'status', asked);
  const all = answer === undefined ? fromLedger(options) : (answer.result as Shown[]);
  if (all.length === 0)
    throw options.environment === undefined
      ? new CountersignError('usage', 'the ledger names no environment yet', {
          hint: 'start the service with its configuration: `countersign serve --config DIR`',
        })
      : new CountersignError('usage', `there is no environment \`${options.environment}\``);
  if (answer === undefined) io.err('no service runs on this data directory: this is the state on its ledger\n');
  show(all, options.output, io);
  const troubles = answer === undefined ? [] : await troublesOf(options.data);
  for (const trouble of troubles) {
    const line = `${paint(io, 'yellow', 'note')}: ${plain(trouble)}\n`;
    if (options.output === 'text') io.out(line);
    else io.err(line);
  }
  return answer !== undefined && all.every((s) => s.state === 'applied' && unhealthy(s) === 0) ? EXIT.yes : EXIT.no;
}

// A service of an older version does not know the question.
async function troublesOf(data: string): Promise<readonly string[]> {
  const answer = await askService(data, 'troubles', {}).catch((thrown: unknown) => {
    if (thrown instanceof CountersignError && thrown.code === 'usage') return undefined;
    throw thrown;
  });
  return (answer?.result as readonly string[] | undefined) ?? [];
}

/** A status, with break-glass that is open or waits for review. */
type Shown = ReconcilerStatus & {
  readonly breakGlass?: BreakGlassNow;
  /** Why this replica cannot judge requests by the rules in force. */
  readonly rulesMissing?: string;
  readonly ledger?: LedgerStanding;
};

function show(all: readonly Shown[], output: 'text' | 'json', io: Io): void {
  if (output === 'json') {
    io.out(`${JSON.stringify(all, null, 2)}\n`);
    return;
  }
  const width = Math.max(11, ...all.map((s) => s.environment.length));
  io.out(`${'ENVIRONMENT'.padEnd(width)}  STATE      REVISION      HEALTHY   LOOKED\n`);
  for (const s of all) {
    const { current, progressing, failed, missing } = s.health;
    const good = s.state === 'applied' && unhealthy(s) === 0;
    const state = paint(
      io,
      good ? 'green' : s.state === 'applied' || s.state === 'applying' ? 'yellow' : 'red',
      s.state.padEnd(9),
    );
    const healthy = `${current}/${current + progressing + failed + missing}`;
    io.out(
      `${s.environment.padEnd(width)}  ${state}  ` +
        `${(isNoRevision(s.revision) ? '-' : s.revision.slice(0, 12)).padEnd(12)} ` +
        ` ${healthy.padEnd(8)}  ${ago(s.looked)}\n`,
    );
    if (s.state !== 'applied') io.out(`  ${plain(s.message)}\n`);
    if (s.state === 'denied') io.out(paint(io, 'dim', `  reasons: ${reasonsCommand(s)}\n`));
    for (const trouble of s.health.trouble) io.out(`  ${plain(trouble)}\n`);
    if (s.rulesMissing !== undefined)
      io.out(paint(io, 'red', `  this replica refuses requests that need the rules: ${plain(s.rulesMissing)}\n`));
    for (const { namespaces, until, reason, user } of s.breakGlass?.open ?? [])
      io.out(
        paint(
          io,
          'red',
          `  break-glass is open in ${namespaces.join(', ')} until ${until}, by ${plain(user)}: ${plain(reason)}\n`,
        ),
      );
    const left = s.breakGlass?.unsettled.length ?? 0;
    if (left > 0)
      io.out(
        paint(
          io,
          'yellow',
          `  ${left} ${left === 1 ? 'use' : 'uses'} of break-glass to settle: countersign break-glass list\n`,
        ),
      );
  }
  showLedger(all[0]?.ledger, io);
}

// Nothing is said of a ledger without trouble that one process writes.
function showLedger(ledger: LedgerStanding | undefined, io: Io): void {
  if (ledger === undefined || (ledger.replica === undefined && ledger.backlog === 0)) return;
  const { backlog, isAvailable, sequences, replica = '', sequencer = '' } = ledger;
  const who = sequences ? 'this replica sequences' : `${plain(sequencer)} sequences, this is ${plain(replica)}`;
  const line = `ledger: ${backlog} waiting; ${isAvailable ? who : 'it takes no records: no replica sequences'}\n`;
  io.out(isAvailable ? line : paint(io, 'red', line));
}

// Names the entry if the message does, else the newest verdict of the environment.
function reasonsCommand({ message, environment }: Shown): string {
  const entry = /; entry (\d+)$/.exec(message)?.[1];
  return entry === undefined
    ? `countersign ledger show --type change.judged --environment ${environment} --last 1`
    : `countersign ledger show ${entry}`;
}

function unhealthy({ health }: ReconcilerStatus): number {
  return health.progressing + health.failed + health.missing;
}

function ago(time: string): string {
  if (time === '') return 'never';
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(time)) / 1000));
  return seconds < 120
    ? `${seconds} s ago`
    : seconds < 7200
      ? `${Math.round(seconds / 60)} min ago`
      : `${Math.round(seconds / 3600)} h ago`;
}

// The last recorded state of each environment, if no service can be asked.
function fromLedger(options: StatusOptions): Shown[] {
  const reader = readLedger(options.data);
  try {
    return environmentsOf(reader)
      .filter((e) => options.environment === undefined || e === options.environment)
      .map((environment) => {
        const result = viewOf(reader).latest(['apply.result'], environment);
        const moved = viewOf(reader).latest(['ref.advanced', 'ref.rewound'], environment);
        const judged = viewOf(reader).latest(['change.judged'], environment);
        const isDenied = judged?.entry.outcome === 'denied' && judged.index > (result?.index ?? -1);
        return {
          environment,
          revision: result?.entry.revision ?? '',
          tip: moved?.entry.after ?? '',
          state: isDenied ? 'denied' : 'waiting',
          message: isDenied ? denial(judged, reader) : 'the service is not running',
          at: result?.entry.time ?? '',
          looked: result?.entry.time ?? '',
          next: '',
          health: { current: 0, progressing: 0, failed: 0, missing: 0, trouble: [] },
          breakGlass: breakGlassNow(viewOf(reader), undefined, environment, new Date().toISOString()),
        };
      });
  } finally {
    reader.close();
  }
}

function denial({ index, entry }: Recorded<EntryOf<'change.judged'>>, reader: LedgerReader): string {
  const { violations } = reader.evidence(entry.evidence) as Verdict;
  const more = violations.length > 1 ? ` (and ${violations.length - 1} more)` : '';
  return `${entry.to.slice(0, 12)}: ${violations[0]?.message ?? ''}${more}; entry ${index}`;
}

// The state of an environment in one line, for someone who waits for it.
async function standing(environment: string, data: string): Promise<string | undefined> {
  const answer = await askService(data, 'status', { environment });
  const [status] = (answer?.result ?? []) as readonly ReconcilerStatus[];
  return status === undefined ? undefined : `${environment} is ${status.state}: ${plain(status.message)}`;
}

async function ask(
  command: string,
  environment: string,
  options: OperateOptions,
  more: object = {},
): Promise<ControlAnswer | undefined> {
  if (options.reason.trim() === '')
    throw new CountersignError('usage', 'a reason is needed', { hint: 'give it with --reason' });
  return askService(options.data, command, { environment, reason: options.reason, user: localUser(), ...more });
}

function running(answer: ControlAnswer | undefined, data: string): ControlAnswer {
  if (answer === undefined)
    throw new CountersignError('usage', `no service runs on the data directory \`${data}\``, {
      hint:
        'name it with --data; in a cluster: kubectl exec into the ' +
        'pod. `countersign apply` does one pass without a service',
    });
  return answer;
}

/** Returns the local user name. Nothing better can be known here, and it is recorded as such. */
export function localUser(): string {
  return `${userInfo().username}@${hostname()}`;
}

async function recordAlone(command: 'suspend' | 'resume', environment: string, options: OperateOptions): Promise<void> {
  const reader = readLedger(options.data);
  const known = environmentsOf(reader);
  reader.close();
  if (!known.includes(environment))
    throw new CountersignError('usage', `there is no environment \`${environment}\``, {
      hint: `use one of ${known.join(', ')}`,
    });
  const type = command === 'suspend' ? 'environment.suspended' : 'environment.resumed';
  await recordWithoutService(options, (user) => ({ type, environment, user, reason: options.reason }));
}

/** Records a statement of the local user. While the service is stopped, this process holds the ledger. */
export async function recordWithoutService(
  options: LedgerOptions,
  body: (user: string, subject: (text: string) => string) => EntryBody,
): Promise<void> {
  const ledger = await openOwnLedger(options);
  try {
    await ledger.record(body(ledger.subject(localUser()), (text) => ledger.subject(text)));
  } finally {
    await ledger.close();
  }
}
