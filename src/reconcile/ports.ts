import type { EnvironmentState, LedgerView, Recorder } from '../gate/index.ts';
import type {
  Comparison,
  Environment,
  ObjectRef,
  OwnedObject,
  RenderedObject,
  Told,
  Trace,
  Turns,
  Writing,
} from '../model/index.ts';

/** What the API server made of an object: its digest as stored, and the digest its admission webhook admits. */
type AppliedObject = { readonly live: string; readonly admitted: string | undefined };

/** An object of ours as it is just now. */
export type LiveState = {
  readonly digest: string;
  readonly generation: number;
  readonly leaving: boolean;
  readonly health: { readonly state: 'current' | 'progressing' | 'failed'; readonly message: string };
};

/** What the loop does in a cluster. */
export interface ClusterPort {
  /** Watches the kinds of these objects from now on; resolves when they were read once. */
  watch(refs: readonly ObjectRef[], namespaces: readonly string[]): Promise<void>;
  live(ref: ObjectRef): LiveState | undefined;
  /** Whether the kind of an object was read, so that what `live` does not have is not there. */
  knows(ref: ObjectRef): boolean;
  /** Whether every watch is connected just now. */
  readonly connected: boolean;
  /** Whose an object is that somebody else claims, in words. */
  otherOwner(ref: ObjectRef, environment: string): string | undefined;
  isReadyFor(ref: ObjectRef): Promise<boolean>;
  dryRun(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<Pick<AppliedObject, 'admitted'>>;
  dryRunAnew(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<void>;
  apply(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<AppliedObject>;
  compare(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<Comparison>;
  established(ref: ObjectRef): Promise<void>;
  remove(
    ref: ObjectRef,
    environment: string,
    how?: { readonly dryRun?: boolean; readonly foreground?: boolean },
  ): Promise<void>;
  isGone(ref: ObjectRef): Promise<boolean>;
  hasInstances(definition: ObjectRef): Promise<boolean>;
  takeOver(ref: ObjectRef): Promise<void>;
  stages<T extends { readonly ref: ObjectRef }>(objects: readonly T[]): T[][];
}

export interface LogPort {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** A moment between two steps of a change, in the order they happen; tests end the process at each. */
export type Step =
  | 'fetched'
  | 'judged'
  | 'dry-run'
  | 'intended'
  | 'first-write'
  | 'written'
  | 'healthy'
  | 'pruned'
  | 'recorded';

/** Everything one environment's loop is handed. */
export type ReconcilePorts = {
  readonly environment: Environment;
  readonly cluster: ClusterPort;
  readonly ledger: LedgerView & Recorder;
  readonly state: () => EnvironmentState;
  readonly log: LogPort;
  readonly clock: () => Date;
  readonly turns: Turns;
  /**
   * The id that the source's branch is at, and of the approvals, as fetched at `since` (by `performance.now()`) or
   * later.
   */
  readonly look: (since: number) => Promise<{ readonly tip: string; readonly approvals: string }>;
  /** Waits for its turn where many environments have something to judge at the same time. */
  readonly turn?: <T>(task: () => Promise<T>) => Promise<T>;
  /** How many requests the cluster is sent side by side just now; fewer while others wait for the gate. */
  readonly atOnce?: (() => number) | undefined;
  /** Hears what happened, for metrics, notifications and Events; never the record. */
  readonly tell?: (told: Told) => void;
  /** How long a look took, in seconds. */
  readonly took?: (kind: 'look' | 'drift', seconds: number) => void;
  readonly onStep?: (step: Step, environment: string) => void;
  /** Follows the steps of a look for traces. */
  readonly trace: Trace;
};
