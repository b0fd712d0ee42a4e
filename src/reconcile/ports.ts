import type { LedgerView, Recorder } from '../gate/index.ts';
import type { ObjectRef, OwnedObject, RenderedObject } from '../model/index.ts';

/** What the loop does in a cluster. */
export interface ClusterPort {
  isReadyFor(ref: ObjectRef): Promise<boolean>;
  dryRun(rendered: RenderedObject, owned: OwnedObject, environment: string): Promise<{ live: string; admitted: string | undefined }>;
  apply(rendered: RenderedObject, owned: OwnedObject, environment: string): Promise<{ live: string; admitted: string | undefined }>;
  established(ref: ObjectRef): Promise<void>;
  remove(ref: ObjectRef): Promise<void>;
  takeOver(ref: ObjectRef): Promise<void>;
  liveDigests(refs: readonly ObjectRef[]): Promise<Map<string, string>>;
  stages<T extends { readonly ref: ObjectRef }>(objects: readonly T[]): T[][];
}

export interface LogPort {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** A moment between two steps of a change, in the order they happen; tests end the process at each. */
export type Step = 'fetched' | 'judged' | 'dry-run' | 'intended' | 'first-write' | 'written' | 'pruned' | 'recorded';

/** Everything one environment's loop is handed. */
export type ReconcilePorts = {
  readonly cluster: ClusterPort;
  readonly ledger: LedgerView & Recorder;
  readonly log: LogPort;
  readonly clock: () => Date;
  /** Fetches the source and gives the id its branch is at now, and of the approvals. */
  readonly look: () => Promise<{ readonly tip: string; readonly approvals: string }>;
  readonly onStep?: (step: Step, environment: string) => void;
};
