import type { EntryOf, Recorded } from './entry.ts';

/**
 * Returns the uses of break-glass but for those whose request was refused after all. A refusal takes back one use, the
 * last before it with its uid: whoever sends the uid of a use again takes back no more than what they sent.
 */
export function standingUses<U extends Recorded<EntryOf<'breakglass.used'>>>(
  uses: readonly U[],
  refusals: readonly Recorded<EntryOf<'breakglass.refused'>>[],
): readonly U[] {
  const gone = new Set<U>();
  for (const { index, entry } of refusals) {
    const taken = uses.findLast(
      (use) =>
        use.index < index &&
        use.entry.uid === entry.uid &&
        use.entry.environment === entry.environment &&
        !gone.has(use),
    );
    if (taken !== undefined) gone.add(taken);
  }
  return uses.filter((use) => !gone.has(use));
}
