import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, beforeEach, test } from 'node:test';
import { CountersignError } from '../../src/model/index.ts';
import { downloadFile, type PullOptions, pullImage, type Refuse } from '../../src/registry/index.ts';

const sha = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const LAYER = Buffer.from('a layer');
const MANIFEST = Buffer.from(JSON.stringify({ layers: [{ mediaType: 'a', digest: sha(LAYER) }] }));
const BASIC = `Basic ${Buffer.from('u:p').toString('base64')}`;
const refuse: Refuse = (why, more = {}) =>
  new CountersignError('render-failed', why, more.hint === undefined ? {} : { hint: more.hint });

type Handler = (request: IncomingMessage, response: ServerResponse) => void;
let asked: string[] = [];
beforeEach(() => {
  asked = [];
});

/** A server whose requests are noted with its name and the credentials they brought. */
async function serve(name: string, answer: Handler): Promise<string> {
  const server = createServer((request, response) => {
    asked.push(`${name} ${request.url?.split('?')[0]} ${request.headers.authorization ?? '-'}`);
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  after(() => server.close());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const blobs = await serve('storage', (request, response) =>
  response.end(request.url?.includes(sha(LAYER)) === true ? LAYER : ''),
);
const tokens = await serve('tokens', (_, response) => response.end(JSON.stringify({ token: 'good' })));
let realm = `http://${tokens}/token`;
const registry = await serve('registry', (request, response) => {
  if (request.headers.authorization !== 'Bearer good' && request.headers.authorization !== BASIC)
    return void response.writeHead(401, { 'www-authenticate': `Bearer realm="${realm}",service="r"` }).end();
  if (request.url?.includes('/manifests/') === true) return void response.end(MANIFEST);
  response.writeHead(307, { location: `http://${blobs}/files/${sha(LAYER)}?signature=a%2Fb` }).end();
});
const reference = `${registry}/team/chart@${sha(MANIFEST)}`;

async function pull(options: PullOptions, of = reference): Promise<Buffer> {
  const { layers, layer } = await pullImage(of, { credentials: 'u:p', ...options }, refuse);
  return layer(layers[0] as (typeof layers)[number]);
}

test('files and tokens come from hosts that were named; credentials go to the token service and not to the storage', async () => {
  realm = `http://${tokens}/token`;
  assert.deepEqual(await pull({ leadsTo: [tokens, blobs] }), LAYER);
  assert.deepEqual(
    asked.map((a) => a.replaceAll(/sha256:\w+/g, '…')),
    [
      'registry /v2/team/chart/manifests/… -',
      `tokens /token ${BASIC}`,
      'registry /v2/team/chart/manifests/… Bearer good',
      'registry /v2/team/chart/blobs/… Bearer good',
      'storage /files/… -',
    ],
  );
});

test('a token service on another host is not asked, and no credentials go there', async () => {
  realm = `http://${tokens}/token`;
  await assert.rejects(pull({ leadsTo: [blobs] }), {
    message: 'the token service of the registry is on a host that is not allowed',
    hint: 'add that host as `leadsTo` (for Docker Hub: `auth.docker.io`)',
  });
  assert.ok(!asked.some((a) => a.startsWith('tokens')));
  for (const bad of [
    'file:///etc/passwd',
    'javascript:1',
    `http://u:p@${tokens}/`,
    'http://[::1',
    '/token',
    'http://tokens.example.test/',
  ]) {
    realm = bad;
    await assert.rejects(
      pull({ leadsTo: [blobs, tokens] }),
      { message: /^the token service of the registry (is not a valid address|does not use TLS)$/ },
      bad,
    );
  }
});

test('storage on another host is not asked', async () => {
  realm = `http://${tokens}/token`;
  await assert.rejects(pull({ leadsTo: [tokens] }), {
    message: `${registry} redirects to a host that is not allowed`,
    hint: 'add the hosts it may redirect to as `leadsTo`',
  });
  assert.ok(!asked.some((a) => a.startsWith('storage')));
});

test('a web server with a chart leads nowhere that was not named, and keeps its credentials', async () => {
  const web = await serve(
    'web',
    (_, response) => void response.writeHead(302, { location: `http://${blobs}/${sha(LAYER)}` }).end(),
  );
  await assert.rejects(downloadFile(`http://${web}/a.tgz`, sha(LAYER), { credentials: 'u:p' }, refuse), {
    message: `${web} redirects to a host that is not allowed`,
  });
  assert.deepEqual(
    await downloadFile(`http://${web}/a.tgz`, sha(LAYER), { credentials: 'u:p', leadsTo: [blobs] }, refuse),
    LAYER,
  );
  assert.deepEqual(asked.at(-1), `storage /${sha(LAYER)} -`);
  for (const url of [
    'http://charts.example.test/a.tgz',
    `http://u:p@${web}/`,
    `http://${web}/../a`,
    `http://${web}/a#b`,
    'file:///etc/passwd',
  ])
    await assert.rejects(downloadFile(url, sha(LAYER), {}, refuse), { code: 'render-failed' }, url);
});

test('a manifest names layers by digest and by nothing else', async () => {
  for (const layers of [[{ digest: '../../secret' }], [{ digest: 'sha256:short' }], [null], 'text', [{}]]) {
    const manifest = Buffer.from(JSON.stringify({ layers }));
    const other = await serve('other', (_, response) => response.end(manifest));
    await assert.rejects(pull({}, `${other}/a@${sha(manifest)}`), { message: /^its manifest has / });
  }
  for (const bad of ['a/../b', 'a//b', 'A/b', 'a/b?x', 'a/.', '-a/b'])
    await assert.rejects(
      pull({}, `${registry}/${bad}@${sha(MANIFEST)}`),
      { message: 'its name is not a repository name' },
      bad,
    );
  await assert.rejects(pull({}, `${registry}/a:1.0`), { message: 'it is not pinned by digest' });
});
