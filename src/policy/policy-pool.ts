import { availableParallelism } from 'node:os';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { PolicyBundle } from '../bundle/index.ts';
import { CountersignError, messageOf } from '../model/index.ts';
import { broken, type Finding, type Judged, type RunScope, type Subject } from './judge-subject.ts';
import { NearRules, type NearWatch } from './near-rules.ts';
import type { Answer, Batch, ThreadData } from './policy-thread.ts';

export type PoolOptions = {
  /** Number of threads; by default one per core, four at most. */
  readonly threads?: number;
  /** Time limit for the rules on one subject, in milliseconds. */
  readonly deadline?: number;
  /** If set, rules that proved to be quick run on the calling thread, which a watchdog may then end. */
  readonly near?: () => NearWatch | undefined;
  /** For how many consecutive answers the same rules were quick in another pool; asked while a thread only waits. */
  readonly elsewhere?: () => Promise<number>;
  /** Becomes `data.inventory`. */
  readonly inventory?: unknown;
  /** How long a thread may be idle before it is ended, in milliseconds. */
  readonly idle?: number;
};

const DEADLINE = 2000; // one second less than the three of an admission request
const START_DEADLINE = 30_000;
const IDLE_MS = 20_000; // a thread holds 20 MiB and starts in a fifth of a second
const BATCH = 64; // subjects per message: few enough to spread, enough to make messages cheap
const PORTION = 4; // subjects that stay together
const HEAP_MIB = 512; // heap limit for builtins in JavaScript; Wasm has its own limit
const YOUNG_MIB = 8; // answers are short-lived: more would only be held, not used

type Task = {
  readonly subjects: readonly Subject[];
  readonly scope: RunScope;
  readonly done: (judged: readonly Judged[]) => void;
  readonly failed: (why: unknown) => void;
};
type Thread = {
  readonly worker: Worker;
  readonly pulse: Int32Array;
  /** Tasks sent in one message; empty while the thread is idle. */
  tasks: readonly Task[];
  ready: boolean;
  seen: number;
  /** When its last task, or the work on it, began; while it is idle: since when. */
  since: number;
  memory: number;
};

/**
 * Runs rules on separate threads. A rule that takes too much time or memory ends its thread, not the process. Its
 * subject is denied with `policy-timeout` or `policy-out-of-memory`; the others are evaluated again on another thread.
 */
export class PolicyPool {
  readonly bundles: readonly PolicyBundle[];
  readonly #options: Required<Omit<PoolOptions, 'inventory' | 'near' | 'elsewhere'>> & { readonly inventory: unknown };
  readonly #threads = new Set<Thread>();
  readonly #waiting: Task[] = [];
  readonly #near: NearRules;
  readonly #isNear: boolean;
  readonly #elsewhere: (() => Promise<number>) | undefined;
  #clock: NodeJS.Timeout | undefined;
  #rest: NodeJS.Timeout | undefined;
  #next = 0;
  #closed = false;
  #isScheduled = false;

  constructor(bundles: readonly PolicyBundle[], options: PoolOptions = {}) {
    this.bundles = bundles;
    this.#options = {
      threads: options.threads ?? Math.min(4, availableParallelism()),
      deadline: options.deadline ?? DEADLINE,
      inventory: options.inventory,
      idle: options.idle ?? IDLE_MS,
    };
    this.#isNear = options.near !== undefined;
    this.#elsewhere = options.elsewhere;
    const { near = () => undefined } = options;
    this.#near = new NearRules(bundles, options.inventory, this.#options.deadline, near);
  }

  /** Starts the threads before they are needed: not if the calling thread evaluates the rules. */
  warm(): void {
    if (this.#near.isProven) return;
    while (this.#threads.size < this.#options.threads) this.#start();
    this.#endIdleLater();
  }

  /** Consecutive answers for which the rules were quick: lets another pool of the same rules do without threads. */
  get quick(): number {
    return this.#near.quick;
  }

  /** Wasm memory of all threads, in bytes. */
  get memory(): number {
    return [...this.#threads].reduce((sum, t) => sum + t.memory, 0);
  }

  /** Judges subjects; the answers are in the same order. Throws `policy-unusable` if the rules cannot be loaded. */
  async judge(subjects: readonly Subject[], scope: RunScope): Promise<readonly Judged[]> {
    if (this.#closed) throw closed();
    const [first] = subjects;
    const near = subjects.length === 1 ? this.#near.ask(first as Subject, scope) : undefined;
    if (near !== undefined) return [near];
    const size = Math.max(1, Math.min(PORTION, Math.ceil(subjects.length / this.#options.threads)));
    const portions = Array.from({ length: Math.ceil(subjects.length / size) }, (_, i) =>
      subjects.slice(i * size, (i + 1) * size),
    );
    const judged = await Promise.all(portions.map((portion) => this.#enqueue(portion, scope)));
    return judged.flat();
  }

  /** Ends the threads. Pending requests are rejected. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#clock);
    clearTimeout(this.#rest);
    for (const task of [...this.#waiting.splice(0), ...[...this.#threads].flatMap((t) => t.tasks)])
      task.failed(closed());
    await Promise.all([...this.#threads].map((t) => t.worker.terminate()));
  }

  #enqueue(subjects: readonly Subject[], scope: RunScope): Promise<readonly Judged[]> {
    return new Promise((done, failed) => {
      if (this.#closed) return failed(closed());
      this.#waiting.push({ subjects, scope, done, failed });
      this.#soon();
    });
  }

  // Requests that arrive in one turn of the event loop are distributed together.
  #soon(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (!this.#closed) this.#dispatch();
    });
  }

  #dispatch(): void {
    const free = [...this.#threads].filter((t) => t.ready && t.tasks.length === 0);
    for (const [i, thread] of free.entries()) {
      const tasks = this.#take(free.length - i);
      if (tasks.length === 0) break;
      thread.tasks = tasks;
      thread.worker.ref();
      thread.seen = Atomics.load(thread.pulse, 1);
      thread.since = performance.now();
      const parts = tasks.map(({ scope, subjects }) => ({ scope, subjects }));
      thread.worker.postMessage({ id: this.#next++, parts } satisfies Batch);
    }
    if (this.#waiting.length > 0 && this.#threads.size < this.#options.threads) this.#start();
    this.#clock ??= setInterval(() => this.#watch(), Math.max(5, Math.min(50, this.#options.deadline / 4))).unref();
  }

  // One idle thread's share of the queue: small tasks, such as admission requests, go together in one message.
  #take(free: number): readonly Task[] {
    const queue = this.#waiting;
    const share = Math.ceil(queue.length / free);
    let subjects = 0;
    let count = 0;
    while (count < share && (count === 0 || subjects + (queue[count] as Task).subjects.length <= BATCH))
      subjects += (queue[count++] as Task).subjects.length;
    return queue.splice(0, count);
  }

  #start(): void {
    const pulse = new SharedArrayBuffer(8);
    const { inventory } = this.#options;
    const worker = new Worker(new URL(`./policy-thread${extname(import.meta.url)}`, import.meta.url), {
      workerData: { bundles: this.bundles, inventory, pulse } satisfies ThreadData,
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB, maxYoungGenerationSizeMb: YOUNG_MIB },
    });
    const thread: Thread = {
      worker,
      pulse: new Int32Array(pulse),
      tasks: [],
      ready: false,
      seen: 0,
      since: performance.now(),
      memory: 0,
    };
    this.#threads.add(thread);
    worker.on('message', (message: Answer | 'ready') => this.#heard(thread, message));
    worker.on('error', (thrown) =>
      this.#lost(
        thread,
        (thrown as { code?: string }).code === 'ERR_WORKER_OUT_OF_MEMORY'
          ? outOfMemory()
          : broken('policy-failed', `the policy thread ended: ${messageOf(thrown)}`),
        thrown,
      ),
    );
    worker.on('exit', () => this.#lost(thread, broken('policy-failed', 'the policy thread ended'), undefined));
  }

  #heard(thread: Thread, message: Answer | 'ready'): void {
    if (this.#closed) return; // dropping a thread while it is being ended would end the process first
    if (message === 'ready') {
      thread.ready = true;
      thread.since = performance.now();
      if (thread.tasks.length === 0) thread.worker.unref();
    } else {
      const { tasks } = thread;
      thread.tasks = [];
      thread.since = performance.now();
      thread.memory = message.memory;
      this.#near.heard(message.judged.length, message.slowestMs);
      thread.worker.unref();
      let at = 0;
      for (const { subjects, done } of tasks) {
        done(message.judged.slice(at, at + subjects.length));
        at += subjects.length;
      }
    }
    this.#dispatch();
  }

  // A thread that failed to start cannot be replaced: the replacement would fail too.
  #lost(thread: Thread, finding: Finding, thrown: unknown): void {
    if (!this.#threads.delete(thread)) return;
    const { tasks } = thread;
    if (!thread.ready) {
      for (const waiting of this.#waiting.splice(0))
        waiting.failed(thrown ?? new CountersignError('policy-unusable', 'the rules could not be loaded in time'));
      return;
    }
    if (this.#closed) return;
    let at = Atomics.load(thread.pulse, 0);
    for (const task of tasks) {
      // Other tasks in the message of the failed one are evaluated again on another thread.
      if (at < 0 || at >= task.subjects.length) this.#enqueue(task.subjects, task.scope).then(task.done, task.failed);
      else this.#goOn(task, at, finding);
      at -= task.subjects.length;
    }
    this.#dispatch();
  }

  // The subject being evaluated is denied. Results of earlier subjects in the batch were lost with the thread, so they
  // are evaluated again, like the rest.
  #goOn(task: Task, at: number, finding: Finding): void {
    const [before, after] = [task.subjects.slice(0, at), task.subjects.slice(at + 1)];
    const part = (subjects: readonly Subject[]) =>
      subjects.length === 0 ? Promise.resolve([]) : this.#enqueue(subjects, task.scope);
    void Promise.all([part(before), part(after)]).then(
      ([a, b]) => task.done([...a, { findings: [finding], trace: [] }, ...b]),
      task.failed,
    );
  }

  #watch(): void {
    const now = performance.now();
    for (const thread of this.#threads) {
      if (!thread.ready && now - thread.since > START_DEADLINE) void thread.worker.terminate();
      if (thread.tasks.length === 0) continue;
      const beat = Atomics.load(thread.pulse, 1);
      if (beat !== thread.seen) {
        thread.seen = beat;
        thread.since = now;
      } else if (now - thread.since > this.#options.deadline) {
        this.#lost(
          thread,
          broken(
            'policy-timeout',
            `the rules took longer than ${this.#options.deadline} ms for this subject`,
            'make the rule simpler, or give it less to iterate over',
          ),
          undefined,
        );
        void thread.worker.terminate();
      }
    }
    if ([...this.#threads].every((t) => t.tasks.length === 0) && this.#waiting.length === 0) {
      clearInterval(this.#clock);
      this.#clock = undefined;
      this.#endIdleLater();
    }
  }

  // Work comes in bursts, and a thread that waits for the next one holds its own copy of every module and rule. Until
  // the calling thread can do without, one waits for requests.
  #endIdle(): void {
    this.#rest = undefined;
    const now = performance.now();
    const kept = this.#isNear && !this.#near.isProven ? 1 : 0;
    const idle = [...this.#threads].filter((t) => t.ready && t.tasks.length === 0);
    const over = idle.filter((t) => now - t.since >= this.#options.idle);
    for (const thread of over.slice(0, Math.max(0, this.#threads.size - kept))) {
      this.#threads.delete(thread);
      void thread.worker.terminate();
    }
    if (kept > 0) void this.#elsewhere?.().then((quick) => this.#near.trust(quick), noMatter);
    const mayEnd = kept === 0 || this.#elsewhere !== undefined;
    if (this.#threads.size > (mayEnd ? 0 : kept)) this.#endIdleLater();
  }

  #endIdleLater(): void {
    this.#rest ??= setTimeout(() => this.#endIdle(), this.#options.idle / 2).unref();
  }
}

const noMatter = () => {}; // it is asked again

function closed(): CountersignError {
  return new CountersignError('policy-failed', 'the policy pool was closed during an evaluation', { recover: 'retry' });
}

function outOfMemory(): Finding {
  return broken('policy-out-of-memory', 'the rules exceeded their memory limit on this subject');
}
