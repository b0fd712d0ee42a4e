import { type Answer, type ApiServer, connect } from '../cluster/index.ts';
import type { ProcessSettings } from '../config/index.ts';

import { type BreakGlassStanding, breakGlassStanding, type Grant, viewOf } from '../gate/index.ts';

import { ANNOTATION, CountersignError, parseDuration, refText } from '../model/index.ts';
import { askService, chooseEnvironment, environmentsOf, openConfiguration, readLedger } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type {
  BreakGlassApproveOptions,
  BreakGlassCloseOptions,
  BreakGlassListOptions,
  BreakGlassOpenOptions,
  BreakGlassSettleOptions,
} from './break-glass-commands.ts';
import { localUser } from './operate.ts';

type Where = { namespace?: string[]; environment?: string; config: string[]; kubeconfig?: string; context?: string };

/**
 * Implements `countersign break-glass open`: a grant, as an annotation on the Namespaces; the API server checks who
 * sets it. Needs neither Git nor forge nor ledger. Exit code 0 if it is open, 1 if the gate or the cluster says no, 2
 * if it could not be determined.
 */
export async function breakGlassOpen(
  options: BreakGlassOpenOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const { reason, ticket } = options;
  if (reason.trim() === '' || ticket.trim() === '')
    throw new CountersignError('usage', 'a reason and a ticket are needed', {
      hint: 'give the reason with --reason, and the ticket with --ticket',
    });
  if (parseDuration(options.for) === undefined)
    throw new CountersignError('usage', `\`${options.for}\` is not a duration for --for`, {
      hint: 'give for example 30m or 2h',
    });
  const annotations = {
    [ANNOTATION.breakGlass]: reason,
    [ANNOTATION.breakGlassFor]: options.for,
    [ANNOTATION.breakGlassTicket]: ticket,
  };
  const open = (server: ApiServer, namespace: string) => openOne(server, namespace, annotations);
  return inNamespaces(options, settings, io, open, closeAgain);
}

/**
 * Implements `countersign break-glass approve`: a second person confirms the reason that the Namespaces bear. Exit
 * codes as for `open`.
 */
export function breakGlassApprove(
  options: BreakGlassApproveOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  return inNamespaces(options, settings, io, approveOne);
}

/** Implements `countersign break-glass close`: ends a grant early. */
export function breakGlassClose(options: BreakGlassCloseOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const close = (server: ApiServer, namespace: string) => annotateOne(server, namespace, NONE, /break-glass is closed/);
  return inNamespaces(options, settings, io, close);
}

type Annotations = Readonly<Record<string, string | null>>;

const NONE: Annotations = {
  [ANNOTATION.breakGlass]: null,
  [ANNOTATION.breakGlassFor]: null,
  [ANNOTATION.breakGlassTicket]: null,
  [ANNOTATION.breakGlassApproved]: null,
};

// `undo` is for those that succeeded, if another did not.
async function inNamespaces(
  options: Where & { output: 'text' | 'json' },
  settings: ProcessSettings,
  io: Io,
  act: (server: ApiServer, namespace: string) => Promise<Result>,
  undo?: (server: ApiServer, namespace: string) => Promise<Result>,
): Promise<number> {
  const namespaces =
    options.namespace ?? chooseEnvironment(openConfiguration(options), options.environment).spec.target.namespaces;
  const { server } = await connect({
    kubeconfig: options.kubeconfig ?? settings.kubeconfig,
    context: options.context,
    namedBy: 'operator',
  });
  try {
    const results = [];
    for (const namespace of namespaces) results.push(await act(server, namespace));
    if (undo !== undefined && results.some((r) => !r.ok))
      for (const [i, one] of results.entries()) if (one.ok) results[i] = await undo(server, one.namespace);
    if (options.output === 'json') io.out(`${JSON.stringify(results, null, 2)}\n`);
    else
      for (const { namespace, ok, message } of results)
        io.out(`${ok ? paint(io, 'green', namespace) : paint(io, 'red', namespace)}: ${plain(message)}\n`);
    return results.every((r) => r.ok) ? EXIT.yes : EXIT.no;
  } finally {
    server.close();
  }
}

// All namespaces or none.
async function closeAgain(server: ApiServer, namespace: string): Promise<Result> {
  const { status } = await patchNamespace(server, namespace, NONE);
  return {
    namespace,
    ok: false,
    message:
      status === 200
        ? 'closed again, because not all namespaces could be opened'
        : 'still open, although not all namespaces could be opened: run `countersign break-glass close`',
  };
}

type Result = { readonly namespace: string; readonly ok: boolean; readonly message: string };

function patchNamespace(server: ApiServer, namespace: string, annotations: Annotations): Promise<Answer> {
  const body = { metadata: { annotations } };
  return server.request('PATCH', pathOf(namespace), body, 'application/merge-patch+json');
}

function pathOf(namespace: string): string {
  return `/api/v1/namespaces/${encodeURIComponent(namespace)}`;
}

async function annotationsOn(server: ApiServer, namespace: string): Promise<Annotations> {
  const { body } = await server.request('GET', pathOf(namespace));
  return (body as { metadata?: { annotations?: Annotations } }).metadata?.annotations ?? {};
}

const OPENED = /break-glass is (open|asked for)/;

async function openOne(server: ApiServer, namespace: string, annotations: Annotations): Promise<Result> {
  const opening = { ...NONE, ...annotations };
  const first = await annotateOne(server, namespace, opening, OPENED);
  if (first.ok) return first;
  // An identical reason left from last time must not count today: remove the old annotations first.
  const reason = (await annotationsOn(server, namespace))[ANNOTATION.breakGlass];
  if (reason !== annotations[ANNOTATION.breakGlass]) return first;
  await patchNamespace(server, namespace, NONE);
  const again = await annotateOne(server, namespace, opening, OPENED);
  // Nothing may be left behind.
  if (again.ok || (await patchNamespace(server, namespace, NONE)).status === 200) return again;
  return { ...again, message: `${again.message}. Remove the annotations \`countersign.dev/break-glass*\` from it` };
}

async function approveOne(server: ApiServer, namespace: string): Promise<Result> {
  const reason = (await annotationsOn(server, namespace))[ANNOTATION.breakGlass];
  if (reason === undefined || reason === null)
    return { namespace, ok: false, message: 'no one has opened break-glass there, so there is nothing to approve' };
  const approval = { [ANNOTATION.breakGlassApproved]: reason };
  return annotateOne(server, namespace, approval, /break-glass is approved/);
}

async function annotateOne(
  server: ApiServer,
  namespace: string,
  annotations: Annotations,
  expected: RegExp,
): Promise<Result> {
  const answer = await patchNamespace(server, namespace, annotations);
  const said = answer.warnings.find((w) => expected.test(w));
  if (answer.status === 200 && said !== undefined)
    return { namespace, ok: true, message: said.replace('countersign: ', '') };
  const message =
    answer.status === 200
      ? 'the gate did not answer: check that the namespace is governed and the webhook is in place'
      : String(answer.body['message'] ?? `the API server answered ${answer.status}`);
  return { namespace, ok: false, message };
}

/**
 * Implements `countersign break-glass list`: open grants and uses that wait for review; exit code 1 if there are any.
 */
export function breakGlassList(options: BreakGlassListOptions, io: Io): number {
  const reader = readLedger(options.data);
  try {
    const now = new Date().toISOString();
    const all = environmentsOf(reader)
      .filter((e) => options.environment === undefined || e === options.environment)
      .map((environment) => ({ environment, ...breakGlassStanding(viewOf(reader), environment, now) }));
    if (options.output === 'json') io.out(`${JSON.stringify(all, null, 2)}\n`);
    else for (const one of all) io.out(textOf(one.environment, one, io));
    return all.every((e) => e.open.length === 0 && e.unsettled.length === 0) ? EXIT.yes : EXIT.no;
  } finally {
    reader.close();
  }
}

const isWaiting = ({ approvals, approver }: Grant) => approvals > 0 && approver === undefined;

function textOf(environment: string, { open, unsettled }: BreakGlassStanding, io: Io): string {
  const lines = [
    ...open.map(
      (g) =>
        `  ${paint(io, 'red', isWaiting(g) ? 'asked for' : 'open')} in ${g.namespaces.join(', ')} until ${g.until}, ` +
        `by ${plain(g.user)}: ${plain(g.reason)}${g.ticket === '' ? '' : ` (${plain(g.ticket)})`}` +
        `${isWaiting(g) ? ', waits for `countersign break-glass approve`' : ''}` +
        `${g.approver === undefined ? '' : `, approved by ${plain(g.approver)}`}`,
    ),
    ...unsettled.map(
      (u) =>
        `  ${u.entry}  ${u.at.slice(0, 19)}Z  ${u.operation} ` +
        `${refText(u.object)}${u.subresource === '' ? '' : `/${u.subresource}`}\n` +
        `      by ${plain(u.user)}: ${plain(u.reason)}`,
    ),
  ];
  if (lines.length === 0) return `${environment}: nothing is open or left to settle\n`;
  return `${environment}: ${open.length} open, ${unsettled.length} to settle\n${lines.join('\n')}\n`;
}

/**
 * Implements `countersign break-glass settle`: ends the review of uses, by the commit that brought Git in line or
 * because everything was reverted.
 */
export async function breakGlassSettle(environment: string, options: BreakGlassSettleOptions, io: Io): Promise<number> {
  if ((options.commit === undefined) === !options.reverted)
    throw new CountersignError('usage', 'say how Git and the cluster were brought in line', {
      hint: 'give --commit COMMIT, or --reverted',
    });
  if (options.commit !== undefined && !/^[0-9a-f]{7,64}$/.test(options.commit))
    throw new CountersignError('usage', `\`${options.commit}\` is not a commit`, {
      hint: 'give at least seven hex digits',
    });
  const uses = (options.use ?? []).map(Number);
  if (uses.some((i) => !Number.isSafeInteger(i) || i < 0))
    throw new CountersignError('usage', 'uses are named by the indices of their entries', {
      hint: '`countersign break-glass list` shows them',
    });
  const asked = { environment, user: localUser(), reason: options.reason, uses, commit: options.commit };
  const answer = await askService(options.data, 'settle', asked);
  if (answer === undefined)
    throw new CountersignError('usage', `no service runs on the data directory \`${options.data}\``, {
      hint: 'name it with --data; in a cluster: kubectl exec into the pod',
    });
  const settled = answer.result as { uses: readonly number[]; commit?: string };
  if (options.output === 'json') io.out(`${JSON.stringify(settled, null, 2)}\n`);
  else
    io.out(
      `settled: ${settled.uses.length === 1 ? '1 use' : `${settled.uses.length} uses`} of break-glass in ` +
        `\`${environment}\`` +
        `${settled.commit === undefined ? ', all reverted' : `, by ${settled.commit.slice(0, 12)}`}\n`,
    );
  return EXIT.yes;
}
