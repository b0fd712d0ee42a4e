import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../../src/cluster/index.ts';
import { KindFollow } from '../../src/cluster/kind-follow.ts';
import { LiveView } from '../../src/cluster/live-view.ts';
import type { KubernetesObject } from '../../src/model/index.ts';
import { startApiProxy } from '../kit/api-proxy.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

const CONFIG_MAPS = { apiVersion: 'v1', kind: 'ConfigMap', plural: 'configmaps', namespaced: true };
const stage = await openStage(scratch());

test('what a watch that says nothing kept to itself is found by reading all again (Argo CD 8175)', async () => {
  const proxy = await startApiProxy(stage.controlPlane, 'admin');
  const { server } = await connect({ kubeconfig: proxy.kubeconfig, context: undefined, namedBy: 'operator' });
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

test('where only the metadata of objects is followed, what they hold never comes', async () => {
  const ended = new AbortController();
  const seen = new Map<string, KubernetesObject>();
  const sink = {
    put: (object: KubernetesObject) => void seen.set(object.metadata.name, object),
    drop: (place: string) => void seen.delete(place.slice('default/'.length)),
    places: () => [...seen.keys()].map((name) => `default/${name}`),
    listed: () => {},
  };
  const secrets = { apiVersion: 'v1', kind: 'Secret', plural: 'secrets', namespaced: true };
  const of = { namespace: 'default', labelSelector: '', metadataOnly: true };
  const secret = (name: string) => ({
    metadata: { name, labels: { a: 'b' } },
    stringData: { password: 'correct horse' },
  });
  const path = '/api/v1/namespaces/default/secrets';
  await stage.admin.request('POST', path, secret('listed'));
  const times = { fullReadMs: 60_000, watchSeconds: 60 };
  await new KindFollow(stage.admin, secrets, of, times, ended.signal, { warn: () => {} }, sink).begin();
  await stage.admin.request('POST', path, secret('watched'));
  await stage.waitFor(async () => seen.size === 2, 'both');
  for (const object of seen.values()) {
    assert.equal(object['data'], undefined);
    assert.deepEqual(object.metadata['labels'], { a: 'b' });
  }
  await stage.admin.request('DELETE', `${path}/watched`);
  await stage.waitFor(async () => seen.size === 1, 'its end');
  ended.abort();
});

test('what is told late of an object that was deleted says nothing of the next one with its name', async () => {
  const { server } = await connect({
    kubeconfig: stage.controlPlane.kubeconfig('admin'),
    context: undefined,
    namedBy: 'operator',
  });
  const view = new LiveView(server, { warn: () => {} });
  const path = '/api/v1/namespaces/default/configmaps';
  const named = (name: string) => ({ apiVersion: 'v1', kind: 'ConfigMap', namespace: 'default', name });
  const labels = { 'countersign.dev/environment': 'late' };
  try {
    await stage.admin.request('POST', path, { metadata: { name: 'late', labels } });
    await view.watch(CONFIG_MAPS, []);
    const { metadata, ...old } = (await stage.get(`${path}/late`)).body as unknown as KubernetesObject;
    const next = {
      ...old,
      metadata: { ...metadata, uid: 'next', resourceVersion: '999999999999' },
    } as KubernetesObject;
    view.put(named('late'), next, 'the digest of the next one');
    await stage.admin.request('PATCH', `${path}/late`, { data: { a: '1' } }, 'application/merge-patch+json');
    await stage.admin.request('DELETE', `${path}/late`);
    await stage.admin.request('POST', path, { metadata: { name: 'later', labels } });
    await stage.waitFor(async () => view.get(named('later')) !== undefined, 'what came after the removal');
    assert.equal(view.get(named('late'))?.uid, 'next');
  } finally {
    await stage.admin.request('DELETE', `${path}/later`);
    view.close();
    server.close();
  }
});
