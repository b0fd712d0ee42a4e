import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ApiServer } from '../../src/cluster/api-server.ts';
import type { ClusterAddress } from '../../src/cluster/cluster-address.ts';
import { openCredentials } from '../../src/cluster/credentials.ts';
import { scratch } from '../kit/scratch.ts';

// Credentials that a thread reads and that are kept until the files they are in change.
const directory = scratch();
const heard: (string | undefined)[] = [];
const listener = createServer((request, response) => {
  heard.push(request.headers.authorization);
  response.end('{}');
});
await new Promise<void>((done) => listener.listen(0, '127.0.0.1', done));
after(() => listener.close());
const url = `http://127.0.0.1:${(listener.address() as AddressInfo).port}`;

const kubeconfig = (name: string, user: object): ClusterAddress => {
  const file = join(directory, name);
  writeFileSync(
    file,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'c', cluster: { server: url, 'insecure-skip-tls-verify': true } }],
      users: [{ name: 'u', user }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      'current-context': 'x',
    }),
  );
  return { kubeconfig: file, context: undefined, namedBy: 'operator' };
};

async function authorization(address: ClusterAddress, aside: boolean): Promise<string | undefined> {
  const server = new ApiServer(await openCredentials(address, { aside }));
  heard.length = 0;
  await server.request('GET', '/version');
  server.close();
  return heard[0];
}

test('read in a thread, credentials are the same', async () => {
  for (const user of [{ token: 'abc' }, { username: 'ann', password: 'secret' }, {}])
    assert.equal(
      await authorization(kubeconfig('same', user), true),
      await authorization(kubeconfig('same', user), false),
    );
  assert.equal(await authorization(kubeconfig('same', { token: 'abc' }), true), 'Bearer abc');
});

test('a token that is rotated in its file is used from then on', async () => {
  const tokenFile = join(directory, 'token');
  writeFileSync(tokenFile, 'first');
  const address = kubeconfig('rotated', { 'auth-provider': { name: 'tokenFile', config: { tokenFile } } });
  const credentials = await openCredentials(address, { aside: true });
  const token = async () => ((await credentials.read()).headers as Record<string, string>)['Authorization'];
  const before = await credentials.read();
  assert.equal(await token(), 'Bearer first');
  assert.equal(await credentials.read(), before, 'the same file is not read again');
  writeFileSync(tokenFile, 'the second one');
  assert.equal(await token(), 'Bearer the second one');
});

test('a kubeconfig that runs a program is renewed by running it', async () => {
  const count = join(directory, 'count');
  const program = join(directory, 'program.sh');
  writeFileSync(
    program,
    `#!/bin/sh\necho x >> ${count}\nprintf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"of-program"}}'\n`,
    { mode: 0o755 },
  );
  const exec = {
    ...{ apiVersion: 'client.authentication.k8s.io/v1', command: program, interactiveMode: 'Never' },
  };
  assert.equal(await authorization(kubeconfig('program', { exec }), true), 'Bearer of-program');
  assert.equal(readFileSync(count, 'utf8'), 'x\n', 'it ran once');
});

test('a kubeconfig that cannot be used is refused in the same words', async () => {
  const address: ClusterAddress = { ...kubeconfig('bad', {}), context: 'other' };
  const problem = (aside: boolean) =>
    openCredentials(address, { aside }).then(
      () => assert.fail('it was accepted'),
      (thrown: { code: string; message: string; hint?: string }) => [thrown.code, thrown.message, thrown.hint],
    );
  const [code, message] = await problem(true);
  assert.equal(code, 'config-invalid');
  assert.match(message ?? '', /it has no context `other`/);
  assert.deepEqual(await problem(true), await problem(false));
});

test('however many requests come while a token is rotated, one thread reads it', async () => {
  const tokenFile = join(directory, 'shared-token');
  writeFileSync(tokenFile, 'first');
  const address = kubeconfig('shared', { 'auth-provider': { name: 'tokenFile', config: { tokenFile } } });
  const credentials = await openCredentials(address, { aside: true });
  writeFileSync(tokenFile, 'the second one');
  const all = await Promise.all(Array.from({ length: 50 }, () => credentials.read()));
  assert.equal(new Set(all).size, 1, 'the same answer for all');
  const [one = {}] = all;
  assert.equal((one.headers as Record<string, string>)['Authorization'], 'Bearer the second one');
});

test('credentials of another context or cluster are not sent to the first one', async () => {
  const tokenFile = join(directory, 'context-token');
  writeFileSync(tokenFile, 'first');
  const user = { 'auth-provider': { name: 'tokenFile', config: { tokenFile } } };
  const address = kubeconfig('contexts', user);
  const credentials = await openCredentials(address, { aside: true });
  const file = address.kubeconfig ?? '';
  const whole = JSON.parse(readFileSync(file, 'utf8'));
  whole.contexts.push({ name: 'dev', context: { cluster: 'dev', user: 'dev' } });
  whole.clusters.push({ name: 'dev', cluster: { server: 'https://dev.example' } });
  whole.users.push({ name: 'dev', user: { token: 'DEV' } });
  writeFileSync(file, JSON.stringify({ ...whole, 'current-context': 'dev' }));
  writeFileSync(tokenFile, 'rotated');
  const options = await credentials.read();
  assert.equal((options.headers as Record<string, string>)['Authorization'], 'Bearer rotated');
  whole.clusters[0].cluster.server = 'https://elsewhere.example';
  writeFileSync(file, JSON.stringify(whole));
  writeFileSync(tokenFile, 'rotated again');
  await assert.rejects(credentials.read(), /names a different API server now/);
});
