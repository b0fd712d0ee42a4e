import { messageOf } from '../model/index.ts';
import type { Certificates } from './certificates.ts';
import type { CertificateSource } from './serving-certificate.ts';

type Log = { info(fields: object, message: string): void; error(fields: object, message: string): void };

/** Certificates and keys a server uses; all PEM. */
export type Identity = {
  readonly cert: string;
  readonly key: string;
  /** The authority that must have issued a client certificate; without it, none is requested. */
  readonly clientCa: string | undefined;
};

export type KeeperOptions = {
  /**
   * Certificates (PEM) of the authority that must have issued the API server's client certificate; without it, none is
   * requested.
   */
  readonly clientCa?: (() => string) | undefined;
  readonly log: Log;
  /** Called with a newer certificate before it is served, so that clients trust its authority first. */
  readonly renewed: (certificates: Certificates) => Promise<void>;
  /** Starts serving it. */
  readonly serve: (identity: Identity) => Promise<void>;
  readonly lookMs?: number;
  /** The time by which certificates are judged; defaults to this machine's clock. */
  readonly clock?: () => Date;
};

const LOOK_MS = 30_000; // a mounted Secret is updated within about a minute
const SPREAD_MS = 2000; // the API server reads a changed configuration within a second

/** Looks for a newer certificate and starts serving it for new connections. */
export class CertificateKeeper {
  readonly #source: CertificateSource;
  readonly #options: KeeperOptions;
  readonly #timer: NodeJS.Timeout;
  #served: Certificates;
  #clientCa: string | undefined;
  #turn: Promise<void> = Promise.resolve();

  private constructor(source: CertificateSource, first: Certificates, options: KeeperOptions) {
    this.#source = source;
    this.#options = options;
    this.#served = first;
    this.#clientCa = options.clientCa?.();
    this.#timer = setInterval(() => void this.look(), options.lookMs ?? LOOK_MS).unref();
  }

  /** Throws like the source if there is no certificate to begin with. */
  static async open(source: CertificateSource, options: KeeperOptions): Promise<CertificateKeeper> {
    return new CertificateKeeper(source, await source(timeOf(options)), options);
  }

  /** Certificates by which clients trust the server (PEM). */
  get ca(): string {
    return this.#served.ca;
  }

  get identity(): Identity {
    const { cert, key } = this.#served;
    return { cert, key, clientCa: this.#clientCa };
  }

  /**
   * Switches to a newer certificate if there is one. If it cannot be read, that is logged and the previous one stays in
   * use.
   */
  look(): Promise<void> {
    this.#turn = this.#turn.then(() => this.#look());
    return this.#turn;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    const { log, clientCa: readClientCa, renewed, serve } = this.#options;
    try {
      const newest = await this.#source(timeOf(this.#options));
      const clientCa = readClientCa?.();
      if (newest.cert === this.#served.cert && newest.ca === this.#served.ca && clientCa === this.#clientCa) return;
      const isNewAuthority = newest.ca !== this.#served.ca;
      if (isNewAuthority) await renewed(newest);
      if (isNewAuthority) await new Promise((done) => setTimeout(done, SPREAD_MS));
      await serve({ cert: newest.cert, key: newest.key, clientCa });
      this.#served = newest;
      this.#clientCa = clientCa;
      log.info({}, 'the webhook has a new certificate');
    } catch (thrown) {
      log.error({}, `cannot renew the webhook’s certificate, the previous one stays in use: ${messageOf(thrown)}`);
    }
  }
}

function timeOf({ clock }: KeeperOptions): Date {
  return clock?.() ?? new Date();
}
