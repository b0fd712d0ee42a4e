import type { PolicyBundle } from '../bundle/index.ts';
import type {
  AdmissionDecision,
  AdmissionRequest,
  AdmissionScope,
  ClusterFacts,
  RequestOnRecord,
  RulesAt,
} from '../gate/index.ts';
import type { ThreadAnswer } from '../model/index.ts';
import type { Identity } from '../webhook/index.ts';

/** Data for starting a thread that answers the API server. */
export type AdmissionThreadData = {
  readonly host: string;
  readonly port: number;
  /** Whether other threads listen at the same address. */
  readonly shares: boolean;
  readonly identity: Identity;
  /** Token required for the API server's audit events; without it none are accepted. */
  readonly auditToken: string | undefined;
  /** Address of the trace collector. */
  readonly traces: string | undefined;
  /** Whether each decision is logged. */
  readonly isDebug: boolean;
  /**
   * Incremented when rules begin to run on the thread itself, and again when they finish; if undefined, they never do.
   */
  readonly pulse: SharedArrayBuffer | undefined;
  /** Number of separate threads that run rules. */
  readonly ruleThreads: number;
};

/** Everything requests are decided by, in transit to a thread. */
export type DecideBy = {
  readonly scopes: readonly Pick<AdmissionScope, 'environment' | 'applier' | 'isShared'>[];
  /** The ledger's file and its shared size; undefined if nothing is governed. */
  readonly ledger: { readonly file: string; readonly size: SharedArrayBuffer } | undefined;
};

/** One decision: environment, operation, answer and seconds. */
export type Decided = readonly [string, string, 'allowed' | 'denied' | 'undecided', number];

/** Calls from threads to the service; the first argument names the environment. Errors arrive as their message. */
export type ServiceCalls = {
  allowed(environment: string, request: RequestOnRecord, as: string): Promise<void>;
  intended(environment: string, request: RequestOnRecord): void;
  proven(environment: string, request: RequestOnRecord): void;
  refused(
    environment: string,
    request: RequestOnRecord,
    type: 'admission.denied' | 'admission.warned',
    mode: 'enforce' | 'audit',
    reason: string,
  ): Promise<void>;
  decideGrant(environment: string, request: AdmissionRequest): Promise<AdmissionDecision | undefined>;
  decideByGrant(environment: string, request: AdmissionRequest): Promise<AdmissionDecision | undefined>;
  refuseUse(environment: string, request: Pick<AdmissionRequest, 'uid' | 'ref'>, use: string): Promise<void>;
  /** Milliseconds to add to this machine's clock. */
  clockOffset(): Promise<number>;
  prove(environment: string, request: AdmissionRequest): ReturnType<AdmissionScope['prove']>;
  owner(environment: string, ...asked: Parameters<ClusterFacts['owner']>): ReturnType<ClusterFacts['owner']>;
  labelsOf(environment: string, namespace: string): ReturnType<ClusterFacts['labelsOf']>;
  rules(environment: string, revision: string): Promise<Omit<RulesAt, 'pool'>>;
  /** Returns for how many consecutive answers the rules with this digest were quick on the service's own threads. */
  quick(bundle: string): Promise<number>;
  /** Returns the bundles of these rules, which are large: only called if the thread has none with that digest. */
  bundles(environment: string, revision: string): Promise<readonly PolicyBundle[]>;
  takeEvents(events: readonly unknown[]): Promise<void>;
  /** Reports requesters and decisions since the last call. */
  told(heard: readonly string[], decided: readonly Decided[]): void;
  said(level: 'debug' | 'warn' | 'error', fields: object, message: string): void;
};

/** Calls from the service to a thread. */
export type ThreadCalls = {
  /** Resolves when it listens, or with why it cannot. */
  listen(): Promise<ThreadAnswer<void>>;
  /**
   * Resolves when the next request is decided by these scopes and none by the previous ones. Undefined makes requests
   * wait.
   */
  decideBy(by: DecideBy | undefined): Promise<void>;
  show(identity: Identity): void;
  /** Stops running rules on the thread itself. */
  askAside(): void;
  /** Resolves when all pending requests are answered. */
  close(): Promise<void>;
};
