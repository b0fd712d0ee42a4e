import {
  ADMITS,
  ANNOTATION,
  admissionDigest,
  durationMs,
  type Environment,
  FIELD_MANAGER,
  type KubernetesObject,
  messageOf,
  type ObjectRef,
  parseDuration,
  refKey,
  refText,
} from '../model/index.ts';
import { admissible, type EnvironmentState } from './environment-state.ts';
import type { Recorder } from './ports.ts';

/** What an AdmissionReview asks, in our words. */
export type AdmissionRequest = {
  readonly operation: string;
  readonly user: string;
  readonly groups: readonly string[];
  readonly ref: ObjectRef;
  readonly subresource: string;
  readonly object: KubernetesObject | undefined;
  readonly oldObject: KubernetesObject | undefined;
  readonly dryRun: boolean;
  /** The field manager that the request names; empty where it names none. */
  readonly fieldManager: string;
};

/** The answer. `message` says what to do about a "no"; `warnings` are shown to whoever asked; `notes` go to the API server's audit log. */
export type AdmissionDecision = {
  readonly allowed: boolean;
  readonly message: string;
  readonly warnings: readonly string[];
  readonly notes: Readonly<Record<string, string>>;
};

/** What `admit` looks at for one environment. */
export type AdmissionScope = {
  readonly environment: Environment;
  readonly state: () => EnvironmentState;
  /** Who we are in the cluster. */
  readonly applier: string;
  readonly recorder: Recorder;
  readonly clock: () => Date;
};

/**
 * Decides a write to a governed namespace. Allowed are: exactly what a recorded intent asks for, the cluster's own
 * machinery, and break-glass, which is recorded before it is let through. Everything else is refused and recorded.
 */
export async function admit(request: AdmissionRequest, scope: AdmissionScope): Promise<AdmissionDecision> {
  const { environment } = scope;
  const { mode, controllers } = environment.spec.admission;
  if (mode === 'off') return yes();
  if (isListed(request, controllers)) return yes({ 'allowed-as': 'controller' });
  const digest = request.object === undefined ? undefined : admissionDigest(request.object, request.operation);
  // A dry run writes nothing. `countersign diff` is anybody's; without our field manager's name, people are told what would be refused.
  if (request.dryRun && (request.user === scope.applier || request.fieldManager === FIELD_MANAGER))
    return yes({}, digest === undefined ? [] : [`${ADMITS}${digest}`]);
  // Taking over the fields of an object changes who owns them, not what they say.
  if (
    request.user === scope.applier &&
    digest !== undefined &&
    request.oldObject !== undefined &&
    digest === admissionDigest(request.oldObject, request.operation)
  )
    return yes({ 'allowed-as': 'no change' });
  const state = scope.state();
  const { digests, removable } = admissible(state);
  const key = refKey(request.ref);
  if (request.operation === 'DELETE' && removable.has(key)) return yes({ 'allowed-as': 'intent' });
  if (digest !== undefined && request.subresource === '' && digests.get(key)?.includes(digest) === true)
    return yes({ 'allowed-as': 'intent' });
  const glass = breakGlass(request, scope);
  if (glass !== undefined) return useBreakGlass(request, scope, glass);
  const reason = refusal(request, environment, state);
  if (!request.dryRun) await recordDenial(request, scope, reason);
  if (mode === 'audit') return yes({ 'would-deny': reason }, [`countersign (audit): ${reason}`]);
  return { allowed: false, message: reason, warnings: [], notes: { denied: reason } };
}

type Glass = { readonly reason: string; readonly until: string };

// The reason must be new: one left on the object from last time is nobody's reason today.
function breakGlass(request: AdmissionRequest, { environment, clock }: AdmissionScope): Glass | undefined {
  const { groups, holdFor } = environment.spec.admission.breakGlass;
  if (!groups.some((g) => request.groups.includes(g))) return undefined;
  const now = annotations(request.object ?? request.oldObject);
  const reason = now[ANNOTATION.breakGlass]?.trim() ?? '';
  const stale = request.operation === 'UPDATE' && annotations(request.oldObject)[ANNOTATION.breakGlass]?.trim() === reason;
  if (reason === '' || stale) return undefined;
  const asked = parseDuration(now[ANNOTATION.breakGlassFor] ?? '') ?? Number.POSITIVE_INFINITY;
  return { reason: reason.slice(0, 500), until: new Date(clock().getTime() + Math.min(asked, durationMs(holdFor))).toISOString() };
}

async function useBreakGlass(
  request: AdmissionRequest,
  { environment, recorder }: AdmissionScope,
  glass: Glass,
): Promise<AdmissionDecision> {
  if (!request.dryRun) {
    await recorder.record(
      {
        type: 'breakglass.used',
        environment: environment.metadata.name,
        user: recorder.subject(request.user),
        operation: request.operation,
        object: request.ref,
        reason: glass.reason,
        until: glass.until,
      },
      [],
    );
  }
  return yes({ 'allowed-as': 'break-glass' }, [
    `countersign: break-glass is recorded and will be in every report; Git takes over again at ${glass.until}`,
  ]);
}

async function recordDenial(request: AdmissionRequest, { environment, recorder }: AdmissionScope, reason: string): Promise<void> {
  const mode = environment.spec.admission.mode === 'audit' ? 'audit' : 'enforce';
  const entry = {
    type: 'admission.denied',
    environment: environment.metadata.name,
    user: recorder.subject(request.user),
    operation: request.operation,
    object: request.ref,
    mode,
    reason,
  } as const;
  // A denial stands whether or not it could be written down; only what is let through must be on record first.
  await recorder.record(entry, []).catch((thrown) => (mode === 'audit' ? Promise.reject(thrown) : messageOf(thrown)));
}

function refusal(request: AdmissionRequest, environment: Environment, state: EnvironmentState): string {
  const { source, admission } = environment.spec;
  const owned = state.owned.get(refKey(request.ref));
  const where = owned === undefined ? `add it under \`${source.path}\`` : `change \`${owned.file}\` (line ${owned.line})`;
  const inGroup = admission.breakGlass.groups.some((g) => request.groups.includes(g));
  const glass = inGroup ? `; in an emergency, set the annotation \`${ANNOTATION.breakGlass}\` to your reason` : '';
  return `${refText(request.ref)} is governed by the environment \`${environment.metadata.name}\`, and no recorded verdict allows this ${request.operation}: ${where} on branch \`${source.branch}\` and have it approved${glass}`;
}

/** Whether somebody is among identities, written as `user:NAME` or `group:NAME`. */
export function isListed({ user, groups }: Pick<AdmissionRequest, 'user' | 'groups'>, identities: readonly string[]): boolean {
  return identities.some((id) => (id.startsWith('user:') ? id.slice(5) === user : id.startsWith('group:') && groups.includes(id.slice(6))));
}

function annotations(object: KubernetesObject | undefined): Readonly<Record<string, string>> {
  return object?.metadata?.annotations ?? {};
}

function yes(notes: Readonly<Record<string, string>> = {}, warnings: readonly string[] = []): AdmissionDecision {
  return { allowed: true, message: '', warnings, notes };
}
