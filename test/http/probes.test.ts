import assert from 'node:assert/strict';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { createServiceApp, Metrics } from '../../src/http/index.ts';

const metrics = new Metrics(() => ({
  environments: [],
  entries: 0,
  connected: true,
  backlog: 17,
  isAvailable: true,
  sequences: false,
  clockOffsetSeconds: 0,
  clockBehindLedgerSeconds: 0,
}));
const app = createServiceApp({
  notReady: () => undefined,
  ledger: () => 'ledger: 17 records wait; another sequences',
  metrics,
  receivers: [],
  names: ['gate.example.test'],
  log: { info: () => {}, warn: () => {} },
});
const server = createServer(app);
before(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
after(() => server.close());

function ask(path: string, host: string, method = 'GET'): Promise<{ status: number; text: string }> {
  const { port } = server.address() as AddressInfo;
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, method, headers: { host } }, (response) => {
      let text = '';
      response.on('data', (chunk) => (text += chunk));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    sent.on('error', reject);
    sent.end();
  });
}

test('metrics are asked by an IP address, by localhost, or by a name that was given', async () => {
  for (const host of [
    '127.0.0.1',
    '10.1.2.3:8080',
    '[::1]:8080',
    '[fd00::7]',
    'localhost',
    'LOCALHOST:80',
    'gate.example.test:8080',
  ])
    assert.equal((await ask('/metrics', host)).status, 200, host);
  for (const host of [
    'evil.example',
    'evil.example:8080',
    '127.0.0.1.evil.example',
    'gate.example.test.evil.example',
    'localhost.evil.example',
    '2130706433',
    '0x7f.1',
    '[::1',
    '127.0.0.1@evil.example',
    '127.0.0.1:99999',
  ]) {
    const { status, text } = await ask('/metrics', host);
    assert.equal(status, 421, host);
    assert.match(text, /^metrics do not answer to this host name/);
  }
});

test('probes are answered by any name: a kubelet may be told one', async () => {
  assert.equal((await ask('/healthz', 'anything.example')).status, 200);
  assert.equal((await ask('/readyz', 'anything.example')).status, 200);
});

test('a path that cannot be decoded is the caller’s fault', async () => {
  for (const path of ['/receive/%E0%A4%A', '/receive/%', '/receive/%ff']) {
    const { status, text } = await ask(path, '127.0.0.1', 'POST');
    assert.deepEqual([status, text], [400, 'the request cannot be read\n'], path);
  }
  assert.equal((await ask('/receive/nobody', '127.0.0.1', 'POST')).status, 404);
});

test('the backlog of the ledger and who sequences are in the metrics and in the readiness', async () => {
  const { text } = await ask('/metrics', 'localhost');
  for (const line of ['backlog 17', 'available 1', 'sequences 0'])
    assert.match(text, new RegExp(`^countersign_ledger_${line}$`, 'm'));
  assert.equal((await ask('/readyz', 'localhost')).text, 'ok\nledger: 17 records wait; another sequences\n');
});
