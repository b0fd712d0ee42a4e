import express, { type ErrorRequestHandler, type Express } from 'express';
import { isIpAddress, parsePlace } from '../model/index.ts';
import type { Metrics } from './metrics.ts';
import { addReceivers, type Receiver } from './receivers.ts';

export type ServiceParts = {
  /** Whether the service does its work: ledger open, every environment looked at once; or why not. */
  readonly notReady: () => string | undefined;
  readonly metrics: Metrics;
  readonly receivers: readonly Receiver[];
  /** Names by which metrics may be asked, beside `localhost` and IP addresses. */
  readonly names: readonly string[];
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
};

/**
 * Plain HTTP for whoever runs the service: `/healthz`, `/readyz`, `/metrics`, and `/receive/…` for forges, behind an
 * ingress with TLS.
 */
export function createServiceApp({ notReady, metrics, receivers, names, log }: ServiceParts): Express {
  const app = express();
  app.disable('x-powered-by');
  app.get('/healthz', (_request, response) => {
    response.type('text').send('ok\n');
  });
  app.get('/readyz', (_request, response) => {
    const why = notReady();
    response
      .status(why === undefined ? 200 : 503)
      .type('text')
      .send(`${why ?? 'ok'}\n`);
  });
  app.get('/metrics', async (request, response) => {
    if (!isOurs(request.headers.host ?? '', names)) {
      response
        .status(421)
        .type('text')
        .send('metrics are not asked by this name: use an IP address, or add it with --http-name\n');
      return;
    }
    const { type, body } = await metrics.text();
    response.set('content-type', type).send(body);
  });
  addReceivers(app, receivers, log);
  const onError: ErrorRequestHandler = (error, _request, response, _next) => {
    const isTheirs = (error as { status?: unknown }).status === 400; // a path that cannot be decoded
    response
      .status(isTheirs ? 400 : 500)
      .type('text')
      .send(isTheirs ? 'the request cannot be read\n' : 'it could not be answered\n');
  };
  app.use(onError);
  return app;
}

/** The same address before there is a service: alive, and not ready for the reason it waits for. */
export function createStartingApp(why: () => string): Express {
  const app = express();
  app.disable('x-powered-by');
  app.get('/healthz', (_request, response) => {
    response.type('text').send('ok\n');
  });
  app.use((_request, response) => {
    response.status(503).type('text').send(`${why()}\n`);
  });
  return app;
}

// Prometheus asks by the pod's address. A web page that had its own name lead here asks by that name, and its browser
// says so.
function isOurs(host: string, names: readonly string[]): boolean {
  const parsed = parsePlace(host.toLowerCase(), 80);
  if (parsed.kind === 'refused') return false;
  return parsed.value.host === 'localhost' || isIpAddress(parsed.value.host) || names.includes(parsed.value.host);
}
