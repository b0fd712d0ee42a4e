import { Agent } from 'node:https';
import type { ApiServer } from '../../src/cluster/index.ts';
import { askAdmission } from './ask-admission.ts';
import { podReview } from './pod-review.ts';

type Answers = {
  right: number;
  retry: number;
  readonly wrong: string[];
  readonly none: string[];
  readonly times: number[];
};

const REVIEWS = [
  { namespace: 'hostile', privileged: false, allowed: false },
  { namespace: 'team-a', privileged: false, allowed: true },
  { namespace: 'team-a', privileged: true, allowed: false },
] as const;

/**
 * Asks the webhook five times a second and writes through the API server twice a second, and counts from `begin` on.
 */
export class SteadyAdmission {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 32, rejectUnauthorized: false });
  readonly #port: number;
  readonly #oncall: ApiServer;
  readonly #pending = new Set<Promise<void>>();
  #answers = { webhook: noAnswers(), apiServer: noAnswers() };
  #n = 0;
  readonly #timers: readonly NodeJS.Timeout[];

  constructor(port: number, oncall: ApiServer) {
    this.#port = port;
    this.#oncall = oncall;
    this.#timers = [
      setInterval(() => this.#add(this.#ask(this.#n++)), 200),
      setInterval(() => this.#add(this.#write(this.#n++)), 500),
    ];
  }

  begin(): void {
    this.#answers = { webhook: noAnswers(), apiServer: noAnswers() };
  }

  async end(): Promise<{ readonly webhook: Answers; readonly apiServer: Answers }> {
    for (const timer of this.#timers) clearInterval(timer);
    await Promise.all(this.#pending);
    this.#agent.destroy();
    this.#oncall.close();
    return this.#answers;
  }

  #add(one: Promise<void>): void {
    this.#pending.add(one);
    void one.finally(() => this.#pending.delete(one));
  }

  async #ask(i: number): Promise<void> {
    const { webhook } = this.#answers;
    const kind = REVIEWS[i % REVIEWS.length] as (typeof REVIEWS)[number];
    await timed(webhook, async () => {
      const { response } = await askAdmission(this.#agent, this.#port, podReview(i, kind.namespace, kind.privileged));
      if (response.allowed === kind.allowed) return 'right';
      return response.status?.code === 429 ? 'retry' : JSON.stringify(response).slice(0, 300);
    });
  }

  async #write(i: number): Promise<void> {
    const name = `glass-${i % 50}`;
    const annotations = { 'countersign.dev/break-glass': `INC-${i}`, 'countersign.dev/break-glass-for': '1h' };
    const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, annotations }, data: { n: String(i) } };
    await timed(this.#answers.apiServer, async () => {
      const path = `/api/v1/namespaces/hostile/configmaps/${name}?fieldManager=oncall&force=true`;
      const { status, body: answer } = await this.#oncall.request('PATCH', path, body, 'application/apply-patch+yaml');
      if (status === 200 || status === 201) return 'right';
      return status === 429 ? 'retry' : `${status} ${JSON.stringify(answer['message']).slice(0, 300)}`;
    });
  }
}

function noAnswers(): Answers {
  return { right: 0, retry: 0, wrong: [], none: [], times: [] };
}

async function timed(answers: Answers, ask: () => Promise<string>): Promise<void> {
  const begun = performance.now();
  try {
    const answer = await ask();
    answers.times.push(performance.now() - begun);
    if (answer === 'right' || answer === 'retry') answers[answer]++;
    else answers.wrong.push(answer);
  } catch (thrown) {
    answers.none.push(String(thrown));
  }
}
