import type { RenderedObject } from './kubernetes.ts';

declare const allowed: unique symbol;

/**
 * Rendered objects with an allow verdict already on the ledger: the only thing that can be applied. Only `gate` creates
 * one.
 */
export type AllowedRevision = {
  readonly environment: string;
  readonly revision: string;
  /** Ledger index of the verdict. */
  readonly verdict: number;
  readonly objects: readonly RenderedObject[];
  /** Irreversible actions that signed commits of the change declare intended. */
  readonly allows: readonly string[];
  readonly [allowed]: true;
};
