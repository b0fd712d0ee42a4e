import { messageOf } from '../model/index.ts';
import type { Certificates } from './certificates.ts';
import type { CertificateSource } from './serving-certificate.ts';

type Log = { info(fields: object, message: string): void; error(fields: object, message: string): void };

/** What a server shows and asks for; all PEM. */
export type Identity = {
  readonly cert: string;
  readonly key: string;
  /** The authority that a client’s certificate must come from; without it none is asked for. */
  readonly clientCa: string | undefined;
};

export type KeeperOptions = {
  /**
   * Certificates (PEM) of the authority that the API server's client certificate must come from; without it none is
   * asked for.
   */
  readonly clientCa?: (() => string) | undefined;
  readonly log: Log;
  /** Hears of a newer certificate before it is served, so that whoever trusts by its authority learns of that first. */
  readonly renewed: (certificates: Certificates) => Promise<void>;
  /** Has it served. */
  readonly serve: (identity: Identity) => Promise<void>;
  readonly lookMs?: number;
};

const LOOK_MS = 30_000; // a mounted Secret is renewed within a minute or so
const SPREAD_MS = 2000; // the API server reads a changed configuration within a second

/** Looks for a newer certificate, and has it served between two connections. */
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

  /** Throws as the source does where there is no certificate to begin with. */
  static async open(source: CertificateSource, options: KeeperOptions): Promise<CertificateKeeper> {
    return new CertificateKeeper(source, await source(new Date()), options);
  }

  /** What clients are to trust the server by (PEM). */
  get ca(): string {
    return this.#served.ca;
  }

  get identity(): Identity {
    const { cert, key } = this.#served;
    return { cert, key, clientCa: this.#clientCa };
  }

  /**
   * Takes a newer certificate, where there is one. What cannot be read is told, and the one before goes on being
   * served.
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
      const newest = await this.#source(new Date());
      const clientCa = readClientCa?.();
      if (newest.cert === this.#served.cert && newest.ca === this.#served.ca && clientCa === this.#clientCa) return;
      const isNewAuthority = newest.ca !== this.#served.ca;
      if (isNewAuthority) await renewed(newest);
      if (isNewAuthority) await new Promise((done) => setTimeout(done, SPREAD_MS));
      await serve({ cert: newest.cert, key: newest.key, clientCa });
      this.#served = newest;
      this.#clientCa = clientCa;
      log.info({}, 'the webhook’s certificate is a newer one');
    } catch (thrown) {
      log.error({}, `the webhook’s certificate could not be renewed, and the one before stays: ${messageOf(thrown)}`);
    }
  }
}
