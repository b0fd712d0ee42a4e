import type { Grant } from './break-glass.ts';
import type { LedgerView } from './ports.ts';
import { type BreakGlassStanding, breakGlassStanding } from './settle-break-glass.ts';

/** Where break-glass stands as a running service knows it: what the ledger has not got yet has no entry. */
export type BreakGlassNow = Omit<BreakGlassStanding, 'open'> & {
  readonly open: readonly (Grant & { readonly entry?: number })[];
};

/**
 * What was opened or closed while the ledger was away is known to whoever let it through; without a webhook, the ledger
 * tells.
 */
export function breakGlassNow(
  ledger: Pick<LedgerView, 'all'>,
  front: { readonly grants?: ((environment: string) => readonly Grant[]) | undefined } | undefined,
  environment: string,
  at: string,
): BreakGlassNow {
  const standing = breakGlassStanding(ledger, environment, at);
  return { ...standing, open: front?.grants?.(environment) ?? standing.open };
}
