import { type Previewed, previewFromAudit, previewFromLedger, viewOf } from '../gate/index.ts';
import { CountersignError, parseDuration } from '../model/index.ts';
import { environmentsOf, openConfiguration, readLedger } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type { AdmissionPreviewOptions } from './admission-commands.ts';
import { auditEvents } from './audit-log.ts';

type OfEnvironment = { readonly environment: string; readonly requests: readonly Previewed[] };

/**
 * Implements `countersign admission preview`: what `enforce` would have refused, from the records of `audit` and `warn`
 * or from the API server's audit log. Exit code 0 for nothing, 1 for something, 2 if it could not be determined.
 */
export async function admissionPreview(options: AdmissionPreviewOptions, io: Io): Promise<number> {
  const all = options.auditLog === undefined ? fromLedger(options) : await fromAuditLog(options, options.auditLog);
  if (all.length === 0) throw new CountersignError('usage', `there is no environment \`${options.environment ?? ''}\``);
  if (options.output === 'json') io.out(`${JSON.stringify(all, null, 2)}\n`);
  else for (const one of all) show(one, io);
  return all.every((e) => e.requests.every((r) => r.outcome !== 'refused')) ? EXIT.yes : EXIT.no;
}

function fromLedger({ data, environment, since }: AdmissionPreviewOptions): OfEnvironment[] {
  const ms = parseDuration(since);
  if (ms === undefined)
    throw new CountersignError('usage', `\`${since}\` is not a duration for --since`, {
      hint: 'give for example 24h or 7d',
    });
  const reader = readLedger(data);
  try {
    const from = new Date(Date.now() - ms).toISOString();
    return environmentsOf(reader)
      .filter((name) => environment === undefined || name === environment)
      .map((name) => ({ environment: name, requests: previewFromLedger(viewOf(reader), name, from) }));
  } finally {
    reader.close();
  }
}

async function fromAuditLog(options: AdmissionPreviewOptions, files: readonly string[]): Promise<OfEnvironment[]> {
  const wanted = openConfiguration(options).environments.filter(
    (e) => options.environment === undefined || e.metadata.name === options.environment,
  );
  const events: unknown[] = [];
  for await (const batch of auditEvents(files)) events.push(...batch);
  try {
    return wanted.map((e) => ({
      environment: e.metadata.name,
      requests: previewFromAudit(events, e, options.applier),
    }));
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new CountersignError('usage', cause.message, { cause, hint: 'give the API server’s audit log, in JSON' });
  }
}

const COLOURS = { refused: 'red', operator: 'yellow', 'break-glass': 'yellow', 'let through': 'green' } as const;

function show({ environment, requests }: OfEnvironment, io: Io): void {
  const refused = requests.filter((r) => r.outcome === 'refused');
  const times = refused.reduce((sum, r) => sum + r.count, 0);
  io.out(
    times === 0
      ? `${environment}: ${paint(io, 'green', 'nothing would be refused')}\n`
      : `${environment}: ${paint(io, 'red', `${times} ${times === 1 ? 'request' : 'requests'} would be refused`)}\n`,
  );
  for (const r of requests) {
    const where = r.namespace === '' ? r.example : `${r.namespace}/${r.example}`;
    io.out(
      `  ${paint(io, COLOURS[r.outcome], r.outcome.padEnd(11))} ${String(r.count).padStart(5)} x ` +
        `${r.operation} ${plain(r.what)} by ${plain(r.user)}\n      such as ` +
        `${plain(where)}${r.reason === '' ? '' : `: ${plain(r.reason)}`}\n`,
    );
  }
  if (times > 0)
    io.out(
      '  For each of these, add it to Git; or, if the cluster itself does it, name the account in ' +
        '`spec.admission.controllers` (anything)\n  or `operators` (dependents of objects in Git); ' +
        'or leave the field to others in `spec.drift.ignore`.\n',
    );
}
