import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { after, test } from 'node:test';
import { httpAddress } from '../../src/model/index.ts';
import { askServer, type Question, remoteCode } from '../../src/outgoing/index.ts';

// Each limit and refusal alone, against a server that keeps to all the others.
const LIMITS = { bytes: 1000, quietMs: 300, totalMs: 1000 };
const closing: (() => void)[] = [];
after(() => closing.forEach((close) => void close()));

async function serving(answer: RequestListener) {
  const open = new Set<Socket>();
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    answer(request, response);
  });
  server.on('connection', (socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closing.push(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  const ask = (question: Question = {}, limits = LIMITS, path = '/') =>
    askServer(httpAddress(`http://127.0.0.1:${port}${path}`), question, limits);
  return { ask, requests, open, host: `127.0.0.1:${port}` };
}

const refused = (message: RegExp) => ({ code: 'forge-refused', message });
const away = (message: RegExp) => ({ code: 'forge-unreachable', recover: 'retry', message });

test('an answer is whole: status, headers and bytes, and what was sent is what was asked', async () => {
  const { ask, requests, host } = await serving((request, response) => request.pipe(response.setHeader('x-a', 'b')));
  const { status, headers, body } = await ask({ method: 'POST', body: 'text', headers: { 'x-c': 'd' } }, LIMITS, '/a');
  assert.deepEqual([status, headers['x-a'], body.toString()], [200, 'b', 'text']);
  const [{ method, url, headers: sent } = {} as IncomingMessage] = requests;
  assert.deepEqual(
    [method, url, sent.host, sent['x-c'], sent['accept-encoding'], sent['content-length']],
    ['POST', '/a', host, 'd', 'identity', '4'],
  );
});

test('an answer may have as many bytes as were allowed, and not one more', async () => {
  const { ask } = await serving((_, response) => void response.end('x'.repeat(1000)));
  assert.equal((await ask()).body.length, 1000);
  await assert.rejects(ask({}, { ...LIMITS, bytes: 999 }), refused(/answers with more than 999 bytes/));
});

test('a refusal is cut where it is long, and is still a refusal', async () => {
  const { ask } = await serving((_, response) => {
    response.writeHead(403);
    for (let i = 0; i < 100; i++) response.write('x'.repeat(1000));
  });
  const { status, body } = await ask({}, { ...LIMITS, bytes: 1_000_000 });
  assert.deepEqual([status, body.length <= 16 * 1024], [403, true]);
});

test('a server that is quiet for too long, or slow on the whole, is left', async () => {
  const { ask: quiet } = await serving(() => {});
  const begun = performance.now();
  await assert.rejects(quiet({}, { ...LIMITS, totalMs: 60_000 }), away(/no answer within 0\.3 s/));
  assert.ok(performance.now() - begun < 10_000);
  const { ask: slow, open } = await serving((_, response) => {
    response.write('x');
    const timer = setInterval(() => response.write('x'), 50);
    response.on('close', () => clearInterval(timer));
  });
  await assert.rejects(slow(), away(/no answer within 1 s/));
  for (let i = 0; i < 100 && open.size > 0; i++) await new Promise((done) => setTimeout(done, 20));
  assert.equal(open.size, 0, 'it goes on sending to nobody');
});

test('an answer that breaks off is none', async () => {
  const { ask } = await serving((_, response) => {
    response.writeHead(200, { 'content-length': '100' });
    response.write('half', () => response.destroy());
  });
  await assert.rejects(ask(), away(/./));
});

test('an encoding that was not asked for is refused; of a refusal, its body is not read', async () => {
  const { ask } = await serving((request, response) => {
    response.writeHead(request.url === '/no' ? 403 : 200, { 'content-encoding': 'gzip' });
    response.end('bytes');
  });
  await assert.rejects(ask(), refused(/encoding/));
  const { status, body } = await ask({}, LIMITS, '/no');
  assert.deepEqual([status, body.length], [403, 0]);
});

test('whoever asks may stop, before and while it waits', async () => {
  const { ask, requests } = await serving(() => {});
  const patient = { ...LIMITS, quietMs: 60_000, totalMs: 60_000 };
  await assert.rejects(ask({ signal: AbortSignal.abort() }, patient), away(/it was cancelled/));
  assert.equal(requests.length, 0);
  await assert.rejects(ask({ signal: AbortSignal.timeout(50) }, patient), away(/it was cancelled/));
});

test('a header that is no header is the document’s fault', async () => {
  const { ask, requests } = await serving((_, response) => void response.end());
  await assert.rejects(ask({ headers: { authorization: 'a\nb' } }), { code: 'config-invalid' });
  assert.equal(requests.length, 0);
});

test('a redirect is followed to hosts that were named, without credentials, three times at most', async () => {
  const to = await serving((_, response) => void response.end('there'));
  const leading = (location: string | undefined) =>
    serving((request, response: ServerResponse) => {
      if (request.url === '/here') return void response.end('here');
      response
        .writeHead(
          302,
          location === undefined ? {} : { location: location.replace('SELF', request.headers.host ?? '') },
        )
        .end();
    });
  const headers = { authorization: 'secret', 'x-a': 'b' };
  const { ask } = await leading(`http://${to.host}/`);
  await assert.rejects(ask({ headers }), away(/redirects elsewhere, which is not allowed/));
  await assert.rejects(ask({ headers, leadsTo: ['example.com'] }), refused(/a host that is not allowed/));
  assert.equal(to.requests.length, 0);
  assert.equal((await ask({ headers, leadsTo: [to.host] })).body.toString(), 'there');
  assert.deepEqual([to.requests[0]?.headers.authorization, to.requests[0]?.headers['x-a']], [undefined, 'b']);
  assert.equal((await (await leading('/here')).ask({ leadsTo: [] })).body.toString(), 'here');
  await assert.rejects((await leading('/again')).ask({ leadsTo: [] }), refused(/more than 3 times/));
  for (const location of [
    undefined,
    'file:///etc/passwd',
    `http://u:p@${to.host}/`,
    'http://[',
    `http://${to.host}/a#b`,
  ])
    await assert.rejects((await leading(location)).ask({ leadsTo: [to.host] }), refused(/an invalid address/));
  await assert.rejects(
    (await leading('http://example.com/')).ask({ leadsTo: ['example.com'] }),
    refused(/without TLS/),
  );
});

test('a code is repeated where it has the form of one', () => {
  assert.equal(remoteCode('AccessDenied'), 'AccessDenied');
  for (const text of ['', 'two words', 'a'.repeat(65), '1a', 'a\n', 7, undefined])
    assert.equal(remoteCode(text), undefined);
});
