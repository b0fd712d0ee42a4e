import type { Commit, EntryBody, EntryOf, EntryType, EvidenceRef, PathChange, Recorded, TreeEntry } from '../model/index.ts';
import type { StoredEnvelope } from '../trust/index.ts';

/** What the gate reads of a repository. Every object was hashed again by whoever implements this. */
export interface SourceRepository {
  isAncestor(ancestor: string, descendant: string): Promise<boolean>;
  history(from: string, to: string): Promise<{ commits: readonly Commit[]; malformed: readonly { id: string; reason: string }[] }>;
  diff(from: string, to: string): Promise<readonly PathChange[]>;
  tree(commit: string): Promise<string>;
  files(tree: string, directory: string): Promise<readonly TreeEntry[]>;
  blob(id: string): Promise<Uint8Array>;
  approvals(ref: string): Promise<readonly StoredEnvelope[]>;
}

/** Evidence with the reference that goes into an entry. */
export type Evidence = { readonly ref: EvidenceRef; readonly bytes: string };

/** Makes an entry durable. The pre-merge check has none: it can say yes or no, but allow nothing. */
export interface Recorder {
  record(body: EntryBody, evidence: readonly Evidence[]): Promise<Recorded>;
  asEvidence(value: unknown): Evidence;
}

/** What the gate reads of the ledger. */
export interface LedgerView {
  latest<T extends EntryType>(types: readonly T[], environment: string, before?: number): Recorded<EntryOf<T>> | undefined;
  all<T extends EntryType>(type: T, environment: string): Recorded<EntryOf<T>>[];
  entry(index: number): Recorded | undefined;
  evidence(ref: EvidenceRef): unknown;
}
