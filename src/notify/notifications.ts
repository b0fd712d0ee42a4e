import { setTimeout as wait } from 'node:timers/promises';
import {
  CountersignError,
  durationMs,
  globMatches,
  hostText,
  messageOf,
  type Notifier,
  Recent,
  type Told,
} from '../model/index.ts';
import { askServer, type Limits } from '../outgoing/index.ts';
import { type Call, tellDeployment } from './deployments.ts';
import { type Mail, sendMail } from './mail.ts';
import { type Outgoing, plainText, request, sentence } from './messages.ts';
import { readSecret } from './secret.ts';

type Log = { info(fields: object, message: string): void; warn(fields: object, message: string): void };

const WAITING = 1000; // messages a notifier may be behind
const ATTEMPTS = 5;
const REMEMBERED = 5000;
const TIMES: Times = { bytes: 1024 * 1024, quietMs: 10_000, totalMs: 20_000, firstPauseMs: 500 };

/** Limits of an answer, and the pause before the second attempt; each further pause is twice as long. */
type Times = Limits & { readonly firstPauseMs: number };

/** Sends events to all notifiers. `tell` returns at once; messages are sent one after the other. */
export class Notifications {
  readonly #channels: readonly Channel[];

  constructor(notifiers: readonly Notifier[], log: Log, limits: Times = TIMES) {
    this.#channels = notifiers.map((n) => new Channel(n, log, limits));
  }

  tell(happened: Told): void {
    // Identified by content, never by duration (notification-controller 509). One text serves all channels, because
    // each remembers thousands.
    const key = JSON.stringify([happened.environment, happened.event, happened.revision, happened.message]);
    for (const channel of this.#channels) channel.take(happened, key);
  }

  /** Sends pending messages for at most `ms`. */
  async close(ms: number): Promise<void> {
    await Promise.race([Promise.all(this.#channels.map((c) => c.idle)), wait(ms, undefined, { ref: false })]);
    for (const channel of this.#channels) channel.stop();
  }
}

class Channel {
  readonly #notifier: Notifier;
  readonly #limits: Times;
  readonly #log: Log;
  readonly #told = new Recent<number>(REMEMBERED);
  readonly #waiting: Told[] = [];
  readonly #stopped = new AbortController();
  idle: Promise<void> = Promise.resolve();
  #working = false;

  constructor(notifier: Notifier, log: Log, limits: Times) {
    this.#limits = limits;
    this.#notifier = notifier;
    this.#log = log;
  }

  take(happened: Told, key: string): void {
    const { environments, events, repeatAfter } = this.#notifier.spec;
    if (!events.includes(happened.event)) return;
    if (!environments.some((glob) => globMatches(glob, happened.environment))) return;
    const now = performance.now();
    const last = this.#told.get(key);
    if (last !== undefined && now - last < durationMs(repeatAfter)) return;
    this.#told.set(key, now);
    if (this.#waiting.length >= WAITING) {
      this.#log.warn(
        { notifier: this.#notifier.metadata.name, event: happened.event },
        'too many messages are waiting; dropped this one',
      );
      return;
    }
    this.#waiting.push(happened);
    if (!this.#working) this.idle = this.#work();
  }

  stop(): void {
    this.#stopped.abort();
  }

  async #work(): Promise<void> {
    this.#working = true;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) await this.#say(next);
    this.#working = false;
  }

  async #say(happened: Told): Promise<void> {
    const { name } = this.#notifier.metadata;
    for (let attempt = 1; !this.#stopped.signal.aborted; attempt++) {
      try {
        await this.#send(happened);
        return;
      } catch (thrown) {
        const hopeless = thrown instanceof CountersignError && thrown.recover === 'wait';
        if (hopeless || attempt === ATTEMPTS) {
          this.#log.warn(
            { notifier: name, environment: happened.environment, event: happened.event, attempts: attempt },
            `cannot send the message: ${messageOf(thrown)}`,
          );
          return;
        }
        await wait(this.#limits.firstPauseMs * 2 ** (attempt - 1), undefined, {
          signal: this.#stopped.signal,
          ref: false,
        }).catch(() => {});
      }
    }
  }

  async #send(happened: Told): Promise<void> {
    const { to, template } = this.#notifier.spec;
    if ('email' in to) return sendMail(to.email, mailOf(happened, template), this.#stopped.signal);
    const { signal } = this.#stopped;
    if ('deployment' in to) return tellDeployment(to.deployment, happened, readSecret, calling(signal, this.#limits));
    const outgoing = request(to, happened, template, readSecret);
    if (outgoing !== undefined) await send(outgoing, signal, this.#limits);
  }
}

function calling(stopped: AbortSignal, limits: Limits): Call {
  return async (method, to, headers, body) => {
    const json = { ...headers, 'content-type': 'application/json' };
    const answer = await send(
      { to, headers: json, body: body === undefined ? undefined : JSON.stringify(body) },
      stopped,
      limits,
      method,
    );
    if (answer.length === 0) return undefined;
    try {
      return JSON.parse(answer.toString('utf8')) as unknown;
    } catch {
      throw new CountersignError('forge-refused', `${hostText(to)} did not answer with JSON`);
    }
  };
}

// The address of a chat webhook is itself a secret: only its host is ever shown.
async function send(
  { to, headers, body }: Outgoing,
  signal: AbortSignal,
  limits: Limits,
  method: 'GET' | 'POST' | 'PUT' = 'POST',
): Promise<Buffer> {
  const { status, body: answer } = await askServer(
    to,
    { method, headers, signal, ...(body === undefined ? {} : { body }) },
    limits,
  );
  if (status >= 200 && status < 300) return answer;
  const again = status === 429 || status >= 500;
  throw new CountersignError('forge-refused', `${hostText(to)} answers ${status}`, {
    recover: again ? 'retry' : 'wait',
  });
}

function mailOf(happened: Told, template: string | undefined): Mail {
  const subject = `[countersign] ${happened.environment}: ${happened.event} ${happened.revision.slice(0, 12)}`;
  return {
    subject: plainText(subject),
    text: `${sentence(happened, template)}\n\n${happened.revision}\n${happened.at}\n`,
  };
}
