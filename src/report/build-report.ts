import { digestOf, type Entry, type EntryOf, NO_REVISION, refText, type Verdict, type Violation } from '../model/index.ts';

/** Everything a report is made from. `entries` are the canonical bodies of ledger entries `first`, `first + 1`, … */
export type ReportInput = {
  /** Start and end of the period, ISO 8601; the end is not part of it. */
  readonly from: string;
  readonly to: string;
  readonly first: number;
  readonly entries: readonly string[];
  /** Canonical evidence by its SHA-256. */
  readonly evidence: ReadonlyMap<string, string>;
  /** The names and addresses behind commitments in entries and evidence, as far as they were not erased. */
  readonly subjects: readonly ReportSubject[];
  readonly checkpoint: string;
  readonly origin: string;
};

/** A text, and what shows that a commitment was made to it: `subject:` and SHA-256(salt ‖ text). `salt` is in hex. */
export type ReportSubject = { readonly commitment: string; readonly salt: string; readonly text: string };

export type ChangeRow = {
  /** The entry of the last verdict on it. */
  readonly entry: number;
  readonly time: string;
  /** How often it was judged: once more whenever an approval came or a rule changed. */
  readonly judged: number;
  readonly environment: string;
  readonly from: string;
  readonly to: string;
  readonly subject: string;
  readonly outcome: 'applied' | 'allowed' | 'failed' | 'denied';
  readonly appliedAt: string;
  readonly commits: number;
  readonly authors: readonly string[];
  readonly signers: readonly string[];
  readonly approvers: readonly string[];
  readonly objects: number;
  readonly reasons: readonly string[];
};

export type ExceptionRow = {
  readonly entry: number;
  readonly time: string;
  readonly environment: string;
  readonly type: string;
  readonly actor: string;
  readonly subject: string;
  readonly detail: string;
};
export type RuleRow = {
  readonly rule: string;
  readonly title: string;
  readonly severity: string;
  /** Controls it serves, as its METADATA says. */
  readonly controls: readonly string[];
  readonly denied: number;
  readonly warned: number;
  readonly waived: number;
};
export type PersonRow = {
  readonly principal: string;
  readonly kind: string;
  readonly signed: number;
  readonly approved: number;
  readonly keys: readonly string[];
};

/** The canonical document; PDF and every other form are made from it alone. */
export type ReportModel = {
  readonly v: 1;
  readonly title: string;
  readonly id: string;
  readonly period: { readonly from: string; readonly to: string };
  readonly asOf: string;
  readonly ledger: { readonly origin: string; readonly first: number; readonly entries: number; readonly checkpoint: string };
  readonly environments: readonly string[];
  readonly summary: {
    readonly changes: number;
    readonly applied: number;
    readonly denied: number;
    readonly failed: number;
    readonly exceptions: number;
    readonly admissionsDenied: number;
  };
  readonly changes: readonly ChangeRow[];
  readonly refused: readonly ExceptionRow[];
  readonly exceptions: readonly ExceptionRow[];
  readonly people: readonly PersonRow[];
  readonly rules: readonly RuleRow[];
};

type Indexed<E extends Entry = Entry> = { readonly index: number; readonly entry: E };

/** Makes the model. Same input, same bytes. Throws a TypeError for evidence that is missing. */
export function buildReport(input: ReportInput): ReportModel {
  const names = new Map(input.subjects.map((s) => [s.commitment, s.text]));
  const all = input.entries.map((body, i): Indexed => ({ index: input.first + i, entry: JSON.parse(named(body, names)) as Entry }));
  const period = all.filter(({ entry }) => entry.time >= input.from && entry.time < input.to);
  const verdicts = period
    .filter(isA('change.judged'))
    .map((judged) => ({ ...judged, verdict: evidenceOf<Verdict>(input, names, judged.entry.evidence.sha256) }));
  const changes = lastOfEach(verdicts).map((v) => changeRow(v, verdicts, all));
  const exceptions = exceptionsOf(period, all);
  const refused = refusalsOf(period);
  return {
    v: 1,
    title: 'Change management evidence report',
    id: digestOf([input.from, input.to, input.origin, input.checkpoint]).slice(0, 16),
    period: { from: input.from, to: input.to },
    asOf: all.at(-1)?.entry.time ?? input.from,
    ledger: { origin: input.origin, first: input.first, entries: input.entries.length, checkpoint: input.checkpoint },
    environments: [...new Set(period.flatMap(({ entry }) => ('environment' in entry ? [entry.environment] : [])))].sort(),
    summary: {
      changes: changes.length,
      applied: changes.filter((c) => c.outcome === 'applied').length,
      denied: changes.filter((c) => c.outcome === 'denied').length,
      failed: changes.filter((c) => c.outcome === 'failed').length,
      exceptions: exceptions.length,
      admissionsDenied: refused.length,
    },
    changes,
    refused,
    exceptions,
    people: peopleOf(verdicts.map((v) => v.verdict)),
    rules: rulesOf(verdicts.map((v) => v.verdict)),
  };
}

function isA<T extends Entry['type']>(type: T): (e: Indexed) => e is Indexed<EntryOf<T>> {
  return (e): e is Indexed<EntryOf<T>> => e.entry.type === type;
}

function evidenceOf<T>(input: ReportInput, names: ReadonlyMap<string, string>, digest: string): T {
  const bytes = input.evidence.get(digest);
  if (bytes === undefined) throw new TypeError(`the evidence ${digest.slice(0, 12)} is missing`);
  return JSON.parse(named(bytes, names)) as T;
}

// Names where commitments to them stand; what was erased, or is not handed on, is said to be.
function named(json: string, names: ReadonlyMap<string, string>): string {
  if (!json.includes('subject:')) return json;
  return json.replace(/subject:[0-9a-f]{64}/g, (commitment) => {
    const text = names.get(commitment);
    return JSON.stringify(text ?? `(erased ${commitment.slice(8, 16)})`).slice(1, -1);
  });
}

type Judged = { readonly index: number; readonly entry: EntryOf<'change.judged'>; readonly verdict: Verdict };

// A change is one transition of one environment: judged again when an approval arrives, it is still the same change.
function lastOfEach(verdicts: readonly Judged[]): Judged[] {
  return [...new Map(verdicts.map((v) => [sameChange(v.entry), v])).values()].sort((a, b) => a.index - b.index);
}

function sameChange(entry: EntryOf<'change.judged'>): string {
  return `${entry.environment} ${entry.from} ${entry.to}`;
}

function changeRow({ index, entry, verdict }: Judged, verdicts: readonly Judged[], all: readonly Indexed[]): ChangeRow {
  const intents = all.filter(isA('apply.intent')).filter((i) => i.entry.verdict === index && i.entry.purpose === 'apply');
  const results = all.filter(isA('apply.result')).filter((r) => intents.some((i) => i.index === r.entry.intent));
  const applied = results.find((r) => r.entry.outcome === 'applied');
  const refused = all.filter(isA('apply.refused')).find((r) => r.entry.verdict === index);
  const last = verdict.commits.at(-1);
  return {
    entry: index,
    time: entry.time,
    judged: verdicts.filter((v) => sameChange(v.entry) === sameChange(entry)).length,
    environment: entry.environment,
    from: entry.from === NO_REVISION ? '' : entry.from,
    to: entry.to,
    subject: last?.subject ?? '',
    outcome:
      entry.outcome === 'denied'
        ? 'denied'
        : applied !== undefined
          ? 'applied'
          : results.length > 0 || refused !== undefined
            ? 'failed'
            : 'allowed',
    appliedAt: applied?.entry.time ?? '',
    commits: verdict.commits.length,
    authors: unique(verdict.commits.map((c) => c.author)),
    signers: unique(verdict.commits.flatMap((c) => (c.signer === undefined ? [] : [c.signer.principal]))),
    approvers: unique(verdict.approvals.map((a) => a.principal)),
    objects: verdict.objects,
    reasons: unique(
      verdict.violations.map(
        (v) => `${v.rule ?? v.code}: ${v.message}${v.source === undefined ? '' : ` (${v.source.file}:${v.source.line})`}`,
      ),
    ),
  };
}

function exceptionsOf(period: readonly Indexed[], all: readonly Indexed[]): ExceptionRow[] {
  return period.flatMap(({ index, entry }): ExceptionRow[] => {
    const base = { entry: index, time: entry.time };
    switch (entry.type) {
      case 'breakglass.used':
        return [
          {
            ...base,
            environment: entry.environment,
            type: 'break-glass',
            actor: entry.user,
            subject: `${entry.operation} ${refText(entry.object)}`,
            detail: `${entry.reason} (until ${entry.until}); ${settlementOf(index, entry.environment, all)}`,
          },
        ];
      case 'breakglass.opened':
        return [
          {
            ...base,
            environment: entry.environment,
            type: 'break-glass opened',
            actor: entry.user,
            subject: (entry.namespaces ?? []).join(', '),
            detail: `${entry.reason}${entry.ticket === '' ? '' : ` (${entry.ticket})`}, until ${entry.until}`,
          },
        ];
      case 'drift.found':
        return [
          {
            ...base,
            environment: entry.environment,
            type: 'out-of-band change',
            actor: '',
            subject: entry.objects.map(refText).join(', '),
            detail: driftEnd(index, entry.environment, all),
          },
        ];
      case 'apply.refused':
        return [
          {
            ...base,
            environment: entry.environment,
            type: 'refused by the cluster',
            actor: '',
            subject: entry.revision.slice(0, 12),
            detail: entry.error,
          },
        ];
      case 'apply.result':
        return entry.outcome === 'applied'
          ? []
          : [
              {
                ...base,
                environment: entry.environment,
                type: 'failed apply',
                actor: '',
                subject: `back to ${entry.revision.slice(0, 12)}`,
                detail: entry.error ?? '',
              },
            ];
      case 'apply.intent':
        return entry.takesOver === undefined
          ? []
          : [
              {
                ...base,
                environment: entry.environment,
                type: 'interrupted apply',
                actor: '',
                subject: entry.revision.slice(0, 12),
                detail: `entry ${entry.takesOver} had no result; this one takes it over (${entry.purpose})`,
              },
            ];
      case 'admission.denied':
        return entry.mode === 'enforce'
          ? []
          : [
              {
                ...base,
                environment: entry.environment,
                type: 'let through in audit mode',
                actor: entry.user,
                subject: `${entry.operation} ${refText(entry.object)}`,
                detail: entry.reason,
              },
            ];
      case 'admission.warned':
        return [
          {
            ...base,
            environment: entry.environment,
            type: 'let through in warn mode',
            actor: entry.user,
            subject: `${entry.operation} ${refText(entry.object)}`,
            detail: entry.reason,
          },
        ];
      case 'protection.changed':
        return [
          {
            ...base,
            environment: '',
            type: 'gate tampered with',
            actor: entry.manager,
            subject: refText(entry.object),
            detail: `${entry.change}, and put back`,
          },
        ];
      case 'audit.unmatched':
        return [
          {
            ...base,
            environment: entry.environment,
            type: 'write past the gate',
            actor: entry.user,
            subject: `${entry.verb} ${entry.resource} ${entry.object.namespace}/${entry.object.name}`,
            detail: `the API server’s audit log shows it at ${entry.at}, and no entry accounts for it`,
          },
        ];
      case 'ref.rewound':
        return [
          {
            ...base,
            environment: entry.environment,
            type: 'branch rewritten',
            actor: '',
            subject: entry.ref,
            detail: `from ${entry.before.slice(0, 12)} to ${entry.after.slice(0, 12)}, which does not descend from it`,
          },
        ];
      case 'epoch.opened':
        return [{ ...base, environment: '', type: 'ledger put back', actor: '', subject: entry.origin, detail: entry.reason }];
      default:
        return [];
    }
  });
}

function settlementOf(index: number, environment: string, all: readonly Indexed[]): string {
  const settled = all.filter(isA('breakglass.settled')).find((r) => r.entry.environment === environment && r.entry.uses.includes(index));
  if (settled === undefined) return 'not settled yet';
  const { commit, user, time } = settled.entry;
  return `settled at ${time} by ${user}${commit === undefined ? ': undone' : `: in Git by ${commit.slice(0, 12)}`}`;
}

function driftEnd(index: number, environment: string, all: readonly Indexed[]): string {
  const correction = all.filter(isA('apply.result')).find((r) => {
    const intent = all.find((e) => e.index === r.entry.intent)?.entry;
    return r.index > index && r.entry.environment === environment && r.entry.outcome === 'applied' && intent?.type === 'apply.intent';
  });
  return correction === undefined ? 'not put right yet' : `put right at ${correction.entry.time} (entry ${correction.index})`;
}

function refusalsOf(period: readonly Indexed[]): ExceptionRow[] {
  return period
    .filter(isA('admission.denied'))
    .filter(({ entry }) => entry.mode === 'enforce')
    .map(({ index, entry }) => ({
      entry: index,
      time: entry.time,
      environment: entry.environment,
      type: 'refused request',
      actor: entry.user,
      subject: `${entry.operation} ${refText(entry.object)}`,
      detail: entry.reason,
    }));
}

function peopleOf(verdicts: readonly Verdict[]): PersonRow[] {
  const people = new Map<string, { kind: string; signed: Set<string>; approved: Set<string>; keys: Set<string> }>();
  const person = (principal: string, kind: string) => {
    const known = people.get(principal) ?? { kind, signed: new Set<string>(), approved: new Set<string>(), keys: new Set<string>() };
    people.set(principal, known);
    return known;
  };
  for (const verdict of verdicts) {
    for (const { commit, signer } of verdict.commits) {
      if (signer === undefined) continue;
      const p = person(signer.principal, signer.kind);
      p.signed.add(commit);
      p.keys.add(signer.key);
    }
    for (const approval of verdict.approvals) {
      const p = person(approval.principal, 'person');
      p.approved.add(approval.envelope);
      p.keys.add(approval.key);
    }
  }
  return [...people]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([principal, p]) => ({ principal, kind: p.kind, signed: p.signed.size, approved: p.approved.size, keys: [...p.keys].sort() }));
}

function rulesOf(verdicts: readonly Verdict[]): RuleRow[] {
  const rows = new Map<string, { -readonly [K in keyof Omit<RuleRow, 'rule'>]: RuleRow[K] }>();
  const count = (v: Violation, field: 'denied' | 'warned' | 'waived') => {
    const rule = v.rule ?? v.code;
    const row = rows.get(rule) ?? {
      title: v.title ?? '',
      severity: v.severity ?? '',
      controls: v.controls ?? [],
      denied: 0,
      warned: 0,
      waived: 0,
    };
    row[field]++;
    rows.set(rule, row);
  };
  for (const verdict of verdicts) {
    for (const v of verdict.violations) count(v, 'denied');
    for (const v of verdict.warnings) count(v, 'warned');
    for (const v of verdict.waived ?? []) count(v, 'waived');
  }
  return [...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([rule, row]) => ({ rule, ...row }));
}

function unique(items: readonly string[]): string[] {
  return [...new Set(items)];
}
