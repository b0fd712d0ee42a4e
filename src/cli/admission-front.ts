import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Logger } from 'pino';
import { connect, type WebhookPlace } from '../cluster/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import type { Grant } from '../gate/index.ts';
import { CountersignError, messageOf, type Trace } from '../model/index.ts';
import type { Metrics } from '../service/index.ts';
import {
  addAuditEndpoint,
  type CertificateSource,
  CurrentScopes,
  createWebhook,
  Demand,
  fromFiles,
  selfMade,
  WebhookServer,
} from '../webhook/index.ts';
import { closeServer, listen, listenAddress } from './listen.ts';
import { readSecret } from './read-secret.ts';
import type { ServeOptions } from './serve.ts';
import { sharedCertificate } from './shared-certificate.ts';

/**
 * What the API server talks to for as long as the process lives: the address, its certificate, and whichever environments are
 * decided by just now.
 */
export class AdmissionFront {
  readonly place: WebhookPlace;
  readonly scopes = new CurrentScopes();
  /** How often others ask just now. */
  readonly demand = new Demand();
  /** Takes the API server's audit events; set by whoever has a ledger for them. */
  takeEvents: ((events: readonly unknown[]) => Promise<void>) | undefined;
  /** Break-glass that is open in an environment; set by whoever decides on requests. */
  grants: ((environment: string) => readonly Grant[]) | undefined;
  metrics: Metrics | undefined;
  trace: Trace | undefined;
  /** Hears of another authority before a certificate of it is served. */
  renewed: () => Promise<void> = () => Promise.resolve();
  #server: WebhookServer | undefined;
  #ca = '';

  private constructor(place: WebhookPlace) {
    this.place = place;
  }

  /** Undefined where the webhook is off. Throws `usage`, `port-in-use`, or what keeps the certificate from being used. */
  static async open(options: ServeOptions, settings: ProcessSettings, log: Logger): Promise<AdmissionFront | undefined> {
    if (options.listen === 'off') {
      if (options.auditTokenFile !== undefined)
        throw new CountersignError('usage', 'audit events are taken where the webhook listens, and that is off', {
          hint: 'use --webhook HOST:PORT',
        });
      log.warn({}, 'the admission webhook is off: only Countersign’s own writes are judged');
      return undefined;
    }
    const { host, port } = listenAddress(options.listen);
    const place = placeOf(options, host, port);
    const front = new AdmissionFront(place);
    const app = createWebhook(front.scopes, {
      log,
      heard: (user) => front.demand.heard(user),
      decided: (...told) => front.metrics?.decided(...told),
      trace: (name, attributes, step) => (front.trace === undefined ? step(() => {}) : front.trace(name, attributes, step)),
    });
    if (options.auditTokenFile !== undefined)
      addAuditEndpoint(
        app,
        readSecret(options.auditTokenFile, 'token', 'the API server is given the same in its audit webhook’s kubeconfig'),
        (events) => (front.takeEvents === undefined ? Promise.reject(new Error('the service is starting')) : front.takeEvents(events)),
        (message) => log.warn({}, message),
      );
    const { webhookClientCa } = options;
    front.#server = await WebhookServer.open(app, await sourceOf(options, settings, hostOf(place)), {
      clientCa: webhookClientCa === undefined ? undefined : () => readFile(webhookClientCa),
      log,
      renewed: ({ ca }) => {
        front.#ca = ca;
        return front.renewed();
      },
    });
    front.#ca = front.#server.certificates.ca;
    await listen(front.#server.server, host, port);
    return front;
  }

  /** What the API server is to trust the webhook by. */
  get ca(): string {
    return this.#ca;
  }

  /** Lets what is being answered end, and takes nothing more. */
  async close(): Promise<void> {
    this.#server?.close();
    if (this.#server !== undefined) await closeServer(this.#server.server);
  }
}

function placeOf({ webhookUrl, webhookService }: ServeOptions, host: string, port: number): WebhookPlace {
  if (webhookService === undefined) return { url: webhookUrl ?? `https://${host}:${port}/validate` };
  const match = /^([a-z0-9-]+)\/([a-z0-9-]+)(?::(\d{1,5}))?$/.exec(webhookService);
  if (match === null || webhookUrl !== undefined)
    throw new CountersignError(
      'usage',
      `\`${webhookService}\` names no Service for the webhook${webhookUrl === undefined ? '' : ', beside --webhook-url'}`,
      {
        hint: '--webhook-service NAMESPACE/NAME or NAMESPACE/NAME:PORT',
      },
    );
  return { service: { namespace: match[1] ?? '', name: match[2] ?? '', port: Number(match[3] ?? 443) } };
}

function hostOf(place: WebhookPlace): string {
  return 'url' in place ? new URL(place.url).hostname.replace(/^\[|\]$/g, '') : `${place.service.name}.${place.service.namespace}.svc`;
}

async function sourceOf(options: ServeOptions, settings: ProcessSettings, host: string): Promise<CertificateSource> {
  const { webhookTls, data } = options;
  if (webhookTls === undefined) return selfMade(join(resolve(data), 'tls'), host);
  if (!webhookTls.startsWith('secret:')) return fromFiles(webhookTls, host);
  const [namespace, name, ...more] = webhookTls.slice('secret:'.length).split('/');
  if (namespace === undefined || name === undefined || name === '' || more.length > 0)
    throw new CountersignError('usage', `\`${webhookTls}\` names no Secret`, {
      hint: '--webhook-tls secret:NAMESPACE/NAME, or a directory',
    });
  const { server } = await connect({ kubeconfig: options.kubeconfig ?? settings.kubeconfig, context: options.context });
  return sharedCertificate(server, namespace, name, host);
}

function readFile(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new CountersignError('config-invalid', `\`${file}\` cannot be read: ${messageOf(cause)}`, {
      cause,
      hint: 'certificates (PEM) of the authority that the API server’s client certificate comes from',
    });
  }
}
