import { controllerOf, isStamp, type KubernetesObject } from '../model/index.ts';
import { HASH, list, record, templateDigest } from './approved-template.ts';
import { differencesBetween, differencesText } from './differences.ts';
import { approvedFor, type Case, demand, hasApprovedTemplate, kindOf, ownerOf } from './proof.ts';

type Json = Readonly<Record<string, unknown>>;
const ROLLOUT = 'deployment.kubernetes.io/';

/** Proves that a ReplicaSet is what the Deployment controller makes of a Deployment of Git. Throws `Unproven`. */
export async function proveReplicaSetIs(
  set: KubernetesObject,
  of: Pick<Case, 'approved' | 'facts'>,
): Promise<KubernetesObject> {
  const deployment = await ownerOf(set, of.facts);
  const { name, labels = {} } = set.metadata;
  const title = `the Deployment \`${deployment.metadata.name}\``;
  demand(kindOf(deployment) === 'apps/Deployment', `${title.replace('Deployment', deployment.kind)} does not make it`);
  const approved = await approvedFor(deployment, of);
  demand(approved !== undefined, `${title} is not in Git`);
  const spec = record(set['spec']);
  demand(hasApprovedTemplate(set, deployment, approved, of.approved), `its template was not approved for ${title}`);
  const hash = labels[HASH] ?? '';
  demand(hash !== '' && name === `${deployment.metadata.name}-${hash}`, `its name is not one that ${title} gives`);
  const template = record(record(spec['template'])['metadata']);
  const wanted = record(deployment['spec']);
  const selector = record(wanted['selector']);
  const expected = {
    labels: record(template['labels']),
    hash,
    owners: 1,
    selector: { ...selector, matchLabels: { ...record(selector['matchLabels']), [HASH]: hash } },
    others: [],
  };
  const actual = {
    labels,
    hash: record(template['labels'])[HASH],
    owners: list(set.metadata['ownerReferences']).length,
    selector: spec['selector'],
    others: Object.keys(spec).filter((k) => !['replicas', 'minReadySeconds', 'selector', 'template'].includes(k)),
  };
  const found = differencesBetween(expected, actual);
  demand(found.length === 0, `it is not what ${title} makes: ${differencesText(found)}`);
  demandAnnotations(set.metadata.annotations ?? {}, deployment);
  return deployment;
}

const SUPERSEDED = 'its template was approved, but a newer one took its place';
const SUPERSEDED_MS = 10_000; // within which the controller scales the old one down

/**
 * Proves that a ReplicaSet that is not the current one of its Deployment is not kept up, or brought back, after the
 * current one is available. A rollout that is paused or unfinished keeps earlier ones. Throws `Unproven`.
 */
export async function proveInUse(
  set: KubernetesObject,
  deployment: KubernetesObject,
  { facts }: Pick<Case, 'facts'>,
): Promise<void> {
  const current = templateDigest(deployment);
  const { paused, replicas } = record(deployment['spec']);
  if (scaleOf(set) === 0 || paused === true || templateDigest(set) === current) return;
  const wanted = typeof replicas === 'number' ? replicas : 1;
  const sets = await facts.list('apps/v1', 'ReplicaSet', deployment.metadata.namespace ?? '');
  const isDone = sets.some(
    (s) =>
      controllerOf(s)?.uid === deployment.metadata['uid'] &&
      templateDigest(s) === current &&
      Number(record(s['status'])['availableReplicas'] ?? 0) >= wanted,
  );
  demand(!isDone, `${SUPERSEDED} and is available`, SUPERSEDED_MS);
}

// With its scale, the controller writes only its own annotations.
function keepsOthers(before: KubernetesObject, set: KubernetesObject): boolean {
  const plain = ({ metadata: { annotations = {}, ownerReferences } }: KubernetesObject) => ({
    annotations: Object.fromEntries(Object.entries(annotations).filter(([key]) => !key.startsWith(ROLLOUT))),
    ownerReferences,
  });
  return differencesBetween(plain(before), plain(set)).length === 0;
}

// The controller copies the Deployment's annotations, and adds its own.
function demandAnnotations(annotations: Readonly<Record<string, string>>, deployment: KubernetesObject): void {
  for (const [key, value] of Object.entries(annotations)) {
    if (key.startsWith(ROLLOUT) || isStamp(key)) continue;
    const isCopied = Object.hasOwn(deployment.metadata.annotations ?? {}, key);
    demand(
      isCopied && deployment.metadata.annotations?.[key] === value,
      `its annotation \`${key}\` is not of its owner`,
    );
  }
}

/** Proves the creation of a ReplicaSet: its template is the newest approved one, or the one the Deployment has now. */
export async function proveReplicaSet(of: Case): Promise<void> {
  const set = objectOf(of);
  const deployment = await proveReplicaSetIs(set, of);
  demandCurrent(set, deployment, of);
  demandReplicas(set, deployment);
}

/**
 * Proves a change of a ReplicaSet: scaling, and the annotations and owner that the Deployment controller writes. Older
 * templates may only shrink, unless a rollout is unfinished. One whose template was never approved may shrink, too:
 * that is how the cluster gets rid of it.
 */
export async function proveReplicaSetUpdate(of: Case): Promise<void> {
  const [set, before] = [objectOf(of), of.write.oldObject];
  demand(before !== undefined, 'its earlier content is not known');
  const plain = (o: KubernetesObject): Json => {
    const { replicas: _, minReadySeconds: __, ...spec } = record(o['spec']);
    return { spec, labels: o.metadata.labels, finalizers: o.metadata['finalizers'] };
  };
  const changed = differencesBetween(plain(before), plain(set));
  demand(changed.length === 0, `more than its scale changes: ${differencesText(changed)}`);
  if (scaleOf(set) < scaleOf(before) && keepsOthers(before, set)) return;
  const deployment = await proveReplicaSetIs(set, of);
  if (scaleOf(set) <= scaleOf(before)) return;
  const { paused } = record(deployment['spec']);
  if (paused !== true && !isRollingOut(deployment)) demandCurrent(set, deployment, of);
  demandReplicas(set, deployment);
}

/** Proves the removal of a ReplicaSet: it has no pods, and a Deployment owns it. */
export async function proveReplicaSetRemoval({ write }: Case): Promise<void> {
  const set = write.oldObject;
  demand(set !== undefined, 'its content is not known');
  const owner = list(set.metadata['ownerReferences']).map(record)[0];
  demand(owner?.['kind'] === 'Deployment', 'no Deployment owns it');
  demand(scaleOf(set) === 0, 'it still has replicas');
}

/** Throws `Unproven` unless an object has the template that its owner has now, or the newest approved one. */
export function demandCurrent(
  made: KubernetesObject,
  owner: KubernetesObject,
  { approved }: Pick<Case, 'approved'>,
): void {
  const digest = templateDigest(made);
  demand(templateDigest(owner) === digest || approved.templates(owner)?.[0] === digest, SUPERSEDED);
}

function demandReplicas(set: KubernetesObject, deployment: KubernetesObject): void {
  const spec = record(deployment['spec']);
  const replicas = typeof spec['replicas'] === 'number' ? spec['replicas'] : 1;
  const surge = record(record(spec['strategy'])['rollingUpdate'])['maxSurge'] ?? 0;
  const more = typeof surge === 'number' ? surge : Math.ceil((Number.parseInt(String(surge), 10) / 100) * replicas);
  const most = replicas + (Number.isFinite(more) ? more : 0);
  demand(scaleOf(set) <= Math.max(most, 1), `it would have more than ${most} replicas`);
}

function scaleOf(set: KubernetesObject): number {
  const { replicas } = record(set['spec']);
  return typeof replicas === 'number' ? replicas : 1;
}

// A change of replicas and template in one write raises the old ReplicaSet first, before the controller looks at it.
function isRollingOut(deployment: KubernetesObject): boolean {
  const {
    replicas = 0,
    updatedReplicas = 0,
    availableReplicas = 0,
    observedGeneration,
  } = record(deployment['status']) as {
    readonly replicas?: number;
    readonly updatedReplicas?: number;
    readonly availableReplicas?: number;
    readonly observedGeneration?: number;
  };
  const isSeen = observedGeneration === deployment.metadata['generation'];
  return !isSeen || updatedReplicas < replicas || availableReplicas < replicas;
}

/** Returns the object that a write would store. Throws `Unproven` if it has none. */
export function objectOf({ write }: Case): KubernetesObject {
  demand(write.object !== undefined, 'it has no content');
  return write.object;
}
