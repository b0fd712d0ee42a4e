import type { ReportDefinition } from './model.ts';

/**
 * All input of a report. `entries` are the canonical bodies of ledger entries `first`, `first + 1`, …; they are
 * iterated several times and never needed all at once.
 */
export type ReportInput = {
  /** Start and end of the period, ISO 8601; the end is exclusive. */
  readonly from: string;
  readonly to: string;
  readonly first: number;
  readonly entries: Iterable<string>;
  /** Canonical evidence by its SHA-256. */
  readonly evidence: { readonly get: (sha256: string) => string | undefined };
  /** Names and addresses behind commitments in entries and evidence, unless erased. */
  readonly subjects: readonly ReportSubject[];
  readonly checkpoint: string;
  readonly origin: string;
  readonly definition: ReportDefinition;
};

/** A text, and the proof that a commitment was made to it: `subject:` and SHA-256(salt ‖ text). `salt` is in hex. */
export type ReportSubject = { readonly commitment: string; readonly salt: string; readonly text: string };
