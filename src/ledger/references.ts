import { type Entry, type EntryOf, isNoRevision } from '../model/index.ts';

/** Known state that an entry is checked against. Every lookup takes constant time. */
export type Known = {
  /** Number of durable entries. */
  readonly size: number;
  entry(index: number): Entry | undefined;
  /** Tests whether evidence with this digest is on the ledger, or comes with the entry. */
  hasEvidence(digest: string): boolean;
};

export type Bounds = {
  readonly now: number;
  /** Longest duration of break-glass in milliseconds, by environment. Not checked if absent. */
  readonly holdFor?: { readonly [environment: string]: number } | undefined;
};

/** How far ahead the clock of another replica may be. */
export const CLOCK_TOLERANCE_MS = 5 * 60_000;
// If no environment of that name is configured here, another replica may govern it.
const LONGEST_HOLD_MS = 31 * 24 * 3_600_000;
const HOLD_SLACK_MS = 1000; // `until` is computed shortly before the entry gets its time

/**
 * Returns the problem with an entry beyond its schema, or undefined. It may be an index without an entry, or with one
 * of the wrong type or environment; missing evidence; or an impossible time. `docs/ledger-format.md` lists the
 * references of each type.
 */
export function referenceProblem(entry: Entry, known: Known, bounds: Bounds): string | undefined {
  return timeProblem(entry, bounds) ?? evidenceProblem(entry, known) ?? entryReferences(entry, known);
}

/**
 * Returns the problem with the references in an entry, or undefined. Reports what older versions recorded unchecked.
 */
export function brokenReference(type: string, body: string, known: Known): string | undefined {
  return REFERRING.has(type as Entry['type']) ? entryReferences(JSON.parse(body) as Entry, known) : undefined;
}

function timeProblem(entry: Entry, { now, holdFor }: Bounds): string | undefined {
  const latest = now + CLOCK_TOLERANCE_MS;
  if (isAfter(entry.time, latest)) return 'its time is in the future';
  if ('at' in entry && entry.at !== undefined && isAfter(entry.at, latest)) return '`at` is in the future';
  switch (entry.type) {
    case 'breakglass.opened':
    case 'breakglass.used': {
      if (holdFor === undefined) return undefined;
      const limit = Object.hasOwn(holdFor, entry.environment)
        ? (holdFor[entry.environment] as number)
        : LONGEST_HOLD_MS;
      const stands = Date.parse(entry.until) - Date.parse(entry.at ?? entry.time);
      return stands <= limit + HOLD_SLACK_MS
        ? undefined
        : `\`until\` is more than ${Math.round(limit / 1000)} s (holdFor) after it`;
    }
    case 'admission.allowed':
    case 'admission.proven':
    case 'audit.covered':
      if (Date.parse(entry.to) > latest) return '`to` is in the future';
      return entry.from <= entry.to ? undefined : '`from` is later than `to`';
    default:
      return undefined;
  }
}

// A text that is not a time sorts after everything.
function isAfter(time: string, limit: number): boolean {
  return !(Date.parse(time) <= limit);
}

function evidenceProblem(entry: Entry, known: Known): string | undefined {
  if (!('evidence' in entry) || known.hasEvidence(entry.evidence.sha256)) return undefined;
  return `its evidence ${entry.evidence.sha256.slice(0, 12)} is neither given nor on the ledger`;
}

function entryReferences(entry: Entry, known: Known): string | undefined {
  switch (entry.type) {
    case 'trust.changed':
    case 'rollback.allowed':
    case 'waiver.used':
      return verdictProblem(entry, entry.type !== 'waiver.used', known);
    case 'apply.intent':
      return (
        intentVerdict(entry, known) ??
        optional(entry.continues, (i) => named('continues', i, 'apply.intent', entry, known)) ??
        optional(entry.takesOver, (i) => named('takesOver', i, 'apply.intent', entry, known))
      );
    case 'apply.result':
      return resultProblem(entry, known);
    case 'hook.started':
      return named('intent', entry.intent, 'apply.intent', entry, known);
    case 'hook.ended':
      return named('started', entry.started, 'hook.started', entry, known);
    case 'drift.remains':
    case 'drift.corrected':
      return named('result', entry.result, 'apply.result', entry, known);
    case 'drift.found':
      return first(entry.details ?? [], ({ admission }) => optional(admission, (i) => within('admission', i, known)));
    case 'admission.standing':
      return optional(entry.covers, (i) => within('covers', i, known));
    case 'content.resolved':
      return named('found', entry.found, 'content.unproven', entry, known);
    case 'breakglass.unconfirmed': {
      const type = known.entry(entry.of)?.type;
      const isOther = type === 'breakglass.closed' || type === 'breakglass.approved';
      return named('of', entry.of, isOther ? type : 'breakglass.opened', entry, known);
    }
    case 'breakglass.settled':
      return first(entry.uses, (i) => named('uses', i, 'breakglass.used', entry, known));
    case 'exception.settled':
    case 'exception.assigned':
      return within('exception', Number.parseInt(entry.exception.slice(1), 10), known);
    case 'report.issued':
      if (entry.checkpoint > known.size)
        return `\`checkpoint\` covers ${entry.checkpoint} entries, but there are ${known.size}`;
      return optional(entry.supersedes, (i) => named('supersedes', i, 'report.issued', undefined, known));
    case 'report.delivered':
      return named('issued', entry.issued, 'report.issued', undefined, known);
    case 'segment.archived':
      return entry.first <= entry.last ? within('last', entry.last, known) : '`first` is later than `last`';
    case 'checkpoint.anchored':
      return entry.size <= known.size ? undefined : `\`size\` is ${entry.size}, but there are ${known.size} entries`;
    default:
      return undefined;
  }
}

type Judged = EntryOf<'trust.changed' | 'rollback.allowed' | 'waiver.used' | 'apply.intent'>;

function verdictProblem(entry: Judged, mustAllow: boolean, known: Known): string | undefined {
  const problem = named('verdict', entry.verdict, 'change.judged', entry, known);
  if (problem !== undefined || !mustAllow) return problem;
  const verdict = known.entry(entry.verdict) as EntryOf<'change.judged'>;
  return verdict.outcome === 'allowed' ? undefined : `\`verdict\` names entry ${entry.verdict}, which denies`;
}

// Removing a first revision has no verdict of its own, because nothing was applied before.
function intentVerdict(entry: EntryOf<'apply.intent'>, known: Known): string | undefined {
  if (entry.verdict === -1 && entry.purpose === 'restore' && isNoRevision(entry.revision)) return undefined;
  const problem = verdictProblem(entry, true, known);
  if (problem !== undefined || entry.purpose !== 'apply') return problem;
  const verdict = known.entry(entry.verdict) as EntryOf<'change.judged'>;
  return verdict.to === entry.revision
    ? undefined
    : `\`verdict\` names entry ${entry.verdict}, which is about a different revision`;
}

function resultProblem(entry: EntryOf<'apply.result'>, known: Known): string | undefined {
  const problem = named('intent', entry.intent, 'apply.intent', entry, known);
  if (problem !== undefined || entry.outcome !== 'applied') return problem;
  const intent = known.entry(entry.intent) as EntryOf<'apply.intent'>;
  return intent.revision === entry.revision
    ? undefined
    : `\`intent\` names entry ${entry.intent}, which is about a different revision`;
}

/** Checks a reference to an entry of one type, and of the same environment if there is one. */
function named(
  field: string,
  index: number,
  type: Entry['type'],
  from: { readonly environment: string } | undefined,
  known: Known,
): string | undefined {
  const target = known.entry(index);
  if (target === undefined) return `\`${field}\` names entry ${index}, which does not exist`;
  if (target.type !== type) return `\`${field}\` names entry ${index}, which is of type ${target.type}, not ${type}`;
  const isElsewhere = from !== undefined && (target as { environment?: string }).environment !== from.environment;
  return isElsewhere ? `\`${field}\` names entry ${index}, which is of a different environment` : undefined;
}

function within(field: string, index: number, { size }: Known): string | undefined {
  return index >= 0 && index < size ? undefined : `\`${field}\` names entry ${index}, which does not exist`;
}

function optional<T>(value: T | undefined, check: (value: T) => string | undefined): string | undefined {
  return value === undefined ? undefined : check(value);
}

function first<T>(items: readonly T[], check: (item: T) => string | undefined): string | undefined {
  for (const item of items) {
    const problem = check(item);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

const REFERRING: ReadonlySet<Entry['type']> = new Set([
  'trust.changed',
  'rollback.allowed',
  'waiver.used',
  'apply.intent',
  'apply.result',
  'hook.started',
  'hook.ended',
  'drift.remains',
  'drift.corrected',
  'drift.found',
  'content.resolved',
  'breakglass.opened',
  'breakglass.used',
  'breakglass.unconfirmed',
  'breakglass.settled',
  'exception.settled',
  'exception.assigned',
  'report.issued',
  'report.delivered',
  'segment.archived',
  'checkpoint.anchored',
  'admission.allowed',
  'admission.proven',
  'admission.standing',
  'audit.covered',
] satisfies Entry['type'][]);

/** Tests whether an entry refers to others. Most do not, and are recorded without this check. */
export function refers(entry: Entry): boolean {
  return REFERRING.has(entry.type) || 'evidence' in entry || 'at' in entry;
}
