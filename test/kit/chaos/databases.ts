import { Postgres } from '../postgres.ts';
import { type Mode, PostgresProxy } from '../postgres-proxy.ts';

const STANDBY = 'standby'; // the name by which a standby follows

/** A database server that acknowledges only what its standby has. After a failover they change roles. */
export class Databases {
  /** The two places that a replica knows. */
  readonly #places: [Postgres, Postgres];
  readonly #name: string;
  #primary: 0 | 1 = 0;
  #isPaired = true;

  private constructor(places: [Postgres, Postgres], name: string) {
    this.#places = places;
    this.#name = name;
  }

  static async open(): Promise<Databases> {
    const primary = await Postgres.start();
    const { owner } = await primary.ledger();
    const standby = await primary.standby();
    await primary.set('synchronous_standby_names', STANDBY);
    return new Databases([primary, standby], new URL(owner).pathname);
  }

  get primary(): Postgres {
    return this.#places[this.#primary];
  }

  get standby(): Postgres {
    return this.#places[this.#primary === 0 ? 1 : 0];
  }

  /** Runs SQL as the owner, at the primary. */
  ask(sql: string): Promise<Record<string, unknown>[]> {
    return this.primary.ask(`postgres://owner@127.0.0.1:${this.primary.port}${this.#name}`, sql);
  }

  /** The network between one replica and both places. */
  async network(): Promise<DatabaseNetwork> {
    const proxies = await Promise.all(
      ([0, 1] as const).map((i) =>
        PostgresProxy.open(
          `postgres://gate@127.0.0.1:${this.#places[i].port}${this.#name}`,
          () => this.#places[i].port,
        ),
      ),
    );
    const hosts = proxies.map(({ url }) => new URL(url).host).join(',');
    return new DatabaseNetwork(`postgres://gate@${hosts}${this.#name}?target_session_attrs=read-write`, proxies);
  }

  /** Loses the primary for ever, with its disk. */
  async lose(): Promise<void> {
    await this.primary.kill();
    this.#isPaired = false;
  }

  /** Promotes the standby of a primary that was lost. */
  promote(): void {
    this.standby.promote();
    this.#primary = this.#primary === 0 ? 1 : 0;
  }

  /** Gives the primary a standby again, at the place of the server that was lost. */
  async pair(): Promise<void> {
    if (this.#isPaired) return;
    await this.standby.stop();
    this.#places[this.#primary === 0 ? 1 : 0] = await this.primary.standby();
    await this.primary.set('synchronous_standby_names', STANDBY);
    this.#isPaired = true;
  }

  async stop(): Promise<void> {
    for (const server of this.#places) await server.stop();
  }
}

/** The network between one replica and the database. */
export class DatabaseNetwork {
  readonly url: string;
  readonly #proxies: readonly PostgresProxy[];

  constructor(url: string, proxies: readonly PostgresProxy[]) {
    this.url = url;
    this.#proxies = proxies;
  }

  set mode(mode: Mode) {
    for (const proxy of this.#proxies) proxy.mode = mode;
  }

  /** Ports of this side of the connections, by which the servers know them. */
  get ports(): readonly number[] {
    return this.#proxies.flatMap(({ ports }) => ports);
  }

  close(): void {
    for (const proxy of this.#proxies) proxy.close();
  }
}
