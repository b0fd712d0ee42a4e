import { CountersignError, type ErrorCode } from './error.ts';

/** Result of a task in another thread. A message between threads keeps neither the class nor the hint of an error. */
export type ThreadAnswer<T> =
  | { readonly done: T }
  | { readonly code: ErrorCode; readonly message: string; readonly hint: string | undefined };

/** Runs a task and returns its result as a message. Throws what is no `CountersignError`. */
export async function answerOf<T>(task: () => Promise<T>): Promise<ThreadAnswer<T>> {
  try {
    return { done: await task() };
  } catch (thrown) {
    if (!(thrown instanceof CountersignError)) throw thrown;
    return { code: thrown.code, message: thrown.message, hint: thrown.hint };
  }
}

/** Returns the result in a message. Throws the error that the task threw. */
export function resultOf<T>(answer: ThreadAnswer<T>): T {
  if ('done' in answer) return answer.done;
  throw new CountersignError(answer.code, answer.message, answer.hint === undefined ? {} : { hint: answer.hint });
}
