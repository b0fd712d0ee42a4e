import { CountersignError } from '../model/index.ts';

type Row = Record<string, unknown>;
export type Query = (sql: string, values?: readonly unknown[]) => Promise<Row[]>;

/** The leader as the table `term` names it. Anyone with the service's role may write there. */
export type Holder = {
  readonly nonce: string;
  /** Id of its replica; empty for a replica of an older version. */
  readonly replica: string;
  /** Whether its session exists and its heartbeat is recent, by the database's clock. */
  readonly isLive: boolean;
};

type Session = { readonly pid: number; readonly since: string };
type HolderRow = Holder & { readonly session: Session | undefined; readonly isThere: boolean };

const LOCK = 0x636f_756e; // "coun": the lock of a leader, also for replicas of older versions, which know only that
const TAKING = LOCK + 1; // held while a term is replaced
const STALE_S = 10; // age of a heartbeat after which others may end the term
const BEAT_MS = 2000;
const END_MS = 5000; // for a session to end
// A time zone or date style of the session does not change this form.
const SINCE = 'extract(epoch FROM backend_start)::text';

/** Thrown by a transaction of a leader whose term was ended. Nothing of it was written. */
export class Fenced extends CountersignError {
  constructor() {
    super('ledger-unusable', 'another replica sequences the ledger now', { recover: 'retry' });
  }
}

/**
 * The right to sequence, as one row of the table `term`. Replacing the row ends the term: each transaction of a
 * leader locks its own row first, and writes nothing if there is none.
 */
export class PostgresTerm {
  readonly #query: Query;
  #nonce: string | undefined;
  #holdsLock = false;
  #beatAt = 0;
  /** The leader when last read. */
  lastSeen: Holder | undefined;

  constructor(query: Query) {
    this.#query = query;
  }

  /** Whether this session is the leader, as far as it knows. */
  get isHeld(): boolean {
    return this.#nonce !== undefined;
  }

  /** Forgets everything, after the session ended. */
  lose(): void {
    this.#nonce = undefined;
    this.#holdsLock = false;
  }

  /** Returns the newest row. */
  async holder(): Promise<Holder | undefined> {
    return this.#newest();
  }

  /** Begins a term with this number if no one leads, or if the leader is gone. Returns whether it did. */
  async take(nonce: string, replica: string): Promise<boolean> {
    const before = await this.#newest();
    if (before?.isLive === true) return false;
    if (before?.isThere === true) await this.#end(before.session);
    if (!(await this.#lock(before?.session))) return false;
    if (await this.#replace(before?.nonce, nonce, replica)) {
      this.#nonce = nonce;
      this.#beatAt = performance.now();
      return true;
    }
    return false;
  }

  /** Shows that the leader is alive, and removes rows that others wrote. Returns false if the term was ended. */
  async beat(): Promise<boolean> {
    if (performance.now() - this.#beatAt < BEAT_MS) return this.isHeld;
    if (!(await this.#touch())) return false;
    // Ending this term removes its row, so these rows are no leader's.
    await this.#query('DELETE FROM term WHERE nonce <> $1', [this.#nonce]);
    if (!this.#holdsLock) this.#holdsLock = await this.#tryLock();
    return true;
  }

  /** First statement of each transaction that sequences: locks the row until it ends. Throws `Fenced`. */
  async guard(): Promise<void> {
    if (!(await this.#touch())) throw new Fenced();
  }

  async #touch(): Promise<boolean> {
    const touched = await this.#query('UPDATE term SET beat = clock_timestamp() WHERE nonce = $1 RETURNING nonce', [
      this.#nonce ?? '',
    ]);
    if (touched.length === 0) await this.#giveUp();
    else this.#beatAt = performance.now();
    return touched.length > 0;
  }

  async #giveUp(): Promise<void> {
    this.#nonce = undefined;
    if (this.#holdsLock) await this.#query('SELECT pg_advisory_unlock($1)', [LOCK]);
    this.#holdsLock = false;
  }

  async #newest(): Promise<HolderRow | undefined> {
    const [row] = await this.#query(
      `SELECT left(nonce, 100) AS nonce, left(replica, 100) AS replica, pid, left(since, 40) AS since,
        coalesce(beat > clock_timestamp() - make_interval(secs => $1), false) AS fresh,
        EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = term.pid AND coalesce(${SINCE} = since, true)) AS there
        FROM term ORDER BY at DESC LIMIT 1`,
      [STALE_S],
    );
    this.lastSeen = undefined;
    if (row === undefined) return undefined;
    const { nonce, replica, pid, since, fresh, there } = row;
    const isThere = there === true;
    const holder = {
      nonce: String(nonce),
      replica: typeof replica === 'string' ? replica : '',
      isLive: isThere && fresh === true,
      isThere,
      session: typeof pid === 'number' && typeof since === 'string' ? { pid, since } : undefined,
    };
    this.lastSeen = holder;
    return holder;
  }

  // A role may end its own sessions. Where it may not, the row alone keeps the old leader from writing.
  async #end(session: Session | undefined): Promise<void> {
    if (session === undefined) return;
    const there = `FROM pg_stat_activity WHERE pid = $1 AND ${SINCE} = $2 AND pid <> pg_backend_pid()`;
    const values = [session.pid, session.since];
    const ended = await this.#query(`SELECT pg_terminate_backend(pid) ${there}`, values).catch(() => undefined);
    for (const until = Date.now() + END_MS; ended !== undefined && Date.now() < until; ) {
      if ((await this.#query(`SELECT pid ${there}`, values)).length === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  // A replica of an older version that leads holds the lock and has no row with a session.
  async #lock(fenced: Session | undefined): Promise<boolean> {
    this.#holdsLock ||= await this.#tryLock();
    if (this.#holdsLock || fenced === undefined) return this.#holdsLock;
    const holders = await this.#query(
      `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = $1 AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      [LOCK],
    );
    return holders.every(({ pid }) => pid === fenced.pid);
  }

  async #tryLock(): Promise<boolean> {
    return (await this.#query('SELECT pg_try_advisory_lock($1) AS held', [LOCK]))[0]?.['held'] === true;
  }

  // Waits for the row if a transaction of the old leader has it: that one is then complete, or never will be.
  async #replace(before: string | undefined, nonce: string, replica: string): Promise<boolean> {
    await this.#query('BEGIN');
    try {
      await this.#query("SET LOCAL lock_timeout = '2s'");
      const [taking] = await this.#query('SELECT pg_try_advisory_xact_lock($1) AS held', [TAKING]);
      const seen = taking?.['held'] === true ? await this.#newest() : undefined;
      const isFree = taking?.['held'] === true && seen?.nonce === before && seen?.isLive !== true;
      if (isFree) {
        await this.#query('DELETE FROM term');
        await this.#query(
          `INSERT INTO term (nonce, replica, pid, since, beat)
            SELECT $1, $2, pid, ${SINCE}, clock_timestamp() FROM pg_stat_activity WHERE pid = pg_backend_pid()`,
          [nonce, replica],
        );
        await this.#query("SELECT pg_notify('countersign', 'term')");
      }
      await this.#query('COMMIT');
      return isFree;
    } catch (thrown) {
      await this.#query('ROLLBACK').catch(() => {});
      throw thrown;
    }
  }
}
