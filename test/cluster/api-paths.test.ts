import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { KubeConfig } from '@kubernetes/client-node';
import { apiPath } from '../../src/cluster/api-server.ts';
import { credentialsOf } from '../../src/cluster/credentials.ts';
import { ApiServer } from '../../src/cluster/index.ts';

// Names and versions in paths are other people's words: they stay the part of the path that they were put into.
const asked: string[] = [];
let server: Server;
let api: ApiServer;

before(async () => {
  server = createServer((request, response) => {
    asked.push(request.url ?? '');
    response.setHeader('content-type', 'application/json').end('{}');
  }).listen(0, '127.0.0.1');
  await new Promise((done) => server.once('listening', done));
  const config = new KubeConfig();
  config.loadFromOptions({
    clusters: [
      { name: 'c', server: `http://127.0.0.1:${(server.address() as AddressInfo).port}/k8s/`, skipTLSVerify: true },
    ],
    users: [{ name: 'u', token: 'a' }],
    contexts: [{ name: 'x', cluster: 'c', user: 'u' }],
    currentContext: 'x',
  });
  api = new ApiServer(credentialsOf(config));
});
after(() => {
  api.close();
  server.close();
});

for (const path of [
  '/api/v1/namespaces/../secrets',
  '/api/v1/namespaces/%2e%2E/secrets',
  '/api/v1/namespaces/./secrets',
  '/api/v1/namespaces/a#/secrets',
  '/api/v1/namespaces/a\\b/secrets',
  '/api/v1/namespaces/a\tb/secrets',
])
  test(`\`${JSON.stringify(path)}\` is not asked for`, async () => {
    await assert.rejects(api.request('GET', path), {
      code: 'cluster-refused',
      message: /is not a path of the API server/,
    });
    assert.deepEqual(asked, []);
  });

test('a version is a part of the path, and nothing else', async () => {
  assert.equal(apiPath('apps/v1?x=', 'shop'), '/apis/apps/v1%3Fx%3D/namespaces/shop');
  assert.equal(apiPath('v1#', ''), '/api/v1%23');
  await assert.rejects(api.request('GET', apiPath('../v1', 'shop')), { code: 'cluster-refused' });
});

test('what Kubernetes itself allows in names is asked for as it is', async () => {
  const name = encodeURIComponent("system:node:a.b~c'(1)");
  await api.request('GET', `/apis/rbac.authorization.k8s.io/v1/clusterroles/${name}?fieldManager=a&x=%20`);
  assert.deepEqual(asked, [`/k8s/apis/rbac.authorization.k8s.io/v1/clusterroles/${name}?fieldManager=a&x=%20`]);
});
