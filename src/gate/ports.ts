import type {
  EntryBody,
  EntryOf,
  EntryType,
  Environment,
  EvidenceRef,
  KindScope,
  ObjectRef,
  OwnerReference,
  PathChange,
  Recorded,
  TreeEntry,
  Violation,
  WaiverDocument,
} from '../model/index.ts';
import type { PolicyPool } from '../policy/index.ts';
import type { Declared, MadeDocument, ProcessLimits, RenderedFile, SourceFile } from '../render/index.ts';
import type { HistoryItem, StoredEnvelope, TrustStore } from '../trust/index.ts';

/** Read access to a repository for the gate. The implementation hashes every object again. */
export interface SourceRepository {
  isAncestor(ancestor: string, descendant: string): Promise<boolean>;
  /** Returns ids reachable from `to` but not from `from`, parents before children, in batches. */
  commitIds(from: string, to: string): AsyncIterable<readonly string[]>;
  commits(ids: readonly string[]): Promise<readonly HistoryItem[]>;
  /** Returns the paths where a merge has content that an automatic merge of its parents does not produce. */
  mergeAdds(merge: {
    readonly id: string;
    readonly tree: string;
    readonly parents: readonly string[];
  }): Promise<readonly string[]>;
  /** Returns a commit's committer time in seconds since 1970; undefined before the first. */
  time(commit: string): Promise<number | undefined>;
  file(commit: string, path: string): Promise<{ readonly id: string; readonly text: string } | undefined>;
  diff(from: string, to: string): Promise<readonly PathChange[]>;
  tree(commit: string): Promise<string>;
  files(tree: string, directory: string): Promise<readonly TreeEntry[]>;
  blob(id: string): Promise<Uint8Array>;
  approvals(ref: string, wanted: (tree: string) => boolean): Promise<readonly StoredEnvelope[]>;
  /** Returns one stored envelope by the SHA-256 of its content, under this ref or another; no other file is read. */
  envelope(
    ref: string,
    named: { readonly from: string; readonly tree: string; readonly envelope: string },
  ): Promise<string | undefined>;
}

/** Objects a program generated from a directory of a tree. `content` is a digest over every input file. */
type MadeObjects = {
  readonly documents: readonly MadeDocument[];
  readonly violations: readonly Violation[];
  readonly content: string;
};

/**
 * Reads manifests, one result per file in the same order, within the memory and time limits. A file that exceeds them
 * is a violation (`render-too-large`) of that file.
 */
export type ReadManifests = (
  files: readonly SourceFile[],
  limits: ProcessLimits,
  substitute: Declared,
) => Promise<readonly RenderedFile[]>;

/** Runs `kustomize` or `helm` on a directory of a tree. Throws `tool-missing`. */
export type Maker = (environment: Environment, repository: SourceRepository, tree: string) => Promise<MadeObjects>;

/** Evidence with the reference that goes into an entry. */
type Evidence = { readonly ref: EvidenceRef; readonly bytes: string };

/** Makes an entry durable. The pre-merge check has none: it can say yes or no, but allow nothing. */
export interface Recorder {
  record(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded>;
  asEvidence(value: unknown): Evidence;
  /** Returns a commitment to a personal text, which replaces the text in entries and evidence. */
  subject(text: string): string;
}

/** A recorder with a write-ahead file, for records that must not wait until the ledger is back. */
export interface SureRecorder extends Recorder {
  /**
   * Resolves once the entry is durable: on the ledger, or (undefined) in the write-ahead file, which goes onto the
   * ledger before anything else is recorded. Throws if neither can be written.
   */
  recordSurely(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded | undefined>;
}

/** Facts about the cluster that admission needs. */
export interface ClusterFacts {
  /**
   * Checks that the object with this name has that uid, and returns its controller. Throws if that cannot be
   * determined.
   */
  owner(ref: ObjectRef, uid: string): Promise<{ readonly owner: OwnerReference | undefined } | undefined>;
  /** Returns the labels of a namespace; undefined if they are unknown. */
  labelsOf(namespace: string): Promise<Readonly<Record<string, string>> | undefined>;
}

/**
 * Returns whether the cluster serves a kind in namespaces; undefined if it does not serve it at all. Throws if it does
 * not answer.
 */
export type ServedScope = (kind: Pick<ObjectRef, 'apiVersion' | 'kind'>) => Promise<KindScope | undefined>;

/** Break-glass reasons in the annotations of a Namespace. */
export type LiveReason = { readonly reason: string | undefined; readonly approved: string | undefined };

/** Access of break-glass to the live cluster, and to the loop that it wakes. */
export interface LiveGrants {
  /**
   * Returns the reason in the annotations of a Namespace as the API server has it now, and the approved reason; each
   * undefined if it has none. Throws if the API server cannot be asked.
   */
  reasonIn(namespace: string): Promise<LiveReason>;
  /** Called when a grant ended before its time. */
  ended(): void;
}

/** Difference of this machine's clock from a witness of time. Negative: the clock is ahead. */
export type ClockOffset = { readonly behindMs: number; readonly witness: string };

/** Read access to the ledger for the gate. */
export interface LedgerView {
  latest<T extends EntryType>(
    types: readonly T[],
    environment: string,
    before?: number,
    /** Older entries are not looked for. */
    since?: string,
  ): Recorded<EntryOf<T>> | undefined;
  all<T extends EntryType>(type: T, environment: string, since?: string): Recorded<EntryOf<T>>[];
  entry(index: number): Recorded | undefined;
  evidence(ref: EvidenceRef): unknown;
  /** Returns the index of the first entry at or after a time, or the number of entries. */
  firstAt?(time: string): number;
  /** Number of entries recorded by this process; undefined if not counted. */
  recorded?(): number;
}

/** Reads a TrustPolicy stored in the repository. Throws every problem if it cannot be used. */
export type OpenPolicy = (text: string, file: string) => Promise<TrustStore>;

/**
 * Returns the rules in force for a tree; bundles must be signed by people of the TrustPolicy if required. Throws
 * `policy-unusable`.
 */
export type OpenRules = (tree: string, store: TrustStore) => Promise<PolicyPool>;

/** Reads a waiver. Throws every problem if it cannot be used. */
export type OpenWaiver = (text: string, file: string) => { readonly document: WaiverDocument; readonly line: number };
