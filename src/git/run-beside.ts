import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { CountersignError } from '../model/index.ts';
import { type RunGit, withinMemory } from './run-git.ts';
import type { GitResult, RunGitOptions } from './run-program.ts';

export type GitTask = {
  readonly id: number;
  readonly command: readonly [string, ...string[]];
  readonly options: RunGitOptions;
};
export type GitAnswer =
  | { readonly id: number; readonly result: GitResult }
  | { readonly id: number; readonly failed: true };

const YOUNG_MIB = 3; // it passes bytes on; without a limit this space grows to 48

type Waiting = {
  readonly program: string;
  readonly done: (result: GitResult) => void;
  readonly failed: (why: unknown) => void;
};

/**
 * Starts programs from a separate thread. Starting one blocks a thread for ten milliseconds, or more if cores are busy.
 * The thread that answers requests cannot afford that.
 */
export class RunBeside {
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #next = 0;

  /** Works like `runGit` and throws the same errors, plus `tool-missing` (retry) if the thread was closed meanwhile. */
  readonly run: RunGit = (program, args, options = {}) =>
    new Promise((done, failed) => {
      const id = this.#next++;
      this.#waiting.set(id, { program, done, failed });
      this.#worker ??= this.#start();
      this.#worker.ref();
      const command = withinMemory(program, args, options.memory);
      this.#worker.postMessage({ id, command, options } satisfies GitTask);
    });

  async close(): Promise<void> {
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(new URL(`./git-thread${extname(import.meta.url)}`, import.meta.url), {
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MIB },
    });
    worker.on('message', (answer: GitAnswer) => {
      const waiting = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      if (this.#waiting.size === 0) worker.unref();
      if ('failed' in answer)
        waiting?.failed(
          new CountersignError('tool-missing', `cannot run \`${waiting.program}\``, { hint: 'install git' }),
        );
      else waiting?.done({ ...answer.result, stdout: Buffer.from(answer.result.stdout) });
    });
    worker.on('error', () => {}); // the exit event reports it
    worker.on('exit', () => {
      if (this.#worker === worker) this.#worker = undefined;
      for (const { failed } of this.#waiting.values())
        failed(new CountersignError('tool-missing', 'the thread that runs git ended', { recover: 'retry' }));
      this.#waiting.clear();
    });
    return worker;
  }
}
