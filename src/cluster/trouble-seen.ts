import type { KubernetesObject, ObjectRef, TroubleSeen } from '../model/index.ts';
import { type Answer, apiPath } from './api-server.ts';
import { isRecord, listAt, textAt } from './read-answer.ts';

type Ask = (method: string, path: string) => Promise<Answer>;

const CONDITIONS = 10;
const PODS = 20;
const CONTAINERS = 10;
const EVENTS = 10;
const TEXT = 300;

/**
 * Reads why an object is not healthy: its conditions, the containers of its pods, and warnings about them. A part that
 * cannot be read is left out: this explains a failure and must not be one.
 */
export async function troubleSeen(ref: ObjectRef, live: KubernetesObject | undefined, ask: Ask): Promise<TroubleSeen> {
  const pods = live === undefined ? [] : await podsOf(ref, live, ask);
  const about = [ref.name, ...pods.map((pod) => pod.metadata.name)];
  return {
    ref,
    conditions: conditionsOf(live).slice(0, CONDITIONS),
    containers: pods.flatMap(containersOf).slice(0, CONTAINERS),
    events: await warnings(ref, new Set(about), ask),
  };
}

function conditionsOf(live: KubernetesObject | undefined): TroubleSeen['conditions'] {
  return listAt(live, 'status', 'conditions').map((one) => ({
    type: text(one, 'type'),
    status: text(one, 'status'),
    reason: text(one, 'reason'),
    message: text(one, 'message'),
  }));
}

// By the selector of what makes pods; a pod is its own.
async function podsOf(ref: ObjectRef, live: KubernetesObject, ask: Ask): Promise<readonly KubernetesObject[]> {
  if (ref.kind === 'Pod' && ref.apiVersion === 'v1') return [live];
  const { matchLabels } = ((live['spec'] ?? {}) as { selector?: { matchLabels?: object } }).selector ?? {};
  const labels = Object.entries(matchLabels ?? {});
  if (labels.length === 0 || ref.namespace === '') return [];
  const selector = encodeURIComponent(labels.map(([key, value]) => `${key}=${String(value)}`).join(','));
  const path = `${apiPath('v1', ref.namespace)}/pods?labelSelector=${selector}&limit=${PODS}`;
  const answer = await ask('GET', path).catch(() => undefined);
  const pods = answer?.status === 200 ? listAt(answer.body, 'items') : [];
  return pods.filter((pod) => textAt(pod, 'metadata', 'name') !== undefined) as KubernetesObject[];
}

function containersOf(pod: KubernetesObject): TroubleSeen['containers'] {
  const { name } = pod.metadata;
  const unscheduled = listAt(pod, 'status', 'conditions').find(
    (c) => text(c, 'type') === 'PodScheduled' && text(c, 'status') === 'False',
  );
  if (unscheduled !== undefined) {
    const why = { reason: text(unscheduled, 'reason'), message: text(unscheduled, 'message') };
    return [{ pod: name, container: '*', state: 'unscheduled', ...why, restarts: 0 }];
  }
  return [...listAt(pod, 'status', 'initContainerStatuses'), ...listAt(pod, 'status', 'containerStatuses')]
    .filter(isRecord)
    .filter((c) => c['ready'] !== true)
    .map((c) => {
      const { terminated, running } = isRecord(c['state']) ? c['state'] : {};
      const state = terminated !== undefined ? 'terminated' : running !== undefined ? 'running' : 'waiting';
      const exitCode =
        numberAt(c, 'state', 'terminated', 'exitCode') ?? numberAt(c, 'lastState', 'terminated', 'exitCode');
      return {
        pod: name,
        container: text(c, 'name'),
        state,
        reason: text(c, 'state', state, 'reason'),
        // The message of a container that ended may be the last lines of its log.
        message: state === 'waiting' ? text(c, 'state', 'waiting', 'message') : '',
        restarts: numberAt(c, 'restartCount') ?? 0,
        ...(exitCode === undefined ? {} : { exitCode }),
      };
    });
}

async function warnings(ref: ObjectRef, about: ReadonlySet<string>, ask: Ask): Promise<TroubleSeen['events']> {
  const namespace = ref.namespace === '' ? 'default' : ref.namespace;
  const path = `${apiPath('v1', namespace)}/events?fieldSelector=${encodeURIComponent('type=Warning')}&limit=500`;
  const answer = await ask('GET', path).catch(() => undefined);
  if (answer?.status !== 200) return [];
  return listAt(answer.body, 'items')
    .filter((event) => about.has(text(event, 'involvedObject', 'name')))
    .map((event) => {
      const reason = text(event, 'reason');
      return {
        about: `${text(event, 'involvedObject', 'kind')} ${text(event, 'involvedObject', 'name')}`,
        reason,
        message: TELLING.has(reason) ? text(event, 'message') : '',
        count: numberAt(event, 'count') ?? 1,
        last: text(event, 'lastTimestamp') || text(event, 'eventTime'),
      };
    })
    .sort((a, b) => (a.last < b.last ? 1 : a.last > b.last ? -1 : 0))
    .slice(0, EVENTS);
}

// Events of the control plane whose message has no output of a container, as those of probes and hooks have.
const TELLING: ReadonlySet<string> = new Set([
  'FailedScheduling',
  'FailedCreate',
  'FailedMount',
  'FailedAttachVolume',
  'FailedBinding',
  'ProvisioningFailed',
  'FailedCreatePodSandBox',
  'Failed',
  'BackOff',
  'InspectFailed',
  'ErrImageNeverPull',
]);

// A cut may leave half a character, which the ledger does not take.
function text(body: unknown, ...path: readonly string[]): string {
  return (textAt(body, ...path) ?? '').slice(0, TEXT).toWellFormed();
}

function numberAt(body: unknown, ...path: readonly string[]): number | undefined {
  const value = path.reduce<unknown>((at, key) => (isRecord(at) ? at[key] : undefined), body);
  return typeof value === 'number' ? value : undefined;
}
