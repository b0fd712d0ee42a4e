import {
  type EntryOf,
  isViolationCode,
  type ObjectRef,
  refText,
  standingUses,
  type Verdict,
  type Violation,
  type ViolationCode,
} from '../model/index.ts';
import type { ChangeFacts } from './changes.ts';
import {
  type ChangeRecord,
  type Disposition,
  type EmergencyRecord,
  EXCEPTION_TYPES,
  type ExceptionRecord,
  type ExceptionType,
} from './model.ts';
import { grouped, type Indexed, type ReportSource, seconds, unique } from './source.ts';

const SEVERITY: Readonly<Record<ExceptionType, ExceptionRecord['severity']>> = {
  unsigned: 'medium',
  'bad-signature': 'high',
  'unknown-signer': 'high',
  'self-approval': 'medium',
  'too-few-approvals': 'high',
  'approver-not-entitled': 'medium',
  'approval-after-apply': 'high',
  'tree-changed-after-approval': 'medium',
  'policy-overridden': 'medium',
  'break-glass': 'high',
  'out-of-band-change': 'critical',
  'force-push': 'high',
  'gate-outage': 'high',
  'late-emergency-review': 'high',
  'clock-skew': 'medium',
  'ledger-fault': 'critical',
  'apply-failed': 'low',
  'apply-interrupted': 'low',
  'not-enforced': 'medium',
  'gate-tampered': 'critical',
  'record-refused': 'high',
};

// The row for a refusal, or null if the refusal is the control at work: a rule that denies, or a change that
// still waits for approvals. The type makes this a row for every code there is.
const OF_CODE: Readonly<Record<ViolationCode, ExceptionType | null>> = {
  malformed: 'bad-signature',
  'header-repeated': 'bad-signature',
  'header-like-signature': 'bad-signature',
  'headers-out-of-order': 'bad-signature',
  'commit-too-large': 'bad-signature',
  'git-object-corrupt': 'bad-signature',
  'change-too-long': null,
  unsigned: 'unsigned',
  'bad-signature': 'bad-signature',
  'signature-format-unknown': 'bad-signature',
  'signature-for-other-use': 'bad-signature',
  'signature-expired': 'bad-signature',
  'signature-from-the-future': 'bad-signature',
  'unknown-key': 'unknown-signer',
  'key-expired': 'bad-signature',
  'key-revoked': 'bad-signature',
  'key-compromised': 'bad-signature',
  'key-not-valid': 'bad-signature',
  'key-not-yet-valid': 'bad-signature',
  'unknown-authority': 'unknown-signer',
  'certificate-expired': 'bad-signature',
  'certificate-for-nobody': 'unknown-signer',
  'algorithm-too-weak': 'bad-signature',
  'touch-required': 'bad-signature',
  'pin-required': 'bad-signature',
  backdated: 'bad-signature',
  'times-apart': 'bad-signature',
  'commit-from-the-future': 'bad-signature',
  'commit-too-old': 'bad-signature',
  blocked: 'bad-signature',
  'signer-not-allowed': 'unknown-signer',
  'path-not-covered': 'unknown-signer',
  'account-unknown': 'approver-not-entitled',
  'evil-merge': 'bad-signature',
  'merge-adds': 'bad-signature',
  'mergetag-bad': 'bad-signature',
  'mergetag-foreign': 'bad-signature',
  'tag-renamed': 'bad-signature',
  'tag-lightweight': 'bad-signature',
  'approval-missing': null,
  'approval-rejected': 'too-few-approvals',
  'approval-stale': 'tree-changed-after-approval',
  'approval-weak': 'approver-not-entitled',
  'self-approval': 'self-approval',
  'approval-expired': 'approver-not-entitled',
  'approval-from-the-future': 'approver-not-entitled',
  'approval-unreadable': 'approver-not-entitled',
  'approval-elsewhere': 'approver-not-entitled',
  'approval-by-platform': 'approver-not-entitled',
  'importer-not-allowed': 'approver-not-entitled',
  'not-a-descendant': null,
  'trust-not-approved': 'too-few-approvals',
  'trust-removed': 'too-few-approvals',
  'trust-roots-missing': 'too-few-approvals',
  'trust-unusable': null,
  'not-rendered': null,
  'nothing-rendered': null,
  'manifest-unreadable': null,
  'not-an-object': null,
  'object-twice': null,
  'yaml-ambiguous': null,
  'variable-undeclared': null,
  'cannot-be-decrypted': null,
  'render-too-large': null,
  'too-many-violations': null,
  'too-many-warnings': null,
  'not-a-file': null,
  'lfs-pointer': null,
  'namespace-not-governed': null,
  'namespace-missing': null,
  'namespace-ignored': null,
  'scope-unknown': null,
  'kind-not-governed': null,
  'order-unreadable': null,
  'order-contradicts': null,
  'hook-unknown': null,
  'hook-contradicts': null,
  'hook-not-run': null,
  'kustomize-failed': null,
  'kustomize-missing': null,
  'kustomize-remote': null,
  'kustomize-outside': null,
  'kustomize-helm': null,
  'kustomize-cycle': null,
  'kustomize-too-large': null,
  'helm-failed': null,
  'helm-missing': null,
  'helm-outside': null,
  'helm-pin': null,
  'helm-dependency': null,
  'helm-hook': null,
  'helm-not-reproducible': null,
  policy: null,
  'policy-failed': null,
  'policy-undefined': null,
  'policy-wrong-shape': null,
  'policy-timeout': null,
  'policy-out-of-memory': null,
  'policy-input-too-large': null,
  'policy-input-too-deep': null,
  'waiver-unusable': null,
  'waiver-unsigned': 'policy-overridden',
  'waiver-not-allowed': 'policy-overridden',
  'waiver-by-platform': 'policy-overridden',
  'waiver-from-the-future': 'policy-overridden',
  'waiver-too-long': 'policy-overridden',
  'waiver-ends': null,
  'waiver-unused': null,
  'image-evidence-unusable': null,
};

/** Returns the exception type for a refusal with this code, or null. A code of a newer version is not ignored. */
export function exceptionOf(code: string): ExceptionType | null {
  return isViolationCode(code) ? OF_CODE[code] : 'bad-signature';
}

const OUTAGE = 2; // missed heartbeats after which the gate counts as away
const SKEW_MS = 1000;

/** A row before the number of rows of its entry, and its disposition, are known. */
export type Draft = Omit<
  ExceptionRecord,
  'id' | 'severity' | 'days' | 'by' | 'at' | 'reason' | 'ticket' | 'link' | 'owner' | 'disposition'
> &
  Partial<Pick<ExceptionRecord, 'by' | 'at' | 'reason' | 'ticket' | 'disposition'>>;

/**
 * Returns every exception of the period, one row per incident, with its disposition by the newest entry; `ofChanges`
 * comes from `changeBook`.
 */
export function registerOf(
  source: ReportSource,
  changes: readonly ChangeFacts[],
  ofChanges: readonly Draft[],
  emergencies: readonly EmergencyRecord[],
  asOf: string,
): ExceptionRecord[] {
  const drafts: Draft[] = [
    ...ofChanges,
    ...waived(source, changes),
    ...breakGlass(emergencies),
    ...drift(source),
    ...simple(source),
    ...outages(source),
    ...skews(source),
  ];
  const settled = new Map(source.of('exception.settled').map((s) => [s.entry.exception, s]));
  const owners = new Map(source.of('exception.assigned').map((s) => [s.entry.exception, s.entry.owner]));
  const numbers = new Map<number, number>();
  return drafts
    .sort((a, b) => a.entry - b.entry || EXCEPTION_TYPES.indexOf(a.type) - EXCEPTION_TYPES.indexOf(b.type))
    .map((draft): ExceptionRecord => {
      const n = numbers.get(draft.entry) ?? 0;
      numbers.set(draft.entry, n + 1);
      const id = n === 0 ? `E${draft.entry}` : `E${draft.entry}.${n + 1}`;
      const by = settled.get(id)?.entry;
      const disposition: Disposition = by?.disposition ?? draft.disposition ?? 'open';
      const at = by?.time ?? draft.at ?? '';
      return {
        ...draft,
        id,
        severity: SEVERITY[draft.type],
        owner: owners.get(id) ?? '',
        disposition,
        by: by?.user ?? draft.by ?? '',
        at,
        reason: by?.reason ?? draft.reason ?? '',
        ticket: by?.ticket ?? draft.ticket ?? '',
        link: by?.link ?? '',
        days:
          disposition === 'prevented'
            ? 0
            : Math.max(0, Math.floor(seconds(draft.time, at === '' ? asOf : at) / 86_400)),
      };
    });
}

/** Collects exceptions caused by changes themselves. Each change is added once, in order, with its last verdict. */
export function changeBook(source: ReportSource): {
  readonly see: (change: ChangeRecord, verdict: Verdict) => void;
  readonly drafts: () => Draft[];
} {
  const drafts: Draft[] = [];
  const late = lateApprovals(source);
  return {
    see: (change, verdict) => {
      if (change.outcome === 'denied') drafts.push(...refusals(change, verdict));
      if (change.outcome !== 'applied') return;
      if (change.attributes.C === 'fail') drafts.push(unapproved(change));
      late.see(change);
    },
    drafts: () => [...drafts, ...late.drafts()],
  };
}

function refusals(change: ChangeRecord, verdict: Verdict): Draft[] {
  const found = new Map<ExceptionType, Violation>();
  for (const v of [...verdict.violations, ...verdict.warnings]) {
    const type = exceptionOf(v.code);
    if (type !== null && !found.has(type)) found.set(type, v);
  }
  return [...found].map(([type, v]) => ({
    entry: change.entry,
    time: change.time,
    environment: change.environment,
    type,
    change: change.id,
    object: change.to.slice(0, 12),
    actor: change.commits.find((c) => c.id === v.commit)?.author ?? change.commits.at(-1)?.author ?? '',
    cause: v.message,
    exposed: 0,
    disposition: 'prevented',
    at: change.time,
  }));
}

// If the TrustPolicy requires no approval, the gate misses none; a reader does.
function unapproved(c: ChangeRecord): Draft {
  return {
    entry: c.entry,
    time: c.appliedAt,
    environment: c.environment,
    type: 'too-few-approvals',
    change: c.id,
    object: c.to.slice(0, 12),
    actor: c.commits.at(-1)?.author ?? '',
    cause: 'applied without an approval by someone other than its makers: the TrustPolicy asked for none',
    exposed: undefined,
  };
}

// If a commit was applied several times, the newest time counts.
function lateApprovals(source: ReportSource): {
  readonly see: (change: ChangeRecord) => void;
  readonly drafts: () => Draft[];
} {
  const recorded = grouped(source.within('approval.recorded'), ({ entry }) => `${entry.environment} ${entry.commit}`);
  const found = new Map<number, Draft | undefined>();
  const draft = ({ index, entry }: Indexed<EntryOf<'approval.recorded'>>, change: ChangeRecord): Draft | undefined => {
    if (entry.time <= change.appliedAt || change.approvals.some((a) => a.envelope === entry.envelope)) return undefined;
    return {
      entry: index,
      time: entry.time,
      environment: entry.environment,
      type: 'approval-after-apply',
      change: change.id,
      object: entry.commit.slice(0, 12),
      actor: entry.principal,
      cause: `approved after it was applied at ${change.appliedAt}`,
      exposed: seconds(change.appliedAt, entry.time),
    };
  };
  return {
    see: (change) => {
      for (const { id } of change.commits)
        for (const approval of recorded.get(`${change.environment} ${id}`) ?? [])
          found.set(approval.index, draft(approval, change));
    },
    drafts: () => [...found].sort(([a], [b]) => a - b).flatMap(([, one]) => one ?? []),
  };
}

function waived(source: ReportSource, changes: readonly ChangeFacts[]): Draft[] {
  const entries = new Set(changes.map((c) => c.entry));
  const once = new Map<string, Draft>();
  for (const { index, entry } of source.within('waiver.used')) {
    const key = `${entry.environment} ${entry.rule} ${entry.waiver}`;
    if (once.has(key)) continue;
    once.set(key, {
      entry: index,
      time: entry.time,
      environment: entry.environment,
      type: 'policy-overridden',
      change: entries.has(entry.verdict) ? `C${entry.verdict}` : '',
      object: entry.waiver,
      actor: entry.approver,
      cause: `the rule ${entry.rule} is waived until ${entry.until}`,
      exposed: undefined,
      disposition: 'accepted',
      by: entry.approver,
      at: entry.time,
      reason: `signed waiver \`${entry.waiver}\``,
    });
  }
  return [...once.values()];
}

function breakGlass(emergencies: readonly EmergencyRecord[]): Draft[] {
  return emergencies.map((e): Draft => {
    const draft: Draft = {
      entry: e.entry,
      time: e.opened,
      environment: e.environment,
      type: 'break-glass',
      change: '',
      object: unique(e.uses.map((u) => u.what)).join(', '),
      actor: e.requester,
      cause: e.reason,
      exposed: e.closed === '' ? undefined : Math.max(0, seconds(e.opened, e.closed)),
      ticket: e.ticket,
      ...(e.reviewedAt === ''
        ? {}
        : { disposition: 'remediated' as const, by: e.reviewer, at: e.reviewedAt, reason: e.result }),
    };
    return e.result.startsWith('late')
      ? { ...draft, type: 'late-emergency-review', cause: `${e.reason}; the review was due at ${e.reviewDue}` }
      : draft;
  });
}

// An action allowed by break-glass is already a row of its own. Audit log entries about the same object are mentioned
// with it.
function drift(source: ReportSource): Draft[] {
  const corrections = source.of('drift.corrected');
  // A new revision writes the objects that changed in Git; that alone does not revert changes by someone else.
  const results = source.of('apply.result').filter(({ entry }) => {
    const intent = source.at(entry.intent);
    return (
      entry.outcome === 'applied' &&
      intent?.type === 'apply.intent' &&
      (intent.purpose === 'correct' || intent.purpose === 'restore')
    );
  });
  const remains = source.of('drift.remains');
  const isAmong = (o: ObjectRef, objects: readonly ObjectRef[]) => objects.some((x) => refText(x) === refText(o));
  const unmatched = [...source.within('audit.unmatched')];
  const found = source.within('drift.found').flatMap(({ index, entry }): Draft[] => {
    const explained = (entry.details ?? []).filter(
      (d) => d.admission !== undefined && source.at(d.admission)?.type === 'breakglass.used',
    );
    const left = entry.objects.filter((o) => !explained.some((d) => refText(d.object) === refText(o)));
    if (left.length === 0) return [];
    const seen = unmatched.filter(({ entry: u }) =>
      left.some(
        (o) =>
          o.namespace === u.object.namespace && o.name === u.object.name && Math.abs(seconds(u.at, entry.time)) < 3600,
      ),
    );
    for (const one of seen) unmatched.splice(unmatched.indexOf(one), 1);
    const end =
      corrections.find(
        (c) =>
          c.index > index &&
          c.entry.environment === entry.environment &&
          left.every((o) => c.entry.objects.some((x) => refText(x) === refText(o))),
      ) ??
      results.find(
        (r) =>
          r.index > index &&
          r.entry.environment === entry.environment &&
          !remains.some((m) => m.entry.result === r.index && left.some((o) => isAmong(o, m.entry.objects))),
      );
    const managers = unique((entry.details ?? []).map((d) => d.manager));
    return [
      {
        entry: index,
        time: entry.time,
        environment: entry.environment,
        type: 'out-of-band-change',
        change: '',
        object: left.map(refText).join(', '),
        actor: unique(seen.map((s) => actorOf(s.entry))).join(', ') || managers.join(', '),
        cause:
          `not as revision ${entry.revision.slice(0, 12)} has ` +
          `it${seen.length === 0 ? '' : `; audit log, entries ${seen.map((s) => s.index).join(', ')}`}`,
        exposed: end === undefined ? undefined : seconds(entry.time, end.entry.time),
        ...(end === undefined
          ? {}
          : {
              disposition: 'remediated' as const,
              by: 'countersign',
              at: end.entry.time,
              reason: `put right, entry ${end.index}`,
            }),
      },
    ];
  });
  return [
    ...found,
    ...unproven(source, unmatched),
    ...unmatched.map(
      ({ index, entry }): Draft => ({
        entry: index,
        time: entry.time,
        environment: entry.environment,
        type: 'out-of-band-change',
        change: '',
        object: `${entry.resource} ${entry.object.namespace}/${entry.object.name}`,
        actor: actorOf(entry),
        cause: `${entry.verb} at ${entry.at} by the API server’s audit log, and no entry accounts for it`,
        exposed: undefined,
      }),
    ),
  ];
}

// Lists content that ran, or could have run, without approval. Removes the audit entries it reports from `unmatched`.
function unproven(source: ReportSource, unmatched: Indexed<EntryOf<'audit.unmatched'>>[]): Draft[] {
  const ends = new Map(source.of('content.resolved').map((r) => [r.entry.found, r]));
  return source.within('content.unproven').map((r) => {
    const { object, since, reason, manager } = r.entry;
    const seen = unmatched.filter(
      ({ entry: { object: o, at } }) =>
        o.namespace === object.namespace && o.name === object.name && Math.abs(seconds(at, since)) < 3600,
    );
    for (const one of seen) unmatched.splice(unmatched.indexOf(one), 1);
    const end = ends.get(r.index);
    const from = since !== '' && since < r.entry.time ? since : r.entry.time;
    return row(
      r,
      'out-of-band-change',
      {
        object: refText(object),
        actor: unique(seen.map((s) => actorOf(s.entry))).join(', ') || manager,
        cause: `${reason}${seen.length === 0 ? '' : `; audit log, entries ${seen.map((s) => s.index).join(', ')}`}`,
      },
      end === undefined
        ? {}
        : { ...undone(end, `${END[end.entry.how]}, entry ${end.index}`), exposed: seconds(from, end.entry.time) },
    );
  });
}

const END = {
  'proven or gone': 'it is gone, or as approved',
  idle: 'it was scaled to zero',
  changed: 'replaced by a later entry about it',
} as const;

// Who sent it, if that is someone other than the one whose name it bears.
function actorOf({ user, impersonator }: EntryOf<'audit.unmatched'>): string {
  return impersonator === undefined ? user : `${impersonator} (as ${user})`;
}

// Entries that each make a row.
function simple(source: ReportSource): Draft[] {
  return [...ofBranches(source), ...ofRuns(source), ...ofAdmission(source), ...ofLedger(source)];
}

type RowText = { readonly object: string; readonly actor?: string; readonly cause: string };

function row({ index, entry }: Indexed, type: ExceptionType, text: RowText, more: Partial<Draft> = {}): Draft {
  return {
    entry: index,
    time: entry.time,
    environment: 'environment' in entry ? entry.environment : '',
    type,
    change: '',
    object: text.object,
    actor: text.actor ?? '',
    cause: text.cause,
    exposed: undefined,
    ...more,
  };
}

// The gate itself undid it at once.
function undone({ entry }: Indexed, reason: string): Partial<Draft> {
  return { disposition: 'remediated', by: 'countersign', at: entry.time, reason };
}

function ofBranches(source: ReportSource): Draft[] {
  return source.within('ref.rewound').map((r) => {
    const moved = `from ${r.entry.before.slice(0, 12)} to ${r.entry.after.slice(0, 12)}`;
    return row(r, 'force-push', { object: r.entry.ref, cause: `${moved}, which does not descend from it` });
  });
}

function ofRuns(source: ReportSource): Draft[] {
  const refused = source.within('apply.refused').map((r) => {
    const text = { object: r.entry.revision.slice(0, 12), cause: r.entry.error };
    return row(r, 'apply-failed', text, undone(r, 'nothing was written'));
  });
  const failed = source.within('apply.result').flatMap((r) => {
    if (r.entry.outcome !== 'failed') return [];
    const text = { object: `back to ${r.entry.revision.slice(0, 12)}`, cause: r.entry.error ?? '' };
    return [row(r, 'apply-failed', text, undone(r, 'what could not be finished was undone'))];
  });
  const ended = new Set(source.within('apply.result').map((r) => r.entry.intent));
  const interrupted = source.within('apply.intent').flatMap((r) => {
    // A failed change was not interrupted: it has a row of its own.
    if (r.entry.takesOver === undefined || ended.has(r.entry.takesOver)) return [];
    const text = { object: r.entry.revision.slice(0, 12), cause: `entry ${r.entry.takesOver} had no result` };
    return [row(r, 'apply-interrupted', text, undone(r, `taken over (${r.entry.purpose})`))];
  });
  return [...refused, ...failed, ...interrupted];
}

const ANNOUNCED: Readonly<Record<string, string>> = {
  'breakglass.closed': 'closing',
  'breakglass.approved': 'approval',
};

function ofAdmission(source: ReportSource): Draft[] {
  const passed = [
    ...source.within('admission.denied').filter((r) => r.entry.mode !== 'enforce'),
    ...source.within('admission.warned'),
  ].filter(({ entry }) => entry.repeated === undefined);
  return [
    ...passed.map((r) => {
      const object = `${r.entry.operation} ${refText(r.entry.object)}`;
      return row(r, 'not-enforced', { object, actor: r.entry.user, cause: r.entry.reason });
    }),
    ...source.within('breakglass.unconfirmed').map((r) => {
      const about = source.at(r.entry.of);
      const what = ANNOUNCED[about?.type ?? ''] ?? 'opening';
      return row(
        r,
        'gate-tampered',
        {
          object: `break-glass in ${r.entry.namespaces.join(', ')}`,
          actor: about !== undefined && 'user' in about ? about.user : '',
          cause: `a request announced its ${what}, entry ${r.entry.of}, and the API server never had it`,
        },
        undone(r, 'it had no effect'),
      );
    }),
    ...source.within('protection.changed').map((r) => {
      const text = { object: refText(r.entry.object), actor: r.entry.manager, cause: r.entry.change };
      return row(r, 'gate-tampered', text, undone(r, 'put back'));
    }),
  ];
}

function ofLedger(source: ReportSource): Draft[] {
  return [
    ...source.within('epoch.opened').map((r: Indexed<EntryOf<'epoch.opened'>>) => {
      const { origin, reason, claimedBy } = r.entry;
      const actor = claimedBy === undefined ? {} : { actor: claimedBy };
      const text = { object: origin, cause: `the store was put back: ${reason}`, ...actor };
      return row(r, 'ledger-fault', text);
    }),
    ...source.within('records.missing').map((r) => {
      const { count, since, until, reason } = r.entry;
      const records = `${count} ${count === 1 ? 'record' : 'records'}`;
      const cause = `${records} from ${since} to ${until} could be written nowhere: ${reason}`;
      return row(r, 'ledger-fault', { object: 'write-ahead', actor: r.entry.replica, cause });
    }),
    ...source.within('record.refused').map((r) => {
      const records = `${r.entry.count} ${r.entry.count === 1 ? 'record was' : 'records were'}`;
      const cause = `${records} not taken onto the ledger: ${r.entry.reason}`;
      return row(r, 'record-refused', { object: r.entry.source, actor: r.entry.replica, cause });
    }),
  ];
}

/** Returns the times in the period when the gate was away, by its heartbeats. */
export function outagesOf(
  source: ReportSource,
): readonly { readonly index: number; readonly from: string; readonly to: string; readonly planned: boolean }[] {
  const away: { index: number; from: string; to: string; planned: boolean }[] = [];
  let last: { time: string; every: number } | undefined;
  let stopped = false;
  for (const { index, entry } of source.all) {
    if (!source.isWithin(entry.time)) continue;
    // Any entry shows that the service was running; only heartbeats say how often to expect one.
    if (last !== undefined && last.every > 0 && seconds(last.time, entry.time) > OUTAGE * last.every)
      away.push({ index, from: last.time, to: entry.time, planned: stopped });
    stopped =
      entry.type === 'service.stopped' || (stopped && entry.type !== 'service.started' && entry.type !== 'heartbeat');
    last = { time: entry.time, every: entry.type === 'heartbeat' ? entry.everySeconds : (last?.every ?? 0) };
  }
  return away;
}

function outages(source: ReportSource): Draft[] {
  return outagesOf(source).map(({ index, from, to, planned }) => ({
    entry: index,
    time: to,
    environment: '',
    type: 'gate-outage',
    change: '',
    object: 'gate',
    actor: '',
    cause: `no sign of the service from ${from} to ${to}${planned ? ', after it was told to stop' : ''}`,
    exposed: seconds(from, to),
  }));
}

function skews(source: ReportSource): Draft[] {
  return source.all.flatMap(({ index, entry }, i): Draft[] => {
    const before = source.all[i - 1]?.entry;
    if (
      before === undefined ||
      !source.isWithin(entry.time) ||
      Date.parse(before.time) - Date.parse(entry.time) <= SKEW_MS
    )
      return [];
    return [
      {
        entry: index,
        time: entry.time,
        environment: '',
        type: 'clock-skew',
        change: '',
        object: 'ledger',
        actor: '',
        cause: `the entry before says ${before.time}`,
        exposed: -seconds(before.time, entry.time),
      },
    ];
  });
}

/** Returns every opening of break-glass, and every use with its own reason, with the actions and the review. */
export function emergenciesOf(source: ReportSource, reviewHours: number, asOf: string): EmergencyRecord[] {
  const settled = new Map(
    source.of('breakglass.settled').flatMap((s) => s.entry.uses.map((use) => [use, s.entry] as const)),
  );
  const closed = source.of('breakglass.closed');
  const uses = [...standingUses(source.of('breakglass.used'), source.of('breakglass.refused'))];
  const unconfirmed = new Set(source.of('breakglass.unconfirmed').map((r) => r.entry.of));
  const approvals = source.of('breakglass.approved').filter((r) => !unconfirmed.has(r.index));
  const grants = source.within('breakglass.opened').map((opened) => {
    const { environment, namespaces = [], until } = opened.entry;
    const end = closed.find(
      (c) =>
        c.index > opened.index &&
        c.entry.environment === environment &&
        c.entry.namespaces.some((n) => namespaces.includes(n)),
    );
    const ends = end === undefined || end.entry.time > until ? until : end.entry.time;
    const mine = uses.filter(
      ({ index, entry }) =>
        index > opened.index &&
        entry.environment === environment &&
        (entry.at ?? entry.time) <= ends &&
        namespaces.includes(namespaceOf(entry)),
    );
    for (const one of mine) uses.splice(uses.indexOf(one), 1);
    const approval = approvals.find(
      (a) =>
        a.index > opened.index &&
        (a.entry.at ?? a.entry.time) <= ends &&
        a.entry.environment === environment &&
        a.entry.reason === opened.entry.reason &&
        a.entry.user !== opened.entry.user &&
        a.entry.namespaces.some((n) => namespaces.includes(n)),
    );
    return { index: opened.index, entry: opened.entry, ends, mine, approver: approval?.entry.user ?? '' };
  });
  const alone = uses
    .filter(({ entry }) => source.isWithin(entry.time))
    .map((use) => ({
      index: use.index,
      entry: { ...use.entry, ticket: '' },
      ends: use.entry.until,
      mine: [use],
      approver: '',
    }));
  return [...grants, ...alone]
    .sort((a, b) => a.index - b.index)
    .map(({ index, entry, ends, mine, approver }) => {
      const reviews = mine.map((u) => settled.get(u.index));
      const review = reviews.at(-1);
      const whole = mine.length > 0 && reviews.every((r) => r !== undefined);
      const opened = entry.at ?? entry.time;
      const reviewDue = hoursAfter(ends, reviewHours);
      const over = ends < asOf;
      const late = mine.length > 0 && reviewDue !== '' && (whole ? (review?.time ?? '') > reviewDue : asOf > reviewDue);
      const unused = mine.length === 0 && over;
      const result = unused
        ? 'not used'
        : whole
          ? `${late ? 'late: ' : ''}` +
            `${review?.commit === undefined ? 'undone' : `in Git by ${review.commit.slice(0, 12)}`}`
          : late
            ? 'late'
            : over
              ? 'not reviewed yet'
              : 'open';
      return {
        entry: index,
        environment: entry.environment,
        requester: entry.user,
        approver,
        reason: entry.reason,
        ticket: entry.ticket,
        opened,
        closed: over ? ends : '',
        uses: mine.map((u) => ({
          entry: u.index,
          at: u.entry.at ?? u.entry.time,
          user: u.entry.user,
          what:
            `${u.entry.operation} ` +
            `${refText(u.entry.object)}${u.entry.subresource === undefined ? '' : `/${u.entry.subresource}`}`,
        })),
        reviewDue,
        reviewedAt: unused ? ends : whole ? (review?.time ?? '') : '',
        reviewer: whole ? (review?.user ?? '') : '',
        result,
      };
    });
}

function hoursAfter(time: string, hours: number): string {
  const at = Date.parse(time) + hours * 3_600_000;
  return Number.isNaN(at) ? '' : new Date(at).toISOString();
}

function namespaceOf({ object }: EntryOf<'breakglass.used'>): string {
  return object.kind === 'Namespace' && object.apiVersion === 'v1' ? object.name : object.namespace;
}

/** Groups rows by change, for the records of changes. */
export function exceptionsByChange(rows: readonly ExceptionRecord[]): ReadonlyMap<string, readonly string[]> {
  return new Map(
    [
      ...grouped(
        rows.filter((r) => r.change !== ''),
        (r) => r.change,
      ),
    ].map(([change, all]) => [change, all.map((r) => r.id)]),
  );
}
