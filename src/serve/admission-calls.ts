import type { PolicyBundle } from '../bundle/index.ts';
import type { AdmissionDecision, AdmissionRequest, ClusterFacts, RequestOnRecord, RulesAt } from '../gate/index.ts';
import type { Environment } from '../model/index.ts';
import type { Identity } from '../webhook/index.ts';

/** What a thread that answers the API server is started with. */
export type AdmissionThreadData = {
  readonly host: string;
  readonly port: number;
  /** Whether others listen at the same address. */
  readonly shares: boolean;
  readonly identity: Identity;
  /** What the API server's audit events must bear; without it none are taken. */
  readonly auditToken: string | undefined;
  /** Where traces go. */
  readonly traces: string | undefined;
  /** Whether somebody reads each decision in the log. */
  readonly isDebug: boolean;
  /** Counts up as rules begin to run on the thread itself, and again when they are done; without it they never do. */
  readonly pulse: SharedArrayBuffer | undefined;
  /** Threads of its own that run rules. */
  readonly ruleThreads: number;
};

/** What requests are decided by, as it crosses to a thread. */
export type DecideBy = {
  readonly scopes: readonly { readonly environment: Environment; readonly applier: string }[];
  /** The ledger's file, and where its size is told; none where nothing is governed. */
  readonly ledger: { readonly file: string; readonly size: SharedArrayBuffer } | undefined;
};

/** What was decided: environment, operation, answer and seconds. */
export type Decided = readonly [string, string, 'allowed' | 'denied' | 'undecided', number];

/** What threads ask of the service; the first argument names the environment. Errors arrive by their message. */
export type ServiceCalls = {
  allowed(environment: string, request: RequestOnRecord, as: string): Promise<void>;
  intended(environment: string, request: RequestOnRecord): void;
  refused(
    environment: string,
    request: RequestOnRecord,
    type: 'admission.denied' | 'admission.warned',
    mode: 'enforce' | 'audit',
    reason: string,
  ): Promise<void>;
  decideGrant(environment: string, request: AdmissionRequest): Promise<AdmissionDecision | undefined>;
  decideByGrant(environment: string, request: AdmissionRequest): Promise<AdmissionDecision | undefined>;
  owner(environment: string, ...asked: Parameters<ClusterFacts['owner']>): ReturnType<ClusterFacts['owner']>;
  labelsOf(environment: string, namespace: string): ReturnType<ClusterFacts['labelsOf']>;
  rules(environment: string, revision: string): Promise<Omit<RulesAt, 'pool'>>;
  /** The bundles of these rules, which are large: asked for where the thread has none of that digest. */
  bundles(environment: string, revision: string): Promise<readonly PolicyBundle[]>;
  takeEvents(events: readonly unknown[]): Promise<void>;
  /** Who asked, and what was decided, since the last time. */
  told(heard: readonly string[], decided: readonly Decided[]): void;
  said(level: 'debug' | 'warn' | 'error', fields: object, message: string): void;
};

/** What the service asks of a thread. */
export type ThreadCalls = {
  /** Resolves when it listens. */
  listen(): Promise<void>;
  /** Resolves when the next request is decided by that, and nothing is by what was before. Undefined: requests wait. */
  decideBy(by: DecideBy | undefined): Promise<void>;
  show(identity: Identity): void;
  /** From here on rules never run on the thread itself. */
  askAside(): void;
  /** Resolves when what was asked is answered. */
  close(): Promise<void>;
};
