import {
  type AdmittedRequest,
  type EntryOf,
  type Environment,
  type ObjectRef,
  type Plan,
  policyNames,
  type Recorded,
  resourceOf,
} from '../model/index.ts';
import { isMachinery } from './admission-request.ts';
import type { LedgerView } from './ports.ts';

/** One write in the API server's audit log (audit.k8s.io/v1 Event), with the relevant fields. */
export type AuditedWrite = {
  readonly auditId: string;
  readonly user: string;
  readonly groups: readonly string[];
  /** Who sent it under that name, if it was impersonated. */
  readonly impersonator?: string;
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  /** When the request arrived, and when it was answered; milliseconds since 1970. */
  readonly received: number;
  readonly answered: number;
};

/** Explanation of a write. */
export type Account = 'intents' | 'breakglass' | 'recorded' | 'controllers' | 'unmatched';

// `GROUP/RESOURCE` that the webhook is not asked about (docs/admission-resources.md).
const NOT_ASKED: ReadonlySet<string> = new Set([
  '/events',
  'events.k8s.io/events',
  'coordination.k8s.io/leases',
  'authorization.k8s.io/localsubjectaccessreviews',
  'openreports.io/reports',
  'wgpolicyk8s.io/policyreports',
  '/serviceaccounts/token',
]);
// `exec` and its like are created, or asked for by GET.
const OPERATIONS: Readonly<Record<string, readonly string[]>> = {
  create: ['CREATE', 'CONNECT'],
  update: ['UPDATE', 'CREATE'],
  patch: ['UPDATE', 'CREATE'],
  delete: ['DELETE'],
  deletecollection: ['DELETE'],
};
const WRITES = new Set(['create', 'update', 'patch', 'delete', 'deletecollection']);
// The clocks of the API server and ours differ slightly, and ownership of fields is taken shortly before an intent.
const SLACK_MS = 10_000;

/**
 * Reads one event. Returns undefined unless it is a write that took effect, and that admission is asked about: not for
 * other stages and verbs, refusals, dry runs, questions, events and leases. Throws a TypeError if it is not an event at
 * all.
 */
export function readAuditEvent(event: unknown): AuditedWrite | undefined {
  const e = event as Partial<Record<string, unknown>> | null;
  if (typeof e !== 'object' || e === null || typeof e['auditID'] !== 'string' || typeof e['verb'] !== 'string')
    throw new TypeError('this is not an event of audit.k8s.io/v1');
  const {
    auditID,
    stage,
    verb,
    requestURI,
    user,
    impersonatedUser,
    objectRef,
    responseStatus,
    requestReceivedTimestamp,
    stageTimestamp,
  } = e;
  const code = (responseStatus as { code?: unknown } | undefined)?.code;
  if (stage !== 'ResponseComplete' || !WRITES.has(verb as string) || typeof code !== 'number' || code >= 300)
    return undefined;
  if (/[?&]dryRun=All(?:&|$)/.test(String(requestURI))) return undefined;
  const who = (impersonatedUser ?? user ?? {}) as { username?: unknown; groups?: unknown };
  const at = (objectRef ?? {}) as Record<string, unknown>;
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  const part = text(at['subresource']) === '' ? '' : `/${text(at['subresource'])}`;
  if (NOT_ASKED.has(`${text(at['apiGroup'])}/${text(at['resource'])}${part}`)) return undefined;
  return {
    auditId: auditID as string,
    user: text(who.username),
    ...(impersonatedUser === undefined || impersonatedUser === null
      ? {}
      : { impersonator: text((user as { username?: unknown } | undefined)?.username) }),
    groups: Array.isArray(who.groups) ? who.groups.filter((g) => typeof g === 'string') : [],
    verb: verb as string,
    group: text(at['apiGroup']),
    resource: text(at['resource']),
    subresource: text(at['subresource']),
    namespace: text(at['resource']) === 'namespaces' ? text(at['name']) : text(at['namespace']),
    name: text(at['name']),
    received: Date.parse(text(requestReceivedTimestamp)),
    answered: Date.parse(text(stageTimestamp)),
  };
}

/** An attempt to change the gate's own objects, refused by its ValidatingAdmissionPolicy. */
export type Attempt = {
  readonly auditId: string;
  readonly user: string;
  /** Who sent it under that name, if it was impersonated. */
  readonly impersonator?: string;
  readonly verb: string;
  readonly resource: string;
  readonly name: string;
  readonly at: string;
};

const REFUSED_BY = 'validation.policy.admission.k8s.io/validation_failure';

/** Reads one event as such an attempt; returns undefined for any other. */
export function readAttempt(event: unknown, policy: string): Attempt | undefined {
  const { annotations, auditID, verb, stage, user, impersonatedUser, objectRef, requestReceivedTimestamp } = event as {
    [field: string]: unknown;
    annotations?: Record<string, unknown>;
    objectRef?: Record<string, unknown>;
  };
  const failures = annotations?.[REFUSED_BY];
  if (stage !== 'ResponseComplete' || typeof failures !== 'string') return undefined;
  if (!policyNames(policy).some((name) => failures.includes(`"policy":"${name}"`))) return undefined;
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  const [group, resource] = [text(objectRef?.['apiGroup']), text(objectRef?.['resource'])];
  const name = [text(objectRef?.['namespace']), text(objectRef?.['name'])].filter((part) => part !== '').join('/');
  return {
    auditId: auditID as string,
    user: text(((impersonatedUser ?? user ?? {}) as { username?: unknown }).username),
    ...(impersonatedUser === undefined || impersonatedUser === null
      ? {}
      : { impersonator: text((user as { username?: unknown } | undefined)?.username) }),
    verb: text(verb),
    resource: group === '' ? resource : `${resource}.${group}`,
    name,
    at: text(requestReceivedTimestamp),
  };
}

/** Returns the explanation for a write to an environment's namespace, from the ledger or the configuration. */
export function accountFor(
  write: AuditedWrite,
  environment: Environment,
  applier: string,
  ledger: LedgerView,
): Account {
  const name = environment.metadata.name;
  // Someone who borrows the name of a controller is none.
  if (isMachinery(write, environment)) return write.impersonator === undefined ? 'controllers' : 'unmatched';
  if (write.user === applier && isIntended(write, name, ledger)) return 'intents';
  const isNear = (at: string) => Math.abs(Date.parse(at) - write.received) <= SLACK_MS;
  const about = ({ entry }: Recorded<EntryOf<'breakglass.used' | 'admission.denied' | 'admission.warned'>>) =>
    isNear(entry.at ?? entry.time) &&
    entry.user === write.user &&
    OPERATIONS[write.verb]?.includes(entry.operation) === true &&
    isObject(write, entry.object);
  if (since(ledger, ['breakglass.used'], name, write.received).some(about)) return 'breakglass';
  // One that was refused explains no write that took effect.
  const passed = since(ledger, ['admission.denied', 'admission.warned'], name, write.received).filter(
    ({ entry }) => entry.type === 'admission.warned' || entry.mode !== 'enforce',
  );
  if (passed.some(about)) return 'recorded';
  for (const { entry } of since(ledger, ['admission.allowed'], name, write.received)) {
    const requests = ledger.evidence(entry.evidence) as readonly AdmittedRequest[];
    const isThis = (r: AdmittedRequest) =>
      isNear(r.at) &&
      r.user === write.user &&
      OPERATIONS[write.verb]?.includes(r.operation) === true &&
      isObject(write, r.object);
    if (requests.some(isThis)) return 'recorded';
  }
  return 'unmatched';
}

// Tests for an intent that names the object and was open at that moment: begun before the answer, and not ended before
// the request.
function isIntended(write: AuditedWrite, environment: string, ledger: LedgerView): boolean {
  let at = ledger.latest(['apply.intent', 'apply.result'], environment);
  for (; at !== undefined; at = ledger.latest(['apply.intent', 'apply.result'], environment, at.index)) {
    const time = Date.parse(at.entry.time);
    if (at.entry.type === 'apply.result') {
      if (time + SLACK_MS < write.received) return false;
      continue;
    }
    if (time - SLACK_MS > write.answered) continue;
    const plan = ledger.evidence(at.entry.evidence) as Plan;
    if ([...plan.objects.map((o) => o.ref), ...plan.prune].some((ref) => isObject(write, ref))) return true;
  }
  return false;
}

function since<T extends 'breakglass.used' | 'admission.denied' | 'admission.warned' | 'admission.allowed'>(
  ledger: LedgerView,
  types: readonly T[],
  environment: string,
  moment: number,
): Recorded<EntryOf<T>>[] {
  const found: Recorded<EntryOf<T>>[] = [];
  const first = Number.isFinite(moment) ? new Date(moment - SLACK_MS).toISOString() : '';
  const next = (before?: number) => ledger.latest(types, environment, before, first);
  for (let at = next(); at !== undefined; at = next(at.index)) {
    if (Date.parse((at as Recorded).entry.time) < moment - SLACK_MS) break;
    found.push(at);
  }
  return found;
}

function isObject(write: AuditedWrite, ref: ObjectRef): boolean {
  const group = ref.apiVersion.includes('/') ? (ref.apiVersion.split('/')[0] ?? '') : '';
  const namespace = ref.kind === 'Namespace' ? ref.name : ref.namespace;
  return (
    write.group === group &&
    write.resource === resourceOf(ref.kind) &&
    write.name === ref.name &&
    write.namespace === namespace
  );
}
