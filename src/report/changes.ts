import { type EntryOf, NO_REVISION, type Verdict, type Violation } from '../model/index.ts';
import type { Attribute, ChangeRecord, ChangeType, TestResult } from './model.ts';
import { grouped, type Indexed, type Judged, type ReportSource, unique } from './source.ts';

/** The few fields of each change that numbers are computed from. */
export type ChangeFacts = Pick<
  ChangeRecord,
  | 'id'
  | 'entry'
  | 'environment'
  | 'ref'
  | 'to'
  | 'type'
  | 'outcome'
  | 'written'
  | 'removed'
  | 'applyStartedAt'
  | 'appliedAt'
  | 'attributes'
> & {
  /** Seconds since 1970, as claimed by committers. */
  readonly committedAt: readonly number[];
};

/** A verdict, with the record of its change if it is the last verdict on it. */
export type ReadVerdict = {
  readonly judged: Judged;
  readonly verdict: Verdict;
  readonly change: ChangeRecord | undefined;
};

/**
 * Yields every verdict of the period in order. A change is one transition of one environment: if it is judged again
 * when an approval arrives, it is still the same change.
 */
export function* verdictsOf(source: ReportSource): Generator<ReadVerdict> {
  const last = new Map<string, { index: number; times: number }>();
  for (const { index, entry } of source.judged) {
    const known = last.get(sameChange(entry));
    if (known === undefined) last.set(sameChange(entry), { index, times: 1 });
    else Object.assign(known, { index, times: known.times + 1 });
  }
  const recordOf = recorder(source);
  for (const judged of source.judged) {
    const verdict = source.evidence<Verdict>(judged.entry.evidence.sha256);
    const { index, times = 0 } = last.get(sameChange(judged.entry)) ?? {};
    yield { judged, verdict, change: index === judged.index ? recordOf(judged, verdict, times) : undefined };
  }
}

/** Returns the facts kept about a change besides its record. */
export function factsOf(change: ChangeRecord, alike: Map<string, ChangeFacts['attributes']>): ChangeFacts {
  const { id, entry, environment, ref, to, type, outcome, written, removed, applyStartedAt, appliedAt, commits } =
    change;
  const spelled = Object.values(change.attributes).join();
  const attributes = alike.get(spelled) ?? change.attributes;
  alike.set(spelled, attributes);
  const committedAt = commits.map((c) => Date.parse(c.committedAt) / 1000);
  return {
    id,
    entry,
    environment,
    ref,
    to,
    type,
    outcome,
    written,
    removed,
    applyStartedAt,
    appliedAt,
    attributes,
    committedAt,
  };
}

function recorder(source: ReportSource): (judged: Judged, verdict: Verdict, times: number) => ChangeRecord {
  const intents = grouped(
    source.of('apply.intent').filter(({ entry }) => entry.purpose === 'apply' || entry.purpose === 'rollback'),
    ({ entry }) => entry.verdict,
  );
  const results = grouped(source.of('apply.result'), ({ entry }) => entry.intent);
  const refused = grouped(source.of('apply.refused'), ({ entry }) => entry.verdict);
  const started = grouped(source.of('hook.started'), ({ entry }) => entry.intent);
  const ended = grouped(source.of('hook.ended'), ({ entry }) => entry.started);
  const hooksOf = (of: readonly { readonly index: number }[]) =>
    of.flatMap((i) => started.get(i.index) ?? []).flatMap((hook) => [hook, ...(ended.get(hook.index) ?? [])]);
  const refs = new Map(source.of('commits.seen').map(({ entry }) => [entry.environment, entry.ref]));
  const emergencies = new Map(
    source
      .of('breakglass.settled')
      .flatMap((s) => (s.entry.commit === undefined ? [] : [[s.entry.commit, s] as const])),
  );
  return ({ index, entry, leaf }, verdict, judged) => {
    const mine = intents.get(index) ?? [];
    const ends = mine.flatMap((i) => results.get(i.index) ?? []);
    const settled = verdict.commits.map((c) => emergencies.get(c.commit)).find((s) => s !== undefined);
    const tip = verdict.commits.at(-1);
    const applied = ends.find((r) => r.entry.outcome === 'applied');
    const wrong =
      ends.find((r) => r.entry.outcome === 'failed')?.entry.error ?? refused.get(index)?.[0]?.entry.error ?? '';
    const hasFailed = ends.length > 0 || refused.has(index);
    const undenied = applied !== undefined ? 'applied' : hasFailed ? 'failed' : 'allowed';
    const tickets = unique([tip?.subject ?? '', ...verdict.approvals.map((a) => a.reason)].flatMap(ticketsIn));
    return {
      id: `C${index}`,
      entry: index,
      leaf,
      time: entry.time,
      judged,
      environment: entry.environment,
      ref: refs.get(entry.environment) ?? '',
      from: entry.from === NO_REVISION ? '' : entry.from,
      to: entry.to,
      tree: entry.tree,
      type: typeOf(verdict, settled !== undefined),
      subject: tip?.subject ?? '',
      tickets,
      outcome: entry.outcome === 'denied' ? 'denied' : undenied,
      ...partsOf(verdict),
      objects: verdict.objects,
      written: ends.reduce((sum, r) => sum + r.entry.applied, 0),
      removed: ends.reduce((sum, r) => sum + r.entry.pruned, 0),
      applyStartedAt: mine[0]?.entry.time ?? '',
      appliedAt: applied?.entry.time ?? '',
      applyEntries: [...mine, ...ends, ...hooksOf(mine)].map((e) => e.index).sort((a, b) => a - b),
      healthy: applied?.entry.healthy === true,
      error: wrong,
      exceptions: [],
      attributes: attributesOf(verdict, tickets, { applied, first: mine[0], settled }),
    };
  };
}

function typeOf(verdict: Verdict, isEmergency: boolean): ChangeType {
  if (isEmergency) return 'emergency';
  if (verdict.rollback === true) return 'rollback';
  return verdict.trustAfter === undefined ? 'standard' : 'access';
}

// The parts of a record that the verdict alone decides.
function partsOf(verdict: Verdict): Pick<ChangeRecord, 'commits' | 'approvals' | 'policy' | 'reasons'> {
  const place = ({ source }: Violation) => (source === undefined ? '' : ` (${source.file}:${source.line})`);
  return {
    commits: verdict.commits.map((c) => ({
      id: c.commit,
      subject: c.subject,
      author: c.author,
      committer: c.committer,
      committedAt: new Date(c.committedAt * 1000).toISOString(),
      seen: c.seen,
      status: c.code,
      scheme: c.format ?? '',
      key: c.key ?? '',
      signer: c.signer?.principal ?? '',
    })),
    approvals: verdict.approvals.map((a) => ({
      principal: a.principal,
      key: a.key,
      class: a.class,
      match: a.match,
      issuedAt: a.issuedAt,
      reason: a.reason,
      envelope: a.envelope,
    })),
    policy: {
      bundle: verdict.consulted.bundleDigest,
      denied: verdict.violations.length,
      warned: verdict.warnings.length,
      waived: (verdict.waived ?? []).length,
    },
    reasons: unique(verdict.violations.map((v) => `${v.rule ?? v.code}: ${v.message}${place(v)}`)),
  };
}

function attributesOf(
  verdict: Verdict,
  tickets: readonly string[],
  {
    applied,
    first,
    settled,
  }: {
    readonly applied: Indexed<EntryOf<'apply.result'>> | undefined;
    readonly first: Indexed<EntryOf<'apply.intent'>> | undefined;
    readonly settled: Indexed<EntryOf<'breakglass.settled'>> | undefined;
  },
): Record<Attribute, TestResult> {
  const is = (holds: boolean): TestResult => (holds ? 'pass' : 'fail');
  const others = verdict.approvals.filter((a) =>
    coveredBy(a, verdict).every((c) => c.signer?.principal !== a.principal),
  );
  const covered = new Set(others.flatMap((a) => coveredBy(a, verdict)));
  const isApproved = others.length > 0 && verdict.commits.every((c) => covered.has(c));
  const deployed = applied !== undefined;
  const of = (result: TestResult) => (deployed ? result : 'n.a.');
  return {
    A: tickets.length > 0 ? 'pass' : 'cannot tell',
    B: is(verdict.commits.length > 0 && verdict.commits.every((c) => c.outcome === 'verified')),
    C: of(is(isApproved)),
    D: of(is(isApproved)),
    E: of(
      !isApproved
        ? 'fail'
        : others.some((a) => a.issuedAt === '')
          ? 'cannot tell'
          : is(others.every((a) => a.issuedAt <= (first?.entry.time ?? ''))),
    ),
    F: of(is(verdict.violations.length === 0 && (verdict.waived ?? []).length === 0)),
    G: of(is(first !== undefined)),
    H: of(is(deployed)),
    I: 'cannot tell',
    J: settled === undefined ? 'n.a.' : is(settled.entry.reason.trim() !== ''),
  };
}

// In a change of several steps, a person may have made one and approved another: an approval only covers the steps it
// leads through.
function coveredBy({ from, commit }: Verdict['approvals'][number], verdict: Verdict): Verdict['commits'] {
  const stepOf = (id: string) => verdict.commits.find((c) => c.commit === id)?.step;
  const last = stepOf(commit);
  if (last === undefined) return verdict.commits; // one step, or recorded before steps existed
  const first = from === verdict.from ? 0 : stepOf(from);
  return first === undefined
    ? verdict.commits
    : verdict.commits.filter(({ step }) => step === undefined || (step > first && step <= last));
}

// Formats of trackers and forges: `CHG-12`, `#12`, `!12`.
function ticketsIn(text: string): string[] {
  return text.match(/\b[A-Z][A-Z0-9]{1,9}-\d{1,9}\b|(?<![\w&])[#!]\d{1,9}\b/g) ?? [];
}

function sameChange(entry: EntryOf<'change.judged'>): string {
  return `${entry.environment} ${entry.from} ${entry.to}`;
}
