import type { IncomingMessage } from 'node:http';
import express, { type ErrorRequestHandler, type Express, type RequestHandler } from 'express';
import type { AdmissionDecision, AdmissionRequest, AdmissionScopes, Door } from '../gate/index.ts';
import { messageOf, type Trace, tooLate, untraced, within } from '../model/index.ts';
import { readReview } from './read-review.ts';

/** Hears each decision, for whoever counts them. */
type Decided = (
  environment: string,
  operation: string,
  decision: 'allowed' | 'denied' | 'undecided',
  seconds: number,
) => void;

type Log = { error(fields: object, message: string): void; debug(fields: object, message: string): void };

const MAX_BODY = 8 * 1024 * 1024; // object and old object, each at most the 3 MiB the API server takes
const MAX_BODIES = 128 * 1024 * 1024; // bodies in memory at a time; whoever is on the network may send them
const DEADLINE_MS = 4000; // a second below what the API server waits
// requests that are being decided; what a core decides in a tenth of a second, so that no queue grows
const AT_ONCE = 400;
const RETRY_SECONDS = 1;

export type WebhookOptions = {
  readonly log: Log;
  readonly decided?: Decided;
  /** Hears who asks, before it is decided. */
  readonly heard?: (user: string) => void;
  readonly trace?: Trace;
  /** Milliseconds after which what is not decided is refused. */
  readonly deadline?: number;
  readonly atOnce?: number;
  /** Bytes of bodies in memory at a time. */
  readonly bodies?: number;
};

/** Finds what a request is decided by. */
export type Doors = Pick<AdmissionScopes, 'find'>;

/**
 * The scopes that decide, which are others after the configuration changed. Requests that come while there are none
 * wait.
 */
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

  /** What a request was for by the newest scopes that there were. */
  before(request: AdmissionRequest): Door | undefined {
    return this.#before?.find(request);
  }

  get(): Doors | Promise<Doors> {
    return this.#current ?? new Promise((go) => this.#waiting.push(go));
  }
}

/** The HTTP application: `POST /validate`. */
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
        answer(uid, no('countersign cannot read this request: it names no operation, kind or user that there is')),
      );
      return;
    }
    heard(request.user);
    deciding++;
    try {
      const attributes = { operation: request.operation, kind: request.ref.kind, namespace: request.ref.namespace };
      const decision = await trace('admit', attributes, async (note) => {
        const made = await decide(request, scopes, deciding > atOnce, deadline);
        note({ allowed: made.decision.allowed });
        decided(made.environment, request.operation, made.kind, (performance.now() - begun) / 1000);
        if (made.kind === 'undecided')
          log.error({ object: request.ref, subresource: request.subresource }, `admission: ${made.why}`);
        return made.decision;
      });
      log.debug(
        { user: request.user, operation: request.operation, object: request.ref, allowed: decision.allowed },
        'admission',
      );
      response.json(answer(uid, decision));
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
 * Ends, once bodies hold more than so many bytes together, those that have been coming for longest: an API server sends
 * a review in a moment. What a request says of its length takes no room; only what has come does.
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
        if (oldest.complete && oldest !== incoming) continue; // it is whole, and is being decided
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
};

// Not having heard "yes" is "no": whatever goes wrong while deciding, the write is refused with the reason. Where an
// environment is only being watched, it is let through.
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
    // A flood must not pile up while it waits for somebody to decide.
    if (tooMany && !current.ready) return undecided(door, 'too many requests at once: try again in a moment');
    const found = current.get();
    const scopes = found instanceof Promise ? await within(deadline, found, tooLate) : found;
    door = scopes.find(request);
    if (door === undefined)
      return { environment: '', kind: 'allowed', decision: { allowed: true, message: '', warnings: [], notes: {} } };
    if (tooMany) return undecided(door, 'too many requests at once: try again in a moment');
    const decision = await within(deadline - (performance.now() - begun), door.decide(request), tooLate);
    return { environment: door.environment, kind: decision.allowed ? 'allowed' : 'denied', decision };
  } catch (thrown) {
    return undecided(door, messageOf(thrown));
  }
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
  // 429 with a time: clients of the API server try again by themselves.
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

const MAX_WARNING = 1024; // the API server cuts at 4,096 over all of them

// Warnings travel in an HTTP header: line breaks and controls have no place there.
function asHeader(warning: string): string {
  return warning.replaceAll(/[\u0000-\u001f\u007f]+/g, ' ').slice(0, MAX_WARNING);
}
