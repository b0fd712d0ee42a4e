import { createHash, timingSafeEqual } from 'node:crypto';
import express, { type ErrorRequestHandler, type Express } from 'express';
import { messageOf } from '../model/index.ts';

/** Takes in audit events and resolves once everything required is recorded. */
export type TakeEvents = (events: readonly unknown[]) => Promise<void>;

// a batch of the API server has at most 10 MiB by default (--audit-webhook-batch-max-size events)
const MAX_BODY = '32mb';

/**
 * Adds `POST /audit` for the API server's audit webhook backend (audit.k8s.io/v1 EventList). It requires the token. Any
 * answer other than 200 makes the API server send the batch again.
 */
export function addAuditEndpoint(app: Express, token: string, take: TakeEvents, warn: (message: string) => void): void {
  const wanted = digest(`Bearer ${token}`);
  app.post('/audit', (request, response, next) => {
    if (timingSafeEqual(digest(request.headers.authorization ?? ''), wanted)) return next();
    response.status(401).type('text').send('the audit endpoint requires its token\n');
  });
  app.post('/audit', express.json({ limit: MAX_BODY, type: () => true }), async (request, response) => {
    const { kind, apiVersion, items } = (request.body ?? {}) as {
      kind?: unknown;
      apiVersion?: unknown;
      items?: unknown;
    };
    if (kind !== 'EventList' || apiVersion !== 'audit.k8s.io/v1' || !Array.isArray(items)) {
      response.status(400).type('text').send('this is not an EventList of audit.k8s.io/v1\n');
      return;
    }
    try {
      await take(items);
      response.status(200).type('text').send('ok\n');
    } catch (thrown) {
      const isInput = thrown instanceof TypeError;
      warn(`cannot take in audit events: ${messageOf(thrown)}`);
      response
        .status(isInput ? 400 : 503)
        .type('text')
        .send(isInput ? `${thrown.message}\n` : 'the ledger cannot be written; send them again\n');
    }
  });
  const onError: ErrorRequestHandler = (error, _request, response, _next) => {
    const status = (error as { status?: number }).status ?? 500;
    response
      .status(status)
      .type('text')
      .send(`${status === 413 ? 'the batch is too large' : 'the body is not JSON'}\n`);
  };
  app.use('/audit', onError);
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
