import { breakGlassNow, settleUses } from '../gate/index.ts';
import { type Control, type ControlAnswer, createServiceApp, listenForCommands, type Receiver } from '../http/index.ts';
import { type AnchorKeeper, type Forgotten, forgetOn } from '../ledger/index.ts';
import { CountersignError, parseHost } from '../model/index.ts';
import { makeSocket, readSecret } from '../open/index.ts';
import type { Reconciler } from '../reconcile/index.ts';
import { signOffOf } from '../report/index.ts';
import type { ScheduledReports } from '../schedule/index.ts';
import type { AdmissionFront } from './admission-front.ts';
import { hasAnchorOutside } from './ledger.ts';
import type { LedgerPauses } from './ledger-pauses.ts';
import type { LedgerStanding, Serving } from './open-serving.ts';
import type { ServeOptions } from './options.ts';
import type { ProbeServer } from './probe-server.ts';
import { archiveInPause, epochInPause, rotateInPause } from './renew-ledger.ts';
import { runScheduled } from './reports.ts';

/** Serves probes, metrics and receivers if `--http` is given. */
export function openHttp(
  loops: readonly Reconciler[],
  serving: Serving<ServeOptions>,
  front: AdmissionFront | undefined,
  probes: ProbeServer | undefined,
): void {
  const { configuration, options, log, metrics, closing, ledgerStanding } = serving;
  const receivers = configuration.environments.flatMap(({ metadata: { name }, spec: { source } }): Receiver[] => {
    if (source.receiver === undefined) return [];
    const { from, secretFile } = source.receiver;
    const secret = () => readSecret(secretFile, 'secret', 'configure the same secret in the forge');
    secret(); // an unreadable file is reported at the start
    return [{ environment: name, from, secret, poke: () => loops.find((l) => l.name === name)?.poke() }];
  });
  if (probes === undefined) {
    if (receivers.length > 0)
      throw new CountersignError(
        'usage',
        `\`${receivers[0]?.environment}\` has a receiver, but nothing listens for it`,
        {
          hint: 'use --http HOST:PORT',
        },
      );
    return;
  }
  const notReady = () =>
    (front !== undefined && !front.ready ? 'the admission webhook decides nothing yet' : undefined) ??
    configuration.environments
      .map(({ metadata: { name } }) => ({ name, problem: front?.rules(name)?.holdsBack }))
      .flatMap(({ name, problem }) => (problem === undefined ? [] : [`the rules of \`${name}\`: ${problem}`]))[0] ??
    loops.find((l) => l.status.looked === '' && l.status.state !== 'suspended' && l.status.state !== 'standby')?.status
      .message;
  const names = options.httpName.map(hostName);
  closing.push(
    probes.show(
      createServiceApp({ notReady, ledger: () => sentenceOf(ledgerStanding()), metrics, receivers, names, log }),
    ),
  );
  log.info(
    { http: options.http, receivers: receivers.map((r) => `/receive/${r.environment}`) },
    'probes, metrics and receivers are in place',
  );
}

function sentenceOf({ backlog, isAvailable, sequences, sequencer }: LedgerStanding): string {
  const who = sequences ? 'this replica sequences' : isAvailable ? `${sequencer} sequences` : 'no replica sequences';
  return `ledger: ${backlog === 1 ? '1 record waits' : `${backlog} records wait`}; ${who}`;
}

/** Checks a name given by `--http-name`. Throws `usage`. */
export function hostName(text: string): string {
  const parsed = parseHost(text.toLowerCase());
  if (parsed.kind === 'parsed' && !text.includes(':')) return parsed.value;
  throw new CountersignError('usage', `\`${text.slice(0, 100)}\` is not a host name`, {
    hint: 'give --http-name names without a port',
  });
}

type ControlParts = {
  readonly reports: ScheduledReports | undefined;
  readonly front: AdmissionFront | undefined;
  readonly pauses: LedgerPauses;
  /** Undefined until the anchors were compared. */
  readonly anchors: () => AnchorKeeper | undefined;
};

/** Serves the commands `status`, `explain`, `suspend`, `resume`, `reconcile` and `rollback`. */
export async function openControl(
  loops: readonly Reconciler[],
  serving: Serving,
  { reports, front, pauses, anchors }: ControlParts,
): Promise<void> {
  const { options, closing, recorder, ledger, log, configuration, ledgerStanding } = serving;
  const control: Control = async (command, asked) => {
    const named = asked['environment'];
    if (command === 'status')
      return {
        ok: true,
        result: loops
          .filter((l) => named === undefined || l.name === named)
          .map((l) => ({
            ...l.status,
            breakGlass: breakGlassNow(recorder, front, l.name, new Date().toISOString()),
            ledger: ledgerStanding(),
            rulesMissing: front?.rules(l.name)?.missing,
          })),
      };
    if (command === 'report-run') return runScheduled(reports, asked);
    if (command === 'report-issued') return reportIssued(asked, recorder, log);
    if (command === 'report-sign-off') return reportReviewed(asked, recorder, log);
    if (command === 'troubles') return { ok: true, result: troublesOf(serving, anchors()) };
    if (command === 'rotate-key') return rotateInPause(asked, serving, pauses);
    if (command === 'new-epoch') return epochInPause(asked, serving, pauses);
    if (command === 'archive') return archiveInPause(asked, serving, pauses);
    if (command === 'forget') return forget(asked, ledger, options, log);
    if (command === 'assign-exception') return assignException(asked, recorder, log);
    if (command === 'settle-exception') return settleException(asked, recorder, log);
    const loop = loops.find((l) => l.name === named);
    if (loop === undefined)
      throw new CountersignError('usage', `this service does not run the environment \`${String(named)}\``);
    if (command !== 'suspend' && command !== 'resume' && loop.status.state === 'standby')
      throw new CountersignError('usage', `another replica runs \`${loop.name}\`: ${loop.status.message}`, {
        hint: 'ask that one',
      });
    const { user, reason } = { user: String(asked['user'] ?? ''), reason: String(asked['reason'] ?? '') };
    if (user === '' || reason === '')
      throw new CountersignError('usage', 'a reason is needed', { hint: 'give it with --reason' });
    log.warn({ environment: loop.name, command, user, reason }, 'requested by a user');
    const base = { environment: loop.name, user: recorder.subject(user), reason };
    switch (command) {
      case 'suspend':
      case 'resume':
        await recorder.record(
          { type: command === 'suspend' ? 'environment.suspended' : 'environment.resumed', ...base },
          [],
        );
        loop.poke();
        return { ok: true, result: loop.status };
      case 'reconcile':
        await recorder.record({ type: 'reconcile.requested', ...base }, []);
        return looked(loop);
      case 'restore':
        await recorder.record({ type: 'reconcile.requested', ...base }, []);
        return restored(loop);
      case 'settle': {
        const commit = typeof asked['commit'] === 'string' ? asked['commit'] : undefined;
        const uses = Array.isArray(asked['uses']) ? asked['uses'].map(Number) : [];
        const { settle } =
          configuration.environments.find((e) => e.metadata.name === loop.name)?.spec.admission.breakGlass ?? {};
        const byAnyone = settle === 'anyone';
        const body = await settleUses(recorder, { ...base, uses, commit, byAnyone }, (ref) => loop.isAsGit(ref));
        await recorder.record(body, []);
        return { ok: true, result: body };
      }
      case 'rollback':
        return rolledBack(loop, String(asked['to'] ?? ''), { user, reason });
      default:
        throw new CountersignError('usage', `unknown command \`${command}\``);
    }
  };
  const socket = makeSocket(options.data, closing);
  // The answer to work on the ledger comes after the pause for it.
  const outlives = (command: string) => ['rotate-key', 'new-epoch', 'archive'].includes(command);
  closing.push(await listenForCommands(socket, control, outlives));
}

// Lists problems that `status` shows besides the state of the environments.
function troublesOf(
  { clock, ledger, options, versions }: Serving,
  anchors: AnchorKeeper | undefined,
): readonly string[] {
  const clockTrouble = clock.trouble(ledger);
  const { anchor = [], data } = options as ServeOptions;
  return [
    ...(clockTrouble === undefined ? [] : [clockTrouble]),
    ...versions.troubles,
    ...(hasAnchorOutside(anchor, data) ? [] : ['there is no anchor outside of the data directory (--anchor)']),
    ...(anchors?.unreached ?? []).map(
      ({ name, since, reason }) => `the anchor ${name} cannot be reached since ${since}: ${reason}`,
    ),
  ];
}

// Exceptions may concern all environments (an outage), or environments this replica does not run.
function aboutException(text: (key: string) => string, recorder: Serving['recorder']) {
  const [user, exception, reason] = [text('user'), text('exception'), text('reason')];
  if (user === '' || reason === '')
    throw new CountersignError('usage', 'a reason is needed', { hint: 'give it with --reason' });
  if (recorder.entry(Number.parseInt(exception.slice(1), 10)) === undefined)
    throw new CountersignError('usage', `there is no exception \`${exception}\``);
  return { environment: text('environment'), exception, user: recorder.subject(user), reason };
}

async function assignException(
  asked: Asked,
  recorder: Serving['recorder'],
  log: Serving['log'],
): Promise<ControlAnswer> {
  const text = textsOf(asked);
  if (text('owner') === '')
    throw new CountersignError('usage', 'an owner is needed', { hint: 'name the owner with --to' });
  const body = {
    type: 'exception.assigned',
    ...aboutException(text, recorder),
    owner: recorder.subject(text('owner')),
  } as const;
  await recorder.record(body, []);
  log.info({ exception: body.exception, user: text('user') }, 'an exception was assigned');
  return { ok: true, result: body };
}

async function settleException(
  asked: Asked,
  recorder: Serving['recorder'],
  log: Serving['log'],
): Promise<ControlAnswer> {
  const text = textsOf(asked);
  const disposition = text('disposition');
  if (disposition !== 'accepted' && disposition !== 'remediated' && disposition !== 'false-positive')
    throw new CountersignError('usage', `\`${disposition}\` is not a disposition`);
  const body = {
    type: 'exception.settled',
    ...aboutException(text, recorder),
    disposition,
    ...(text('ticket') === '' ? {} : { ticket: text('ticket') }),
    ...(text('link') === '' ? {} : { link: text('link') }),
  } as const;
  await recorder.record(body, []);
  log.warn({ exception: body.exception, disposition, user: text('user') }, 'an exception was settled');
  return { ok: true, result: body };
}

// The command has already checked open exceptions about the person, and the approval; it may also erase without this
// service.
async function forget(
  asked: Asked,
  ledger: Serving['ledger'],
  options: Serving['options'],
  log: Serving['log'],
): Promise<ControlAnswer> {
  const { texts, user, ...forgotten } = asked;
  const isTexts = (value: unknown): value is string[] =>
    Array.isArray(value) && value.every((v) => typeof v === 'string' && v !== '');
  if (!isTexts(texts) || texts.length === 0 || typeof user !== 'string')
    throw new CountersignError('usage', 'texts are needed');
  const erased = await forgetOn(ledger, texts, forgotten as Forgotten, user, options.ledger);
  log.warn({ erased }, 'personal texts were erased, as recorded on the ledger');
  return { ok: true, result: { erased } };
}

async function reportIssued(asked: Asked, recorder: Serving['recorder'], log: Serving['log']): Promise<ControlAnswer> {
  const text = textsOf(asked);
  const [from, to, report] = [text('from'), text('to'), text('report')];
  const before = recorder.all('report.issued', '').findLast(({ entry }) => entry.from === from && entry.to === to);
  const { seed, size } = (
    typeof asked['sample'] === 'object' && asked['sample'] !== null ? asked['sample'] : {}
  ) as Record<string, unknown>;
  const body = {
    type: 'report.issued',
    report,
    from,
    to,
    manifest: text('manifest'),
    checkpoint: Number(asked['checkpoint']),
    ...(typeof seed === 'string' ? { sample: { seed, size: Number(size) } } : {}),
    ...(before === undefined ? {} : { supersedes: before.index }),
  } as const;
  await recorder.record(body, []);
  log.info({ report, from, to }, 'a report was made');
  return { ok: true, result: body };
}

async function reportReviewed(
  asked: Asked,
  recorder: Serving['recorder'],
  log: Serving['log'],
): Promise<ControlAnswer> {
  const text = textsOf(asked);
  const given = signOffOf({ report: text('report'), name: text('name'), role: text('role'), remarks: text('remarks') });
  if (!recorder.all('report.issued', '').some(({ entry }) => entry.report === given.report))
    throw new CountersignError('usage', `there is no report \`${given.report}\` on the ledger`);
  const [name, user] = [recorder.subject(given.name), recorder.subject(text('user'))];
  await recorder.record({ type: 'report.reviewed', ...given, name, user }, []);
  log.info({ report: given.report, user: text('user') }, 'a report was signed off');
  return { ok: true, result: given };
}

type Asked = Parameters<Control>[1];

function textsOf(asked: Asked): (key: string) => string {
  return (key) => (typeof asked[key] === 'string' ? asked[key] : '');
}

const LOOK_MS = 60_000;

// Answers after the next check of the environment, so that the answer contains its result.
async function looked(loop: Reconciler): Promise<ControlAnswer> {
  const before = loop.status.at;
  const begun = loop.status.looked;
  loop.poke();
  for (const end = Date.now() + LOOK_MS; Date.now() < end; ) {
    await new Promise((done) => setTimeout(done, 50));
    const { looked: at, state, at: said } = loop.status;
    if (at !== begun && state !== 'applying' && (said !== before || Date.parse(at) < Date.now() - 1000)) break;
  }
  const { status } = loop;
  return { ok: status.state === 'applied', result: status };
}

async function restored(loop: Reconciler): Promise<ControlAnswer> {
  const begun = performance.now();
  const applied = await loop.restoreAll();
  return {
    ok: applied.outcome === 'applied',
    result: { ...applied, seconds: (performance.now() - begun) / 1000, status: loop.status },
  };
}

async function rolledBack(loop: Reconciler, to: string, by: { user: string; reason: string }): Promise<ControlAnswer> {
  if (!/^[0-9a-f]{7,64}$/.test(to))
    throw new CountersignError('usage', `\`${to}\` is not a revision`, { hint: 'give at least seven hex digits' });
  const applied = await loop.rollBack(to, by);
  return { ok: applied.outcome === 'applied', result: { ...applied, status: loop.status } };
}
