/** Runs tasks in order, at most `count` at the same time; those that come `first` are before all that wait. */
export function atMost(count: number): <T>(task: () => Promise<T>, first: boolean) => Promise<T> {
  const waiting: (() => void)[] = [];
  let free = count;
  return async (task, first) => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => (first ? waiting.unshift(resolve) : waiting.push(resolve)));
    try {
      return await task();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free++;
      else next();
    }
  };
}
