import type { ApiServer } from '../../src/cluster/index.ts';
import { running } from './nodes.ts';
import { until } from './service.ts';

type Pod = Parameters<typeof running>[0] & {
  readonly metadata: { readonly name: string };
  readonly status: { readonly phase?: string };
};

/** Has the held pods of an app be ready, as their node would say it; waits until they are there. */
export async function podsReady(node: ApiServer, namespace: string, app: string, count = 2): Promise<void> {
  const path = `/api/v1/namespaces/${namespace}/pods`;
  let all: readonly Pod[] = [];
  const isRunning = ({ status }: Pod) => status.phase === 'Running';
  await until(
    async () => {
      const { body } = await node.request('GET', `${path}?labelSelector=app=${app}`);
      all = body['items'] as readonly Pod[];
      return all.filter(isRunning).length >= count;
    },
    60_000,
    async () =>
      `of ${count} pods of ${namespace}/${app} there are ${JSON.stringify(all)}; ${await setsOf(node, namespace)}`,
  );
  const pods = all.filter(isRunning);
  for (const pod of pods) {
    const type = 'application/strategic-merge-patch+json';
    const status = running(pod, true, '10.10.1.1');
    const answer = await node.request('PATCH', `${path}/${pod.metadata.name}/status`, { status }, type);
    if (answer.status !== 200) throw new Error(`a pod cannot be ready: ${JSON.stringify(answer.body)}`);
  }
}

// What the controller manager says of the ReplicaSets: why it cannot make their pods.
async function setsOf(node: ApiServer, namespace: string): Promise<string> {
  const { body } = await node.request('GET', `/apis/apps/v1/namespaces/${namespace}/replicasets`);
  return JSON.stringify((body['items'] as readonly { readonly status: object }[] | undefined)?.map((s) => s.status));
}

/**
 * For a cluster without controllers: reports a Deployment as they would after a rollout; `ready` of its replicas are. Waits for it to be there, as
 * one would.
 */
export async function deploymentStatus(
  server: ApiServer,
  namespace: string,
  name: string,
  ready: 'all' | 'none' | 'deadline',
): Promise<void> {
  const path = `/apis/apps/v1/namespaces/${namespace}/deployments/${name}`;
  let body: Record<string, unknown> = {};
  await until(
    async () => {
      const answer = await server.request('GET', path);
      body = answer.body;
      return answer.status === 200;
    },
    15_000,
    () => `there is no Deployment ${namespace}/${name}`,
  );
  const { generation } = body['metadata'] as { generation: number };
  const { replicas } = body['spec'] as { replicas: number };
  const n = ready === 'all' ? replicas : 0;
  const status = {
    observedGeneration: generation,
    replicas,
    updatedReplicas: replicas,
    readyReplicas: n,
    availableReplicas: n,
    conditions: [
      { type: 'Available', status: ready === 'all' ? 'True' : 'False' },
      ready === 'deadline'
        ? {
            type: 'Progressing',
            status: 'False',
            reason: 'ProgressDeadlineExceeded',
            message: 'ReplicaSet "web-1" has timed out progressing.',
          }
        : {
            type: 'Progressing',
            status: 'True',
            reason: ready === 'all' ? 'NewReplicaSetAvailable' : 'ReplicaSetUpdated',
          },
    ],
  };
  const answer = await server.request('PATCH', `${path}/status`, { status }, 'application/merge-patch+json');
  if (answer.status !== 200) throw new Error(`the status of ${name} cannot be set: ${JSON.stringify(answer.body)}`);
}
