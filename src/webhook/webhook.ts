import type { IncomingMessage } from 'node:http';
import express, { type ErrorRequestHandler, type Express, type RequestHandler } from 'express';
import type { AdmissionDecision, AdmissionRequest, AdmissionScopes, Door } from '../gate/index.ts';
import { messageOf, type Trace, tooLate, untraced, within } from '../model/index.ts';
import { readReview } from './read-review.ts';

/** Called with each decision, for metrics. */
type Decided = (
  environment: string,
  operation: string,
  decision: 'allowed' | 'denied' | 'undecided',
  seconds: number,
) => void;

type Log = { error(fields: object, message: string): void; debug(fields: object, message: string): void };

const MAX_BODY = 8 * 1024 * 1024; // object and old object, each at most the 3 MiB the API server accepts
const MAX_BODIES = 128 * 1024 * 1024; // bodies in memory at a time; anyone on the network may send them
const DEADLINE_MS = 4000; // one second less than the API server waits
// concurrent decisions: as many as one core makes in a tenth of a second, so that no queue grows
const AT_ONCE = 400;
const RETRY_SECONDS = 1;

export type WebhookOptions = {
  readonly log: Log;
  readonly decided?: Decided;
  /** Called with the requester before the decision. */
  readonly heard?: (user: string) => void;
  readonly trace?: Trace;
  /** Milliseconds after which an undecided request is refused. */
  readonly deadline?: number;
  readonly atOnce?: number;
  /** Bytes of bodies in memory at a time. */
  readonly bodies?: number;
};

/** Finds the scope that decides a request. */
export type Doors = Pick<AdmissionScopes, 'find'>;

/** The scopes that currently decide; replaced when the configuration changes. Requests wait while there are none. */
export class CurrentScopes {
  #current: Doors | undefined;
  #before: Doors | undefined;
  #waiting: ((scopes: Doors) => void)[] = [];

  get ready(): boolean {
    return this.#current !== undefined;
  }

  set(scopes: Doors | undefined): void {
    this.#current = scopes;
    if (scopes === undefined) return;
    this.#before = scopes;
    for (const go of this.#waiting.splice(0)) go(scopes);
  }

  /** Returns the door for a request by the most recent scopes. */
  before(request: AdmissionRequest): Door | undefined {
    return this.#before?.find(request);
  }

  get(): Doors | Promise<Doors> {
    return this.#current ?? new Promise((go) => this.#waiting.push(go));
  }
}

/** Creates the HTTP application: `POST /validate`. */
export function createWebhook(scopes: CurrentScopes, options: WebhookOptions): Express {
  const {
    log,
    decided = () => {},
    heard = () => {},
    trace = untraced,
    deadline = DEADLINE_MS,
    atOnce = AT_ONCE,
    bodies = MAX_BODIES,
  } = options;
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  let deciding = 0;
  app.use(limitBodies(bodies));
  app.post('/validate', express.json({ limit: MAX_BODY, type: () => true }), async (incoming, response) => {
    const begun = performance.now();
    const review = readReview(incoming.body);
    if (review === undefined) {
      response.status(400).type('text').send('this is not an AdmissionReview of admission.k8s.io/v1\n');
      return;
    }
    const { uid, request } = review;
    if (request === undefined) {
      response.json(
        answer(uid, no('countersign cannot read this request: its operation, kind or user is missing or unknown')),
      );
      return;
    }
    heard(request.user);
    deciding++;
    try {
      const attributes = { operation: request.operation, kind: request.ref.kind, namespace: request.ref.namespace };
      const { decision, door } = await trace('admit', attributes, async (note) => {
        const made = await decide(request, scopes, deciding > atOnce, deadline);
        note({ allowed: made.decision.allowed });
        decided(made.environment, request.operation, made.kind, (performance.now() - begun) / 1000);
        if (made.kind === 'undecided')
          log.error({ object: request.ref, subresource: request.subresource }, `admission: ${made.why}`);
        return made;
      });
      log.debug(
        {
          user: request.user,
          operation: request.operation,
          object: request.ref,
          allowed: decision.allowed,
          as: decision.notes['allowed-as'],
        },
        'admission',
      );
      // A caller that is gone took it for refused.
      const gone = () => door !== undefined && !response.writableFinished && unheard(request, decision, door);
      if (response.closed) gone();
      else {
        response.once('close', gone);
        response.json(answer(uid, decision));
      }
    } finally {
      deciding--;
    }
  });
  const onError: ErrorRequestHandler = (error, _request, response, _next) => {
    const status = (error as { status?: number }).status ?? 500;
    response
      .status(status)
      .type('text')
      .send(`${status === 413 ? 'the review is too large' : 'the body is not JSON'}\n`);
  };
  app.use(onError);
  return app;
}

/**
 * If bodies exceed the total, ends the slowest uploads first: an API server sends a review in a moment. Only received
 * bytes count, not the announced length.
 */
function limitBodies(limit: number): RequestHandler {
  const coming = new Map<IncomingMessage, number>(); // oldest first
  let bytes = 0;
  const gone = (incoming: IncomingMessage) => {
    bytes -= coming.get(incoming) ?? 0;
    coming.delete(incoming);
  };
  return (incoming, response, next) => {
    coming.set(incoming, 0);
    response.once('close', () => gone(incoming));
    incoming.on('data', (chunk: Buffer) => {
      const held = coming.get(incoming);
      if (held === undefined) return;
      coming.set(incoming, held + chunk.length);
      bytes += chunk.length;
      for (const oldest of bytes > limit ? [...coming.keys()] : []) {
        if (bytes <= limit) break;
        if (oldest.complete && oldest !== incoming) continue; // it is complete and being decided
        gone(oldest);
        oldest.socket.destroy();
      }
    });
    next();
  };
}

type Made = {
  readonly environment: string;
  readonly kind: 'allowed' | 'denied' | 'undecided';
  readonly decision: AdmissionDecision;
  readonly why?: string;
  readonly door?: Door;
};

// The absence of "yes" is "no": if anything fails during the decision, the write is refused with the reason. In an
// environment that is only watched, it is allowed.
async function decide(
  request: AdmissionRequest,
  current: CurrentScopes,
  tooMany: boolean,
  deadline: number,
): Promise<Made> {
  const begun = performance.now();
  let door: Door | undefined;
  try {
    door = current.before(request);
    // A flood must not pile up while it waits for the configuration.
    if (tooMany && !current.ready) return undecided(door, 'too many concurrent requests: try again in a moment');
    const found = current.get();
    const scopes = found instanceof Promise ? await within(deadline, found, tooLate) : found;
    door = scopes.find(request);
    if (door === undefined)
      return { environment: '', kind: 'allowed', decision: { allowed: true, message: '', warnings: [], notes: {} } };
    if (tooMany) return undecided(door, 'too many concurrent requests: try again in a moment');
    const decision = await inTime(deadline - (performance.now() - begun), request, door);
    return { environment: door.environment, kind: decision.allowed ? 'allowed' : 'denied', decision, door };
  } catch (thrown) {
    return undecided(door, messageOf(thrown));
  }
}

// A request that is allowed after the deadline was refused at the deadline.
async function inTime(ms: number, request: AdmissionRequest, door: Door): Promise<AdmissionDecision> {
  const asked = door.decide(request);
  return within(ms, asked, () => {
    asked.then((decision) => unheard(request, decision, door)).catch(() => {});
    return tooLate();
  });
}

function unheard(request: AdmissionRequest, decision: AdmissionDecision, door: Door): void {
  if (decision.allowed && door.enforces) door.refused(request, decision);
}

function undecided(door: Door | undefined, why: string): Made {
  const decision: AdmissionDecision =
    door?.enforces === false
      ? { allowed: true, message: '', warnings: [], notes: { undecided: why } }
      : { ...no(`countersign could not decide: ${why}`), retry: true };
  return { environment: door?.environment ?? '', kind: 'undecided', decision, why };
}

function no(message: string): AdmissionDecision {
  return { allowed: false, message, warnings: [], notes: {} };
}

function answer(uid: string, { allowed, message, warnings, notes, retry }: AdmissionDecision): object {
  // 429 with a delay: clients of the API server retry automatically.
  const status =
    retry === true
      ? { code: 429, reason: 'TooManyRequests', message, details: { retryAfterSeconds: RETRY_SECONDS } }
      : { code: 403, reason: 'Forbidden', message };
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: {
      uid,
      allowed,
      ...(allowed ? {} : { status }),
      ...(warnings.length === 0 ? {} : { warnings: warnings.map(asHeader) }),
      ...(Object.keys(notes).length === 0 ? {} : { auditAnnotations: notes }),
    },
  };
}

const MAX_WARNING = 1024; // the API server truncates at 4,096 over all of them

// Warnings are sent in an HTTP header, which cannot contain line breaks and control characters.
function asHeader(warning: string): string {
  return warning.replaceAll(/[\u0000-\u001f\u007f]+/g, ' ').slice(0, MAX_WARNING);
}
