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
const LIMITS = { total: 60, silentPerSource: 20 };
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

test('connections that say nothing hold no more than their source may, and every request is answered', async () => {
  for (let round = 0; round < 5; round++) {
    await Promise.all(Array.from({ length: 60 }, () => silent()));
    assert.equal(await ask(), 'ok');
  }
  await until(
    async () => (await count()) <= LIMITS.silentPerSource,
    30_000,
    () => 'those beyond it are ended',
  );
});

test('from many sources they hold no more than the total, and every request is answered', async () => {
  for (let round = 0; round < 5; round++) {
    await Promise.all(Array.from({ length: 15 }, (_, i) => Promise.all(Array.from({ length: 15 }, () => silent(`127.0.1.${i + 1}`)))));
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
  for (let round = 0; round < 3; round++) await Promise.all(Array.from({ length: 50 }, (_, i) => secured(`127.0.2.${i + 1}`)));
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
