import express, { type ErrorRequestHandler, type Express } from 'express';
import { isIpAddress, parsePlace } from '../model/index.ts';
import type { Metrics } from './metrics.ts';
import { addReceivers, type Receiver } from './receivers.ts';

export type ServiceParts = {
  /** Returns why the service is not ready; undefined if the ledger is open and every environment was checked once. */
  readonly notReady: () => string | undefined;
  /** Says how records get onto the ledger. */
  readonly ledger: () => string;
  readonly metrics: Metrics;
  readonly receivers: readonly Receiver[];
  /** Host names accepted for metrics, besides `localhost` and IP addresses. */
  readonly names: readonly string[];
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
};

/**
 * Plain HTTP for operators: `/healthz`, `/readyz`, `/metrics`, and `/receive/…` for forges, behind an ingress with TLS.
 */
export function createServiceApp({ notReady, ledger, metrics, receivers, names, log }: ServiceParts): Express {
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
      .send(`${why ?? 'ok'}\n${ledger()}\n`);
  });
  app.get('/metrics', async (request, response) => {
    if (!isOurs(request.headers.host ?? '', names)) {
      response
        .status(421)
        .type('text')
        .send('metrics do not answer to this host name: use an IP address, or add the name with --http-name\n');
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
      .send(isTheirs ? 'the request cannot be read\n' : 'the request could not be answered\n');
  };
  app.use(onError);
  return app;
}

/** Serves the same address during start-up: alive, but not ready, with the reason. */
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

// Prometheus uses the pod's address. A website whose own name resolves to us sends that name as the host.
function isOurs(host: string, names: readonly string[]): boolean {
  const parsed = parsePlace(host.toLowerCase(), 80);
  if (parsed.kind === 'refused') return false;
  return parsed.value.host === 'localhost' || isIpAddress(parsed.value.host) || names.includes(parsed.value.host);
}
