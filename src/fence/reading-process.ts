import { type ChildProcess, fork } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CountersignError } from '../model/index.ts';
import {
  type Declared,
  NO_SIZE,
  type ProcessLimits,
  type RenderedFile,
  type RenderLimits,
  type SourceFile,
  withPlaces,
} from '../render/index.ts';
import { type MemoryWatch, watchMemory } from './memory.ts';
import type { Answer, Question } from './reading-child.ts';

/** Texts to parse. With `ordered`, the values are `OrderedValue`s, with keys in the order of the text. */
export type TextsToParse = readonly string[] | { readonly ordered: readonly string[] };

/** Values of the documents of each text, or why there are none: not YAML, or larger than the limits. */
export type ParsedTexts =
  | { readonly kind: 'values'; readonly values: readonly (readonly unknown[])[] }
  | { readonly kind: 'unreadable'; readonly reason: string }
  | ({ readonly kind: 'exceeded' } & Exceeded);

/** The exceeded limit, as named in `spec.render.limits`, and what the process did, as text. */
export type Exceeded = { readonly limit: 'memory' | 'time' | keyof RenderLimits; readonly text: string };

const IDLE_MS = 15_000;
const HEAP_SHARE = 0.8; // share of the memory; the rest is for allocations outside the heap
const CODE = 48 * 1024 * 1024; // memory of such a process before it reads anything
const MODULE = fileURLToPath(new URL(`./reading-child${extname(import.meta.url)}`, import.meta.url));

/**
 * Reads manifests and YAML texts in a separate process, which can die without ending this one. It has hard limits of
 * memory and time, no environment, and no right to write files or start programs. It has the lowest priority for CPU
 * and memory. It is started on demand and ended when idle.
 */
export class ReadingProcess {
  #running: { readonly child: ChildProcess; readonly memory: number } | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #idle: NodeJS.Timeout | undefined;
  #asked = 0;
  #closed = false;

  /** Starts the process before the first request, which will have this memory limit (bytes). */
  warm(memory: number): void {
    const child = this.#started({ memory });
    child.unref();
    child.channel?.unref();
  }

  /** Reads manifests, one result per file; those that exceed the limits are violations (`render-too-large`). */
  async files(
    files: readonly SourceFile[],
    limits: ProcessLimits,
    declared: Declared,
  ): Promise<readonly RenderedFile[]> {
    const answer = await this.#ask({ files, limits, declared }, limits);
    if ('limit' in answer)
      return files.length === 1 ? files.map((f) => refused(f, answer)) : this.#oneByOne(files, limits, declared);
    if (!('files' in answer) || answer.files.length !== files.length) throw unexpected();
    return answer.files.map((read, i) => withPlaces(files[i] as SourceFile, read));
  }

  /** Parses texts as YAML. The result, with aliases expanded, is within the limits; otherwise it is not returned. */
  async texts(asked: TextsToParse, limits: ProcessLimits): Promise<ParsedTexts> {
    const ordered = 'ordered' in asked;
    const texts = ordered ? asked.ordered : asked;
    const answer = await this.#ask({ texts, limits, ordered }, limits);
    if ('limit' in answer) return { kind: 'exceeded', limit: answer.limit, text: answer.text };
    if ('unreadable' in answer) return { kind: 'unreadable', reason: answer.unreadable };
    if (!('values' in answer) || answer.values.length !== texts.length) throw unexpected();
    return { kind: 'values', values: answer.values };
  }

  /** Ends the process. */
  close(): void {
    this.#closed = true;
    this.#end();
  }

  // Reads each file alone to find the one that failed. After the first failure the others are not read, and none
  // passes.
  async #oneByOne(
    files: readonly SourceFile[],
    limits: ProcessLimits,
    declared: Declared,
  ): Promise<readonly RenderedFile[]> {
    const deadline = performance.now() + limits.ms;
    const all: RenderedFile[] = [];
    for (const file of files) {
      const left = { ...limits, ms: Math.max(1, deadline - performance.now()) };
      const [read] = (await this.files([file], left, declared)) as [RenderedFile];
      all.push(read);
      if (read.violations.some((v) => v.code === 'render-too-large')) return files.map(() => read);
    }
    return all;
  }

  #ask(question: Asked, limits: ProcessLimits): Promise<Answer | Exceeded> {
    const turn = this.#turn.then(() => this.#askNow(question, limits));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  // If the process was killed by someone else, the request is repeated once: its input is not to blame.
  async #askNow(question: Asked, limits: ProcessLimits): Promise<Answer | Exceeded> {
    const deadline = performance.now() + limits.ms;
    const first = await this.#askOne(question, limits);
    if (!('ended' in first)) return first;
    const second = await this.#askOne(question, { ...limits, ms: Math.max(1, deadline - performance.now()) });
    if (!('ended' in second)) return second;
    throw new CountersignError('render-failed', `the process that reads manifests died twice (${second.ended})`, {
      recover: 'retry',
    });
  }

  async #askOne(question: Asked, limits: ProcessLimits): Promise<Answer | Exceeded | Ended> {
    if (this.#closed) throw new CountersignError('render-failed', 'rendering was cancelled', { recover: 'retry' });
    clearTimeout(this.#idle);
    const child = this.#started(limits);
    child.ref();
    child.channel?.ref();
    try {
      const answer = await answerOf(child, { id: ++this.#asked, ...question }, limits);
      if ('ended' in answer && this.#running?.child === child) this.#end();
      return answer;
    } finally {
      child.unref();
      child.channel?.unref();
      this.#idle = setTimeout(() => this.#end(), IDLE_MS).unref();
    }
  }

  #started({ memory }: Pick<ProcessLimits, 'memory'>): ChildProcess {
    if (this.#running?.memory === memory && isAlive(this.#running.child)) return this.#running.child;
    this.#end();
    const heap = Math.max(32, Math.floor(((memory - CODE) * HEAP_SHARE) / 1024 / 1024));
    const child = fork(MODULE, [], {
      execArgv: [
        '--permission',
        '--allow-fs-read=*',
        '--no-warnings',
        `--max-old-space-size=${heap}`,
        '--max-semi-space-size=8',
      ],
      env: {},
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    child.on('error', () => {}); // reported where an answer is awaited
    goesLast(child);
    this.#running = { child, memory };
    return child;
  }

  #end(): void {
    clearTimeout(this.#idle);
    this.#running?.child.kill('SIGKILL');
    this.#running = undefined;
  }
}

type Asked = Omit<Extract<Question, { files: unknown }>, 'id'> | Omit<Extract<Question, { texts: unknown }>, 'id'>;

/** Why a process ended, if the input was not the cause. */
type Ended = { readonly ended: string };

const LEFT_TO_EXIT_MS = 1000; // the exit status arrives shortly after the process can no longer be written to

function isAlive({ connected, exitCode, signalCode, killed }: ChildProcess): boolean {
  return connected && exitCode === null && signalCode === null && !killed;
}

function answerOf(
  child: ChildProcess,
  question: Question,
  { memory, ms }: ProcessLimits,
): Promise<Answer | Exceeded | Ended> {
  return new Promise((done) => {
    let why: Exceeded | undefined;
    let unsent: NodeJS.Timeout | undefined;
    const exceed = (exceeded: Exceeded) => {
      why ??= exceeded;
      child.kill('SIGKILL');
    };
    const timer = setTimeout(() => exceed({ limit: 'time', text: `takes longer than ${ms / 1000} s` }), ms);
    const watch: MemoryWatch = watchMemory(child.pid, memory, () => exceed(outOfMemory(memory)));
    const settle = (result: Answer | Exceeded | Ended) => {
      clearTimeout(timer);
      clearTimeout(unsent);
      watch.stop();
      child.off('message', onMessage).off('exit', onExit).off('error', onError);
      done(result);
    };
    const onMessage = (answer: Answer) => {
      if (answer.id === question.id) settle(answer);
    };
    // V8 itself ends a process whose heap is full. A SIGKILL not from us is someone else's, or the system's if memory
    // is short.
    const onExit = (code: number | null, signal: NodeJS.Signals | null) => {
      const isFull = signal === 'SIGABRT' || signal === 'SIGTRAP' || code === 134;
      settle(why ?? (isFull ? outOfMemory(memory) : { ended: String(signal ?? code) }));
    };
    const onError = (cause: Error) => settle(why ?? { ended: cause.message });
    child.on('message', onMessage).on('exit', onExit).on('error', onError);
    child.send(question, (cause) => {
      if (cause !== null) unsent ??= setTimeout(() => onError(cause), LEFT_TO_EXIT_MS);
    });
  });
}

function outOfMemory(memory: number): Exceeded {
  return { limit: 'memory', text: `takes more than ${Math.round(memory / 1024 / 1024)} MiB of memory` };
}

function refused({ path }: SourceFile, { limit, text }: Exceeded): RenderedFile {
  return {
    objects: [],
    warnings: [],
    size: NO_SIZE,
    violations: [
      {
        code: 'render-too-large',
        message: `reading \`${path}\` ${text}, the limit of this environment`,
        source: { file: path, line: 1 },
        hint: `split it into several files, or raise \`spec.render.limits.${limit}\``,
      },
    ],
  };
}

function unexpected(): CountersignError {
  return new CountersignError('render-failed', 'the process that reads manifests answered a different request', {
    recover: 'retry',
  });
}

// Requests are answered first; if memory runs out, the system should kill this process (proc(5), oom_score_adj).
function goesLast({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    setPriority(pid, constants.priority.PRIORITY_BELOW_NORMAL);
    if (process.platform === 'linux') writeFileSync(`/proc/${pid}/oom_score_adj`, '1000');
  } catch {
    // it has exited, or the system refuses: then it only keeps its normal priority
  }
}
