import type { Environment, Recent, Turns } from '../model/index.ts';
import type { RuleMemory } from '../policy/index.ts';
import type { RenderedFile } from '../render/index.ts';
import type { KnownHistory, TrustStore } from '../trust/index.ts';
import type {
  LedgerView,
  Maker,
  OpenPolicy,
  OpenRules,
  OpenWaiver,
  ReadManifests,
  Recorder,
  SourceRepository,
} from './ports.ts';

/** What judges one environment. Without a recorder (the pre-merge check) nothing can be allowed to run. */
export type Gate = {
  readonly environment: Environment;
  readonly repository: SourceRepository;
  readonly trust: TrustStore;
  /** The rules in force for a tree: those it holds itself are its own. */
  readonly rules: OpenRules;
  readonly recorder: (Recorder & LedgerView) | undefined;
  /** Where nothing is recorded, a ledger that says when commits were first seen: a verdict reached again. */
  readonly past?: LedgerView;
  readonly clock: () => Date;
  /** The time slices that judging shares with the other work of its thread. */
  readonly turns: Turns;
  /** Reads a TrustPolicy that stands in the repository (`spec.trustPath`). */
  readonly openPolicy: OpenPolicy;
  /** Reads a waiver that stands in the repository. */
  readonly openWaiver: OpenWaiver;
  /** What makes objects where the environment does not have them as plain files. */
  readonly make: Maker;
  /** Reads manifests, where doing so can end without ending this process. */
  readonly read: ReadManifests;
  /**
   * `refused`: once signatures or approvals fall short, nothing of the change is rendered and no rule is asked, as a
   * service must that anyone can push to. `rendered`: every reason is shown at once, for the person who runs the check.
   */
  readonly untrusted: 'refused' | 'rendered';
  /** What was examined at earlier looks. */
  readonly known?: KnownHistory;
  /** Files that were rendered at earlier looks, by mode, blob and path. */
  readonly rendered?: Recent<KnownFile>;
  /** What the rules found at earlier looks. */
  readonly findings?: RuleMemory;
};

/** A file as it was read: the digest of its bytes, and what it renders to. */
export type KnownFile = { readonly sha256: string; readonly rendered: RenderedFile };
