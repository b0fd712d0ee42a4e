import type {
  EntryBody,
  EntryOf,
  EntryType,
  Environment,
  EvidenceRef,
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

/** What the gate reads of a repository. Every object was hashed again by whoever implements this. */
export interface SourceRepository {
  isAncestor(ancestor: string, descendant: string): Promise<boolean>;
  /** Ids of what `to` has and `from` has not, parents before children, in batches. */
  commitIds(from: string, to: string): AsyncIterable<readonly string[]>;
  commits(ids: readonly string[]): Promise<readonly HistoryItem[]>;
  /** Paths at which a merge holds what an automatic merge of its parents does not give. */
  mergeAdds(merge: {
    readonly id: string;
    readonly tree: string;
    readonly parents: readonly string[];
  }): Promise<readonly string[]>;
  /** A commit's committer time in seconds since 1970; undefined before the first. */
  time(commit: string): Promise<number | undefined>;
  file(commit: string, path: string): Promise<{ readonly id: string; readonly text: string } | undefined>;
  diff(from: string, to: string): Promise<readonly PathChange[]>;
  tree(commit: string): Promise<string>;
  files(tree: string, directory: string): Promise<readonly TreeEntry[]>;
  blob(id: string): Promise<Uint8Array>;
  approvals(ref: string, wanted: (tree: string) => boolean): Promise<readonly StoredEnvelope[]>;
  /** One stored envelope by the SHA-256 of its content, under this ref or another; nothing beside it is read. */
  envelope(
    ref: string,
    named: { readonly from: string; readonly tree: string; readonly envelope: string },
  ): Promise<string | undefined>;
}

/** What a program made of a directory of a tree. `content` is a digest over every file that took part. */
export type MadeObjects = {
  readonly documents: readonly MadeDocument[];
  readonly violations: readonly Violation[];
  readonly content: string;
};

/**
 * Reads manifests, one result for each in the same order, within the memory and time of the limits. A file that takes
 * more is a violation (`render-too-large`) of that file.
 */
export type ReadManifests = (
  files: readonly SourceFile[],
  limits: ProcessLimits,
  substitute: Declared,
) => Promise<readonly RenderedFile[]>;

/** Has `kustomize` or `helm` make objects of a directory of a tree. Throws `tool-missing`. */
export type Maker = (environment: Environment, repository: SourceRepository, tree: string) => Promise<MadeObjects>;

/** Evidence with the reference that goes into an entry. */
export type Evidence = { readonly ref: EvidenceRef; readonly bytes: string };

/** Makes an entry durable. The pre-merge check has none: it can say yes or no, but allow nothing. */
export interface Recorder {
  record(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded>;
  asEvidence(value: unknown): Evidence;
  /** A commitment to a personal text, to stand in entries and evidence in its place. */
  subject(text: string): string;
}

/** A recorder that has a place beside the ledger, for what must not wait until the ledger is back. */
export interface SureRecorder extends Recorder {
  /**
   * Durable when it resolves: on the ledger, or (undefined) beside it, from where it goes onto the ledger before
   * anything else is recorded. Throws where neither can be written.
   */
  recordSurely(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded | undefined>;
}

/** What admission asks of the cluster. */
export interface ClusterFacts {
  /**
   * Whether the object that bears this name has that uid, and its own controller then. Throws when that cannot be told.
   */
  owner(ref: ObjectRef, uid: string): Promise<{ readonly owner: OwnerReference | undefined } | undefined>;
  /** Labels of a namespace; undefined where they cannot be told. */
  labelsOf(namespace: string): Promise<Readonly<Record<string, string>> | undefined>;
}

/** What the gate reads of the ledger. */
export interface LedgerView {
  latest<T extends EntryType>(
    types: readonly T[],
    environment: string,
    before?: number,
  ): Recorded<EntryOf<T>> | undefined;
  all<T extends EntryType>(type: T, environment: string): Recorded<EntryOf<T>>[];
  entry(index: number): Recorded | undefined;
  evidence(ref: EvidenceRef): unknown;
  /** How many entries were recorded by this process; undefined where that is not counted. */
  recorded?(): number;
}

/** Reads a TrustPolicy that stands in the repository. Throws with every problem when it cannot be used. */
export type OpenPolicy = (text: string, file: string) => Promise<TrustStore>;

/**
 * The rules in force for a tree, bundles signed by people of the TrustPolicy where that is asked. Throws
 * `policy-unusable`.
 */
export type OpenRules = (tree: string, store: TrustStore) => Promise<PolicyPool>;

/** Reads a waiver. Throws with every problem when it cannot be used. */
export type OpenWaiver = (text: string, file: string) => { readonly document: WaiverDocument; readonly line: number };
