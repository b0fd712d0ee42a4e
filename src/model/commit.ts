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
  /** What the signature covers: the commit without its signature header. */
  readonly payload: Uint8Array;
  /** The armored signature, or undefined when the commit has none. */
  readonly signature: string | undefined;
  /** Signed tags that a merge carries, as raw tag objects (gitformat-signature). */
  readonly mergeTags: readonly Uint8Array[];
};

/** One Git tag object, taken apart like a commit. */
export type Tag = {
  /** The commit it names. */
  readonly object: string;
  readonly name: string;
  readonly tagger: Author | undefined;
  readonly payload: Uint8Array;
  readonly signature: string | undefined;
};

/**
 * What the cryptography of a signature showed, without any clock: true for ever under one set of keys. Times in
 * milliseconds.
 */
export type SignatureFact =
  | { readonly kind: 'none' }
  | {
      readonly kind: 'good';
      readonly format: SignatureFormat;
      readonly principal: string;
      /** Fingerprint of the key the principal owns: SSH `SHA256:…`, OpenPGP primary in hex. */
      readonly key: string;
      /** Fingerprint of the OpenPGP subkey that made it, and its id in hex. */
      readonly subkey?: { readonly fingerprint: string; readonly id: string };
      readonly algorithm: string;
      /** When it says it was made, and until when it counts; only OpenPGP says so. */
      readonly signedAt?: number;
      readonly endsAt?: number;
      /** For a key on hardware: what the authenticator states. */
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

/** What is kept of a commit once its bytes were read and its signature examined. */
export type CommitFacts = {
  readonly id: string;
  readonly tree: string;
  readonly parents: readonly string[];
  readonly author: Author;
  readonly committer: Author;
  readonly subject: string;
  /** Addresses of `Co-authored-by` trailers, in lower case. */
  readonly coAuthors: readonly string[];
  /** What its `Countersign-Allow` trailers say: things that cannot be undone, and that are meant. */
  readonly allows: readonly string[];
  /** SHA-256 of what is signed: the same for every spelling of one signature. */
  readonly payload: string;
  readonly signature: SignatureFact;
  readonly mergeTags: readonly { readonly name: string; readonly signature: SignatureFact }[];
};

/** The time at which something is judged, in milliseconds, and whose clock that was. */
export type Moment = {
  readonly at: number;
  /** `ledger`: when the ledger first named the commit; `now`: no ledger; `claimed`: what the commit says of itself. */
  readonly basis: 'ledger' | 'now' | 'claimed';
};

/** First line of the message. */
export function subjectOf(commit: Pick<Commit, 'message'>): string {
  return commit.message.trimStart().split('\n', 1)[0] ?? '';
}

/** One file of a tree: its path from the root, its Git mode and the id of its blob. */
export type TreeEntry = { readonly path: string; readonly mode: string; readonly blob: string };

/** A path whose content differs between two trees; undefined where the path does not exist on that side. */
export type PathChange = {
  readonly path: string;
  readonly before: Omit<TreeEntry, 'path'> | undefined;
  readonly after: Omit<TreeEntry, 'path'> | undefined;
};

/** Stands for "no commit yet" wherever a revision is expected, as Git itself writes it. */
export const NO_REVISION = '0'.repeat(40);

/** Whether a revision stands for "no commit yet", at either length of object ids. */
export function isNoRevision(revision: string): boolean {
  return /^0+$/.test(revision);
}

/** Whether the text is a full SHA-1 or SHA-256 object id in lower-case hex. */
export function isObjectId(text: string): boolean {
  return /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(text);
}
