import type { KubernetesObject, ObjectRef, TroubleSeen } from '../model/index.ts';
import { type Answer, apiPath } from './api-server.ts';

type Ask = (method: string, path: string) => Promise<Answer>;
type Fields = Readonly<Record<string, unknown>>;

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
  return list(fields(live?.['status'])['conditions']).map((one) => ({
    type: text(one['type']),
    status: text(one['status']),
    reason: text(one['reason']),
    message: text(one['message']),
  }));
}

// By the selector of what makes pods; a pod is its own.
async function podsOf(ref: ObjectRef, live: KubernetesObject, ask: Ask): Promise<readonly KubernetesObject[]> {
  if (ref.kind === 'Pod' && ref.apiVersion === 'v1') return [live];
  const labels = Object.entries(fields(fields(fields(live['spec'])['selector'])['matchLabels']));
  if (labels.length === 0 || ref.namespace === '') return [];
  const selector = encodeURIComponent(labels.map(([key, value]) => `${key}=${String(value)}`).join(','));
  const path = `${apiPath('v1', ref.namespace)}/pods?labelSelector=${selector}&limit=${PODS}`;
  const answer = await ask('GET', path).catch(() => undefined);
  return answer?.status === 200 ? (list(answer.body['items']) as unknown as KubernetesObject[]) : [];
}

function containersOf(pod: KubernetesObject): TroubleSeen['containers'] {
  const status = fields(pod['status']);
  const unscheduled = list(status['conditions']).find((c) => c['type'] === 'PodScheduled' && c['status'] === 'False');
  if (unscheduled !== undefined)
    return [
      {
        pod: pod.metadata.name,
        container: '*',
        state: 'unscheduled',
        reason: text(unscheduled['reason']),
        message: text(unscheduled['message']),
        restarts: 0,
      },
    ];
  return [...list(status['initContainerStatuses']), ...list(status['containerStatuses'])]
    .filter((c) => c['ready'] !== true)
    .map((c) => {
      const [kind = 'waiting', detail] = Object.entries(fields(c['state']))[0] ?? [];
      const last = fields(fields(c['lastState'])['terminated']);
      const of = fields(detail);
      const exitCode = of['exitCode'] ?? last['exitCode'];
      return {
        pod: pod.metadata.name,
        container: text(c['name']),
        state: kind === 'terminated' || kind === 'running' ? kind : ('waiting' as const),
        reason: text(of['reason']),
        // The message of a container that ended may be the last lines of its log.
        message: kind === 'waiting' ? text(of['message']) : '',
        restarts: typeof c['restartCount'] === 'number' ? c['restartCount'] : 0,
        ...(typeof exitCode === 'number' ? { exitCode } : {}),
      };
    });
}

async function warnings(ref: ObjectRef, about: ReadonlySet<string>, ask: Ask): Promise<TroubleSeen['events']> {
  const namespace = ref.namespace === '' ? 'default' : ref.namespace;
  const path = `${apiPath('v1', namespace)}/events?fieldSelector=${encodeURIComponent('type=Warning')}&limit=500`;
  const answer = await ask('GET', path).catch(() => undefined);
  if (answer?.status !== 200) return [];
  return list(answer.body['items'])
    .filter((event) => about.has(text(fields(event['involvedObject'])['name'])))
    .map((event) => {
      const { kind, name } = fields(event['involvedObject']);
      const reason = text(event['reason']);
      return {
        about: `${text(kind)} ${text(name)}`,
        reason,
        message: TELLING.has(reason) ? text(event['message']) : '',
        count: typeof event['count'] === 'number' ? event['count'] : 1,
        last: text(event['lastTimestamp'] ?? event['eventTime']),
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

function fields(value: unknown): Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : {};
}

function list(value: unknown): readonly Fields[] {
  return Array.isArray(value) ? value.map(fields) : [];
}

function text(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, TEXT).toWellFormed() : '';
}
