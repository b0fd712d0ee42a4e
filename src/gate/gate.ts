import type { Environment, Recent, Turns } from '../model/index.ts';
import type { RuleMemory } from '../policy/index.ts';
import type { RenderedFile } from '../render/index.ts';
import type { KnownHistory, TrustStore } from '../trust/index.ts';
import type {
  ClockOffset,
  LedgerView,
  Maker,
  OpenPolicy,
  OpenRules,
  OpenWaiver,
  ReadManifests,
  Recorder,
  ServedScope,
  SourceRepository,
} from './ports.ts';

/** Everything that judges one environment. Without a recorder (the pre-merge check), nothing can be allowed to run. */
export type Gate = {
  readonly environment: Environment;
  readonly repository: SourceRepository;
  readonly trust: TrustStore;
  /** Returns the rules in force for a tree; a tree may contain its own. */
  readonly rules: OpenRules;
  readonly recorder: (Recorder & LedgerView) | undefined;
  /** If nothing is recorded, a ledger that says when commits were first seen, to repeat a verdict. */
  readonly past?: LedgerView;
  readonly clock: () => Date;
  /** Compares the clock with witnesses of time; undefined if none has been heard. */
  readonly clockOffset?: () => ClockOffset | undefined;
  /** The time slices that judging shares with the other work of its thread. */
  readonly turns: Turns;
  /** Reads a TrustPolicy stored in the repository (`spec.trustPath`). */
  readonly openPolicy: OpenPolicy;
  /** Reads a waiver stored in the repository. */
  readonly openWaiver: OpenWaiver;
  /** Creates objects if the environment does not have them as plain files. */
  readonly make: Maker;
  /** Reads manifests in a process that can die without ending this one. */
  readonly read: ReadManifests;
  /** Says whether the cluster's kinds have namespaces; without it, kinds that no content tells of stay unknown. */
  readonly servedScope?: ServedScope;
  /**
   * `refused`: if signatures or approvals are missing, nothing is rendered and no rule is evaluated, as required for a
   * service that anyone can push to. `rendered`: every reason is shown at once, for the person who runs the check.
   */
  readonly untrusted: 'refused' | 'rendered';
  /** Facts from earlier checks. */
  readonly known?: KnownHistory;
  /** Files rendered at earlier checks, by mode, blob and path. */
  readonly rendered?: Recent<KnownFile>;
  /** Findings of the rules at earlier checks. */
  readonly findings?: RuleMemory;
};

/** A file that was read: the digest of its bytes, and its rendering. */
export type KnownFile = { readonly sha256: string; readonly rendered: RenderedFile };
