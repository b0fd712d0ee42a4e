import { execFileSync, spawn } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { postgresSchema } from '../../src/ledger/index.ts';
import { postgresPrograms } from './machine.ts';
import { until } from './service.ts';

/** A throw-away PostgreSQL on loopback, run by a user who is not root. Each database in it holds one ledger. */
export class Postgres {
  readonly #programs: string;
  readonly #directory: string;
  readonly #port: number;
  readonly #user: { uid: number; gid: number } | undefined;
  #pid = 0;
  #databases = 0;

  private constructor(programs: string, directory: string, port: number) {
    this.#programs = programs;
    this.#directory = directory;
    this.#port = port;
    this.#user = process.getuid?.() === 0 ? { uid: idOf('-u'), gid: idOf('-g') } : undefined;
  }

  static async start(): Promise<Postgres> {
    const postgres = await Postgres.#prepared();
    postgres.#run('initdb', [
      '-D',
      postgres.#data,
      '-U',
      'owner',
      '--auth=trust',
      '--encoding=UTF8',
      '--no-sync',
      '--locale=C',
    ]);
    await postgres.up();
    return postgres;
  }

  static async #prepared(): Promise<Postgres> {
    const programs = postgresPrograms();
    if (programs === undefined) throw new Error('PostgreSQL is not installed');
    const directory = mkdtempSync(join(tmpdir(), 'countersign-pg-'));
    const postgres = new Postgres(programs, directory, await freePort());
    const user = postgres.#user;
    mkdirSync(postgres.#data, { mode: 0o700 });
    if (user !== undefined) for (const path of [directory, postgres.#data]) chownSync(path, user.uid, user.gid);
    return postgres;
  }

  get port(): number {
    return this.#port;
  }

  /** A standby of this server, with everything that it has, which follows it as `standby`. */
  async standby(): Promise<Postgres> {
    const standby = await Postgres.#prepared();
    const source = `host=127.0.0.1 port=${this.#port} user=owner application_name=standby`;
    standby.#run('pg_basebackup', ['-d', source, '-D', standby.#data, '-R', '-X', 'stream', '-c', 'fast']);
    await standby.up();
    return standby;
  }

  /** Makes a standby a server of its own. */
  promote(): void {
    this.#run('pg_ctl', ['-D', this.#data, '-w', 'promote']);
  }

  /** Changes a setting of the running server. */
  async set(name: string, value: string): Promise<void> {
    await this.ask('postgres', `ALTER SYSTEM SET ${name} = '${value}'`);
    await this.ask('postgres', 'SELECT pg_reload_conf()');
    await until(
      async () => (await this.ask('postgres', `SHOW ${name}`))[0]?.[name] === value,
      10_000,
      () => `${name} is not set`,
    );
  }

  get #data(): string {
    return join(this.#directory, 'data');
  }

  /** Starts the server, or starts it again. */
  async up(): Promise<void> {
    const args = ['-D', this.#data, '-p', String(this.#port), '-h', '127.0.0.1', '-k', this.#directory];
    const child = spawn(join(this.#programs, 'postgres'), args, {
      ...this.#user,
      stdio: 'ignore',
      cwd: this.#directory,
    });
    this.#pid = child.pid ?? 0;
    await until(
      () => this.#isUp(),
      120_000,
      () => 'PostgreSQL does not answer',
    );
  }

  /** kill -9 of the server, as a power cut would end it. Its children end by themselves. */
  async kill(): Promise<void> {
    process.kill(this.#pid, 'SIGKILL');
    await until(
      async () => !(await this.#isUp()),
      120_000,
      () => 'PostgreSQL does not end',
    );
    await new Promise((resolve) => setTimeout(resolve, 300));
    rmSync(join(this.#data, 'postmaster.pid'), { force: true });
  }

  /** Ends the server, if it runs, and removes its files. */
  async stop(): Promise<void> {
    if (existsSync(join(this.#data, 'postmaster.pid')))
      this.#run('pg_ctl', ['-D', this.#data, '-m', 'immediate', '-w', 'stop']);
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** A new database with the tables of a ledger: its address for the service's role, and for its owner. */
  async ledger(): Promise<{ readonly url: string; readonly owner: string }> {
    const name = `ledger_${this.#databases++}`;
    await this.ask('postgres', `CREATE DATABASE ${name}`);
    await this.ask('postgres', 'DO $$ BEGIN CREATE ROLE gate LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$');
    await this.ask(name, postgresSchema('gate'));
    const at = `127.0.0.1:${this.#port}/${name}`;
    return { url: `postgres://gate@${at}`, owner: `postgres://owner@${at}` };
  }

  /** Runs SQL as the owner. */
  async ask(database: string, sql: string): Promise<Record<string, unknown>[]> {
    return askAt(database.includes('://') ? database : `postgres://owner@127.0.0.1:${this.#port}/${database}`, sql);
  }

  #run(program: string, args: readonly string[]): void {
    execFileSync(join(this.#programs, program), args, { ...this.#user, stdio: 'pipe', cwd: this.#directory });
  }

  async #isUp(): Promise<boolean> {
    return this.ask('postgres', 'SELECT 1').then(
      () => true,
      () => false,
    );
  }
}

async function askAt(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 });
  client.on('error', () => {});
  try {
    await client.connect();
    const result = await client.query(sql);
    return Array.isArray(result) ? [] : (result.rows as Record<string, unknown>[]);
  } finally {
    await client.end().catch(() => {});
  }
}

function idOf(flag: string): number {
  return Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
