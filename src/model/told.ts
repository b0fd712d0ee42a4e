import type { ObjectRef } from './kubernetes.ts';
import type { HAPPENINGS } from './schema.ts';

/**
 * An event in an environment, described for people: for metrics, notifications and Kubernetes Events, never the record.
 */
export type Told = {
  readonly environment: string;
  readonly event: (typeof HAPPENINGS)[number];
  readonly revision: string;
  readonly message: string;
  /** ISO 8601. */
  readonly at: string;
  /** The objects concerned, if known. */
  readonly objects?: readonly ObjectRef[];
};
