/**
 * Returns the promise's result within `ms` milliseconds, otherwise the result of `late` (which may throw). Rejects if
 * the promise does.
 */
export async function within<T, L>(ms: number, promise: Promise<T>, late: () => L): Promise<T | L> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<L>((done, fail) => {
    timer = setTimeout(() => {
      try {
        done(late());
      } catch (thrown) {
        fail(thrown);
      }
    }, ms);
  });
  try {
    return await Promise.race([promise, over]);
  } finally {
    clearTimeout(timer);
  }
}

/** Callback for `within` that treats a timeout as an error. */
export function tooLate(): never {
  throw new Error('it took too long');
}
