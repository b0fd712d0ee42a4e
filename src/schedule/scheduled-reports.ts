import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import {
  CountersignError,
  type Entry,
  type EntryBody,
  type EntryOf,
  type EntryType,
  messageOf,
  type Recorded,
  type ReportDelivery,
  type ReportSchedule,
} from '../model/index.ts';
import { type Issue, kindOf } from './deliver.ts';
import { duePeriods, type Period, periodFrom } from './periods.ts';

/** A finished report: its id, the SHA-256 of its manifest, the size of its checkpoint, and its numbers. */
type Made = {
  readonly id: string;
  readonly manifest: string;
  readonly checkpoint: number;
  readonly summary: Readonly<Record<string, number>>;
};

type Issued = Recorded<EntryOf<'report.issued'>>;

export type ScheduledReportsPorts = {
  readonly schedules: readonly ReportSchedule[];
  readonly ledger: {
    all<T extends EntryType>(type: T, environment: string): Recorded<EntryOf<T>>[];
    entry(index: number): Recorded<Entry> | undefined;
    record(body: EntryBody, evidence: readonly []): Promise<Recorded>;
  };
  /** Where reports are stored: `SCHEDULE/PERIOD/vN`. */
  readonly directory: string;
  /** Makes a report in a directory that does not exist yet. */
  readonly make: (
    schedule: ReportSchedule,
    period: Period,
    out: string,
    supersedes: Issued | undefined,
    signal: AbortSignal,
  ) => Promise<Made>;
  readonly deliver: (place: ReportDelivery, issue: Issue, signal: AbortSignal) => Promise<void>;
  readonly clock: () => Date;
  readonly log: { info(fields: object, message: string): void; error(fields: object, message: string): void };
};

const LOOK_MS = 30_000;
// Milliseconds before each further attempt; the last one repeats.
const PAUSES = [10_000, 60_000, 300_000, 1_800_000, 3_600_000];
const SAID_AFTER = 5; // attempts after which the failure is recorded on the ledger
const PATIENCE_MS = 7 * 86_400_000;
const DELIVERY_MS = 10 * 60_000;

/**
 * Makes and delivers reports on schedule, one after the other. Due reports are computed from the ledger alone, so that
 * missed ones are made later and none is made twice (docs/decisions/0012-report-schedules.md).
 */
export class ScheduledReports {
  /** Name of the Lease that one replica holds; no Environment can have this name. */
  readonly name = 'reports.schedules';
  readonly #ports: ScheduledReportsPorts;
  readonly #stopped = new AbortController();
  readonly #attempts = new Map<string, { readonly count: number; readonly at: number; readonly next: number }>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(ports: ScheduledReportsPorts) {
    this.#ports = ports;
  }

  /** Checks every half minute until stopped. */
  async run(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      await this.look();
      await wait(LOOK_MS, undefined, { signal: this.#stopped.signal, ref: false }).catch(() => {});
    }
  }

  /** Cancels the current report or delivery; it is done after the next start. */
  stop(): void {
    this.#stopped.abort();
  }

  standBy(): void {}

  /**
   * Makes due reports, and delivers those missing at their destination. Failures are logged and recorded on the ledger.
   */
  look(): Promise<void> {
    return this.#next(async () => {
      for (const schedule of this.#ports.schedules) {
        await this.#makeDue(schedule).catch((thrown) =>
          this.#log(schedule, `cannot make reports: ${messageOf(thrown)}`),
        );
        await this.#deliverAll(schedule).catch((thrown) =>
          this.#log(schedule, `cannot check deliveries: ${messageOf(thrown)}`),
        );
      }
    });
  }

  /**
   * Makes the due reports of one schedule, or its newest period once more with `again`, and tries to deliver. Returns
   * the reports made. Throws `usage` if there is no such schedule or nothing to repeat, and the reason if a report
   * fails.
   */
  async runNow(name: string, again: boolean): Promise<readonly Issued[]> {
    return this.#next(async () => {
      const schedule = this.#ports.schedules.find((s) => s.metadata.name === name);
      if (schedule === undefined)
        throw new CountersignError('usage', `there is no ReportSchedule \`${name}\``, {
          hint: `use one of ${this.#ports.schedules.map((s) => s.metadata.name).join(', ') || 'none'}`,
        });
      this.#attempts.clear(); // the caller may have fixed something
      const made = again ? [await this.#makeAgain(schedule)] : await this.#makeDue(schedule);
      await this.#deliverAll(schedule);
      return made;
    });
  }

  // One after the other, for all callers.
  #next<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(task);
    this.#turn = done.catch(() => {});
    return done;
  }

  async #makeDue(schedule: ReportSchedule): Promise<readonly Issued[]> {
    const first = this.#ports.ledger.entry(0);
    if (first === undefined) return [];
    const reportedTo = this.#issued(schedule)
      .map(({ entry }) => entry.to)
      .sort()
      .at(-1);
    const made: Issued[] = [];
    for (const period of duePeriods(schedule, reportedTo, new Date(first.entry.time), this.#ports.clock())) {
      const key = `${schedule.metadata.name} ${period.from}`;
      if (this.#stopped.signal.aborted || !this.#isTime(key)) break; // in order: a later one waits for an earlier one
      try {
        made.push(await this.#make(schedule, period, undefined));
        this.#attempts.delete(key);
      } catch (thrown) {
        this.#failed(key);
        throw thrown;
      }
    }
    return made;
  }

  #makeAgain(schedule: ReportSchedule): Promise<Issued> {
    const newest = this.#issued(schedule).reduce<Issued | undefined>(
      (a, b) => (a === undefined || b.entry.to >= a.entry.to ? b : a),
      undefined,
    );
    if (newest === undefined)
      throw new CountersignError('usage', `\`${schedule.metadata.name}\` has not made a report yet`, {
        hint: 'omit --again to make the reports that are due',
      });
    return this.#make(schedule, periodFrom(newest.entry.from, newest.entry.to), newest);
  }

  async #make(schedule: ReportSchedule, period: Period, supersedes: Issued | undefined): Promise<Issued> {
    const { name } = schedule.metadata;
    const { ledger, make, log } = this.#ports;
    const { label, from, to } = period;
    const version = (supersedes?.entry.version ?? 0) + 1;
    const out = join(this.#ports.directory, name, label, `v${version}`);
    const begun = `${out}.new`;
    try {
      rmSync(begun, { recursive: true, force: true });
      mkdirSync(dirname(out), { recursive: true });
      const { id, manifest, checkpoint } = await make(schedule, period, begun, supersedes, this.#stopped.signal);
      // Files without an entry were left by a process that ended in between.
      rmSync(out, { recursive: true, force: true });
      renameSync(begun, out);
      const issued = await ledger.record(
        {
          type: 'report.issued',
          report: id,
          from,
          to,
          manifest,
          checkpoint,
          schedule: name,
          version,
          deliver: schedule.spec.deliver.map((d) => d.name),
          ...(supersedes === undefined ? {} : { supersedes: supersedes.index }),
        },
        [],
      );
      log.info({ schedule: name, period: label, version, report: id, directory: out }, 'a report was made');
      return issued as Issued;
    } catch (thrown) {
      rmSync(begun, { recursive: true, force: true });
      if (!this.#stopped.signal.aborted) await this.#recordFailure(name, period, messageOf(thrown));
      throw thrown;
    }
  }

  async #recordFailure(schedule: string, { from, to }: Period, error: string): Promise<void> {
    const { ledger } = this.#ports;
    const last = ledger
      .all('report.failed', '')
      .findLast(({ entry }) => entry.schedule === schedule && entry.from === from && entry.to === to);
    if (last?.entry.error === error) return;
    await ledger
      .record({ type: 'report.failed', schedule, from, to, error }, [])
      .catch((thrown) => this.#ports.log.error({ schedule }, `cannot record the failure: ${messageOf(thrown)}`));
  }

  #issued(schedule: ReportSchedule): readonly Issued[] {
    return this.#ports.ledger.all('report.issued', '').filter(({ entry }) => entry.schedule === schedule.metadata.name);
  }

  async #deliverAll(schedule: ReportSchedule): Promise<void> {
    const issued = this.#issued(schedule);
    const superseded = new Set(issued.map(({ entry }) => entry.supersedes));
    const told = this.#ports.ledger.all('report.delivered', '');
    for (const one of issued) {
      if (superseded.has(one.index)) continue;
      for (const name of one.entry.deliver ?? []) {
        const place = schedule.spec.deliver.find((d) => d.name === name);
        const before = told
          .filter(({ entry }) => entry.issued === one.index && entry.to === name)
          .map(({ entry }) => entry.outcome);
        if (place === undefined || before.includes('delivered') || this.#stopped.signal.aborted) continue;
        await this.#deliver(schedule, one, place, before.includes('failed'));
      }
    }
  }

  async #deliver(schedule: ReportSchedule, issued: Issued, place: ReportDelivery, isSaid: boolean): Promise<void> {
    const key = `${issued.index} ${place.name}`;
    const now = this.#ports.clock().getTime();
    if (!this.#isTime(key) || now - Date.parse(issued.entry.time) > PATIENCE_MS) return;
    const attempts = (this.#attempts.get(key)?.count ?? 0) + 1;
    const record = (outcome: 'delivered' | 'failed', error?: string) =>
      this.#ports.ledger.record(
        {
          type: 'report.delivered',
          issued: issued.index,
          to: place.name,
          kind: kindOf(place),
          outcome,
          attempts,
          ...(error === undefined ? {} : { error }),
        },
        [],
      );
    const { name } = schedule.metadata;
    try {
      const period = periodFrom(issued.entry.from, issued.entry.to);
      const version = issued.entry.version ?? 1;
      const directory = join(this.#ports.directory, name, period.label, `v${version}`);
      if (!existsSync(join(directory, 'manifest.txt')))
        throw new CountersignError(
          'report-unverifiable',
          `its files are missing from \`${directory}\`, where they were made`,
        );
      const issue = {
        schedule: name,
        period,
        version,
        report: issued.entry.report,
        manifest: issued.entry.manifest,
        directory,
      };
      await this.#ports.deliver(
        place,
        issue,
        AbortSignal.any([this.#stopped.signal, AbortSignal.timeout(DELIVERY_MS)]),
      );
    } catch (thrown) {
      if (this.#stopped.signal.aborted) return;
      this.#failed(key);
      this.#log(
        schedule,
        `cannot deliver the report of entry ${issued.index} to \`${place.name}\`: ${messageOf(thrown)}`,
      );
      if (attempts >= SAID_AFTER && !isSaid) await record('failed', messageOf(thrown));
      return;
    }
    this.#attempts.delete(key);
    await record('delivered');
    this.#ports.log.info({ schedule: name, report: issued.entry.report, to: place.name }, 'a report was delivered');
  }

  // Tests whether a failed step may be retried. A clock that was set back must not delay it.
  #isTime(key: string): boolean {
    const { at, next } = this.#attempts.get(key) ?? { at: 0, next: 0 };
    const now = this.#ports.clock().getTime();
    return now >= next || now < at;
  }

  #failed(key: string): void {
    const count = (this.#attempts.get(key)?.count ?? 0) + 1;
    const pause = PAUSES[Math.min(count, PAUSES.length) - 1] as number;
    const at = this.#ports.clock().getTime();
    this.#attempts.set(key, { count, at, next: at + pause });
  }

  #log(schedule: ReportSchedule, message: string): void {
    this.#ports.log.error({ schedule: schedule.metadata.name }, message);
  }
}
