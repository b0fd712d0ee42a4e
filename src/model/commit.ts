import type { ViolationCode } from './violation-code.ts';
/** The name, address and time written in a commit: a claim, never an identity. `time` is in seconds since 1970. */
export type Author = { readonly name: string; readonly email: string; readonly time: number };

export type SignatureFormat = 'openpgp' | 'ssh' | 'x509';

/**
 * One Git commit: fields read from the very bytes that hash to its id, and those bytes split into payload and
 * signature.
 */
export type Commit = {
  readonly id: string;
  readonly tree: string;
  readonly parents: readonly string[];
  readonly author: Author;
  readonly committer: Author;
  readonly message: string;
  /** The signed bytes: the commit without its signature header. */
  readonly payload: Uint8Array;
  /** The armored signature, or undefined if the commit has none. */
  readonly signature: string | undefined;
  /** Signed tags in a merge, as raw tag objects (gitformat-signature). */
  readonly mergeTags: readonly Uint8Array[];
};

/** One parsed Git tag object. */
export type Tag = {
  /** The commit it names. */
  readonly object: string;
  readonly name: string;
  readonly tagger: Author | undefined;
  readonly payload: Uint8Array;
  readonly signature: string | undefined;
};

/**
 * Result of checking a signature's cryptography, independent of the clock: permanent for a given set of keys. Times in
 * milliseconds.
 */
export type SignatureFact =
  | { readonly kind: 'none' }
  | {
      readonly kind: 'good';
      readonly format: SignatureFormat;
      readonly principal: string;
      /** Fingerprint of the principal's key: SSH `SHA256:…`, OpenPGP primary in hex. */
      readonly key: string;
      /** Fingerprint of the OpenPGP subkey that made it, and its id in hex. */
      readonly subkey?: { readonly fingerprint: string; readonly id: string };
      readonly algorithm: string;
      /** Claimed time of signing and expiry; OpenPGP only. */
      readonly signedAt?: number;
      readonly endsAt?: number;
      /** For a hardware key: the authenticator's statement. */
      readonly hardware?: { readonly touched: boolean; readonly verified: boolean };
      readonly certificate?: {
        readonly authority: string;
        readonly name: string;
        readonly keyId: string;
        readonly serial: string;
        readonly validAfter: number;
        /** Infinity for no end. */
        readonly validBefore: number;
      };
    }
  | {
      readonly kind: 'bad';
      readonly code: ViolationCode;
      readonly reason: string;
      readonly hint?: string;
      readonly format?: SignatureFormat;
      readonly key?: string;
    };

/** Facts kept about a commit after its bytes were read and its signature checked. */
export type CommitFacts = {
  readonly id: string;
  readonly tree: string;
  readonly parents: readonly string[];
  readonly author: Author;
  readonly committer: Author;
  readonly subject: string;
  /** Addresses of `Co-authored-by` trailers, in lower case. */
  readonly coAuthors: readonly string[];
  /** Content of its `Countersign-Allow` trailers: irreversible actions that are intended. */
  readonly allows: readonly string[];
  /** SHA-256 of the signed bytes: the same for every spelling of one signature. */
  readonly payload: string;
  readonly signature: SignatureFact;
  readonly mergeTags: readonly { readonly name: string; readonly signature: SignatureFact }[];
};

/** The time at which something is judged, in milliseconds, and its source. */
export type Moment = {
  readonly at: number;
  /** `ledger`: when the ledger first named the commit; `now`: no ledger; `claimed`: the commit's own time. */
  readonly basis: 'ledger' | 'now' | 'claimed';
};

/** Returns the first line of the message. */
export function subjectOf(commit: Pick<Commit, 'message'>): string {
  return commit.message.trimStart().split('\n', 1)[0] ?? '';
}

/** One file of a tree: its path from the root, its Git mode and the id of its blob. */
export type TreeEntry = { readonly path: string; readonly mode: string; readonly blob: string };

/** A path whose content differs between two trees; undefined on a side without that path. */
export type PathChange = {
  readonly path: string;
  readonly before: Omit<TreeEntry, 'path'> | undefined;
  readonly after: Omit<TreeEntry, 'path'> | undefined;
};

/** Stands for "no commit yet" in place of a revision, as written by Git itself. */
export const NO_REVISION = '0'.repeat(40);

/** Tests whether a revision stands for "no commit yet", at either length of object ids. */
export function isNoRevision(revision: string): boolean {
  return /^0+$/.test(revision);
}

/** Tests whether a text is a full SHA-1 or SHA-256 object id in lower-case hex. */
export function isObjectId(text: string): boolean {
  return /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(text);
}
