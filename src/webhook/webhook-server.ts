import { createServer, type Server } from 'node:https';
import type { Express } from 'express';
import { messageOf } from '../model/index.ts';
import type { Certificates } from './certificates.ts';
import type { CertificateSource } from './serving-certificate.ts';

type Log = { info(fields: object, message: string): void; error(fields: object, message: string): void };

export type ServerOptions = {
  /** Certificates (PEM) of the authority that the API server's client certificate must come from; without it none is asked for. */
  readonly clientCa?: (() => string) | undefined;
  readonly log: Log;
  /** Hears of a newer certificate before it is served, so that whoever trusts by its authority learns of that first. */
  readonly renewed: (certificates: Certificates) => Promise<void>;
  readonly lookMs?: number;
};

const LOOK_MS = 30_000; // a mounted Secret is renewed within a minute or so
const MAX_CONNECTIONS = 2000; // the API server's are a few dozen
const SPREAD_MS = 2000; // the API server reads a changed configuration within a second

/** HTTPS by TLS 1.3, whose certificate can be renewed between two connections. */
export class WebhookServer {
  readonly server: Server;
  readonly #source: CertificateSource;
  readonly #options: ServerOptions;
  #served: Certificates;
  #clientCa: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #turn: Promise<void> = Promise.resolve();

  private constructor(app: Express, source: CertificateSource, first: Certificates, options: ServerOptions) {
    this.#source = source;
    this.#options = options;
    this.#served = first;
    this.#clientCa = options.clientCa?.();
    this.server = createServer(
      {
        ...this.#context(),
        ...(this.#clientCa === undefined ? {} : { requestCert: true, rejectUnauthorized: true }),
        headersTimeout: 5000,
        requestTimeout: 10_000, // what is sent more slowly is no API server
        connectionsCheckingInterval: 2000,
        keepAliveTimeout: 120_000, // longer than the API server keeps a connection that is idle: it must be the one that ends it
      },
      app,
    );
    this.server.maxConnections = MAX_CONNECTIONS;
    this.#timer = setInterval(() => void this.look(), options.lookMs ?? LOOK_MS).unref();
  }

  /** Throws as the source does where there is no certificate to begin with. */
  static async open(app: Express, source: CertificateSource, options: ServerOptions): Promise<WebhookServer> {
    return new WebhookServer(app, source, await source(new Date()), options);
  }

  get certificates(): Certificates {
    return this.#served;
  }

  /** Takes a newer certificate, where there is one. What cannot be read is told, and the one before goes on being served. */
  look(): Promise<void> {
    this.#turn = this.#turn.then(() => this.#look());
    return this.#turn;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    const { log } = this.#options;
    try {
      const newest = await this.#source(new Date());
      const clientCa = this.#options.clientCa?.();
      if (newest.cert === this.#served.cert && newest.ca === this.#served.ca && clientCa === this.#clientCa) return;
      const isNewAuthority = newest.ca !== this.#served.ca;
      if (isNewAuthority) await this.#options.renewed(newest);
      if (isNewAuthority) await new Promise((done) => setTimeout(done, SPREAD_MS));
      this.#served = newest;
      this.#clientCa = clientCa;
      this.server.setSecureContext(this.#context());
      log.info({}, 'the webhook’s certificate is a newer one');
    } catch (thrown) {
      log.error({}, `the webhook’s certificate could not be renewed, and the one before stays: ${messageOf(thrown)}`);
    }
  }

  #context(): { cert: string; key: string; minVersion: 'TLSv1.3'; ca?: string } {
    const { cert, key } = this.#served;
    return { cert, key, minVersion: 'TLSv1.3', ...(this.#clientCa === undefined ? {} : { ca: this.#clientCa }) };
  }
}
