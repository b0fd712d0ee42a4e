import assert from 'node:assert/strict';
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { connect } from '../../src/cluster/index.ts';
import { generateCertificates } from '../../src/webhook/index.ts';
import { scratch } from '../kit/scratch.ts';

const directory = join(scratch(), 'kube');
mkdirSync(directory);
const proof = join(directory, 'proof');
const outside = join(directory, '..', 'key-of-the-service');
writeFileSync(outside, 'very-secret');
writeFileSync(join(directory, 'token'), 'a-token');
symlinkSync(outside, join(directory, 'link'));

type Parts = { readonly cluster?: object; readonly user?: object; readonly text?: string; readonly context?: string };
function kubeconfig({ cluster = {}, user = {}, text }: Parts): string {
  const file = join(directory, 'config');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'a',
    clusters: [{ name: 'a', cluster: { server: 'https://127.0.0.1:9', ...cluster } }],
    contexts: [{ name: 'a', context: { cluster: 'a', user: 'a' } }],
    users: [{ name: 'a', user }],
  };
  writeFileSync(file, text ?? JSON.stringify(config));
  return file;
}

const exec = {
  apiVersion: 'client.authentication.k8s.io/v1',
  command: '/bin/sh',
  args: ['-c', `id > ${proof}`],
  interactiveMode: 'Never',
};
const provider = (config: object) => ({ 'auth-provider': { name: 'gcp', config } });

test('the kubeconfig of a document holds static credentials and nothing that runs, fetches or reads elsewhere', async () => {
  const cases: readonly (readonly [Parts, RegExp])[] = [
    [{ user: { exec } }, /`exec` is not allowed/],
    [{ user: { exec, token: 'a' } }, /`exec` is not allowed/],
    [{ user: provider({ 'cmd-path': '/bin/sh', 'cmd-args': `-c id>${proof}` }) }, /`auth-provider` is not allowed/],
    [{ user: { token: 'a', as: 'system:admin' } }, /`as` is not allowed/],
    [{ user: { token: 'a', 'as-groups': ['system:masters'] } }, /`as-groups` is not allowed/],
    [{ user: { 'token-file': outside } }, /`token-file` is not allowed/],
    [{ user: { tokenFile: outside } }, /`tokenFile` is a file outside the kubeconfig's own directory/],
    [{ user: { tokenFile: '../key-of-the-service' } }, /`tokenFile` is a file outside/],
    [{ user: { tokenFile: 'link' } }, /`tokenFile` is a file outside/],
    [{ user: { tokenFile: '.' } }, /`tokenFile` is a file outside/],
    [{ user: { 'client-certificate': '/etc/hostname' } }, /`client-certificate` is a file outside/],
    [{ user: { 'client-key': '/etc/hostname' } }, /`client-key` is a file outside/],
    [{ user: { token: 'a\r\nx-other: b' } }, /`token` is not a single word/],
    [{ user: { token: ['a'] } }, /`token` is not text/],
    [{ cluster: { 'certificate-authority': '../key-of-the-service' } }, /`certificate-authority` is a file outside/],
    [{ cluster: { 'insecure-skip-tls-verify': true } }, /certificates are always verified/],
    [{ cluster: { 'insecure-skip-tls-verify': 'true' } }, /`insecure-skip-tls-verify` is not allowed/],
    [{ cluster: { 'proxy-url': 'http://127.0.0.1:9' } }, /`proxy-url` is not allowed/],
    [{ cluster: { 'tls-server-name': 'a:1' } }, /`tls-server-name` is not a host name/],
    [{ cluster: { server: 'http://127.0.0.1' } }, /`server` is not `https`/],
    [{ cluster: { server: 'https://user:password@127.0.0.1' } }, /it contains a user or a password/],
    [{ cluster: { server: 'https://127.0.0.1/?a=b' } }, /it has a query/],
    [{ cluster: { server: 'file:///etc' } }, /does not begin with `https:\/\/`/],
    [{ cluster: { server: ['https://127.0.0.1'] } }, /`server` is not text/],
    [{ context: 'other' }, /its `contexts` contain `other` not at all/],
    [{ text: 'a: 1\n---\nb: 2\n' }, /expected one document, found 2/],
    [{ text: '[]' }, /it is not a mapping/],
    [{ text: 'a'.repeat(1024 * 1024 + 1) }, /it is larger than 1 MiB/],
  ];
  for (const [parts, message] of cases) {
    const file = kubeconfig(parts);
    await assert.rejects(
      connect({ kubeconfig: file, context: parts.context, namedBy: 'document' }),
      (thrown: Error & { code: string }) => {
        assert.equal(thrown.code, 'config-invalid');
        assert.match(thrown.message, message);
        assert.doesNotMatch(thrown.message, /very-secret/);
        return true;
      },
    );
  }
  await assert.rejects(connect({ kubeconfig: directory, context: undefined, namedBy: 'document' }), {
    message: /not a regular file/,
  });
  assert.ok(!existsSync(proof), 'no program was started');
});

test('an address that says nothing of who named it is taken for a document’s', async () => {
  await assert.rejects(connect({ kubeconfig: kubeconfig({ user: { exec } }), context: undefined }), {
    message: /`exec` is not allowed/,
  });
});

test('a program of the operator’s own kubeconfig runs', async () => {
  await assert.rejects(
    connect({ kubeconfig: kubeconfig({ user: { exec } }), context: undefined, namedBy: 'operator' }),
  );
  assert.ok(existsSync(proof));
});

test('tokens, token files and passwords in the kubeconfig of a document reach the API server', async () => {
  const asked: (string | undefined)[] = [];
  const { ca, cert, key } = await generateCertificates('127.0.0.1', new Date());
  writeFileSync(join(directory, 'ca.crt'), ca);
  const server = createServer({ cert, key }, (request, response) => {
    asked.push(request.headers.authorization);
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ status: { userInfo: { username: 'somebody' } } }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  after(() => server.close());
  const cluster = {
    server: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    'insecure-skip-tls-verify': false,
  };
  await assert.rejects(
    connect({ kubeconfig: kubeconfig({ cluster, user: { token: 'a' } }), context: 'a', namedBy: 'document' }),
    {
      code: 'certificate-refused', // nobody vouches for its certificate
    },
  );
  Object.assign(cluster, { 'certificate-authority': 'ca.crt' });
  for (const user of [{ token: 'a-token' }, { tokenFile: 'token' }, { username: 'a', password: 'b' }]) {
    const { server: api, user: name } = await connect({
      kubeconfig: kubeconfig({ cluster, user }),
      context: 'a',
      namedBy: 'document',
    });
    assert.equal(name, 'somebody');
    api.close();
  }
  assert.deepEqual(asked, ['Bearer a-token', 'Bearer a-token', `Basic ${Buffer.from('a:b').toString('base64')}`]);
});
