import assert from 'node:assert/strict';
import { test } from 'node:test';
import { healthOf } from '../../src/cluster/health.ts';
import { healthExpressions } from '../../src/cluster/health-expressions.ts';
import type { KubernetesObject } from '../../src/model/index.ts';

const object = (kind: string, parts: { spec?: object; status?: object; metadata?: object } = {}): KubernetesObject => {
  const [apiVersion, name] = kind.includes(' ') ? (kind.split(' ') as [string, string]) : ['v1', kind];
  return { apiVersion, kind: name, ...parts, metadata: { name: 'x', generation: 2, ...parts.metadata } };
};
const replicas = (n: number, more: object = {}) => ({
  observedGeneration: 2,
  replicas: n,
  updatedReplicas: n,
  readyReplicas: n,
  availableReplicas: n,
  ...more,
});
const NOW = Date.parse('2026-11-21T00:00:00Z');

// Kind, parts, and what it is; the rules of kstatus, one line each.
const CASES: [string, string, Parameters<typeof object>[1], 'current' | 'progressing' | 'failed'][] = [
  ['nothing to say', 'ConfigMap', {}, 'current'],
  ['being deleted', 'ConfigMap', { metadata: { deletionTimestamp: 'x' } }, 'progressing'],
  ['not seen by its controller', 'example.test/v1 Widget', { status: { observedGeneration: 1 } }, 'progressing'],
  [
    'Reconciling',
    'example.test/v1 Widget',
    { status: { conditions: [{ type: 'Reconciling', status: 'True' }] } },
    'progressing',
  ],
  ['Stalled', 'example.test/v1 Widget', { status: { conditions: [{ type: 'Stalled', status: 'True' }] } }, 'failed'],
  [
    'Ready False is in progress, never failed',
    'example.test/v1 Widget',
    { status: { conditions: [{ type: 'Ready', status: 'False' }] } },
    'progressing',
  ],
  [
    'Ready Unknown',
    'example.test/v1 Widget',
    { status: { conditions: [{ type: 'Ready', status: 'Unknown' }] } },
    'progressing',
  ],
  ['Ready True', 'example.test/v1 Widget', { status: { conditions: [{ type: 'Ready', status: 'True' }] } }, 'current'],
  ['conditions of another shape', 'example.test/v1 Widget', { status: { conditions: 'none' } }, 'current'],
  ['a rollout that is done', 'apps/v1 Deployment', { spec: { replicas: 2 }, status: replicas(2) }, 'current'],
  ['no status yet', 'apps/v1 Deployment', { spec: { replicas: 2 } }, 'progressing'],
  ['no status yet, and no replicas asked for', 'apps/v1 Deployment', { spec: { replicas: 0 } }, 'progressing'],
  [
    'old replicas are there',
    'apps/v1 Deployment',
    { spec: { replicas: 2 }, status: replicas(2, { replicas: 3 }) },
    'progressing',
  ],
  [
    'not updated',
    'apps/v1 Deployment',
    { spec: { replicas: 2 }, status: replicas(2, { updatedReplicas: 1 }) },
    'progressing',
  ],
  [
    'not ready',
    'apps/v1 Deployment',
    { spec: { replicas: 2 }, status: replicas(2, { readyReplicas: 1 }) },
    'progressing',
  ],
  [
    'not available',
    'apps/v1 Deployment',
    { spec: { replicas: 2 }, status: replicas(2, { availableReplicas: 1 }) },
    'progressing',
  ],
  [
    'its deadline has passed',
    'apps/v1 Deployment',
    {
      spec: { replicas: 2 },
      status: { conditions: [{ type: 'Progressing', status: 'False', reason: 'ProgressDeadlineExceeded' }] },
    },
    'failed',
  ],
  [
    'not available, as it says',
    'apps/v1 Deployment',
    { spec: { replicas: 2 }, status: replicas(2, { conditions: [{ type: 'Available', status: 'False' }] }) },
    'progressing',
  ],
  [
    'a set that is done',
    'apps/v1 StatefulSet',
    { spec: { replicas: 2 }, status: replicas(2, { currentRevision: 'a', updateRevision: 'a' }) },
    'current',
  ],
  [
    'another revision',
    'apps/v1 StatefulSet',
    { spec: { replicas: 2 }, status: replicas(2, { currentRevision: 'a', updateRevision: 'b' }) },
    'progressing',
  ],
  [
    'updated by hand',
    'apps/v1 StatefulSet',
    { spec: { replicas: 2, updateStrategy: { type: 'OnDelete' } } },
    'current',
  ],
  [
    'a partition',
    'apps/v1 StatefulSet',
    {
      spec: { replicas: 3, updateStrategy: { rollingUpdate: { partition: 2 } } },
      status: replicas(3, { updatedReplicas: 1 }),
    },
    'current',
  ],
  [
    'a partition that is not done',
    'apps/v1 StatefulSet',
    {
      spec: { replicas: 3, updateStrategy: { rollingUpdate: { partition: 2 } } },
      status: replicas(3, { updatedReplicas: 0 }),
    },
    'progressing',
  ],
  [
    'on every node',
    'apps/v1 DaemonSet',
    {
      status: {
        observedGeneration: 2,
        desiredNumberScheduled: 2,
        currentNumberScheduled: 2,
        updatedNumberScheduled: 2,
        numberAvailable: 2,
        numberReady: 2,
      },
    },
    'current',
  ],
  [
    'on one of two',
    'apps/v1 DaemonSet',
    {
      status: {
        observedGeneration: 2,
        desiredNumberScheduled: 2,
        currentNumberScheduled: 2,
        updatedNumberScheduled: 1,
        numberAvailable: 2,
        numberReady: 2,
      },
    },
    'progressing',
  ],
  ['nobody saw it', 'apps/v1 DaemonSet', {}, 'progressing'],
  [
    'replicas',
    'apps/v1 ReplicaSet',
    { spec: { replicas: 1 }, status: { fullyLabeledReplicas: 1, availableReplicas: 1, readyReplicas: 1 } },
    'current',
  ],
  ['no replicas', 'apps/v1 ReplicaSet', { spec: { replicas: 1 }, status: {} }, 'progressing'],
  ['has not started', 'batch/v1 Job', {}, 'progressing'],
  ['has begun: done only when complete', 'batch/v1 Job', { status: { startTime: 'x', active: 1 } }, 'progressing'],
  ['complete', 'batch/v1 Job', { status: { conditions: [{ type: 'Complete', status: 'True' }] } }, 'current'],
  ['failed', 'batch/v1 Job', { status: { conditions: [{ type: 'Failed', status: 'True' }] } }, 'failed'],
  ['suspended on purpose', 'batch/v1 Job', { spec: { suspend: true } }, 'current'],
  ['runs', 'Pod', { status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] } }, 'current'],
  [
    'runs, not ready',
    'Pod',
    { status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'False' }] } },
    'progressing',
  ],
  ['ended well', 'Pod', { status: { phase: 'Succeeded' } }, 'current'],
  ['ended badly', 'Pod', { status: { phase: 'Failed' } }, 'failed'],
  [
    'crashes',
    'Pod',
    {
      status: {
        phase: 'Running',
        containerStatuses: [{ name: 'c', state: { waiting: { reason: 'CrashLoopBackOff' } } }],
      },
    },
    'failed',
  ],
  [
    'no node for a moment',
    'Pod',
    {
      status: {
        phase: 'Pending',
        conditions: [
          {
            type: 'PodScheduled',
            status: 'False',
            reason: 'Unschedulable',
            lastTransitionTime: '2026-11-20T23:59:50Z',
          },
        ],
      },
    },
    'progressing',
  ],
  [
    'no node',
    'Pod',
    {
      status: {
        phase: 'Pending',
        conditions: [
          {
            type: 'PodScheduled',
            status: 'False',
            reason: 'Unschedulable',
            lastTransitionTime: '2026-11-20T23:59:00Z',
          },
        ],
      },
    },
    'failed',
  ],
  ['bound', 'PersistentVolumeClaim', { status: { phase: 'Bound' } }, 'current'],
  ['not bound', 'PersistentVolumeClaim', { status: { phase: 'Pending' } }, 'progressing'],
  ['lost', 'PersistentVolumeClaim', { status: { phase: 'Lost' } }, 'failed'],
  ['going', 'Namespace', { status: { phase: 'Terminating' } }, 'progressing'],
  ['a balancer without address', 'Service', { spec: { type: 'LoadBalancer' } }, 'progressing'],
  ['an ordinary Service', 'Service', { spec: { type: 'ClusterIP' } }, 'current'],
  [
    'established',
    'apiextensions.k8s.io/v1 CustomResourceDefinition',
    { status: { conditions: [{ type: 'Established', status: 'True' }] } },
    'current',
  ],
  [
    'names taken',
    'apiextensions.k8s.io/v1 CustomResourceDefinition',
    { status: { conditions: [{ type: 'NamesAccepted', status: 'False' }] } },
    'failed',
  ],
  [
    'installing',
    'apiextensions.k8s.io/v1 CustomResourceDefinition',
    { status: { conditions: [{ type: 'Established', status: 'False', reason: 'Installing' }] } },
    'progressing',
  ],
  [
    'does not answer',
    'apiregistration.k8s.io/v1 APIService',
    { status: { conditions: [{ type: 'Available', status: 'False' }] } },
    'progressing',
  ],
];

for (const [what, kind, parts, expected] of CASES)
  test(`${kind.split(' ').at(-1)}: ${what}: ${expected}`, () => {
    const { state, message } = healthOf(object(kind, parts), NOW);
    assert.equal(state, expected, message);
    assert.equal(message === '', expected === 'current', 'whatever is not current says why');
  });

test('a kind of another group is not judged by the rules of one that bears its name', () => {
  assert.equal(healthOf(object('example.test/v1 Deployment', { spec: { replicas: 5 } })).state, 'current');
});

test('an expression that cannot be read is refused by name; one that cannot run on an object means "not yet"', () => {
  const base = { apiVersion: 'v1', kind: 'ConfigMap' };
  for (const current of ['object.', 'nothing(object)', '1 +', 'x == 1'])
    assert.throws(
      () => healthExpressions([{ ...base, current }]),
      /the health expression `.*` cannot be read/,
      current,
    );
  const rule = healthExpressions([{ ...base, current: 'object.status.count >= 3' }]);
  assert.deepEqual(rule?.(object('Secret')), undefined);
  assert.equal(rule?.(object('ConfigMap'))?.state, 'progressing');
  assert.equal(rule?.(object('ConfigMap', { status: { count: 3 } }))?.state, 'current');
  assert.equal(rule?.(object('ConfigMap', { status: { count: 2 } }))?.state, 'progressing');
});
