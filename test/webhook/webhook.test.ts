import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createWebhook, makeCertificates } from '../../src/webhook/index.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const log = { error: () => {}, debug: () => {} };
let url = '';
let ca = '';
let close = () => {};

before(async () => {
  const certificates = await makeCertificates(directory, '127.0.0.1', new Date());
  ca = certificates.ca;
  const broken = () => {
    throw new Error('the ledger is gone');
  };
  const app = createWebhook(
    (namespace) => (namespace === 'shop' ? (new Proxy({}, { get: broken }) as never) : undefined),
    () => true,
    log,
  );
  const server = createServer({ ...certificates, minVersion: 'TLSv1.3' }, app).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  close = () => {
    server.close();
    server.closeAllConnections();
  };
});
after(() => close());

function post(body: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(`${url}/validate`, { method: 'POST', ca, agent: false }, (response) => {
      let text = '';
      response.on('data', (d) => (text += d));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const review = (namespace: string) =>
  JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'u-1',
      operation: 'UPDATE',
      namespace,
      name: 'a',
      kind: { group: '', version: 'v1', kind: 'ConfigMap' },
      userInfo: { username: 'dev', groups: [] },
      object: { metadata: { name: 'a' } },
    },
  });

test('a namespace nobody governs is let through', async () => {
  const { status, text } = await post(review('other'));
  assert.deepEqual([status, JSON.parse(text).response], [200, { uid: 'u-1', allowed: true }]);
});

test('whatever goes wrong while deciding is a no with its reason', async () => {
  const { response } = JSON.parse((await post(review('shop'))).text) as { response: { allowed: boolean; status: { message: string } } };
  assert.equal(response.allowed, false);
  assert.match(response.status.message, /could not decide: the ledger is gone/);
});

for (const [what, body, status] of [
  ['no JSON', '{', 400],
  ['no review', '{}', 400],
  ['a review of another version', review('shop').replace('k8s.io/v1', 'k8s.io/v1beta1'), 400],
  ['a review without a user', review('shop').replace('username', 'nobody'), 400],
  ['an empty body', '', 400],
  ['a body of 9 MiB', JSON.stringify({ x: 'x'.repeat(9 * 1024 * 1024) }), 413],
] as const) {
  test(`${what} is answered with ${status}, never with a yes`, async () => {
    const answer = await post(body).catch(() => ({ status: 413, text: '' })); // a reset while the body is still being sent
    assert.equal(answer.status, status);
    assert.doesNotMatch(answer.text, /"allowed":true/);
  });
}

test('the certificate is kept, made anew for another host or near its end, and its key is private', async () => {
  const cert = readFileSync(join(directory, 'tls.crt'), 'utf8');
  assert.equal((await makeCertificates(directory, '127.0.0.1', new Date())).cert, cert);
  assert.equal(statSync(join(directory, 'tls.key')).mode & 0o777, 0o600);
  const later = await makeCertificates(directory, '127.0.0.1', new Date(Date.now() + 340 * 86_400_000));
  assert.notEqual(later.cert, cert);
  const other = await makeCertificates(directory, 'gate.countersign.svc', new Date());
  assert.match(new X509Certificate(other.cert).subjectAltName ?? '', /DNS:gate\.countersign\.svc/);
  assert.ok(new X509Certificate(other.cert).checkIssued(new X509Certificate(other.ca)));
});
