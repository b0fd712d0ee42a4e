import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../../src/cluster/index.ts';
import { LiveView } from '../../src/cluster/live-view.ts';
import { startApiProxy } from '../kit/api-proxy.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

const CONFIG_MAPS = { apiVersion: 'v1', kind: 'ConfigMap', plural: 'configmaps', namespaced: true };
const stage = await openStage(scratch());

test('what a watch that says nothing kept to itself is found by reading all again (Argo CD 8175)', async () => {
  const proxy = await startApiProxy(stage.controlPlane, 'admin');
  const { server } = await connect({ kubeconfig: proxy.kubeconfig, context: undefined });
  const view = new LiveView(server, { warn: () => {} }, { fullReadMs: 1000, watchSeconds: 1 });
  try {
    const made = { metadata: { name: 'seen', labels: { 'countersign.dev/environment': 'e' } }, data: { k: '1' } };
    await stage.admin.request('POST', '/api/v1/namespaces/default/configmaps', made);
    proxy.fault = (asked) => (asked.watch ? 'mute' : 'pass');
    const told: string[] = [];
    view.listen('e', (ref) => told.push(ref.name));
    await view.watch(CONFIG_MAPS, []);
    const ref = { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'default', name: 'seen' };
    const before = view.get(ref)?.digest;
    const lists = view.lists;
    assert.ok(before !== undefined && view.connected);
    await stage.admin.request('DELETE', '/api/v1/namespaces/default/configmaps/seen');
    await stage.waitFor(async () => view.get(ref) === undefined, 'the full read');
    assert.ok(view.lists > lists && told.includes('seen'));
  } finally {
    view.close();
    server.close();
    await proxy.stop();
  }
});
