/** When a change writes an object. Lower orders first; each is healthy before the next one is written. */
export type Placement = {
  readonly order: number;
  /** Whether an annotation says so; the others are at 0. */
  readonly isStated: boolean;
};
