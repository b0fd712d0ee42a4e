import type { Grant } from './break-glass.ts';
import type { LedgerView } from './ports.ts';
import { type BreakGlassStanding, breakGlassStanding } from './settle-break-glass.ts';

/** State of break-glass in a running service; records not yet on the ledger have no entry. */
export type BreakGlassNow = Omit<BreakGlassStanding, 'open'> & {
  readonly open: readonly (Grant & { readonly entry?: number })[];
};

/**
 * Grants opened or closed while the ledger was unavailable are known to the part that allowed them; without a webhook,
 * the ledger is the source.
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
