/** An entry of `spec.admission.operators` as it is written: an identity, or one with what it makes. */
export type WrittenOperator = string | Operator;

/** An identity that may write objects which belong to an object in Git, and which ones. */
export type Operator = {
  readonly identity: string;
  /** The kinds and images it may write; everything if undefined. */
  readonly makes?:
    | {
        /** `Kind`, or `Kind.group`; all kinds if undefined. */
        readonly kinds?: readonly string[] | undefined;
        /** Patterns of images, in which `*` stands for any characters; all images if undefined. */
        readonly images?: readonly string[] | undefined;
      }
    | undefined;
};

/** Reads the entries of an environment. */
export function operatorsOf(written: readonly WrittenOperator[]): readonly Operator[] {
  return written.map((entry) => (typeof entry === 'string' ? { identity: entry } : entry));
}

/** Returns the text of an entry: `user:NAME`, or with what it makes. */
export function operatorText({ identity, makes = {} }: Operator): string {
  const parts = Object.entries(makes).flatMap(([what, list = []]) => `${what}: ${list.join(', ')}`);
  return parts.length === 0 ? identity : `${identity} (${parts.join('; ')})`;
}

/** Returns the identities alone, as `user:NAME` or `group:NAME`. */
export function operatorIdentities(written: readonly WrittenOperator[]): readonly string[] {
  return operatorsOf(written).map(({ identity }) => identity);
}
