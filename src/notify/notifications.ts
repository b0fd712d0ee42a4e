import { setTimeout as wait } from 'node:timers/promises';
import { CountersignError, durationMs, globMatches, messageOf, type Notifier, Recent, type Told } from '../model/index.ts';
import { type Call, tellDeployment } from './deployments.ts';
import { type Mail, sendMail } from './mail.ts';
import { type Outgoing, plainText, request, sentence } from './messages.ts';
import { readSecret } from './secret.ts';

type Log = { info(fields: object, message: string): void; warn(fields: object, message: string): void };

const WAITING = 1000; // messages a notifier may be behind
const TIMEOUT_MS = 10_000;
const ATTEMPTS = 5;
const FIRST_PAUSE_MS = 500;
const REMEMBERED = 5000;
const MAX_ANSWER = 1024 * 1024;

/** Everybody who is to hear of things. `tell` returns at once; what is to be said is said one after the other. */
export class Notifications {
  readonly #channels: readonly Channel[];

  constructor(notifiers: readonly Notifier[], log: Log) {
    this.#channels = notifiers.map((n) => new Channel(n, log));
  }

  tell(happened: Told): void {
    for (const channel of this.#channels) channel.take(happened);
  }

  /** Says what still waits, for as long as `ms`. */
  async close(ms: number): Promise<void> {
    await Promise.race([Promise.all(this.#channels.map((c) => c.idle)), wait(ms, undefined, { ref: false })]);
    for (const channel of this.#channels) channel.stop();
  }
}

class Channel {
  readonly #notifier: Notifier;
  readonly #log: Log;
  readonly #told = new Recent<number>(REMEMBERED);
  readonly #waiting: Told[] = [];
  readonly #stopped = new AbortController();
  idle: Promise<void> = Promise.resolve();
  #working = false;

  constructor(notifier: Notifier, log: Log) {
    this.#notifier = notifier;
    this.#log = log;
  }

  take(happened: Told): void {
    const { environments, events, repeatAfter } = this.#notifier.spec;
    if (!events.includes(happened.event)) return;
    if (!environments.some((glob) => globMatches(glob, happened.environment))) return;
    // By what it says, never by how long it took (notification-controller 509).
    const key = JSON.stringify([happened.environment, happened.event, happened.revision, happened.message]);
    const now = performance.now();
    const last = this.#told.get(key);
    if (last !== undefined && now - last < durationMs(repeatAfter)) return;
    this.#told.set(key, now);
    if (this.#waiting.length >= WAITING) {
      this.#log.warn({ notifier: this.#notifier.metadata.name, event: happened.event }, 'too much waits to be told; this is not');
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
            `could not be told: ${messageOf(thrown)}`,
          );
          return;
        }
        await wait(FIRST_PAUSE_MS * 2 ** (attempt - 1), undefined, { signal: this.#stopped.signal, ref: false }).catch(() => {});
      }
    }
  }

  async #send(happened: Told): Promise<void> {
    const { to, template } = this.#notifier.spec;
    if ('email' in to) return sendMail(to.email, mailOf(happened, template), this.#stopped.signal);
    if ('deployment' in to) return tellDeployment(to.deployment, happened, readSecret, calling(this.#stopped.signal));
    const outgoing = request(to, happened, template, readSecret);
    if (outgoing !== undefined) await (await post(outgoing, this.#stopped.signal)).body?.cancel();
  }
}

function calling(stopped: AbortSignal): Call {
  return async (method, url, headers, body) => {
    const json = { ...headers, 'content-type': 'application/json', 'user-agent': 'countersign' };
    const outgoing = { url, headers: json, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    const text = (await (await post(outgoing, stopped, method)).text()).slice(0, MAX_ANSWER);
    return text === '' ? undefined : (JSON.parse(text) as unknown);
  };
}

async function post(
  { url, headers, body }: Partial<Outgoing> & Omit<Outgoing, 'body'>,
  stopped: AbortSignal,
  method = 'POST',
): Promise<Response> {
  const signal = AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), stopped]);
  // The address of a chat's webhook is itself a secret: only its host is ever told.
  const { host } = new URL(url);
  const sent = body === undefined ? {} : { body };
  const response = await fetch(url, { method, headers, ...sent, redirect: 'error', signal }).catch((cause) => {
    throw new CountersignError(
      'forge-unreachable',
      `${host} does not answer: ${messageOf((cause as Error).cause ?? cause).replaceAll(url, host)}`,
      {
        recover: 'retry',
      },
    );
  });
  if (response.ok) return response;
  await response.body?.cancel();
  const again = response.status === 429 || response.status >= 500;
  throw new CountersignError('forge-refused', `${host} answers ${response.status}`, { recover: again ? 'retry' : 'wait' });
}

function mailOf(happened: Told, template: string | undefined): Mail {
  const subject = `[countersign] ${happened.environment}: ${happened.event} ${happened.revision.slice(0, 12)}`;
  return { subject: plainText(subject), text: `${sentence(happened, template)}\n\n${happened.revision}\n${happened.at}\n` };
}
