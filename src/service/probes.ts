import express, { type ErrorRequestHandler, type Express } from 'express';
import type { Metrics } from './metrics.ts';
import { addReceivers, type Receiver } from './receivers.ts';

export type ServiceParts = {
  /** Whether the service does its work: ledger open, every environment looked at once; or why not. */
  readonly notReady: () => string | undefined;
  readonly metrics: Metrics;
  readonly receivers: readonly Receiver[];
  readonly log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
};

/** Plain HTTP for whoever runs the service: `/healthz`, `/readyz`, `/metrics`, and `/receive/…` for forges, behind an ingress with TLS. */
export function createServiceApp({ notReady, metrics, receivers, log }: ServiceParts): Express {
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
  app.get('/metrics', async (_request, response) => {
    const { type, body } = await metrics.text();
    response.set('content-type', type).send(body);
  });
  addReceivers(app, receivers, log);
  const onError: ErrorRequestHandler = (_error, _request, response, _next) => {
    response.status(500).type('text').send('it could not be answered\n');
  };
  app.use(onError);
  return app;
}
