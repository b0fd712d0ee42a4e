/** What is known of a step, for whoever looks at traces: never names of people, never values of Secrets. */
export type TraceAttributes = Readonly<Record<string, string | number | boolean>>;

/**
 * Runs a step as a part of the one it is called in, and tells how long it took and how it ended. `note` adds what is
 * known later.
 */
export type Trace = <T>(
  name: string,
  attributes: TraceAttributes,
  step: (note: (more: TraceAttributes) => void) => Promise<T>,
) => Promise<T>;

/** Runs a step, and tells nobody. */
export const untraced: Trace = (_name, _attributes, step) => step(() => {});
