/** A statement about a container image by a signer in the TrustPolicy, as rules read it. */
export type ImageEvidence = {
  /** The signer's name in the TrustPolicy. */
  readonly signer: string;
  /** The image's name in the statement. */
  readonly name: string;
  /** The type of statement, for example `https://slsa.dev/provenance/v1`. */
  readonly predicateType: string;
  readonly predicate: unknown;
  /** ISO 8601: when a transparency log saw it; absent without a log. */
  readonly loggedAt?: string;
};

/** Evidence about images by their digests (`sha256:…`). `digest` covers all of it. */
export type ImageData = { readonly digest: string; readonly of: ReadonlyMap<string, readonly ImageEvidence[]> };
