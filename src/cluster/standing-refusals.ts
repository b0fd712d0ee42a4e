import { CountersignError, Recent } from '../model/index.ts';
import type { Answer } from './api-server.ts';

const TIMES = 3;
const LASTS_MS = 8000;

// Something that the answer depends on is away, and comes back.
const OUTAGE =
  /failed calling webhook|failed to call|dial tcp|connection refused|connection reset|i\/o timeout|deadline exceeded|etcdserver|EOF|no such host|TLS handshake|context canceled/i;

type Known = { readonly said: string; readonly since: number; count: number };

/**
 * Tells a refusal from an outage where the status does not: an API server that is otherwise well, and answers the same
 * request with the same words again and again, refuses it. A conversion that fails has the status 500, and a webhook of
 * ours that does not accept a write of ours looks as if it had not heard of it yet.
 */
export class StandingRefusals {
  readonly #known = new Recent<Known>(1000);
  readonly #isWell: () => Promise<boolean>;

  /** `isWell` asks the API server whether it is ready. */
  constructor(isWell: () => Promise<boolean>) {
    this.#isWell = isWell;
  }

  /** Notes that a request was answered otherwise. */
  forget(request: string): void {
    this.#known.delete(request);
  }

  /** Returns the error for a passing answer: the one given, or a refusal if the answer stands. */
  async judge(request: string, { status, body }: Answer, error: CountersignError): Promise<CountersignError> {
    const message = String(body['message'] ?? '');
    if (error.code !== 'cluster-unreachable' || ![403, 500].includes(status) || OUTAGE.test(message)) return error;
    const said = `${status} ${message.replaceAll(/[0-9a-f-]{8,}|\d+/g, '#')}`;
    const known = this.#known.get(request);
    if (known?.said !== said) {
      this.#known.set(request, { said, since: performance.now(), count: 1 });
      return error;
    }
    known.count++;
    if (known.count < TIMES || performance.now() - known.since < LASTS_MS || !(await this.#isWell())) return error;
    return new CountersignError('cluster-refused', error.message, {
      recover: 'wait',
      hint: 'the API server is well and gives this answer each time: correct what it names, then push a new commit',
    });
  }
}
