import express, { type ErrorRequestHandler, type Express } from 'express';
import { type AdmissionDecision, type AdmissionRequest, type AdmissionScope, admit } from '../gate/index.ts';
import { type KubernetesObject, messageOf, type Trace, untraced } from '../model/index.ts';

/** The scope that governs a namespace, or undefined where none does. */
export type AdmissionScopes = (namespace: string) => AdmissionScope | undefined;

/** Hears each decision, for whoever counts them. */
type Decided = (environment: string, operation: string, decision: 'allowed' | 'denied' | 'undecided') => void;

type Log = { error(fields: object, message: string): void; debug(fields: object, message: string): void };

const MAX_BODY = '8mb'; // object and old object, each at most the 3 MiB the API server takes

type Review = {
  readonly apiVersion?: unknown;
  readonly kind?: unknown;
  readonly request?: {
    readonly uid?: unknown;
    readonly operation?: unknown;
    readonly dryRun?: unknown;
    readonly namespace?: unknown;
    readonly name?: unknown;
    readonly subResource?: unknown;
    readonly options?: { readonly fieldManager?: unknown } | null;
    readonly kind?: { readonly group?: unknown; readonly version?: unknown; readonly kind?: unknown };
    readonly userInfo?: { readonly username?: unknown; readonly groups?: unknown };
    readonly object?: unknown;
    readonly oldObject?: unknown;
  };
};

/** The HTTP application: `POST /validate` and `GET /healthz`. `ready` tells whether rules and ledger are loaded. */
export function createWebhook(
  scopes: AdmissionScopes,
  ready: () => boolean,
  log: Log,
  decided: Decided = () => {},
  trace: Trace = untraced,
): Express {
  const app = express();
  app.disable('x-powered-by');
  app.get('/healthz', (_request, response) => {
    response
      .status(ready() ? 200 : 503)
      .type('text')
      .send(ready() ? 'ok\n' : 'not ready\n');
  });
  app.post('/validate', express.json({ limit: MAX_BODY, type: () => true }), async (request, response) => {
    const review = request.body as Review;
    const uid = typeof review?.request?.uid === 'string' ? review.request.uid : undefined;
    const asked = uid === undefined ? undefined : readRequest(review);
    if (uid === undefined || asked === undefined) {
      response.status(400).type('text').send('this is not an AdmissionReview of admission.k8s.io/v1\n');
      return;
    }
    const attributes = { operation: asked.operation, kind: asked.ref.kind, namespace: asked.ref.namespace };
    const decision = await trace('admit', attributes, async (note) => {
      const made = await decide(asked, scopes, log, decided);
      note({ allowed: made.allowed });
      return made;
    });
    log.debug({ user: asked.user, operation: asked.operation, object: asked.ref, allowed: decision.allowed }, 'admission');
    response.json(answer(uid, decision));
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

// Not having heard "yes" is "no": whatever goes wrong while deciding, the write is refused with the reason.
async function decide(asked: AdmissionRequest, scopes: AdmissionScopes, log: Log, decided: Decided): Promise<AdmissionDecision> {
  let environment: string | undefined;
  try {
    const scope = scopes(asked.ref.kind === 'Namespace' ? asked.ref.name : asked.ref.namespace);
    if (scope === undefined) return { allowed: true, message: '', warnings: [], notes: {} };
    environment = scope.environment.metadata.name;
    const decision = await admit(asked, scope);
    decided(environment, asked.operation, decision.allowed ? 'allowed' : 'denied');
    return decision;
  } catch (thrown) {
    decided(environment ?? '', asked.operation, 'undecided');
    log.error({ user: asked.user, object: asked.ref }, `admission could not be decided: ${messageOf(thrown)}`);
    return { allowed: false, message: `countersign could not decide: ${messageOf(thrown)}`, warnings: [], notes: {} };
  }
}

function readRequest({ apiVersion, kind, request }: Review): AdmissionRequest | undefined {
  const { group, version, kind: objectKind } = request?.kind ?? {};
  const user = request?.userInfo?.username;
  if (apiVersion !== 'admission.k8s.io/v1' || kind !== 'AdmissionReview' || typeof request?.operation !== 'string') return undefined;
  if (typeof group !== 'string' || typeof version !== 'string' || typeof objectKind !== 'string' || typeof user !== 'string')
    return undefined;
  const object = asObject(request.object);
  const oldObject = asObject(request.oldObject);
  const groups = Array.isArray(request.userInfo?.groups) ? request.userInfo.groups.filter((g) => typeof g === 'string') : [];
  const namespace = objectKind === 'Namespace' || typeof request.namespace !== 'string' ? '' : request.namespace;
  const name =
    typeof request.name === 'string' && request.name !== '' ? request.name : (object?.metadata?.name ?? oldObject?.metadata?.name ?? '');
  return {
    operation: request.operation,
    user,
    groups,
    ref: { apiVersion: group === '' ? version : `${group}/${version}`, kind: objectKind, namespace, name },
    subresource: typeof request.subResource === 'string' ? request.subResource : '',
    object,
    oldObject,
    dryRun: request.dryRun === true,
    fieldManager: typeof request.options?.fieldManager === 'string' ? request.options.fieldManager : '',
  };
}

function asObject(value: unknown): KubernetesObject | undefined {
  const metadata = (value as { metadata?: unknown } | null | undefined)?.metadata;
  return typeof metadata === 'object' && metadata !== null ? (value as KubernetesObject) : undefined;
}

function answer(uid: string, decision: AdmissionDecision): object {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: {
      uid,
      allowed: decision.allowed,
      ...(decision.allowed ? {} : { status: { code: 403, reason: 'Forbidden', message: decision.message } }),
      ...(decision.warnings.length === 0 ? {} : { warnings: decision.warnings }),
      ...(Object.keys(decision.notes).length === 0 ? {} : { auditAnnotations: decision.notes }),
    },
  };
}
