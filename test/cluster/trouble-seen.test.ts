import assert from 'node:assert/strict';
import { test } from 'node:test';
import { troubleSeen } from '../../src/cluster/trouble-seen.ts';
import { canonicalJson, type KubernetesObject, sayTrouble } from '../../src/model/index.ts';

const ref = { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'shop', name: 'web' };
const live = {
  ...{ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', namespace: 'shop' } },
  spec: { selector: { matchLabels: { app: 'web' } } },
  status: { conditions: [{ type: 'Available', status: 'False', reason: 'Few', message: 'too few' }] },
} as KubernetesObject;
const pod = (statuses: readonly object[]) => ({
  metadata: { name: 'web-1', namespace: 'shop' },
  status: { containerStatuses: statuses },
});
const event = (reason: string, message: string, name = 'web-1', lastTimestamp = '2030-01-01T00:00:00Z') => ({
  ...{ reason, message, lastTimestamp, count: 2 },
  involvedObject: { kind: 'Pod', name },
});
const seen = (pods: unknown, events: unknown) =>
  troubleSeen(ref, live, async (_, path) => ({
    status: 200,
    body: { items: path.includes('/pods?') ? pods : events } as Record<string, unknown>,
    warnings: [],
    retryAfter: undefined,
  }));

test('conditions, containers that are not ready, and warnings about them are seen, the newest first', async () => {
  const waiting = { name: 'app', ready: false, restartCount: 3, state: { waiting: { reason: 'CrashLoopBackOff' } } };
  const ended = { name: 'side', ready: false, state: { terminated: { reason: 'Error', exitCode: 2, message: 'pw' } } };
  const good = { name: 'good', ready: true, state: { running: {} } };
  const { conditions, containers, events } = await seen(
    [pod([waiting, ended, good])],
    [
      event('BackOff', 'restarting', 'web-1', '2030-01-01T00:00:00Z'),
      event('FailedMount', 'no such secret', 'web', '2030-01-02T00:00:00Z'),
      event('FailedMount', 'of another', 'other'),
    ],
  );
  assert.deepEqual(conditions, [{ type: 'Available', status: 'False', reason: 'Few', message: 'too few' }]);
  assert.deepEqual(containers, [
    { pod: 'web-1', container: 'app', state: 'waiting', reason: 'CrashLoopBackOff', message: '', restarts: 3 },
    { pod: 'web-1', container: 'side', state: 'terminated', reason: 'Error', message: '', restarts: 0, exitCode: 2 },
  ]);
  assert.deepEqual(
    events.map((e) => e.message),
    ['no such secret', 'restarting'],
  );
});

test('output of containers is never kept: not of probes, not of hooks, not of kinds that are new', async () => {
  const { events } = await seen(
    [pod([])],
    ['Unhealthy', 'ProbeWarning', 'FailedPostStartHook', 'Unheard'].map((reason) => event(reason, 'password=1')),
  );
  assert.equal(events.length, 4);
  assert.ok(!JSON.stringify(events).includes('password'));
  assert.equal(sayTrouble({ ref, conditions: [], containers: [], events: events.slice(0, 1) }), 'Pod web-1: Unhealthy');
});

test('a text that is cut inside a character can be recorded', async () => {
  const message = `${'a'.repeat(299)}😀`;
  const trouble = await seen([pod([])], [event('BackOff', message)]);
  assert.doesNotThrow(() => canonicalJson(trouble as never));
  assert.equal(trouble.events[0]?.message.length, 300);
});

test('an answer that is not one, or does not come, takes only its part away', async () => {
  for (const items of [null, 1, [null, 1, 'x', []], [{ status: 1 }], [{ involvedObject: { name: 'web' } }]])
    assert.equal((await seen(items, items)).conditions.length, 1);
  const nothing = await troubleSeen(ref, undefined, () => Promise.reject(new Error('away')));
  assert.deepEqual(nothing, { ref, conditions: [], containers: [], events: [] });
});
