import assert from 'node:assert/strict';
import { Agent, request, type Server } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { after, before, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import express from 'express';
import { makeCertificates, webhookServer } from '../../src/webhook/index.ts';
import { scratch } from '../kit/scratch.ts';
import { until } from '../kit/service.ts';

// Nobody who only opens connections takes the place of the API server.
const LIMITS = { total: 60, perSource: 40, answerMs: 3000 };
const opened: Socket[] = [];
let server: Server;
let port = 0;
let ca = '';
let release: (() => void) | undefined;

before(async () => {
  const certificates = await makeCertificates(scratch(), '127.0.0.1', new Date());
  ca = certificates.ca;
  const app = express();
  app.post('/slow', express.json(), async (_, response) => {
    await new Promise<void>((done) => {
      release = done;
    });
    response.send('slow');
  });
  app.post('/', express.json(), (_, response) => void response.send('ok'));
  server = webhookServer(app, { ...certificates, clientCa: undefined }, LIMITS).listen(0, '127.0.0.1');
  await new Promise((done) => server.once('listening', done));
  port = (server.address() as AddressInfo).port;
});
after(() => {
  server.close();
  server.closeAllConnections();
  for (const socket of opened) socket.destroy();
});

const count = () => new Promise<number>((done) => server.getConnections((_, n) => done(n)));

/** A connection that says nothing, from one of the machine's own addresses. */
function silent(localAddress = '127.0.0.1'): Promise<Socket> {
  return track(connect({ host: '127.0.0.1', port, localAddress }), 'connect');
}

/** One that agrees on TLS and asks nothing. */
function secured(localAddress: string): Promise<Socket> {
  return track(connectTls({ host: '127.0.0.1', port, ca, localAddress } as never), 'secureConnect');
}

function track(socket: Socket, event: string): Promise<Socket> {
  opened.push(socket);
  socket.on('error', () => {});
  socket.resume();
  return new Promise((done) => {
    socket.once(event, () => done(socket));
    socket.once('close', () => done(socket));
  });
}

function ask(agent: Agent | false = false, path = '/'): Promise<string> {
  return new Promise((done, fail) => {
    const asked = request(
      { host: '127.0.0.1', port, ca, agent, path, method: 'POST', headers: { 'content-type': 'application/json' } },
      (r) => {
        let text = '';
        r.on('data', (d) => (text += d));
        r.on('end', () => done(text));
      },
    );
    asked.on('error', fail);
    asked.end('{}');
  });
}

test('connections that say nothing are no more than their source may have, and every request is answered', async () => {
  for (let round = 0; round < 5; round++) {
    await Promise.all(Array.from({ length: 60 }, () => silent()));
    assert.equal(await ask(), 'ok');
  }
  await until(
    async () => (await count()) <= LIMITS.perSource,
    30_000,
    () => 'those beyond it are ended',
  );
});

test('from many sources they are no more than the total, and every request is answered', async () => {
  for (let round = 0; round < 5; round++) {
    await Promise.all(
      Array.from({ length: 15 }, (_, i) => Promise.all(Array.from({ length: 15 }, () => silent(`127.0.1.${i + 1}`)))),
    );
    assert.equal(await ask(), 'ok');
  }
  await until(
    async () => (await count()) <= LIMITS.total,
    30_000,
    () => 'those beyond it are ended',
  );
});

test('a connection that was answered outlives those that never asked, also over TLS; one being answered outlives all', async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  assert.equal(await ask(agent), 'ok');
  const slow = ask(false, '/slow');
  await until(
    () => release !== undefined,
    30_000,
    () => 'it is being answered',
  );
  const kept = Object.values(agent.freeSockets)[0]?.[0];
  for (let round = 0; round < 3; round++)
    await Promise.all(Array.from({ length: 50 }, (_, i) => secured(`127.0.2.${i + 1}`)));
  assert.equal(await ask(agent), 'ok');
  assert.equal(Object.values(agent.freeSockets)[0]?.[0], kept, 'over the same connection');
  release?.();
  assert.equal(await slow, 'slow');
  agent.destroy();
});

test('a handshake that is not begun ends after five seconds, not after two minutes', async () => {
  const socket = await silent();
  const begun = performance.now();
  await new Promise((done) => socket.once('close', done));
  assert.ok(performance.now() - begun < 30_000);
});

/** One that asked something cheap, was answered, and stays. */
async function answered(localAddress: string): Promise<Socket> {
  const socket = await secured(localAddress);
  socket.write('POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}');
  await new Promise((done) => {
    socket.once('data', done);
    socket.once('close', done);
  });
  return socket;
}

test('connections that were answered and stay do not keep a newcomer out, of one source or of many', async () => {
  const held = await Promise.all(
    Array.from({ length: 80 }, (_, i) => answered(i % 2 === 0 ? '127.0.3.1' : `127.0.3.${i + 1}`)),
  );
  for (let i = 0; i < 5; i++) assert.equal(await ask(), 'ok');
  // And beside a stream of newcomers that say nothing.
  const flood = setInterval(() => void silent('127.0.3.1'), 2);
  try {
    for (let i = 0; i < 5; i++) assert.equal(await ask(), 'ok');
  } finally {
    clearInterval(flood);
  }
  for (const socket of held) socket.destroy();
});

test('a client that does not read its answer is ended, and its place is free', async () => {
  const stuck = await secured('127.0.4.1');
  stuck.write('POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}');
  await new Promise((done) => stuck.once('close', done));
});

test('a request that is sent before the last one was answered ends the connection', async () => {
  const socket = await secured('127.0.5.1');
  const one = 'POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}';
  const begun = performance.now();
  socket.write(one + one);
  await new Promise((done) => socket.once('close', done));
  assert.ok(performance.now() - begun < LIMITS.answerMs, 'at once, not when the answer is late');
});
