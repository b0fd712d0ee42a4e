import { type EntryOf, type Environment, type ObjectRef, type Plan, type Recorded, resourceOf } from '../model/index.ts';
import { isListed } from './admit.ts';
import type { LedgerView } from './ports.ts';

/** One write as the API server's audit log shows it (audit.k8s.io/v1 Event), with what matters here. */
export type AuditedWrite = {
  readonly auditId: string;
  readonly user: string;
  readonly groups: readonly string[];
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  /** When the request came, and when it was answered; milliseconds since 1970. */
  readonly received: number;
  readonly answered: number;
};

/** What accounts for a write. */
export type Account = 'intents' | 'breakglass' | 'recorded' | 'controllers' | 'unmatched';

const WRITES = new Set(['create', 'update', 'patch', 'delete', 'deletecollection']);
// Clocks of the API server and ours differ a little, and fields are taken over shortly before an intent.
const SLACK_MS = 10_000;

/**
 * Reads one event. Undefined for what is no write that took effect: other stages and verbs, refusals, dry runs. A TypeError for
 * what is no event at all.
 */
export function readAuditEvent(event: unknown): AuditedWrite | undefined {
  const e = event as Partial<Record<string, unknown>> | null;
  if (typeof e !== 'object' || e === null || typeof e['auditID'] !== 'string' || typeof e['verb'] !== 'string')
    throw new TypeError('this is not an event of audit.k8s.io/v1');
  const { auditID, stage, verb, requestURI, user, impersonatedUser, objectRef, responseStatus, requestReceivedTimestamp, stageTimestamp } =
    e;
  const code = (responseStatus as { code?: unknown } | undefined)?.code;
  if (stage !== 'ResponseComplete' || !WRITES.has(verb as string) || typeof code !== 'number' || code >= 300) return undefined;
  if (/[?&]dryRun=All(?:&|$)/.test(String(requestURI))) return undefined;
  const who = (impersonatedUser ?? user ?? {}) as { username?: unknown; groups?: unknown };
  const at = (objectRef ?? {}) as Record<string, unknown>;
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  return {
    auditId: auditID as string,
    user: text(who.username),
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

/** What on the ledger, or in the configuration, accounts for a write to an environment's namespace. */
export function accountFor(write: AuditedWrite, environment: Environment, applier: string, ledger: LedgerView): Account {
  const name = environment.metadata.name;
  if (isListed(write, environment.spec.admission.controllers)) return 'controllers';
  if (write.user === applier && isIntended(write, name, ledger)) return 'intents';
  const near = (r: Recorded) => Math.abs(Date.parse(r.entry.time) - write.received) <= SLACK_MS;
  const about = (r: Recorded<EntryOf<'breakglass.used' | 'admission.denied' | 'admission.warned' | 'admission.allowed'>>) =>
    near(r) && r.entry.user === write.user && isObject(write, r.entry.object);
  if (since(ledger, ['breakglass.used'], name, write.received).some(about)) return 'breakglass';
  if (since(ledger, ['admission.denied', 'admission.warned', 'admission.allowed'], name, write.received).some(about)) return 'recorded';
  return 'unmatched';
}

// An intent that names the object and was open at that moment: begun before the answer, and not ended before the request.
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
  for (let at = ledger.latest(types, environment); at !== undefined; at = ledger.latest(types, environment, at.index)) {
    if (Date.parse((at as Recorded).entry.time) < moment - SLACK_MS) break;
    found.push(at);
  }
  return found;
}

function isObject(write: AuditedWrite, ref: ObjectRef): boolean {
  const group = ref.apiVersion.includes('/') ? (ref.apiVersion.split('/')[0] ?? '') : '';
  const namespace = ref.kind === 'Namespace' ? ref.name : ref.namespace;
  return write.group === group && write.resource === resourceOf(ref.kind) && write.name === ref.name && write.namespace === namespace;
}
