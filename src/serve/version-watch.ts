import type { Logger } from 'pino';
import { type ApiServer, serverVersionTrouble } from '../cluster/index.ts';

const LOOK_EVERY_MS = 60_000; // clusters are upgraded while the service runs

type Server = Pick<ApiServer, 'url' | 'request'>;

/** Asks API servers for their versions, and reports those outside of the supported range. */
export class VersionWatch {
  readonly #servers: readonly Server[];
  readonly #log: Pick<Logger, 'warn' | 'info'>;
  readonly #troubles = new Map<string, string>();

  /** Of servers at the same address, one is asked. */
  constructor(servers: Iterable<Server>, log: Pick<Logger, 'warn' | 'info'>) {
    this.#servers = [...new Map([...servers].map((server) => [server.url, server])).values()];
    this.#log = log;
  }

  /** One sentence for each API server outside of the range, as it last answered. */
  get troubles(): readonly string[] {
    return [...this.#troubles.values()];
  }

  /** Asks each server now; logs what changed. A server that does not answer keeps what was known. */
  async look(): Promise<void> {
    await Promise.all(this.#servers.map((server) => this.#ask(server).catch(() => {}))); // its loops report the outage
  }

  /** Asks now and once a minute, until the returned function is called. */
  watch(): () => void {
    void this.look();
    const timer = setInterval(() => void this.look(), LOOK_EVERY_MS).unref();
    return () => clearInterval(timer);
  }

  async #ask(server: Server): Promise<void> {
    const trouble = await serverVersionTrouble(server);
    const before = this.#troubles.get(server.url);
    if (trouble === before) return;
    if (trouble === undefined) {
      this.#troubles.delete(server.url);
      this.#log.info({}, `the API server at \`${server.url}\` is of a supported version now`);
      return;
    }
    this.#troubles.set(server.url, trouble);
    this.#log.warn({}, trouble);
  }
}
