/** Runs a task for each item, `atOnce` side by side. After a failure no more are started; the first is thrown once all that were have ended. */
export async function inParallel<T>(items: readonly T[], task: (item: T) => Promise<void>, atOnce = 16): Promise<void> {
  let next = 0;
  const failures: unknown[] = [];
  const worker = async () => {
    while (next < items.length && failures.length === 0) await task(items[next++] as T).catch((thrown) => failures.push(thrown));
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  if (failures.length > 0) throw failures[0];
}
