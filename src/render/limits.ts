import type { Violation } from '../model/index.ts';

/** Limits on the output of one environment, all files together (`spec.render.limits`). */
export type RenderLimits = {
  readonly objects: number;
  /** Number of scalars, lists and mappings, with aliases expanded. */
  readonly values: number;
  /** Bytes of the files read, or characters of their content, whichever is larger. */
  readonly size: number;
};

/** The same limits, with those of the rendering process: bytes of memory, and remaining milliseconds. */
export type ProcessLimits = RenderLimits & { readonly memory: number; readonly ms: number };

/** Size of one or several files. */
export type RenderSize = { readonly objects: number; readonly values: number; readonly size: number };

/** Limits of one file, in the same units: larger than any real manifest, smaller than a machine's memory. */
export const FILE_LIMITS: RenderLimits = { objects: 20_000, values: 1_000_000, size: 32 * 1024 * 1024 };

export const NO_SIZE: RenderSize = { objects: 0, values: 0, size: 0 };

/** Adds up sizes. */
export function sumOf(sizes: Iterable<RenderSize>): RenderSize {
  let [objects, values, size] = [0, 0, 0];
  for (const one of sizes) {
    objects += one.objects;
    values += one.values;
    size += one.size;
  }
  return { objects, values, size };
}

/**
 * Returns the limit that a size exceeds, as text (`more than 20000 objects`) and by name; undefined if it is within all
 * of them.
 */
export function exceeded(
  size: RenderSize,
  limits: RenderLimits,
): { readonly limit: keyof RenderLimits; readonly text: string } | undefined {
  if (size.objects > limits.objects) return { limit: 'objects', text: `more than ${limits.objects} objects` };
  if (size.values > limits.values) return { limit: 'values', text: `more than ${limits.values} values` };
  if (size.size > limits.size) return { limit: 'size', text: `more than ${limits.size} bytes` };
  return undefined;
}

/**
 * Returns the violation for output above a limit. `text` says how large it is, `limit` which key of
 * `spec.render.limits` to raise.
 */
export function tooLarge(what: string, text: string, limit: string, file: string): Violation {
  return {
    code: 'render-too-large',
    message: `${what} ${text}, the limit of this environment`,
    source: { file, line: 1 },
    hint: `split it into several environments, or raise \`spec.render.limits.${limit}\``,
  };
}

/**
 * Counts values and characters of a document; stops early beyond the limits.
 * @param lengthOf length of a text after substitution; by default its own length
 */
export function measure(
  document: unknown,
  limits: Pick<RenderLimits, 'values' | 'size'>,
  lengthOf: (text: string) => number = (text) => text.length,
): Pick<RenderSize, 'values' | 'size'> {
  let [values, size] = [0, 0];
  const stack: unknown[] = [document];
  while (stack.length > 0 && values <= limits.values && size <= limits.size) {
    const value = stack.pop();
    values++;
    if (typeof value === 'string') size += lengthOf(value);
    else if (Array.isArray(value)) for (const item of value) stack.push(item);
    else if (typeof value === 'object' && value !== null)
      for (const [key, inner] of Object.entries(value)) {
        size += key.length;
        stack.push(inner);
      }
    else size += 5;
  }
  return { values, size };
}
