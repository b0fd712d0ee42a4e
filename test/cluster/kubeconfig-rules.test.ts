import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { documentKubeconfig } from '../../src/cluster/kubeconfig.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
mkdirSync(join(directory, 'folder'));
const file = join(directory, 'config');
const cluster = { server: 'https://127.0.0.1:9' };

function read(more: object, clusterMore: object = {}, user: unknown = {}) {
  const config = {
    'current-context': 'a',
    clusters: [{ name: 'a', cluster: { ...cluster, ...clusterMore } }],
    contexts: [{ name: 'a', context: { cluster: 'a', user: 'a' } }],
    users: [{ name: 'a', user }],
    ...more,
  };
  writeFileSync(file, JSON.stringify(config));
  return documentKubeconfig(file, undefined);
}

test('each part of a document’s kubeconfig is there and of its form, or named', () => {
  assert.equal(read({}).getCurrentCluster()?.server, cluster.server);
  for (const [run, message] of [
    [() => read({ 'current-context': '' }), /it has no current context/],
    [() => read({ 'current-context': 7 }), /it has no current context/],
    [() => read({}, { server: '' }), /`server` is missing/],
    [() => read({}, { server: null }), /`server` is missing/],
    [() => read({}, { 'certificate-authority-data': 'not base64!' }), /is not base64/],
    [() => read({}, { 'certificate-authority': 'folder' }), /is not a regular file/],
    [() => read({}, {}, 'text'), /`user` is not a mapping/],
    [() => read({}, {}, null), /`user` is not a mapping/],
  ] as const)
    assert.throws(run, { code: 'config-invalid', message });
});
