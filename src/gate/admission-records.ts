import { type AdmittedRequest, type EntryBody, type ProvenWrites, refKey, sha256, within } from '../model/index.ts';
import type { RequestOnRecord } from './admission-request.ts';
import type { SureRecorder } from './ports.ts';

type Refusal = {
  readonly type: 'admission.denied' | 'admission.warned';
  readonly request: RequestOnRecord;
  readonly mode: 'enforce' | 'audit';
  readonly reason: string;
  readonly since: number;
  repeated: number;
};

type Proven = {
  readonly request: RequestOnRecord;
  readonly from: string;
  to: string;
  readonly writes: [name: string, uid: string, digest: string][];
};

const SAME_MS = 60_000; // a loop that is refused retries every few seconds; one entry per minute says enough
const MAX_OPEN = 5000; // refusals being counted; beyond that, the oldest is recorded
const MAX_ROWS = 500; // requests per record, so that its evidence stays readable
const LATER_MS = 1000; // requests that match a recorded intent can wait to share a record
const SUMMARY_MS = 60_000; // what the machinery writes and is proven is told once a minute
const MAX_PROVEN = 5000; // writes in one summary
const PATIENCE_MS = 1000; // a refusal is valid without its record, so nothing waits longer for it

/**
 * Records one environment's admission decisions on the ledger. Allowed requests are durable before they are answered,
 * several per entry; proven writes of the machinery are summed up, and repeated refusals are counted.
 */
export class AdmissionRecords {
  readonly #environment: string;
  readonly #recorder: SureRecorder;
  readonly #clock: () => Date;
  readonly #log: { error(fields: object, message: string): void };
  #met: AdmittedRequest[] = [];
  #meeting: NodeJS.Timeout | undefined;
  #rows: { readonly row: AdmittedRequest; readonly done: () => void; readonly failed: (why: unknown) => void }[] = [];
  #writing = false;
  #written: Promise<void> = Promise.resolve();
  readonly #proven = new Map<string, Proven>();
  #provenCount = 0;
  #summing: NodeJS.Timeout | undefined;
  readonly #refusals = new Map<string, Refusal>();
  #timer: NodeJS.Timeout | undefined;

  constructor(
    environment: string,
    recorder: SureRecorder,
    clock: () => Date,
    log: { error(fields: object, message: string): void } = { error: () => {} },
  ) {
    this.#environment = environment;
    this.#recorder = recorder;
    this.#clock = clock;
    this.#log = log;
  }

  /**
   * Resolves once the request is durable. Throws if it cannot be recorded anywhere. A dry run changes nothing and is
   * not recorded.
   */
  allowed(request: RequestOnRecord, as: string): Promise<void> {
    if (request.dryRun) return Promise.resolve();
    const row = this.#row(request, as);
    return new Promise((done, failed) => {
      this.#rows.push({ row, done, failed });
      if (!this.#writing) {
        this.#writing = true;
        setImmediate(() => this.#begin());
      }
    });
  }

  /** Records that an intent was carried out. The intent itself is recorded, so nothing waits for this. */
  intended(request: RequestOnRecord): void {
    if (request.dryRun) return;
    this.#met.push(this.#row(request, 'intent'));
    if (this.#met.length >= MAX_ROWS) this.#writeMet();
    else this.#meeting ??= setTimeout(() => this.#writeMet(), LATER_MS);
  }

  /**
   * Counts a write whose content was proven: a minute of them makes one entry. If the process is killed, those of the
   * last minute are missing on the ledger, and the scan at the next start proves what they left.
   */
  proven(request: RequestOnRecord): void {
    if (request.dryRun) return;
    const { uid, user, operation, ref, subresource, owner, digest = '' } = request;
    const at = this.#clock().toISOString();
    const key = JSON.stringify([user, operation, ref.apiVersion, ref.kind, ref.namespace, subresource, owner]);
    const known = this.#proven.get(key);
    if (known === undefined) this.#proven.set(key, { request, from: at, to: at, writes: [[ref.name, uid, digest]] });
    else {
      known.to = at;
      known.writes.push([ref.name, uid, digest]);
    }
    if (++this.#provenCount >= MAX_PROVEN) void this.#sumUp();
    else this.#summing ??= setTimeout(() => void this.#sumUp(), SUMMARY_MS).unref();
  }

  async #sumUp(): Promise<void> {
    clearTimeout(this.#summing);
    this.#summing = undefined;
    const all = [...this.#proven.values()];
    this.#proven.clear();
    this.#provenCount = 0;
    if (all.length === 0) return;
    const summaries = all.map((p) => this.#summary(p));
    const evidence = this.#recorder.asEvidence(summaries);
    const body = {
      type: 'admission.proven',
      environment: this.#environment,
      from: summaries.map((s) => s.from).sort()[0] ?? '',
      to:
        summaries
          .map((s) => s.to)
          .sort()
          .at(-1) ?? '',
      count: summaries.reduce((sum, s) => sum + s.count, 0),
      evidence: evidence.ref,
    } as const;
    await this.#recorder
      .recordSurely(body, [evidence])
      .catch((thrown) => this.#log.error({}, `cannot record ${body.count} writes of the machinery: ${String(thrown)}`));
  }

  #summary({ request: { user, operation, ref, subresource, owner }, from, to, writes }: Proven): ProvenWrites {
    const { apiVersion, kind, namespace } = ref;
    return {
      ...{ user: this.#recorder.subject(user), operation, apiVersion, kind, namespace, subresource, owner },
      ...{ count: writes.length, from, to, writes: writes.map(([name, uid]) => [name, uid] as const) },
      content: sha256(writes.map(([, , digest]) => `${digest}\n`).join('')),
    };
  }

  #writeMet(): void {
    clearTimeout(this.#meeting);
    this.#meeting = undefined;
    for (const row of this.#met.splice(0)) this.#rows.push({ row, done: () => {}, failed: () => {} });
    if (this.#writing || this.#rows.length === 0) return;
    this.#writing = true;
    this.#begin();
  }

  #row(request: RequestOnRecord, as: string): AdmittedRequest {
    const { uid, user, groups, operation, ref, subresource, digest, template } = request;
    return {
      uid,
      at: this.#clock().toISOString(),
      user: this.#recorder.subject(user),
      groups,
      operation,
      object: ref,
      subresource,
      as,
      ...(digest === undefined ? {} : { digest }),
      ...(template === undefined ? {} : { template }),
    };
  }

  #begin(): void {
    this.#written = this.#write();
  }

  // Requests that arrive while a record is being written share the next one.
  async #write(): Promise<void> {
    while (this.#rows.length > 0) {
      const rows = this.#rows.splice(0, MAX_ROWS);
      const evidence = this.#recorder.asEvidence(rows.map((r) => r.row));
      const [from = '', to = ''] = [rows[0]?.row.at, rows.at(-1)?.row.at];
      const body = {
        type: 'admission.allowed',
        environment: this.#environment,
        from,
        to,
        count: rows.length,
        evidence: evidence.ref,
      } as const;
      await this.#recorder.recordSurely(body, [evidence]).then(
        () => {
          for (const { done } of rows) done();
        },
        (why) => {
          for (const { failed } of rows) failed(why);
        },
      );
    }
    this.#writing = false;
  }

  /**
   * Records a refusal, or counts it if the same one was recorded within a minute. Never throws, and waits at most a
   * second.
   */
  async refused(request: RequestOnRecord, type: Refusal['type'], mode: Refusal['mode'], reason: string): Promise<void> {
    if (request.dryRun) return;
    const { digest } = request;
    const key = JSON.stringify([
      type,
      request.user,
      request.operation,
      refKey(request.ref),
      request.subresource,
      reason,
      digest ?? '',
    ]);
    const open = this.#refusals.get(key);
    if (open !== undefined) {
      open.repeated++;
      return;
    }
    const refusal: Refusal = { type, request, mode, reason, since: performance.now(), repeated: 0 };
    this.#refusals.set(key, refusal);
    this.#timer ??= setInterval(() => void this.#settle(false), SAME_MS / 4).unref();
    if (this.#refusals.size > MAX_OPEN) await this.#close(this.#refusals.entries().next().value as [string, Refusal]);
    const recorded = this.#recorder.recordSurely(
      this.#entry(refusal, { ...(digest === undefined ? {} : { digest }), uid: request.uid }),
      [],
    );
    recorded.catch((thrown) => {
      refusal.repeated++; // it is recorded with the repeated ones instead
      this.#log.error({ object: request.ref }, `cannot record a refusal yet: ${String(thrown)}`);
    });
    await within(
      PATIENCE_MS,
      recorded.catch(() => {}),
      () => {},
    );
  }

  /** Records refusals that were only counted so far. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#writeMet();
    await this.#written;
    await this.#sumUp();
    await this.#settle(true);
  }

  async #settle(all: boolean): Promise<void> {
    const now = performance.now();
    const over = [...this.#refusals].filter(([, r]) => all || now - r.since > SAME_MS);
    for (const one of over) await this.#close(one);
  }

  async #close([key, refusal]: [string, Refusal]): Promise<void> {
    this.#refusals.delete(key);
    if (refusal.repeated === 0) return;
    await this.#recorder.recordSurely(this.#entry(refusal, { repeated: refusal.repeated }), []).catch((thrown) => {
      this.#log.error({ object: refusal.request.ref }, `cannot record repeated refusals: ${String(thrown)}`);
      // Kept for the next attempt, unless so many are kept that the log must do.
      if (this.#refusals.size < MAX_OPEN && !this.#refusals.has(key)) this.#refusals.set(key, refusal);
    });
  }

  #entry(
    { type, request, mode, reason }: Refusal,
    more: { digest?: string; uid?: string; repeated?: number },
  ): EntryBody {
    const { user, groups, operation, ref, subresource } = request;
    const base = {
      environment: this.#environment,
      user: this.#recorder.subject(user),
      operation,
      object: ref,
      reason: reason.slice(0, 2000).toWellFormed(),
      groups: [...groups].slice(0, 50),
      ...(subresource === '' ? {} : { subresource }),
      ...more,
    };
    return type === 'admission.warned' ? { type, ...base } : { type, mode, ...base };
  }
}
