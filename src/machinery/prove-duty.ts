import { controllerOf, type KubernetesObject } from '../model/index.ts';
import { list, record } from './approved-template.ts';
import { differencesBetween, differencesText } from './differences.ts';
import { approvedFor, type Case, demand, hasApprovedTemplate, kindOf, ownerOf, refOf, Unproven } from './proof.ts';
import { isOfOperator, provePod } from './prove-pod.ts';
import { demandCurrent, objectOf } from './prove-workload.ts';

export { proveReplicaSet, proveReplicaSetRemoval, proveReplicaSetUpdate } from './prove-workload.ts';

// The proofs of the duties. Each throws `Unproven` if the write does not follow from what is approved.

type Json = Readonly<Record<string, unknown>>;
type Prove = (of: Case) => Promise<void>;

// --- pods

/** Proves a new pod of an owner of one of these kinds. */
export function proveNewPod(owners: readonly string[]): Prove {
  return async (of) => {
    const pod = objectOf(of);
    demandOwner(pod, owners);
    await provePod(pod, of, true);
  };
}

/** Proves a new pod of any owner. An operator decides what it makes of an object of Git that has no template. */
export async function provePodOf(of: Case): Promise<void> {
  const pod = objectOf(of);
  if (!(await isOfOperator(pod, of))) await provePod(pod, of, true);
}

/** Proves that a pod keeps its content, or is one that an operator makes. */
export async function provePodChange(of: Case): Promise<void> {
  const [pod, before] = changeOf(of);
  const isOperators = await isOfOperator(before, of).catch((thrown) => {
    if (thrown instanceof Unproven) return false;
    throw thrown;
  });
  if (isOperators) return provePodOf(of);
  demandSame(before, pod, ['ownerReferences', 'finalizers']);
  const had = new Set(ownersOf(before).map((o) => o['uid']));
  demand(
    ownersOf(pod).every((o) => had.has(o['uid'])),
    'it gets a new owner',
  );
}

/** Proves that a controller adopts or releases a pod, or removes its finalizer, and changes nothing else. */
export function proveAdoption(owners: readonly string[]): Prove {
  return async (of) => {
    const [pod, before] = changeOf(of);
    demandSame(before, pod, ['ownerReferences', 'finalizers']);
    demandFewerFinalizers(before, pod, ['batch.kubernetes.io/job-tracking', 'foregroundDeletion', 'orphan']);
    const [had, has] = [ownersOf(before), ownersOf(pod)];
    if (has.every((o) => had.some((h) => h['uid'] === o['uid']))) return;
    demandOwner(pod, owners);
    await provePod(pod, of, false);
  };
}

/** Proves that only the labels change by which a StatefulSet finds its pods. */
export async function proveIdentityLabels(of: Case): Promise<void> {
  const [pod, before] = changeOf(of);
  demandSame(before, pod, ['labels']);
  demandOwner(pod, ['apps/StatefulSet']);
  await provePod(pod, of, false);
}

/** Proves the removal of an object whose controller is of one of these kinds, and makes it again if it is needed. */
export function ownedByAny(owners: readonly string[] | 'any'): Prove {
  return async ({ write, approved }) => {
    const { oldObject } = write;
    demand(oldObject !== undefined, 'its content is not known');
    demand(!approved.isOwned(write.ref), 'it is an object of Git');
    if (owners === 'any') demand(controllerOf(oldObject) !== undefined, 'no controller owns it');
    else demandOwner(oldObject, owners);
  };
}

/** Proves the removal of a pod by the node on which it runs. */
export async function proveOwnNode({ write, approved }: Case): Promise<void> {
  const pod = write.oldObject;
  demand(pod !== undefined, 'its content is not known');
  const { nodeName } = record(pod['spec']);
  demand(`system:node:${String(nodeName)}` === write.user, 'it does not run on this node');
  const isLeaving = pod.metadata['deletionTimestamp'] !== undefined;
  demand(isLeaving || !approved.isOwned(write.ref), 'it is an object of Git');
}

/**
 * Proves that a node asks for a certificate of a pod that runs on it, for a signer that a volume of the pod names
 * (KEP-4317, `pkg/kubelet/podcertificate`).
 */
export async function proveCertificateRequest(of: Case): Promise<void> {
  const { podName, podUID, nodeName, serviceAccountName, signerName, unverifiedUserAnnotations } = record(
    objectOf(of)['spec'],
  );
  demand(`system:node:${String(nodeName)}` === of.write.user, 'it is not for a pod of this node');
  const ref = { apiVersion: 'v1', kind: 'Pod', namespace: of.write.ref.namespace, name: String(podName) };
  const pod = await of.facts.get(ref);
  demand(pod !== undefined && pod.metadata['uid'] === podUID, 'its pod with this uid does not exist');
  const spec = record(pod['spec']);
  demand(spec['nodeName'] === nodeName, 'its pod does not run on this node');
  demand(spec['serviceAccountName'] === serviceAccountName, 'its pod has another service account');
  const asks = list(spec['volumes'])
    .flatMap((volume) => list(record(record(volume)['projected'])['sources']))
    .map((source) => record(record(source)['podCertificate']))
    .some(
      (asked) =>
        asked['signerName'] === signerName &&
        differencesBetween(record(asked['userAnnotations']), record(unverifiedUserAnnotations)).length === 0,
    );
  demand(asks, 'no volume of its pod asks for this certificate');
  await provePodOrGit(pod, of);
}

/** Proves that a request for a certificate is removed that no commit has: nodes make a new one when they need it. */
export async function proveRequestRemoval({ write, approved }: Case): Promise<void> {
  demand(!approved.isOwned(write.ref), 'it is an object of Git');
}

// --- Jobs

/** Proves that a new Job is what its CronJob makes now. */
export async function proveCronJobRun(of: Case): Promise<void> {
  const job = objectOf(of);
  demandCurrent(job, await proveCronJobIs(job, of), of);
}

/** Proves that a Job is what its CronJob makes, or made. Returns the CronJob. */
export async function proveCronJobIs(
  job: KubernetesObject,
  of: Pick<Case, 'approved' | 'facts'>,
): Promise<KubernetesObject> {
  const cron = await ownerOf(job, of.facts);
  const title = `the CronJob \`${cron.metadata.name}\``;
  demand(kindOf(cron) === 'batch/CronJob', `the ${cron.kind} \`${cron.metadata.name}\` does not make it`);
  const approved = await approvedFor(cron, of);
  demand(approved !== undefined, `${title} is not in Git`);
  demand(hasApprovedTemplate(job, cron, approved, of.approved), `its template was not approved for ${title}`);
  demand(isNumbered(job.metadata.name, cron.metadata.name), `its name is not one that ${title} gives`);
  const template = record(record(record(cron['spec'])['jobTemplate'])['metadata']);
  const { 'batch.kubernetes.io/cronjob-scheduled-timestamp': time, ...annotations } = job.metadata.annotations ?? {};
  const found = differencesBetween(
    { labels: labelsOfRun(job, template), annotations: record(template['annotations']), owners: 1 },
    { labels: job.metadata.labels ?? {}, annotations, owners: ownersOf(job).length },
    'metadata',
  );
  demand(found.length === 0, `it is not what ${title} makes: ${differencesText(found)}`);
  demand(time === undefined || !Number.isNaN(Date.parse(time)), 'its time is not a time');
  return cron;
}

// Without labels of its own, the API server gives a Job those of its pods (SetDefaults_Job of pkg/apis/batch/v1).
function labelsOfRun(job: KubernetesObject, template: Json): Json {
  const labels = record(template['labels']);
  if (Object.keys(labels).length > 0 || Object.keys(job.metadata.labels ?? {}).length === 0) return labels;
  return record(record(record(record(job['spec'])['template'])['metadata'])['labels']);
}

/** Proves the removal of a Job that has ended and has a `ttlSecondsAfterFinished`. */
export async function proveEndedJob({ write }: Case): Promise<void> {
  const job = write.oldObject;
  demand(job !== undefined, 'its content is not known');
  demand(record(job['spec'])['ttlSecondsAfterFinished'] !== undefined, 'it has no `ttlSecondsAfterFinished`');
  const ended = list(record(job['status'])['conditions']).some((c) => {
    const { type, status } = record(c);
    return status === 'True' && (type === 'Complete' || type === 'Failed');
  });
  demand(ended, 'it has not ended');
}

// --- revisions and claims

/** Proves that only the number of a rollout changes, which the Deployment controller writes with the status. */
export async function proveRolloutNumber(of: Case): Promise<void> {
  const [deployment, before] = changeOf(of);
  const key = 'deployment.kubernetes.io/revision';
  demandSame(before, deployment, ['annotations'], [], ['status']);
  demandAnnotations(before, deployment, new Set([key]));
  demand(/^\d+$/.test(deployment.metadata.annotations?.[key] ?? '0'), 'the number of its rollout is not a number');
}

/** Proves that a revision of a StatefulSet or DaemonSet of Git holds a template that was approved. */
export async function proveRevision(of: Case): Promise<void> {
  const revision = objectOf(of);
  const owner = await ownerOf(revision, of.facts);
  const title = `the ${owner.kind} \`${owner.metadata.name}\``;
  const approved = await approvedFor(owner, of);
  demand(approved !== undefined, `${title} is not in Git`);
  const { spec, ...others } = record(revision['data']);
  const { template, ...beside } = record(spec);
  const { $patch, ...plain } = record(template);
  demand(
    Object.keys(others).length === 0 && Object.keys(beside).length === 0 && $patch === 'replace',
    'it holds more than a template',
  );
  const held = { ...owner, spec: { template: plain } };
  demand(hasApprovedTemplate(held, owner, approved, of.approved), `its template was not approved for ${title}`);
}

/** Proves that only the number, labels or owner of a revision change. */
export async function proveRevisionUpdate(of: Case): Promise<void> {
  const [revision, before] = changeOf(of);
  const plain = ({ data, kind }: KubernetesObject) => ({ data, kind });
  demand(differencesBetween(plain(before), plain(revision)).length === 0, 'its template changes');
  await proveRevision(of);
}

/** Proves that a claim is what a StatefulSet of Git makes for one of its pods. */
export async function proveClaimOfSet(of: Case): Promise<void> {
  const claim = objectOf(of);
  const { name, namespace = '', labels = {} } = claim.metadata;
  const sets = await of.facts.list('apps/v1', 'StatefulSet', namespace);
  const reasons: string[] = [];
  for (const set of sets) {
    if ((await approvedFor(set, of)) === undefined) continue;
    const { volumeClaimTemplates, selector } = record(set['spec']);
    const template = list(volumeClaimTemplates)
      .map(record)
      .find((t) => isNumbered(name, `${String(record(t['metadata'])['name'])}-${set.metadata.name}`));
    if (template === undefined) continue;
    const found = [
      ...(await claimDifferences(claim, record(template['spec']), of)),
      ...differencesBetween(
        { ...record(record(template['metadata'])['labels']), ...record(record(selector)['matchLabels']) },
        labels,
        'metadata.labels',
      ),
    ];
    if (found.length === 0) return;
    reasons.push(`it is not what the StatefulSet \`${set.metadata.name}\` makes: ${differencesText(found)}`);
  }
  demand(false, reasons[0] ?? 'no StatefulSet in Git makes it');
}

/** Proves that a claim is for an ephemeral volume of a pod that is itself proven. */
export async function proveClaimOfPod(of: Case): Promise<void> {
  const claim = objectOf(of);
  const pod = await ownerOf(claim, of.facts);
  demand(kindOf(pod) === 'Pod', `the ${pod.kind} \`${pod.metadata.name}\` does not make it`);
  await provePodOrGit(pod, of);
  const volume = list(record(pod['spec'])['volumes'])
    .map(record)
    .find((v) => `${pod.metadata.name}-${String(v['name'])}` === claim.metadata.name);
  const template = record(record(record(volume)['ephemeral'])['volumeClaimTemplate']);
  demand(template['spec'] !== undefined, 'its pod has no such volume');
  const found = await claimDifferences(claim, record(template['spec']), of);
  demand(found.length === 0, `it is not what its pod asks for: ${differencesText(found)}`);
}

async function claimDifferences(claim: KubernetesObject, spec: Json, { facts }: Case) {
  const { storageClassName, volumeMode, ...rest } = record(claim['spec']);
  const { storageClassName: wanted, volumeMode: mode = 'Filesystem', ...others } = spec;
  const found = [...differencesBetween({ ...others, volumeMode: mode }, { ...rest, volumeMode }, 'spec')];
  if (storageClassName === wanted) return found;
  const classes = wanted === undefined ? await facts.list('storage.k8s.io/v1', 'StorageClass', '') : [];
  const isDefault = classes.some(
    (c) =>
      c.metadata.name === storageClassName &&
      c.metadata.annotations?.['storageclass.kubernetes.io/is-default-class'] === 'true',
  );
  return isDefault ? found : [...found, ...differencesBetween(wanted, storageClassName, 'spec.storageClassName')];
}

/**
 * Proves that only the owner of a claim changes, by the retention policy of its StatefulSet. An owner decides when the
 * claim is deleted, with what is stored in it: it must be the set that makes this claim, or its pod.
 */
export async function proveClaimUpdate(of: Case): Promise<void> {
  const [claim, before] = changeOf(of);
  demandSame(before, claim, ['ownerReferences']);
  const had = new Set(ownersOf(before).map((o) => o['uid']));
  const added = ownersOf(claim).filter((o) => !had.has(o['uid']));
  demand(added.length === 0 || !of.approved.isOwned(of.write.ref), 'it is an object of Git');
  const { name, namespace = '' } = claim.metadata;
  for (const { apiVersion, kind, name: owner, uid } of added) {
    const title = `its new owner, the ${String(kind)} \`${String(owner)}\``;
    const ref = { apiVersion: String(apiVersion), kind: String(kind), namespace, name: String(owner) };
    const found = await of.facts.get(ref);
    demand(found?.metadata['uid'] === uid, `${title} with this uid, does not exist`);
    const set = kindOf(ref) === 'Pod' ? await ownerOf(found as KubernetesObject, of.facts) : found;
    demand(kindOf(set as KubernetesObject) === 'apps/StatefulSet', `${title}, is no StatefulSet and no pod of one`);
    const { volumeClaimTemplates, persistentVolumeClaimRetentionPolicy } = record(set?.['spec']);
    const isMade = list(volumeClaimTemplates).some((t) =>
      isNumbered(name, `${String(record(record(t)['metadata'])['name'])}-${set?.metadata.name}`),
    );
    demand(isMade, `${title}, does not make it`);
    const isDeleted = Object.values(record(persistentVolumeClaimRetentionPolicy)).includes('Delete');
    demand(isDeleted, `${title}, keeps its claims`);
  }
}

const SELECTED_NODE = 'volume.kubernetes.io/selected-node';
const BOUND: ReadonlySet<string> = new Set([
  'pv.kubernetes.io/bind-completed',
  'pv.kubernetes.io/bound-by-controller',
  'volume.beta.kubernetes.io/storage-provisioner',
  'volume.kubernetes.io/storage-provisioner',
]);

/** Annotations that the control plane gives a claim after it was made, each by a write that is proven. */
export const GIVEN_TO_CLAIMS: ReadonlySet<string> = new Set([...BOUND, SELECTED_NODE]);

/** Proves that a claim without a volume gets one. */
export async function proveClaimBinding(of: Case): Promise<void> {
  const [claim, before] = changeOf(of);
  demandSame(before, claim, ['annotations'], ['volumeName', 'storageClassName']);
  demandAnnotations(before, claim, BOUND);
  const [had, has] = [record(before['spec']), record(claim['spec'])];
  for (const field of ['volumeName', 'storageClassName'])
    demand(had[field] === has[field] || had[field] === undefined || had[field] === '', `its \`${field}\` changes`);
}

/** Proves that only the node changes that the scheduler chose for a claim. */
export async function proveSelectedNode(of: Case): Promise<void> {
  const [claim, before] = changeOf(of);
  demandSame(before, claim, ['annotations']);
  demandAnnotations(before, claim, new Set([SELECTED_NODE]));
}

/** Proves that a ResourceClaim is what a template of Git says. */
export async function proveResourceClaim(of: Case): Promise<void> {
  const claim = objectOf(of);
  const pod = await ownerOf(claim, of.facts);
  demand(kindOf(pod) === 'Pod', `the ${pod.kind} \`${pod.metadata.name}\` does not make it`);
  await provePodOrGit(pod, of);
  const { apiVersion } = claim;
  const templates = await of.facts.list(apiVersion, 'ResourceClaimTemplate', claim.metadata.namespace ?? '');
  const named = new Set(list(record(pod['spec'])['resourceClaims']).map((c) => record(c)['resourceClaimTemplateName']));
  const fits = templates.some(
    (t) =>
      named.has(t.metadata.name) &&
      of.approved.isOwned(refOf({ ...t, apiVersion, kind: 'ResourceClaimTemplate' })) &&
      differencesBetween(record(record(t['spec'])['spec']), record(claim['spec'])).length === 0,
  );
  demand(fits, 'no template in Git that its pod names has this content');
}

async function provePodOrGit(pod: KubernetesObject, of: Case): Promise<void> {
  if (!of.approved.isOwned(refOf(pod))) await provePod(pod, of, false);
}

// --- scale, garbage and ends of namespaces

/** Proves that a scale is within the limits of a HorizontalPodAutoscaler of Git. */
export async function proveAutoscaling(of: Case): Promise<void> {
  const { ref } = of.write;
  const replicas = record(objectOf(of)['spec'])['replicas'];
  const all = await of.facts.list('autoscaling/v2', 'HorizontalPodAutoscaler', ref.namespace);
  const mine = all.filter((a) => {
    const { kind, name } = record(record(a['spec'])['scaleTargetRef']);
    const inGit = of.approved.isOwned({ ...refOf(a), apiVersion: 'autoscaling/v2', kind: 'HorizontalPodAutoscaler' });
    return kind === ref.kind && name === ref.name && inGit;
  });
  demand(mine.length > 0, 'no HorizontalPodAutoscaler in Git has it as its target');
  const fits = mine.some((a) => {
    const { minReplicas = 1, maxReplicas } = record(a['spec']);
    return Number(replicas) >= Number(minReplicas) && Number(replicas) <= Number(maxReplicas);
  });
  demand(fits, `${String(replicas)} replicas are outside the limits of its HorizontalPodAutoscaler`);
}

/** Proves the removal of an object whose owners are gone or are being deleted. */
export async function proveCollected({ write, approved, facts }: Case): Promise<void> {
  const object = write.oldObject;
  demand(object !== undefined, 'its content is not known');
  const owners = ownersOf(object);
  const isLeaving = object.metadata['deletionTimestamp'] !== undefined;
  // a reference can be added, and Git removes its objects itself
  demand(isLeaving || !approved.isOwned(write.ref), 'it is an object of Git');
  demand(owners.length > 0 || isLeaving, 'it has no owner that could be gone');
  for (const { apiVersion, kind, name, uid } of owners) {
    const ref = { apiVersion: String(apiVersion), kind: String(kind), name: String(name) };
    const owner = await facts.get({ ...ref, namespace: write.ref.namespace });
    const isThere = owner !== undefined && owner.metadata['uid'] === uid;
    demand(
      isLeaving || !isThere || owner.metadata['deletionTimestamp'] !== undefined,
      `its owner, the ${ref.kind} \`${ref.name}\`, exists`,
    );
  }
}

/** Proves that only owner references and finalizers of garbage collection are removed. */
export async function proveReferencesOnly(of: Case): Promise<void> {
  const [object, before] = changeOf(of);
  demandSame(before, object, ['ownerReferences', 'finalizers']);
  demandFewerFinalizers(before, object, ['foregroundDeletion', 'orphan']);
  for (const owner of ownersOf(object)) {
    const had = ownersOf(before).find((o) => o['uid'] === owner['uid']);
    demand(had !== undefined, 'it gets a new owner');
    const { blockOwnerDeletion: _, ...rest } = owner;
    const { blockOwnerDeletion: __, ...earlier } = had;
    demand(differencesBetween(earlier, rest).length === 0, 'the reference to an owner changes');
  }
}

/** Proves a removal in a namespace that is being deleted. */
export async function proveEndingNamespace({ write, facts }: Case): Promise<void> {
  const { ref } = write;
  const name = ref.kind === 'Namespace' ? ref.name : ref.namespace;
  const namespace = await facts.get({ apiVersion: 'v1', kind: 'Namespace', namespace: '', name });
  demand(namespace?.metadata['deletionTimestamp'] !== undefined, 'its namespace is not being deleted');
}

// --- objects that the cluster puts into every namespace

/** Proves that a ServiceAccount is the empty `default`. */
export async function proveDefaultAccount(of: Case): Promise<void> {
  const { metadata, apiVersion: _, kind: __, ...content } = objectOf(of);
  demand(metadata.name === 'default', 'only the account `default` is made by itself');
  const { labels, annotations } = metadata;
  demand([labels, annotations].every(isEmpty) && Object.values(content).every(isEmpty), 'it has content');
}

/** Proves that a ConfigMap has the certificate of the API server as it is in kube-system. */
export async function proveRootCertificate(of: Case): Promise<void> {
  const { metadata, data, binaryData, immutable } = objectOf(of);
  demand(metadata.name === ROOT, `only \`${ROOT}\` is published`);
  const ref = { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'kube-system', name: ROOT };
  const original = await of.facts.get(ref);
  const wanted = record(original?.['data']);
  demand(typeof wanted['ca.crt'] === 'string', 'the original in kube-system cannot be read');
  const found = differencesBetween({ data: { 'ca.crt': wanted['ca.crt'] } }, { data, binaryData, immutable });
  demand(found.length === 0, `it is not the one of kube-system: ${differencesText(found)}`);
}

const ROOT = 'kube-root-ca.crt';
const TOKEN_TYPE = 'kubernetes.io/service-account-token';

/** Proves that only the token's own keys change in a Secret that asks for a token. */
export async function proveTokenSecret({ write }: Case): Promise<void> {
  const { object, oldObject } = write;
  demand((object ?? oldObject)?.['type'] === TOKEN_TYPE, 'it is not the Secret of a token');
  if (object === undefined || oldObject === undefined) return;
  demandSame(oldObject, object, ['annotations'], [], ['data']);
  demandAnnotations(oldObject, object, new Set(['kubernetes.io/service-account.uid']));
  const [had, has] = [record(oldObject['data']), record(object['data'])];
  for (const key of new Set([...Object.keys(had), ...Object.keys(has)]))
    demand(had[key] === has[key] || ['ca.crt', 'namespace', 'token'].includes(key), `its \`data.${key}\` changes`);
}

const UNUSED = 'kubernetes.io/legacy-token-invalid-since';

/** Proves that an unused token is only marked, or removed after that. */
export async function proveLegacyToken({ write }: Case): Promise<void> {
  const { object, oldObject } = write;
  demand(oldObject?.['type'] === TOKEN_TYPE, 'it is not the Secret of a token');
  if (object === undefined) {
    demand(oldObject.metadata.labels?.[UNUSED] !== undefined, 'it was not marked as unused');
    return;
  }
  demandSame(oldObject, object, ['labels']);
  const { [UNUSED]: _, ...labels } = object.metadata.labels ?? {};
  const { [UNUSED]: __, ...before } = oldObject.metadata.labels ?? {};
  demand(differencesBetween(before, labels).length === 0, 'its labels change');
}

/** Proves that only finalizers of these names are added or removed. */
export function proveFinalizersOnly(names: readonly string[]): Prove {
  return async (of) => {
    const [object, before] = changeOf(of);
    demandSame(before, object, ['finalizers'], [], of.write.subresource === 'status' ? ['status'] : []);
    const others = (o: KubernetesObject) => list(o.metadata['finalizers']).filter((f) => !names.includes(String(f)));
    demand(differencesBetween(others(before), others(object)).length === 0, 'another finalizer changes');
  };
}

// --- parts of proofs

function changeOf(of: Case): readonly [now: KubernetesObject, before: KubernetesObject] {
  const { oldObject } = of.write;
  demand(oldObject !== undefined, 'its earlier content is not known');
  return [objectOf(of), oldObject];
}

const WRITTEN = ['managedFields', 'resourceVersion', 'generation'];

// Demands that two versions are the same, but for these fields of metadata, `spec` and the object itself. Where a
// status is a subresource, the API server keeps it; where it is not, it is content.
function demandSame(
  before: KubernetesObject,
  now: KubernetesObject,
  metadata: readonly string[],
  spec: readonly string[] = [],
  fields: readonly string[] = [],
): void {
  const plain = (o: KubernetesObject) => ({
    ...without(o, fields),
    metadata: without(o.metadata, [...WRITTEN, ...metadata]),
    ...(o['spec'] === undefined ? {} : { spec: without(record(o['spec']), spec) }),
  });
  const found = differencesBetween(plain(before), plain(now));
  demand(found.length === 0, `more than its duty changes: ${differencesText(found)}`);
}

function without(from: Json, keys: readonly string[]): Json {
  return Object.fromEntries(Object.entries(from).filter(([key]) => !keys.includes(key)));
}

function demandAnnotations(before: KubernetesObject, now: KubernetesObject, allowed: ReadonlySet<string>): void {
  const [had, has] = [before.metadata.annotations ?? {}, now.metadata.annotations ?? {}];
  for (const key of new Set([...Object.keys(had), ...Object.keys(has)]))
    demand(had[key] === has[key] || allowed.has(key), `its annotation \`${key}\` changes`);
}

// None may come, and only these may go.
function demandFewerFinalizers(before: KubernetesObject, now: KubernetesObject, only: readonly string[]): void {
  const [had, has] = [list(before.metadata['finalizers']), list(now.metadata['finalizers'])];
  demand(
    has.every((f) => had.includes(f)),
    'it gets a finalizer',
  );
  const gone = had.filter((f) => !has.includes(f));
  demand(
    gone.every((f) => only.includes(String(f))),
    'a finalizer of others goes',
  );
}

function demandOwner(object: KubernetesObject, kinds: readonly string[]): void {
  const isOne = ownersOf(object).some((o) =>
    kinds.includes(kindOf({ apiVersion: String(o['apiVersion']), kind: String(o['kind']) })),
  );
  demand(isOne, `no ${kinds.join(' or ')} owns it`);
}

function ownersOf(object: KubernetesObject): readonly Json[] {
  return list(object.metadata['ownerReferences']).map(record);
}

function isNumbered(name: string, base: string): boolean {
  return name.startsWith(`${base}-`) && /^\d+$/.test(name.slice(base.length + 1));
}

function isEmpty(value: unknown): boolean {
  return value === undefined || (typeof value === 'object' && Object.keys(value ?? {}).length === 0);
}
