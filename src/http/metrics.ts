import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { ReconcilerStatus } from '../reconcile/index.ts';

/** Values measured at each scrape. */
export type Measured = {
  readonly environments: readonly ReconcilerStatus[];
  readonly entries: number;
  /** Records that are not on the ledger yet. */
  readonly backlog: number;
  /** Whether the ledger takes records, and whether this replica numbers and signs them. */
  readonly isAvailable: boolean;
  readonly sequences: boolean;
  readonly connected: boolean;
  /** The machine's clock less the API server's. */
  readonly clockOffsetSeconds: number;
  readonly clockBehindLedgerSeconds: number;
};

/**
 * The service's metrics in Prometheus' text format. Names follow its conventions: base units, `_total` for counters.
 */
export class Metrics {
  /** Environments whose rules are asked at admission, and whether they can be here; set by the part that loads them. */
  rules: () => readonly { readonly environment: string; readonly isLoaded: boolean }[] = () => [];
  readonly #registry = new Registry();
  readonly #events: Counter<'environment' | 'event'>;
  readonly #duration: Histogram<'environment' | 'kind'>;
  readonly #admission: Counter<'environment' | 'operation' | 'decision'>;
  readonly #decision: Histogram;

  constructor(measure: () => Measured) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    this.#events = new Counter({
      name: 'countersign_events_total',
      help:
        'What happened in an environment: applied, failed, ' +
        'restored, denied, refused, drift, corrected, contested, …',
      labelNames: ['environment', 'event'],
      registers,
    });
    this.#duration = new Histogram({
      name: 'countersign_reconcile_duration_seconds',
      help: 'Duration of one check of an environment; kind is look (with the repository) or drift.',
      labelNames: ['environment', 'kind'],
      buckets: [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
      registers,
    });
    this.#admission = new Counter({
      name: 'countersign_admission_requests_total',
      help: 'Requests decided by the admission webhook.',
      labelNames: ['environment', 'operation', 'decision'],
      registers,
    });
    this.#decision = new Histogram({
      name: 'countersign_admission_duration_seconds',
      help: 'Time the webhook took to decide a request.',
      buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
      registers,
    });
    this.#gauges(measure, registers);
  }

  /** Returns its Content-Type and the text. */
  async text(): Promise<{ readonly type: string; readonly body: string }> {
    return { type: this.#registry.contentType, body: await this.#registry.metrics() };
  }

  happened(environment: string, event: string): void {
    this.#events.inc({ environment, event });
  }

  took(environment: string, kind: 'look' | 'drift', seconds: number): void {
    this.#duration.observe({ environment, kind }, seconds);
  }

  decided(environment: string, operation: string, decision: 'allowed' | 'denied' | 'undecided', seconds: number): void {
    this.#admission.inc({ environment, operation, decision });
    this.#decision.observe(seconds);
  }

  // Measured at each scrape, so that values are never older.
  #gauges(measure: () => Measured, registers: Registry[]): void {
    const state = (set: (status: ReconcilerStatus) => void) => {
      for (const status of measure().environments) set(status);
    };
    new Gauge({
      name: 'countersign_environment_info',
      help: 'Always 1; its labels give the state of an environment.',
      labelNames: ['environment', 'revision', 'state'],
      registers,
      collect() {
        this.reset();
        state((s) => this.set({ environment: s.environment, revision: s.revision, state: s.state }, 1));
      },
    });
    new Gauge({
      name: 'countersign_environment_ready',
      help: '1 if the newest commit is applied and every object is healthy.',
      labelNames: ['environment'],
      registers,
      collect() {
        state((s) => {
          const healthy = s.health.progressing + s.health.failed + s.health.missing === 0;
          this.set({ environment: s.environment }, s.state === 'applied' && healthy ? 1 : 0);
        });
      },
    });
    new Gauge({
      name: 'countersign_objects',
      help: 'Objects of an environment by health.',
      labelNames: ['environment', 'health'],
      registers,
      collect() {
        state((s) => {
          for (const health of ['current', 'progressing', 'failed', 'missing'] as const)
            this.set({ environment: s.environment, health }, s.health[health]);
        });
      },
    });
    new Gauge({
      name: 'countersign_ledger_entries',
      help: 'Entries on the ledger.',
      registers,
      collect() {
        this.set(measure().entries);
      },
    });
    const ledger = {
      backlog: ['Records that wait for the ledger, in memory and in the write-ahead file.', (m: Measured) => m.backlog],
      available: ['1 while the ledger takes records.', (m: Measured) => Number(m.isAvailable)],
      sequences: ['1 while this replica numbers and signs the records of all.', (m: Measured) => Number(m.sequences)],
    } as const;
    for (const [name, [help, value]] of Object.entries(ledger))
      new Gauge({
        name: `countersign_ledger_${name}`,
        help,
        registers,
        collect() {
          this.set(value(measure()));
        },
      });
    const rules = () => this.rules();
    new Gauge({
      name: 'countersign_rules_loaded',
      help: '1 if this replica can evaluate the rules of an environment at admission.',
      labelNames: ['environment'],
      registers,
      collect() {
        this.reset();
        for (const { environment, isLoaded } of rules()) this.set({ environment }, isLoaded ? 1 : 0);
      },
    });
    new Gauge({
      name: 'countersign_clock_offset_seconds',
      help: 'How far the clock of the machine is ahead of the API server’s; negative if it is behind.',
      registers,
      collect() {
        this.set(measure().clockOffsetSeconds);
      },
    });
    new Gauge({
      name: 'countersign_clock_behind_ledger_seconds',
      help: 'How far the clock of the machine is behind the newest entry of the ledger.',
      registers,
      collect() {
        this.set(measure().clockBehindLedgerSeconds);
      },
    });
    new Gauge({
      name: 'countersign_watches_connected',
      help: '1 while every watch on a cluster is connected.',
      registers,
      collect() {
        this.set(measure().connected ? 1 : 0);
      },
    });
  }
}
