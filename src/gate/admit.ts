import { setTimeout as wait } from 'node:timers/promises';
import { APISERVER, CONTROL_PLANE, INTO_PODS, leftDigest, type Proof, templateDigest } from '../machinery/index.ts';
import {
  ADMITS,
  type AdmissionMode,
  admissionDigest,
  canonicalJson,
  type Environment,
  FIELD_MANAGER,
  type IgnoreRule,
  isInstallation,
  type KubernetesObject,
  messageOf,
  type OwnedObject,
  refKey,
  refText,
  rulesMode,
  type Violation,
  within,
  withoutPointers,
} from '../model/index.ts';
import type { AdmissionRecords } from './admission-records.ts';
import {
  type AdmissionDecision,
  type AdmissionRequest,
  forRecord,
  isListed,
  isMachinery,
  namespaceOf,
  requestDigest,
} from './admission-request.ts';
import { belongs } from './belongs.ts';
import type { BreakGlass } from './break-glass.ts';
import { addsDebugContainer } from './debug-container.ts';
import { admissible, type EnvironmentState } from './environment-state.ts';
import { declaredFor } from './operator-makes.ts';
import type { ClusterFacts } from './ports.ts';
import { leftInTemplate } from './prove-machinery.ts';
import type { RulesInForce, Ruling } from './rules-in-force.ts';

/** Inputs of `admit` for one environment. */
export type AdmissionScope = {
  readonly environment: Environment;
  readonly state: () => EnvironmentState;
  /** Our user name in the cluster. */
  readonly applier: string;
  readonly records: Pick<AdmissionRecords, 'allowed' | 'proven' | 'intended' | 'refused'>;
  readonly breakGlass: Pick<BreakGlass, 'mayUse' | 'decideGrant' | 'decide' | 'refuse'>;
  readonly facts: ClusterFacts;
  /** Proves a write of the machinery by its content; undefined if its user is not of the control plane. */
  readonly prove: (request: AdmissionRequest) => Promise<Proof | undefined>;
  /** The rules, if they are evaluated at admission. */
  readonly rules: Pick<RulesInForce, 'ask'> | undefined;
  /** Whether other replicas record on the ledger, too: then an intent may be heard a moment after its first write. */
  readonly isShared: boolean;
};

const CONNECTIONS: ReadonlySet<string> = new Set(['exec', 'attach', 'portforward', 'proxy']);

/**
 * Decides a request that concerns a governed object (docs/admission.md has the table). It allows exactly what a
 * recorded intent asks for, the cluster's own machinery, operators of objects in Git, fields that Git leaves to others,
 * and break-glass. Everything else is refused.
 *
 * Allowed requests are recorded first; it throws if that is impossible. In `audit` and `warn`, nothing is refused.
 */
export async function admit(request: AdmissionRequest, scope: AdmissionScope): Promise<AdmissionDecision> {
  const { mode } = scope.environment.spec.admission;
  if (mode === 'off') return yes();
  if (mode === 'enforce') return decide(request, scope);
  try {
    return await decide(request, scope);
  } catch (thrown) {
    return yes({ undecided: messageOf(thrown) });
  }
}

async function decide(request: AdmissionRequest, scope: AdmissionScope): Promise<AdmissionDecision> {
  const { environment } = scope;
  let unproven = '';
  if (isMachinery(request, environment)) {
    const proof = await scope.prove(request);
    if (proof?.kind !== 'unproven') return asMachinery(request, scope, proof);
    // Without a proof, the name counts for nothing.
    unproven = proof.reason;
  }
  const digest = requestDigest(request);
  // A dry run writes nothing. Anyone may run `countersign diff`; without our field manager's name, the dry run shows
  // what would be refused.
  if (request.dryRun && (request.user === scope.applier || request.fieldManager === FIELD_MANAGER))
    return yes({}, digest === undefined ? [] : [admits(digest, request.object, environment)]);
  // Ending a grant makes the Namespace match Git, but must not be treated as a change without effect.
  const grant = await scope.breakGlass.decideGrant(request);
  if (grant !== undefined) return grant.allowed ? grant : refuse(request, scope, grant.message);
  const intended = byIntent(request, scope);
  if (intended !== undefined) return intended;
  if (changesNothing(request, scope)) return yes({ 'allowed-as': 'no change' });
  const heard = await byIntentOfSibling(request, scope);
  if (heard !== undefined) return heard;
  const allowed = await asOther(request, scope);
  if (allowed !== undefined) return allowed;
  if (scope.breakGlass.mayUse(request)) {
    // First, because nothing may fail once a use is on record.
    const advice = await advised(request, scope);
    const glass = await scope.breakGlass.decide(request);
    if (glass !== undefined) return told(glass, advice);
  }
  return refuse(request, scope, refusal(request, scope, unproven));
}

// Another replica may write as soon as its intent is durable, before this one has heard of it.
async function byIntentOfSibling(
  request: AdmissionRequest,
  scope: AdmissionScope,
): Promise<AdmissionDecision | undefined> {
  if (!scope.isShared || request.user !== scope.applier) return undefined;
  for (const end = performance.now() + HEARD_MS; performance.now() < end; ) {
    await wait(HEARD_EVERY_MS);
    const intended = byIntent(request, scope);
    if (intended !== undefined) return intended;
  }
  return undefined;
}

const HEARD_MS = 2000;
const HEARD_EVERY_MS = 20;

// In an emergency, rules are advice. It must need nothing but the API server: neither Git nor what is read from it.
function advised(request: AdmissionRequest, scope: AdmissionScope): Promise<Ruling | undefined> {
  return within(ADVICE_MS, ruling(request, scope), () => undefined).catch(() => undefined);
}

const ADVICE_MS = 500;

// The machinery passes while the gate is unavailable, so a failed record must not stop pods from coming back. What
// could not be proven is proven by the scan, and recorded one by one; what was proven, in summaries.
async function asMachinery(
  request: AdmissionRequest,
  scope: AdmissionScope,
  proof: Proof | undefined,
): Promise<AdmissionDecision> {
  if (proof?.kind === 'proven' && isListed(request, CONTROL_PLANE)) {
    scope.records.proven(forRecord(request));
    return told(yes({ 'allowed-as': 'machinery' }), await advised(request, scope));
  }
  // Only a declared controller needs no proof, and what it wrote is proven by this record alone.
  const as = proof?.kind === 'unknown' ? 'machinery' : 'controller';
  const unrecorded = await scope.records.allowed(forRecord(request, as), as).then(
    () => ({}),
    (thrown) => ({ unrecorded: messageOf(thrown) }),
  );
  const open = proof?.kind === 'unknown' ? { 'not-proven-yet': proof.reason } : {};
  const notes = { 'allowed-as': 'machinery', ...unrecorded, ...open };
  return told(yes(notes), await advised(request, scope));
}

function admits(digest: string, object: KubernetesObject | undefined, { spec }: Environment): string {
  const template = object === undefined ? undefined : templateDigest(object);
  if (object === undefined || template === undefined) return `${ADMITS}${digest}`;
  const left = leftDigest(object, leftInTemplate(object, spec.drift.ignore));
  return `${ADMITS}${digest} ${template}${left === undefined ? '' : ` ${left}`}`;
}

// Taking over the fields of an object changes their owner, not their content.
function changesNothing(request: AdmissionRequest, { applier }: AdmissionScope): boolean {
  const { user, oldObject, operation } = request;
  const digest = requestDigest(request);
  return (
    user === applier &&
    digest !== undefined &&
    oldObject !== undefined &&
    // a changed status gives a different digest
    digest === admissionDigest(oldObject, operation)
  );
}

// The intent is on the ledger, so nothing waits for the record that it was carried out.
function byIntent(request: AdmissionRequest, scope: AdmissionScope): AdmissionDecision | undefined {
  const digest = requestDigest(request);
  const state = scope.state();
  const { digests, removable, ours } = admissible(state);
  const key = refKey(request.ref);
  if (ours.has(key) && request.user !== scope.applier) return undefined;
  const isRemoval = request.operation === 'DELETE' && request.subresource === '' && removable.has(key);
  if (!isRemoval && (digest === undefined || digests.get(key)?.includes(digest) !== true)) return undefined;
  scope.records.intended(forRecord(request));
  return yes({ 'allowed-as': 'intent', ...provenanceOf(ownedBy(request, state), state) });
}

/** Handles requests that come neither from Git nor from the machinery, but are allowed anyway. */
async function asOther(request: AdmissionRequest, scope: AdmissionScope): Promise<AdmissionDecision | undefined> {
  const { admission, drift } = scope.environment.spec;
  const { owned } = scope.state();
  // Evicting a pod created by a controller removes nothing that is in Git, and respects disruption budgets: nodes must
  // be drained.
  if (request.subresource === 'eviction' && !owned.has(refKey(request.ref)))
    return onRecord(request, scope, 'eviction');
  if (scope.breakGlass.mayUse(request) && addsDebugContainer(request, admission.breakGlass.debugImages))
    return onRecord(request, scope, 'debug container');
  if (CONNECTIONS.has(request.subresource) && admission.connect === 'record')
    return onRecord(request, scope, 'connect');
  if (isLeftToOthers(request, drift.ignore)) return onRecord(request, scope, 'left to others');
  // An operator makes objects. In a running pod it would start what no template has.
  const isDebugging = request.operation === 'CONNECT' || INTO_PODS.has(request.subresource);
  if (isDebugging || declaredFor(request, admission.operators).kind !== 'makes') return undefined;
  if (!(await belongs(request, owned, scope.facts))) return undefined;
  const ruled = await ruling(request, scope);
  const denied =
    ruled === undefined || ruled.violations.length === 0 ? undefined : await deniedByRules(request, scope, ruled);
  return denied ?? told(await onRecord(request, scope, 'operator'), ruled);
}

async function onRecord(
  request: AdmissionRequest,
  { records }: AdmissionScope,
  as: string,
): Promise<AdmissionDecision> {
  await records.allowed(forRecord(request, as), as);
  return yes({ 'allowed-as': as });
}

/**
 * Decides a request in a namespace that no environment governs, but in which an environment's rules apply to everyone.
 */
export async function admitByRules(request: AdmissionRequest, scope: AdmissionScope): Promise<AdmissionDecision> {
  const mode = rulesMode(scope.environment);
  if (mode === 'off' || request.operation === 'DELETE' || request.subresource !== '') return yes();
  try {
    const ruled = await ruling(request, scope);
    if (ruled === undefined || ruled.violations.length === 0) return told(yes(), ruled);
    return await deniedByRules(request, scope, ruled);
  } catch (thrown) {
    if (mode === 'enforce') throw thrown;
    return yes({ undecided: messageOf(thrown) });
  }
}

async function ruling(
  request: AdmissionRequest,
  { environment, rules, facts }: AdmissionScope,
): Promise<Ruling | undefined> {
  if (rules === undefined || rulesMode(environment) === 'off') return undefined;
  if (request.subresource !== '' || (request.operation !== 'CREATE' && request.operation !== 'UPDATE'))
    return undefined;
  return rules.ask(request, await facts.labelsOf(namespaceOf(request)).catch(() => undefined));
}

async function deniedByRules(
  request: AdmissionRequest,
  scope: AdmissionScope,
  ruled: Ruling,
): Promise<AdmissionDecision> {
  const said = ruled.violations
    .slice(0, MAX_SHOWN)
    .map(({ rule, code, message, hint }) => `${rule ?? code}: ${message}${hint === undefined ? '' : ` (${hint})`}`);
  const more = ruled.violations.length - said.length;
  const reason =
    `the rules of the environment \`${scope.environment.metadata.name}\` deny it: ` +
    `${said.join('; ')}${more > 0 ? `; and ${more} more` : ''}`;
  const decision = await refuse(request, scope, reason, rulesMode(scope.environment));
  return { ...decision, notes: { ...decision.notes, rules: ruled.bundle } };
}

const MAX_SHOWN = 10; // a message of the API server is one line in a terminal

// Adds what the rules say besides "yes": to the requester, and to the API server's audit log.
function told(decision: AdmissionDecision, ruled: Ruling | undefined): AdmissionDecision {
  if (ruled === undefined) return decision;
  const { violations, warnings, waived, bundle } = ruled;
  const say = (v: Violation) => `countersign: ${v.rule ?? v.code}: ${v.message}`;
  return {
    ...decision,
    warnings: [...decision.warnings, ...[...violations, ...warnings].slice(0, MAX_SHOWN).map(say)],
    notes: {
      ...decision.notes,
      rules: bundle,
      ...(violations.length === 0 ? {} : { violations: violations.map((v) => v.rule ?? v.code).join(' ') }),
      ...(waived.length === 0 ? {} : { waived: waived.map((v) => v.waived?.waiver ?? '').join(' ') }),
    },
  };
}

async function refuse(
  request: AdmissionRequest,
  { environment, records }: AdmissionScope,
  reason: string,
  mode: AdmissionMode = environment.spec.admission.mode,
): Promise<AdmissionDecision> {
  if (mode === 'warn') {
    await records.refused(forRecord(request), 'admission.warned', 'audit', reason);
    return yes({ 'would-deny': reason }, [`countersign (not enforced yet): ${reason}`]);
  }
  await records.refused(forRecord(request), 'admission.denied', mode === 'enforce' ? 'enforce' : 'audit', reason);
  return mode === 'enforce'
    ? { allowed: false, message: reason, warnings: [], notes: { denied: reason } }
    : yes({ 'would-deny': reason });
}

function refusal(request: AdmissionRequest, scope: AdmissionScope, unproven: string): string {
  const { environment, breakGlass } = scope;
  const { source, render } = environment.spec;
  const owned = ownedBy(request, scope.state());
  const what = `${refText(request.ref)} is governed by the environment \`${environment.metadata.name}\``;
  if (unproven !== '')
    return (
      `${what}, and what \`${request.user}\` writes does not follow from what was approved: ${unproven}` +
      (request.ref.kind === 'Pod' && request.subresource === '' && !unproven.includes(APISERVER)
        ? '. If a sidecar injector adds this, declare it under `spec.admission.injected`; ' +
          'any other mutating webhook must leave it alone'
        : '')
    );
  const declared = declaredFor(request, environment.spec.admission.operators);
  if (declared.kind === 'other')
    return `${what}, and ${declared.reason}. If it should make this, declare it under \`spec.admission.operators\``;
  const repository = source.url.replace(/:\/\/[^@/]*@/, '://');
  const glass = !breakGlass.mayUse(request)
    ? ''
    : environment.spec.admission.breakGlass.approvals > 0
      ? '; in an emergency, `countersign break-glass open`, and let another member of the groups ' +
        '`countersign break-glass approve`'
      : '; in an emergency, open break-glass first: `countersign break-glass open`, ' +
        'or the annotation `countersign.dev/break-glass` with your reason';
  if (request.operation === 'CONNECT')
    return (
      `${what}: \`${request.subresource}\` into its workloads is closed, ` +
      `because its effects are in no commit${glass}`
    );
  const asked = request.subresource === '' ? request.operation : `${request.operation} of \`${request.subresource}\``;
  const made = render.with === 'plain' ? '' : ` (rendered with ${render.with})`;
  const branch = `on branch \`${source.branch}\` of ${repository}`;
  const where =
    request.operation === 'DELETE' && owned === undefined
      ? 'it is in no commit, so no commit can remove it: someone who may use break-glass can'
      : request.operation === 'DELETE' && owned !== undefined
        ? `remove it from \`${owned.file}\` (line ${owned.line}) ${branch} and have that approved`
        : owned === undefined
          ? `add it under \`${source.path}\`${made} ${branch} and have it approved`
          : `change \`${owned.file}\` (line ${owned.line}) ${branch} and have it approved`;
  const own = owned === undefined && isInstallation(request.ref) ? NOT_AS_INSTALLED : '';
  return `${what}, and no recorded verdict allows this ${asked}: ${where}${glass}${own}`;
}

const NOT_AS_INSTALLED =
  '; it has the name of a part of Countersign, which only someone who has every right can install or upgrade, ' +
  'with the output of `countersign manifests` or `countersign crds`';

function ownedBy(request: AdmissionRequest, state: EnvironmentState): OwnedObject | undefined {
  const key = refKey(request.ref);
  return admissible(state).planned.get(key) ?? state.owned.get(key);
}

function provenanceOf(owned: OwnedObject | undefined, state: EnvironmentState): Readonly<Record<string, string>> {
  const entry = state.open?.failed === false ? state.open.intent.index : state.settled;
  return {
    entry: String(entry),
    ...(owned === undefined ? {} : { commit: owned.revision, verdict: String(owned.entry) }),
  };
}

/** Tests whether a request only changes fields that `spec.drift.ignore` leaves to others. */
function isLeftToOthers(
  { ref, subresource, operation, object, oldObject }: AdmissionRequest,
  rules: readonly IgnoreRule[],
): boolean {
  if (operation !== 'UPDATE') return false;
  const pointers = rules
    .filter((r) => r.kind === ref.kind && (r.name === undefined || r.name === ref.name))
    .flatMap((r) => r.fields);
  if (pointers.length === 0) return false;
  if (subresource === 'scale') return pointers.includes('/spec/replicas');
  if (subresource !== '' || object === undefined || oldObject === undefined) return false;
  const status = (o: KubernetesObject) => canonicalJson(o['status'] ?? {});
  return (
    status(object) === status(oldObject) &&
    admissionDigest(withoutPointers(object, pointers), 'UPDATE') ===
      admissionDigest(withoutPointers(oldObject, pointers), 'UPDATE')
  );
}

function yes(notes: Readonly<Record<string, string>> = {}, warnings: readonly string[] = []): AdmissionDecision {
  return { allowed: true, message: '', warnings, notes };
}
