import {
  CountersignError,
  type EntryBody,
  type EntryOf,
  type ObjectRef,
  type Recorded,
  refKey,
  refText,
  type Verdict,
} from '../model/index.ts';
import { type Grant, grantsOf, usesOf } from './break-glass.ts';
import type { LedgerView } from './ports.ts';

type Use = Recorded<EntryOf<'breakglass.used'>>;

/** State of break-glass in an environment: open grants, and uses not yet settled. */
export type BreakGlassStanding = {
  readonly open: readonly (Grant & { readonly entry: number })[];
  readonly unsettled: readonly {
    readonly entry: number;
    readonly at: string;
    readonly user: string;
    readonly operation: string;
    readonly object: ObjectRef;
    readonly subresource: string;
    readonly reason: string;
    readonly until: string;
  }[];
};

/** Reads the state from the ledger. `now` is ISO 8601. */
export function breakGlassStanding(
  ledger: Pick<LedgerView, 'all'>,
  environment: string,
  now: string,
): BreakGlassStanding {
  const open = grantsOf(ledger, environment).filter((g) => g.until > now);
  const unsettled = usesLeft(ledger, environment).map(({ index, entry }) => {
    const { user, operation, object, subresource = '', reason, until } = entry;
    return { entry: index, at: entry.at ?? entry.time, user, operation, object, subresource, reason, until };
  });
  return { open, unsettled };
}

function usesLeft(ledger: Pick<LedgerView, 'all'>, environment: string): readonly Use[] {
  const settled = new Set(ledger.all('breakglass.settled', environment).flatMap((r) => r.entry.uses));
  return usesOf(ledger, environment).filter((r) => !settled.has(r.index));
}

/**
 * A reviewer's statement about uses of break-glass: the commit that brought Git in line, or that everything was
 * reverted.
 */
export type Review = {
  readonly environment: string;
  /** A commitment to the reviewer's name. */
  readonly user: string;
  readonly reason: string;
  /** Indices of `breakglass.used` entries; all unsettled ones if empty. */
  readonly uses: readonly number[];
  /** At least seven hex digits; without it, everything must match Git. */
  readonly commit: string | undefined;
  /** Whether who made a use may settle it. */
  readonly byAnyone: boolean;
};

/**
 * Returns the entry that settles uses of break-glass. Throws `usage` for an invalid use, a commit that was not applied
 * after it, or an object that does not match Git according to `isAsGit`.
 */
export async function settleUses(
  ledger: LedgerView,
  review: Review,
  isAsGit: (ref: ObjectRef) => Promise<boolean>,
): Promise<Extract<EntryBody, { type: 'breakglass.settled' }>> {
  const { environment, user, reason } = review;
  const left = usesLeft(ledger, environment);
  const unknown = review.uses.find((i) => !left.some((u) => u.index === i));
  if (unknown !== undefined)
    throw new CountersignError(
      'usage',
      `entry ${unknown} is not an unsettled use of break-glass in \`${environment}\``,
      {
        hint: '`countersign break-glass list` shows the unsettled uses',
      },
    );
  const uses = review.uses.length === 0 ? left : left.filter((u) => review.uses.includes(u.index));
  if (uses.length === 0)
    throw new CountersignError('usage', `there is no use of break-glass in \`${environment}\` left to settle`);
  const own = review.byAnyone ? undefined : uses.find((u) => u.entry.user === user);
  if (own !== undefined)
    throw new CountersignError('usage', `entry ${own.index} is a use by the same person, who cannot settle it`, {
      hint: 'let someone else settle it; or set `spec.admission.breakGlass.settle: anyone`',
    });
  const base = { type: 'breakglass.settled', environment, uses: uses.map((u) => u.index), user, reason } as const;
  if (review.commit !== undefined) return { ...base, commit: appliedAfter(ledger, environment, review.commit, uses) };
  const seen = new Set<string>();
  for (const { entry } of uses) {
    // actions inside a container left nothing to compare
    if (isConnection(entry) || seen.has(refKey(entry.object))) continue;
    seen.add(refKey(entry.object));
    if (!(await isAsGit(entry.object)))
      throw new CountersignError('usage', `${refText(entry.object)} differs from Git`, {
        hint:
          'let Git take over first (at the end of the time, or by removing what was created), ' +
          'or name the commit that brought Git in line with --commit',
      });
  }
  return base;
}

function isConnection({ operation, subresource }: EntryOf<'breakglass.used'>): boolean {
  return operation === 'CONNECT' || subresource === 'eviction';
}

// The commit itself was applied after the last use, or was part of a change that was.
function appliedAfter(ledger: LedgerView, environment: string, commit: string, uses: readonly Use[]): string {
  const last = Math.max(...uses.map((u) => u.index));
  for (
    let at = ledger.latest(['apply.result'], environment);
    at !== undefined && at.index > last;
    at = ledger.latest(['apply.result'], environment, at.index)
  ) {
    if (at.entry.outcome !== 'applied') continue;
    if (at.entry.revision.startsWith(commit)) return at.entry.revision;
    const intent = ledger.entry(at.entry.intent)?.entry;
    const judged = intent?.type === 'apply.intent' ? ledger.entry(intent.verdict)?.entry : undefined;
    if (judged?.type !== 'change.judged') continue;
    const part = (ledger.evidence(judged.evidence) as Verdict).commits.find((c) => c.commit.startsWith(commit));
    if (part !== undefined) return part.commit;
  }
  throw new CountersignError(
    'usage',
    `no change with the commit \`${commit}\` was applied to \`${environment}\` after entry ${last}`,
    {
      hint: 'bring the changes into Git and let them be applied; or revert them, and settle with --reverted',
    },
  );
}
