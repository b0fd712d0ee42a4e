import type { EnvironmentState, LedgerView, Recorder } from '../gate/index.ts';
import type {
  Comparison,
  Environment,
  KubernetesObject,
  ObjectRef,
  OwnedObject,
  RenderedObject,
  Told,
  Trace,
  TroubleSeen,
  Turns,
  Writing,
} from '../model/index.ts';

/** Digests that the admission webhook sees in a dry run: of the object, and of the template in it, if it has one. */
type DryRun = {
  readonly admitted: string | undefined;
  readonly template: string | undefined;
  /** Digest of that template without the fields that are left to others, if there are any. */
  readonly left?: string | undefined;
  /** Whether the object existed before. */
  readonly existed: boolean;
};

/** Result of applying an object: its digest as stored, and the digest its admission webhook admits. */
type AppliedObject = {
  /** Digest of the stored object; undefined if it is not exactly as it should be. */
  readonly live: string | undefined;
  readonly admitted: string | undefined;
};

/** Current state of one of our objects. */
export type LiveState = {
  readonly digest: string;
  readonly generation: number;
  readonly leaving: boolean;
  readonly health: { readonly state: 'current' | 'progressing' | 'failed'; readonly message: string };
};

/** Operations of the loop in a cluster. */
export interface ClusterPort {
  /** Watches the kinds of these objects from now on; resolves once they have been listed. */
  watch(refs: readonly ObjectRef[], namespaces: readonly string[]): Promise<void>;
  live(ref: ObjectRef): LiveState | undefined;
  /** Returns the uid of the last object of this name that was healthy when it went, as far as the watch saw it. */
  endedWell(ref: ObjectRef): string | undefined;
  /** Tests whether an object's kind was listed, so that objects missing from `live` do not exist. */
  knows(ref: ObjectRef): boolean;
  /** Whether every watch is currently connected. */
  readonly connected: boolean;
  /** Describes the other owner of an object, if there is one; `anyLedger`: one of another ledger does not count. */
  otherOwner(ref: ObjectRef, environment: string, anyLedger?: boolean): string | undefined;
  isReadyFor(ref: ObjectRef): Promise<boolean>;
  dryRun(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<DryRun>;
  dryRunAnew(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<DryRun>;
  apply(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<AppliedObject>;
  compare(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<Comparison>;
  /** Returns what taking over an object that exists would change in it, without the marks of tools. */
  adoption(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<readonly string[]>;
  /** Returns what a namespace holds: uids of an environment's objects among these keys, and everything else. */
  contents(
    namespace: string,
    environment: string,
    keys: ReadonlySet<string>,
    known?: ReadonlySet<string>,
  ): Promise<{ readonly own: ReadonlySet<string>; readonly others: readonly ObjectRef[] }>;
  /** Returns what can be seen of objects that are not healthy. Never throws. */
  troubles(refs: readonly ObjectRef[]): Promise<readonly TroubleSeen[]>;
  /** Returns an object as the API server has it now; undefined if there is none. */
  read(ref: ObjectRef): Promise<KubernetesObject | undefined>;
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

interface LogPort {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** A moment between two steps of a change, in order; tests end the process at each. */
export type Step =
  | 'fetched'
  | 'judged'
  | 'dry-run'
  | 'intended'
  | 'first-write'
  | 'hook-made'
  | 'hook'
  | 'wave'
  | 'written'
  | 'healthy'
  | 'pruned'
  | 'recorded';

/** Everything passed to one environment's loop. */
export type ReconcilePorts = {
  readonly environment: Environment;
  readonly cluster: ClusterPort;
  readonly ledger: LedgerView & Recorder;
  readonly state: () => EnvironmentState;
  readonly log: LogPort;
  readonly clock: () => Date;
  readonly turns: Turns;
  /**
   * Returns the current ids of the source's branch and of the approvals, as fetched at `since` (by `performance.now()`)
   * or later.
   */
  readonly look: (since: number) => Promise<{ readonly tip: string; readonly approvals: string }>;
  /** Waits for a turn if many environments have something to judge at the same time; `first`: before all others. */
  readonly turn?: <T>(task: () => Promise<T>, first: boolean) => Promise<T>;
  /** Maximum concurrent requests to the cluster right now; fewer while others wait for the gate. */
  readonly atOnce?: (() => number) | undefined;
  /** Receives events for metrics, notifications and Kubernetes Events; never the record. */
  readonly tell?: (told: Told) => void;
  /** Receives the duration of a check in seconds. */
  readonly took?: (kind: 'look' | 'drift', seconds: number) => void;
  readonly onStep?: (step: Step, environment: string) => void;
  /** Traces the steps of a check. */
  readonly trace: Trace;
};
