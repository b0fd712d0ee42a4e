import type { RenderedObject } from './kubernetes.ts';

declare const allowed: unique symbol;

/** What may be applied: rendered objects with an allow verdict already on the ledger. Only `gate` makes one. */
export type AllowedRevision = {
  readonly environment: string;
  readonly revision: string;
  /** Ledger index of the verdict. */
  readonly verdict: number;
  readonly objects: readonly RenderedObject[];
  /** Things that cannot be undone, and that signed commits of the change say are meant. */
  readonly allows: readonly string[];
  readonly [allowed]: true;
};
