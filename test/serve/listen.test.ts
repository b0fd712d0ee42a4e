import assert from 'node:assert/strict';
import { createServer } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import { test } from 'node:test';
import { closeServer } from '../../src/serve/listen.ts';
import { makeCertificates } from '../../src/webhook/index.ts';
import { scratch } from '../kit/scratch.ts';

test('a server is closed although somebody connected and never spoke TLS, or waits for an answer', async () => {
  const identity = await makeCertificates(scratch(), '127.0.0.1', new Date());
  const server = createServer(identity, () => {}).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  const silent = connect(port, '127.0.0.1');
  await new Promise((resolve) => silent.once('connect', resolve));
  const closed = closeServer(server).then(() => 'closed');
  const late = new Promise((resolve) => setTimeout(resolve, 10_000, 'still open').unref());
  assert.equal(await Promise.race([closed, late]), 'closed');
  silent.destroy();
});
