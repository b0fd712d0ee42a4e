import { connect, createServer, type Socket } from 'node:net';

/** Where a replica answers the webhook, and the address of its probes. */
export type Backend = { readonly port: number; readonly probes: string };

const PROBE_MS = 1000;
const FAILURES = 3;

/**
 * Stands in for a Service with probes: a connection goes to the next backend that is ready, or to any if none is. When
 * a backend has not answered `/healthz` three times, a second each, its connections end, as if the kubelet had ended the
 * container.
 */
export class Balancer {
  readonly port: number;
  readonly #close: () => void;
  readonly #timer: NodeJS.Timeout;
  readonly #backends: () => readonly Backend[];
  readonly #open = new Map<number, Set<Socket>>();
  readonly #ready = new Set<number>();
  readonly #failures = new Map<number, number>();
  #turn = 0;

  private constructor(port: number, backends: () => readonly Backend[], close: () => void) {
    this.port = port;
    this.#backends = backends;
    this.#close = close;
    this.#timer = setInterval(() => void this.#probe(), PROBE_MS);
  }

  static open(port: number, backends: () => readonly Backend[]): Promise<Balancer> {
    return new Promise((resolve) => {
      let balancer: Balancer;
      const server = createServer((near) => balancer.#join(near)).listen(port, '127.0.0.1', () => {
        balancer = new Balancer(port, backends, () => server.close());
        resolve(balancer);
      });
    });
  }

  close(): void {
    clearInterval(this.#timer);
    this.#close();
    for (const sockets of this.#open.values()) for (const socket of sockets) socket.destroy();
  }

  #join(near: Socket): void {
    near.on('error', () => {});
    const all = this.#backends();
    const well = all.filter((b) => this.#ready.has(b.port));
    const from = this.#turn++;
    const order = (well.length === 0 ? all : well).map((_, i, list) => list[(from + i) % list.length] as Backend);
    const attempt = ([next, ...rest]: readonly Backend[]): void => {
      if (next === undefined) return void near.destroy();
      const far = connect(next.port, '127.0.0.1');
      let isOpen = false;
      far.on('error', () => (isOpen ? near.destroy() : attempt(rest)));
      far.on('connect', () => {
        isOpen = true;
        this.#pair(next.port, near, far);
      });
    };
    attempt(order);
  }

  #pair(port: number, near: Socket, far: Socket): void {
    const open = this.#open.get(port) ?? new Set();
    this.#open.set(port, open.add(near).add(far));
    near.pipe(far);
    far.pipe(near);
    for (const [side, other] of [
      [near, far],
      [far, near],
    ] as const)
      side.on('close', () => {
        open.delete(side);
        other.destroy();
      });
  }

  async #probe(): Promise<void> {
    await Promise.all(
      this.#backends().map(async ({ port, probes }) => {
        const [isAlive, isReady] = await Promise.all([answers(`${probes}/healthz`), answers(`${probes}/readyz`)]);
        if (isReady) this.#ready.add(port);
        else this.#ready.delete(port);
        const failures = isAlive ? 0 : (this.#failures.get(port) ?? 0) + 1;
        this.#failures.set(port, failures);
        if (failures >= FAILURES) for (const socket of this.#open.get(port) ?? []) socket.destroy();
      }),
    );
  }
}

function answers(url: string): Promise<boolean> {
  return fetch(url, { signal: AbortSignal.timeout(PROBE_MS) }).then(
    ({ status }) => status === 200,
    () => false,
  );
}
