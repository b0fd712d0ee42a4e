/**
 * What a promise gives within `ms` milliseconds, or what `late` gives (or throws) after them. Rejects as the promise
 * does.
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

/** For `within`: that it took too long is an error. */
export function tooLate(): never {
  throw new Error('it took too long');
}
