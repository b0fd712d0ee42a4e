import { setTimeout as wait } from 'node:timers/promises';
import type { ApiServer } from '../../../src/cluster/index.ts';
import { ENVIRONMENTS, type EnvironmentName, RULED, type World } from './world.ts';

/** What the product promises, each tried again and again. */
export const DUTIES = ['admission', 'break-glass', 'change', 'record'] as const;
export type Duty = (typeof DUTIES)[number];

/** One try: when it began and ended (`performance.now()`), and whether it went as it must. */
export type Try = { readonly duty: Duty; readonly begun: number; readonly ended: number; readonly isGood: boolean };

/** A write that a person sent. */
export type Asked = {
  readonly who: 'dev' | 'oncall' | 'ruled';
  readonly name: string;
  readonly status: number;
  readonly message: string;
};

/** A value of a counter that the cluster had, and when it was first seen. */
export type Seen = { readonly environment: EnvironmentName; readonly count: number; readonly version: string };

const EVERY_MS = 1000;
const PUSH_MS = 4000;
const LOOK_MS = 50;

/** People and a checker that go on whatever happens: they push changes, ask for things and look at the cluster. */
export class Actors {
  readonly tries: Try[] = [];
  readonly asked: Asked[] = [];
  readonly seen: Seen[] = [];
  /** Each pushed count, with its commit. */
  readonly pushed: { readonly environment: EnvironmentName; readonly count: number; readonly commit: string }[] = [];
  readonly #world: World;
  readonly #asking: Promise<void>[] = [];
  readonly #looking: Promise<void>[] = [];
  // Changes and records that are waited for.
  readonly #open = new Map<string, { readonly duty: Duty; readonly begun: number }>();
  readonly #recorded = new Set<string>();
  #isQuiet = false;
  #isOver = false;

  constructor(world: World) {
    this.#world = world;
  }

  async start(): Promise<void> {
    const { stage } = this.#world;
    const [dev, oncall] = await Promise.all([stage.as('dev'), stage.as('oncall')]);
    this.#looking.push(this.#look(), this.#watchRecords());
    this.#asking.push(this.#push(), this.#ask(dev, 'dev'), this.#ask(oncall, 'oncall'), this.#ask(dev, 'ruled'));
  }

  /** Ends pushes and questions, and then the looking, once the cluster has what was pushed last. */
  async stop(settle: () => Promise<void>): Promise<void> {
    this.#isQuiet = true;
    await Promise.all(this.#asking);
    await settle();
    this.#isOver = true;
    await Promise.all(this.#looking);
  }

  /** The last count that was pushed to an environment. */
  last(environment: EnvironmentName): number {
    return this.pushed.findLast((p) => p.environment === environment)?.count ?? 0;
  }

  /** What is still waited for, with when that began. */
  get waiting(): readonly { readonly duty: Duty; readonly begun: number }[] {
    return [...this.#open.values()];
  }

  async #push(): Promise<void> {
    for (let count = 1; !this.#isQuiet; count++)
      for (const environment of ENVIRONMENTS) {
        const begun = performance.now();
        // Git may be away. The next push brings this commit along.
        const commit = await this.#world.push(environment, count).catch(() => undefined);
        if (commit !== undefined) {
          this.pushed.push({ environment, count, commit });
          this.#open.set(`${environment} ${count}`, { duty: 'change', begun });
        }
        await wait(PUSH_MS / 2);
      }
  }

  async #look(): Promise<void> {
    const last = new Map<string, string>();
    while (!this.#isOver) {
      for (const environment of ENVIRONMENTS) {
        const path = `/api/v1/namespaces/${environment}/configmaps/settings`;
        const { status, body } = await this.#world.stage.get(path).catch(() => ({ status: 0, body: {} }));
        const { resourceVersion = '' } = (body as { metadata?: { resourceVersion?: string } }).metadata ?? {};
        if (status !== 200 || last.get(environment) === resourceVersion) continue;
        last.set(environment, resourceVersion);
        const count = Number((body as { data: { count: string } }).data.count);
        this.seen.push({ environment, count, version: resourceVersion });
        for (const [key, { duty, begun }] of this.#open) {
          const [of, n] = key.split(' ');
          if (duty === 'change' && of === environment && Number(n) <= count) this.#close(key, duty, begun);
        }
      }
      await wait(LOOK_MS);
    }
  }

  // A use that was let through must come to the ledger.
  async #watchRecords(): Promise<void> {
    const sql = `SELECT body::json #>> '{object,name}' AS name FROM countersign.entry WHERE type = 'breakglass.used'`;
    while (!this.#isOver) {
      const rows = await this.#world.databases.ask(sql).catch(() => []);
      for (const { name } of rows) this.#recorded.add(String(name));
      for (const [key, { duty, begun }] of this.#open)
        if (duty === 'record' && this.#recorded.has(key)) this.#close(key, duty, begun);
      await wait(LOOK_MS * 5);
    }
  }

  #close(key: string, duty: Duty, begun: number): void {
    this.#open.delete(key);
    this.tries.push({ duty, begun, ended: performance.now(), isGood: true });
  }

  async #ask(server: ApiServer, who: Asked['who']): Promise<void> {
    for (let i = 0; !this.#isQuiet; i++) {
      const namespace = who === 'ruled' ? RULED : (ENVIRONMENTS[i % 2] as EnvironmentName);
      const name = `${who}-${i}`;
      const begun = performance.now();
      const answer = await server
        .request('POST', `/api/v1/namespaces/${namespace}/configmaps`, {
          ...{ apiVersion: 'v1', kind: 'ConfigMap', data: { i: String(i) } },
          metadata: {
            name,
            namespace,
            annotations: who === 'oncall' ? { 'countersign.dev/break-glass': `INC-${i}` } : {},
          },
        })
        .catch((thrown: unknown) => ({ status: 0, body: { message: String(thrown) } as Record<string, unknown> }));
      const message = String(answer.body['message'] ?? '').slice(0, 300);
      this.asked.push({ who, name, status: answer.status, message });
      const isGood = answer.status === 201;
      if (who !== 'dev')
        this.tries.push({
          duty: who === 'oncall' ? 'break-glass' : 'admission',
          ...{ begun, ended: performance.now(), isGood },
        });
      if (who === 'oncall' && isGood) this.#open.set(name, { duty: 'record', begun });
      await wait(EVERY_MS);
    }
  }
}
