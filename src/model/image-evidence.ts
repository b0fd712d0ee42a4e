/** What somebody whom the TrustPolicy names says of a container image, as rules read it. */
export type ImageEvidence = {
  /** Of the signer, as the TrustPolicy calls it. */
  readonly signer: string;
  /** What the image is called in the statement. */
  readonly name: string;
  /** What kind of statement it is, for example `https://slsa.dev/provenance/v1`. */
  readonly predicateType: string;
  readonly predicate: unknown;
  /** ISO 8601: when a transparency log saw it; absent where none did. */
  readonly loggedAt?: string;
};

/** Evidence of images by their digests (`sha256:…`). `digest` is that of all of it. */
export type ImageData = { readonly digest: string; readonly of: ReadonlyMap<string, readonly ImageEvidence[]> };
