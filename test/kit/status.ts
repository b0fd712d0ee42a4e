import type { ApiServer } from '../../src/cluster/index.ts';
import { until } from './service.ts';

/**
 * Reports a Deployment as a controller would after a rollout; `ready` of its replicas are. Waits for it to be there, as
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
