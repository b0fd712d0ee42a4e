import { connect, createServer, type Socket } from 'node:net';

/**
 * The network between a replica and PostgreSQL: it passes everything, drops everything while connections stay open (as
 * after a power cut, or when packets are lost), or closes and refuses connections.
 */
export type Mode = 'pass' | 'mute' | 'cut';

type Pair = { readonly near: Socket; readonly far: Socket };

/** A proxy for one replica. Bytes that were not passed are lost. */
export class PostgresProxy {
  /** Address of the ledger through this proxy. */
  readonly url: string;
  readonly #close: () => void;
  readonly #pairs = new Set<Pair>();
  #mode: Mode = 'pass';
  /** Called with what a side sends, before it is passed; it may change the mode, or delay the bytes. */
  onSent: (from: 'client' | 'server', bytes: Buffer) => unknown = () => {};

  private constructor(url: string, close: () => void) {
    this.url = url;
    this.#close = close;
  }

  /** `to`: where it leads from now on, if that is not always the port of the address. */
  static open(ledger: string, to?: () => number): Promise<PostgresProxy> {
    const target = new URL(ledger);
    return new Promise((resolve) => {
      const server = createServer((near) => proxy.#join(near, to?.() ?? Number(target.port))).listen(
        0,
        '127.0.0.1',
        () => {
          const { port } = server.address() as { port: number };
          opened(port);
        },
      );
      let proxy: PostgresProxy;
      const opened = (port: number) => {
        proxy = new PostgresProxy(ledger.replace(`:${target.port}`, `:${port}`), () => server.close());
        resolve(proxy);
      };
    });
  }

  get mode(): Mode {
    return this.#mode;
  }

  /** After `mute`, connections of that time are closed: their streams have a gap. */
  set mode(mode: Mode) {
    const before = this.#mode;
    this.#mode = mode;
    if (mode === 'cut' || (before === 'mute' && mode === 'pass')) this.#closeAll();
  }

  /** Ports of this side of the connections to PostgreSQL, by which it knows them. */
  get ports(): readonly number[] {
    return [...this.#pairs].map(({ far }) => far.localPort ?? 0);
  }

  close(): void {
    this.#close();
    this.#closeAll();
  }

  #closeAll(): void {
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
    this.#pairs.clear();
  }

  #join(near: Socket, port: number): void {
    if (this.#mode === 'cut') return void near.destroy();
    const far = connect(port, '127.0.0.1');
    const pair = { near, far };
    this.#pairs.add(pair);
    this.#pass('client', near, far);
    this.#pass('server', far, near);
    for (const [side, other] of [
      [near, far],
      [far, near],
    ] as const) {
      side.on('error', () => {});
      side.on('close', () => {
        if (this.#mode === 'mute') return; // the other side does not hear of it
        other.destroy();
        this.#pairs.delete(pair);
      });
    }
  }

  #pass(from: 'client' | 'server', side: Socket, other: Socket): void {
    let passed: Promise<unknown> = Promise.resolve();
    side.on('data', (bytes: Buffer) => {
      passed = passed
        .then(() => this.onSent(from, bytes))
        .then(() => {
          if (this.#mode === 'pass') other.write(bytes);
        });
    });
  }
}
