/** Attributes of a traced step: never names of people, never values of Secrets. */
export type TraceAttributes = Readonly<Record<string, string | number | boolean>>;

/**
 * Runs a step as a child of the current one and traces its duration and outcome. `note` adds attributes that become
 * known later.
 */
export type Trace = <T>(
  name: string,
  attributes: TraceAttributes,
  step: (note: (more: TraceAttributes) => void) => Promise<T>,
) => Promise<T>;

/** Runs a step without tracing it. */
export const untraced: Trace = (_name, _attributes, step) => step(() => {});
