const AT_ONCE = 16;

/**
 * Runs a task for each item, at most `atOnce()` concurrently, which is called before each. After a failure no more are
 * started; the first failure is thrown once all running tasks have ended.
 */
export async function inParallel<T>(
  items: readonly T[],
  task: (item: T) => Promise<void>,
  atOnce: () => number = () => AT_ONCE,
): Promise<void> {
  let next = 0;
  let running = 0;
  const failures: unknown[] = [];
  await new Promise<void>((ended) => {
    const go = () => {
      while (next < items.length && failures.length === 0 && running < Math.max(1, atOnce())) {
        running++;
        task(items[next++] as T)
          .catch((thrown) => failures.push(thrown))
          .finally(() => {
            running--;
            go();
          });
      }
      if (running === 0) ended();
    };
    go();
  });
  if (failures.length > 0) throw failures[0];
}
