import type { EntryOf, Recorded } from './entry.ts';

/**
 * Returns the uses of break-glass but for those whose request was refused after all. A refusal names the use by an id
 * that the service gave it, not by the request's uid: sending the uid again takes back no one else's use.
 */
export function standingUses<U extends Recorded<EntryOf<'breakglass.used'>>>(
  uses: readonly U[],
  refusals: readonly Recorded<EntryOf<'breakglass.refused'>>[],
): readonly U[] {
  const gone = new Set(refusals.map(({ entry }) => entry.use));
  return uses.filter(({ entry: { use } }) => use === undefined || !gone.has(use));
}
