import { type CommitVerdict, count, type HookPhase, refText, type Verdict, type Violation } from '../model/index.ts';
import { type Io, paint, plain } from '../terminal/index.ts';

/** Returns the head of a verdict for people: the change, the signers, the approvals. */
export function showVerdictHead(verdict: Verdict, io: Io): string {
  const head =
    `${paint(io, 'bold', verdict.environment)}  ${short(verdict.from)}..${short(verdict.to)} ` +
    ` ${count(verdict.commits.length, 'commit')}, ${count(verdict.objects, 'object')}`;
  const signed = (c: CommitVerdict) =>
    `signed by ${c.signer?.principal ?? ''}${c.hardware?.touched === true ? ', hardware key' : ''}`;
  const commits = verdict.commits.map(
    (c) =>
      `  ${c.outcome === 'verified' ? paint(io, 'green', '✓') : paint(io, 'red', '✗')} ${short(c.commit)} ` +
      `${plain(c.subject.slice(0, 50))}  ` +
      `${paint(io, 'dim', c.code === 'verified' ? signed(c) : c.code)}`,
  );
  const approvals = verdict.approvals.map(
    (a) =>
      `  ${paint(io, 'green', '✓')} approved by ${a.principal}  ` +
      `${paint(io, 'dim', `${a.class}${a.match === 'exact' ? '' : `, ${a.match}`}  ${plain(a.reason)}`)}`,
  );
  const hooks = (verdict.hooks ?? []).map(
    ({ object, phases }) =>
      `  hook: ${plain(refText(object))} runs ${phases.map((phase) => WHEN[phase]).join(', and ')}`,
  );
  return [head, ...commits, ...approvals, ...hooks].map((l) => `${l}\n`).join('');
}

const WHEN: Readonly<Record<HookPhase, string>> = {
  before: 'before the objects are written',
  main: 'with the objects',
  after: 'once the objects are healthy',
  failure: 'if the change fails',
};

/** Returns its last lines: the outcome, and what it is based on. */
export function showVerdictEnd(verdict: Verdict, io: Io): string {
  const waived = verdict.waived === undefined ? '' : `, ${verdict.waived.length} waived`;
  const more = `${verdict.warnings.length === 0 ? '' : `, ${count(verdict.warnings.length, 'warning')}`}${waived}`;
  const end =
    verdict.outcome === 'allowed'
      ? `${paint(io, 'green', 'allowed')}${more}`
      : `${paint(io, 'red', 'denied')}: ${count(verdict.violations.length, 'violation')}${more}`;
  const time =
    verdict.consulted.time === 'ledger'
      ? []
      : [paint(io, 'dim', 'judged as of now: there is no ledger here that records when a commit was first seen')];
  return ['', end, ...time, ''].join('\n');
}

/** Returns violations and warnings, each with its place and fix. */
export function showFindings(violations: readonly Violation[], warnings: readonly Violation[], io: Io): string {
  return [
    ...violations.map((v) => finding(v, 'red', '✗', io)),
    ...warnings.map((v) => finding(v, 'yellow', '!', io)),
  ].join('\n');
}

function finding(v: Violation, colour: 'red' | 'yellow', mark: string, io: Io): string {
  const place = v.source === undefined ? '' : `  ${plain(v.source.file)}:${v.source.line}`;
  const lines = [`  ${paint(io, colour, `${mark} ${plain(v.rule ?? v.code)}`)}${place}`, `    ${plain(v.message)}`];
  if (v.hint !== undefined) lines.push(`    ${paint(io, 'dim', 'fix:')} ${plain(v.hint)}`);
  return lines.join('\n');
}

/** Formats one commit's verdict as a row of `countersign provenance`. */
export function commitRow(v: CommitVerdict, io: Io): string {
  const mark = v.outcome === 'verified' ? paint(io, 'green', 'verified') : paint(io, 'red', 'refused ');
  const who = v.outcome === 'verified' ? `${v.signer?.principal ?? ''} (${v.format ?? ''})` : v.code;
  const lines = [`${short(v.commit)}  ${mark}  ${who.padEnd(24)}  ${plain(v.subject.slice(0, 40))}`];
  if (v.outcome === 'refused')
    lines.push(`              ${plain(v.reason)}${v.hint === undefined ? '' : `; ${v.hint}`}`);
  return lines.join('\n');
}

export function short(id: string): string {
  return /^0+$/.test(id) ? '(nothing)' : id.slice(0, 12);
}
