import { groupOf, type KubernetesObject } from '../model/index.ts';

/** State of an object. `failed` means that it will not become healthy without intervention. */
export type Health = { readonly state: 'current' | 'progressing' | 'failed'; readonly message: string };

/** A configured rule for one kind; returns undefined if it does not decide. */
export type HealthRule = (object: KubernetesObject) => Health | undefined;

type Condition = {
  readonly type?: string;
  readonly status?: string;
  readonly reason?: string;
  readonly message?: string;
};
type Status = Readonly<Record<string, unknown>> & { readonly conditions?: readonly Condition[] };

const CURRENT: Health = { state: 'current', message: '' };
const UNSCHEDULABLE_MS = 15_000; // kstatus: schedulers need a moment before their first "no" is meaningful
const HOPELESS = new Set(['CrashLoopBackOff', 'InvalidImageName', 'CreateContainerConfigError', 'ErrImageNeverPull']);

/**
 * Returns the health of an object by the rules of kstatus (sigs.k8s.io/cli-utils `pkg/kstatus`). First come deletion, a
 * controller that has not seen it yet, `Reconciling` and `Stalled`; then the kind's own rules; then `Ready`. A kind
 * without conditions is current once it exists. Unlike in kstatus, a Job is current when complete, not when started.
 */
export function healthOf(object: KubernetesObject, now = Date.now()): Health {
  if (object.metadata['deletionTimestamp'] !== undefined) return progressing('it is being deleted');
  const status = (object['status'] ?? {}) as Status;
  const { generation } = object.metadata as { generation?: number };
  const seen = status['observedGeneration'];
  if (typeof seen === 'number' && typeof generation === 'number' && seen < generation)
    return progressing('its controller has not seen it yet');
  const reconciling = condition(status, 'Reconciling');
  if (reconciling?.status === 'True') return progressing(said(reconciling, 'it is being reconciled'));
  const stalled = condition(status, 'Stalled');
  if (stalled?.status === 'True') return failed(said(stalled, 'it is stalled'));
  const group = groupOf(object.apiVersion);
  const rule = KINDS[`${group}/${object.kind}`];
  if (rule !== undefined) return rule((object['spec'] ?? {}) as Status, status, now);
  const ready = condition(status, 'Ready');
  return ready === undefined || ready.status === 'True' ? CURRENT : progressing(said(ready, 'it is not ready'));
}

type KindRule = (spec: Readonly<Record<string, unknown>>, status: Status, now: number) => Health;

const KINDS: Readonly<Record<string, KindRule>> = {
  'apps/Deployment': deployment,
  'apps/StatefulSet': statefulSet,
  'apps/DaemonSet': daemonSet,
  'apps/ReplicaSet': replicaSet,
  'batch/Job': job,
  'batch/CronJob': () => CURRENT,
  '/Pod': pod,
  '/PersistentVolumeClaim': (_, { phase }) =>
    phase === 'Bound'
      ? CURRENT
      : phase === 'Lost'
        ? failed('its volume is lost')
        : progressing('it is not bound to a volume'),
  '/Namespace': (_, { phase }) =>
    phase === undefined || phase === 'Active' ? CURRENT : progressing('it is being deleted'),
  '/Service': ({ type, clusterIP }) =>
    type === 'LoadBalancer' && (clusterIP === undefined || clusterIP === '')
      ? progressing('it has no address')
      : CURRENT,
  'apiextensions.k8s.io/CustomResourceDefinition': definition,
  'apiregistration.k8s.io/APIService': (_, status) => {
    const available = condition(status, 'Available');
    return available?.status === 'True' ? CURRENT : progressing(said(available, 'it does not answer'));
  },
};

function deployment(spec: Readonly<Record<string, unknown>>, status: Status): Health {
  const progress = condition(status, 'Progressing');
  if (progress?.reason === 'ProgressDeadlineExceeded') return failed(said(progress, 'its deadline has passed'));
  const wanted = count(spec['replicas'], 1);
  const [all, updated, ready, available] = counts(
    status,
    'replicas',
    'updatedReplicas',
    'readyReplicas',
    'availableReplicas',
  );
  if (status['observedGeneration'] === undefined) return progressing('its controller has not seen it yet');
  if (updated < wanted) return progressing(`${updated} of ${wanted} replicas are of this version`);
  if (all > updated) return progressing(`${all - updated} replicas of the previous version are still there`);
  if (ready < wanted) return progressing(`${ready} of ${wanted} replicas are ready`);
  if (available < wanted) return progressing(`${available} of ${wanted} replicas are available`);
  if (
    spec['progressDeadlineSeconds'] !== undefined &&
    progress !== undefined &&
    progress.reason === 'ReplicaSetUpdated'
  )
    return progressing(said(progress, 'it is rolling out'));
  const there = condition(status, 'Available');
  return there === undefined || there.status === 'True' ? CURRENT : progressing(said(there, 'it is not available'));
}

function statefulSet(spec: Readonly<Record<string, unknown>>, status: Status): Health {
  const strategy = spec['updateStrategy'] as { type?: string; rollingUpdate?: { partition?: number } } | undefined;
  if (strategy?.type === 'OnDelete') return CURRENT;
  const wanted = count(spec['replicas'], 1);
  const [all, ready, updated] = counts(status, 'replicas', 'readyReplicas', 'updatedReplicas');
  if (all < wanted) return progressing(`${all} of ${wanted} replicas are there`);
  if (ready < wanted) return progressing(`${ready} of ${wanted} replicas are ready`);
  const partition = strategy?.rollingUpdate?.partition ?? 0;
  if (partition > 0)
    return updated < wanted - partition
      ? progressing(`${updated} of ${wanted - partition} replicas are of this version`)
      : CURRENT;
  if (all > wanted) return progressing(`${all - wanted} surplus replicas are still there`);
  if (wanted > 0 && status['currentRevision'] !== status['updateRevision'])
    return progressing(`${updated} of ${wanted} replicas are of this version`);
  return CURRENT;
}

function daemonSet(_: unknown, status: Status): Health {
  if (status['observedGeneration'] === undefined) return progressing('its controller has not seen it yet');
  const [wanted, scheduled, updated, available, ready] = counts(
    status,
    'desiredNumberScheduled',
    'currentNumberScheduled',
    'updatedNumberScheduled',
    'numberAvailable',
    'numberReady',
  );
  for (const [have, what] of [
    [scheduled, 'scheduled'],
    [updated, 'of this version'],
    [available, 'available'],
    [ready, 'ready'],
  ] as const)
    if (have < wanted) return progressing(`${have} of ${wanted} pods are ${what}`);
  return CURRENT;
}

function replicaSet(spec: Readonly<Record<string, unknown>>, status: Status): Health {
  const trouble = condition(status, 'ReplicaFailure');
  if (trouble?.status === 'True') return progressing(said(trouble, 'its pods cannot be created'));
  const wanted = count(spec['replicas'], 1);
  const [labelled, available, ready] = counts(status, 'fullyLabeledReplicas', 'availableReplicas', 'readyReplicas');
  const least = Math.min(labelled, available, ready);
  return least < wanted ? progressing(`${least} of ${wanted} replicas are ready`) : CURRENT;
}

function job(spec: Readonly<Record<string, unknown>>, status: Status): Health {
  const bad = condition(status, 'Failed');
  if (bad?.status === 'True') return failed(said(bad, 'it failed'));
  if (condition(status, 'Complete')?.status === 'True') return CURRENT;
  if (spec['suspend'] === true) return CURRENT;
  return progressing(status['startTime'] === undefined ? 'it has not started' : 'it is running');
}

function pod(_: unknown, status: Status, now: number): Health {
  const waiting = (
    (status['containerStatuses'] ?? []) as {
      name?: string;
      state?: { waiting?: { reason?: string; message?: string } };
    }[]
  ).find((c) => HOPELESS.has(c.state?.waiting?.reason ?? ''));
  if (waiting !== undefined) return failed(`the container \`${waiting.name}\`: ${waiting.state?.waiting?.reason}`);
  if (status['phase'] === 'Succeeded') return CURRENT;
  if (status['phase'] === 'Failed') return failed(String(status['message'] ?? status['reason'] ?? 'it failed'));
  const ready = condition(status, 'Ready');
  if (status['phase'] === 'Running' && ready?.status === 'True') return CURRENT;
  const scheduled = condition(status, 'PodScheduled') as (Condition & { lastTransitionTime?: string }) | undefined;
  if (scheduled?.reason === 'Unschedulable' && now - Date.parse(scheduled.lastTransitionTime ?? '') > UNSCHEDULABLE_MS)
    return failed(said(scheduled, 'no node can run it'));
  return progressing(said(ready, 'it is not ready'));
}

function definition(_: unknown, status: Status): Health {
  const names = condition(status, 'NamesAccepted');
  if (names?.status === 'False') return failed(said(names, 'its names are already taken'));
  const established = condition(status, 'Established');
  if (established?.status === 'True') return CURRENT;
  if (established?.status === 'False' && established.reason !== 'Installing')
    return failed(said(established, 'it is not served'));
  return progressing('it is not served yet');
}

function condition({ conditions }: Status, type: string): Condition | undefined {
  return Array.isArray(conditions) ? conditions.find((c) => c?.type === type) : undefined;
}

function said(c: Condition | undefined, otherwise: string): string {
  return (c?.message || c?.reason || otherwise).slice(0, 300).toWellFormed();
}

function count(value: unknown, otherwise: number): number {
  return typeof value === 'number' ? value : otherwise;
}

function counts<const N extends readonly string[]>(status: Status, ...names: N): { [I in keyof N]: number } {
  return names.map((n) => count(status[n], 0)) as { [I in keyof N]: number };
}

function progressing(message: string): Health {
  return { state: 'progressing', message };
}

function failed(message: string): Health {
  return { state: 'failed', message };
}
