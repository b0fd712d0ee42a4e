/** Place of a value in the repository; lines and columns count from 1. */
export type SourceLine = { readonly file: string; readonly line: number; readonly column?: number };

/** A place in a text; both count from 1. */
export type Position = { readonly line: number; readonly column: number };

/** A path into an object: keys and list positions. */
export type ValuePath = readonly (string | number)[];
