import type { ObjectRef } from './kubernetes.ts';
import type { HAPPENINGS } from './schema.ts';

/**
 * Something that happened in an environment, in words for people: for metrics, notifications and Events, never the
 * record.
 */
export type Told = {
  readonly environment: string;
  readonly event: (typeof HAPPENINGS)[number];
  readonly revision: string;
  readonly message: string;
  /** ISO 8601. */
  readonly at: string;
  /** What it happened to, where that is known. */
  readonly objects?: readonly ObjectRef[];
};
