import { createServer, type RequestListener, type Server } from 'node:http';
import { createStartingApp } from '../http/index.ts';
import { guardConnections } from '../webhook/index.ts';
import { closeServer, listen, listenAddress } from './listen.ts';

/**
 * The address of probes, metrics and receivers, for as long as the process lives. Before the service is ready, it
 * reports that the process is alive and what it waits for, so that it is not killed for waiting.
 */
export class ProbeServer {
  readonly #server: Server;
  #starting: RequestListener;
  #app: RequestListener | undefined;
  #why = 'the service is starting';

  private constructor() {
    this.#starting = createStartingApp(() => this.#why);
    this.#server = createServer({ requestTimeout: 15_000, headersTimeout: 10_000 }, (request, response) =>
      (this.#app ?? this.#starting)(request, response),
    );
    guardConnections(this.#server);
  }

  /** Returns undefined if `--http` is off. Throws `usage` and `port-in-use`. */
  static async open(http: string): Promise<ProbeServer | undefined> {
    if (http === 'off') return undefined;
    const { host, port } = listenAddress(http, '--http');
    const probes = new ProbeServer();
    await listen(probes.#server, host, port, '--http');
    return probes;
  }

  /** Lets an application answer until the returned function is called. */
  show(app: RequestListener): () => void {
    this.#app = app;
    return () => {
      if (this.#app !== app) return;
      this.#app = undefined;
      this.#why = 'the service is starting again';
    };
  }

  /** Sets what is being waited for, until an application answers. */
  waitsFor(why: string): void {
    this.#why = why;
  }

  close(): Promise<void> {
    return closeServer(this.#server);
  }
}
