import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { connect } from 'node:tls';
import type { AdmissionDecision, AdmissionRequest, AdmissionScopes } from '../../src/gate/index.ts';
import { sharedCertificate } from '../../src/serve/shared-certificate.ts';
import {
  CertificateKeeper,
  type Certificates,
  CurrentScopes,
  createWebhook,
  Demand,
  fromFiles,
  makeCertificates,
  webhookServer,
} from '../../src/webhook/index.ts';
import { scratch } from '../kit/scratch.ts';
import { until } from '../kit/service.ts';

const directory = scratch();
const scopes = new CurrentScopes();
const log = { error: () => {}, debug: () => {} };
let url = '';
let ca = '';
let close = () => {};
const refused: string[] = [];
let end = () => {};
const over = new Promise<void>((done) => {
  end = done;
});

before(async () => {
  const certificates = await makeCertificates(directory, '127.0.0.1', new Date());
  ca = certificates.ca;
  // It says yes, so that a no comes from the code under test. What is slow is decided only once the tests are over.
  const decide = async (request: AdmissionRequest): Promise<AdmissionDecision> => {
    if (request.ref.name === 'broken') throw new Error('the ledger is gone');
    if (request.ref.name === 'slow') await over;
    if (request.ref.name === 'late') await new Promise((done) => setTimeout(done, 800));
    return { allowed: true, message: '', warnings: [], notes: {} };
  };
  scopes.set({
    find: ({ ref }: AdmissionRequest) =>
      ref.namespace === 'other'
        ? undefined
        : {
            environment: ref.namespace,
            enforces: ref.namespace === 'shop',
            decide,
            refused: (request: AdmissionRequest) => void refused.push(request.uid),
          },
  } as AdmissionScopes);
  const app = createWebhook(scopes, { log, deadline: 30_000, atOnce: 20, bodies: 16 * 1024 * 1024 });
  app.use('/impatient', createWebhook(scopes, { log, deadline: 500, atOnce: 20 }));
  const server = createServer({ ...certificates, minVersion: 'TLSv1.3' }, app).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  close = () => {
    server.close();
    server.closeAllConnections();
  };
});
after(() => {
  end();
  close();
});

function post(body: string, path = '/validate'): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(120_000); // an answer that never comes fails the test
    const sent = request(`${url}${path}`, { method: 'POST', ca, agent: false, signal }, (response) => {
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

test('a request that the gate allows is let through', async () => {
  const { response } = JSON.parse((await post(review('shop'))).text) as { response: { allowed: boolean } };
  assert.equal(response.allowed, true);
});

test('whatever goes wrong while deciding is a no with its reason', async () => {
  const { response } = JSON.parse((await post(review('shop').replace('"name":"a"', '"name":"broken"'))).text) as {
    response: { allowed: boolean; status: { message: string } };
  };
  assert.equal(response.allowed, false);
  assert.match(response.status.message, /could not decide: the ledger is gone/);
});

for (const [what, body, status] of [
  ['no JSON', '{', 400],
  ['no review', '{}', 400],
  ['a review of another version', review('shop').replace('k8s.io/v1', 'k8s.io/v1beta1'), 400],
  ['a review without a uid', review('shop').replace('"uid"', '"id"'), 400],
  ['a list', '[]', 400],
  ['null', 'null', 400],
  ['JSON that is nested 200,000 deep', `${'['.repeat(200_000)}${']'.repeat(200_000)}`, 400],
  ['an empty body', '', 400],
  ['a body of 9 MiB', JSON.stringify({ x: 'x'.repeat(9 * 1024 * 1024) }), 413],
] as const) {
  test(`${what} is answered with ${status}, never with a yes`, async () => {
    // a reset while the body is still being sent
    const answer = await post(body).catch(() => ({ status: 413, text: '' }));
    assert.equal(answer.status, status);
    assert.doesNotMatch(answer.text, /"allowed":true/);
  });
}

for (const [what, from, to] of [
  ['without a user', 'username', 'nobody'],
  ['of an operation that there is not', 'UPDATE', 'PATCH'],
  ['without a kind', '"kind":{"group":"","version":"v1","kind":"ConfigMap"}', '"kind":7'],
] as const) {
  test(`a review ${what} is refused in the protocol’s own form`, async () => {
    const { status, text } = await post(review('shop').replace(from, to));
    const { response } = JSON.parse(text) as {
      response: { uid: string; allowed: boolean; status: { message: string } };
    };
    assert.deepEqual([status, response.uid, response.allowed], [200, 'u-1', false]);
    assert.match(response.status.message, /cannot read this request/);
  });
}

test('what takes too long, or comes in a flood, is refused for now, with when to ask again; where nothing is enforced it passes', async () => {
  const slow = (namespace: string) => review(namespace).replace('"name":"a"', '"name":"slow"');
  type Response = {
    allowed: boolean;
    status?: { code: number; message: string; details: { retryAfterSeconds: number } };
  };
  const ask = async (body: string) =>
    (JSON.parse((await post(body, '/impatient/validate')).text) as { response: Response }).response;
  const late = await ask(slow('shop'));
  assert.deepEqual([late.allowed, late.status?.code, late.status?.details.retryAfterSeconds], [false, 429, 1]);
  assert.equal((await ask(slow('watched'))).allowed, true);
  const flood = await Promise.all(Array.from({ length: 60 }, () => ask(slow('shop'))));
  assert.ok(flood.every((r) => !r.allowed && r.status?.code === 429));
  assert.ok(flood.some((r) => /too many concurrent requests/.test(r.status?.message ?? '')));
  assert.equal((await ask(review('other'))).allowed, true, 'and it goes on');
});

test('the gate is told of what it allows after the request was refused for that', async () => {
  const late = (uid: string, namespace: string) =>
    post(review(namespace).replace('"name":"a"', '"name":"late"').replace('u-1', uid), '/impatient/validate');
  const answers = await Promise.all([late('late', 'shop'), late('watched', 'watched')]);
  const allowed = answers.map(({ text }) => (JSON.parse(text) as { response: { allowed: boolean } }).response.allowed);
  assert.deepEqual(allowed, [false, true]);
  await post(review('shop'), '/impatient/validate');
  await until(
    async () => refused.length > 0,
    10_000,
    () => 'it was not told',
  );
  assert.deepEqual(refused, ['late'], 'not of what was in time, nor of what was let through');
});

test('the gate is told of what it allows after the caller was gone', async () => {
  refused.splice(0);
  const sent = request(`${url}/validate`, { method: 'POST', ca, agent: false });
  sent.on('error', () => {});
  sent.end(review('shop').replace('"name":"a"', '"name":"late"').replace('u-1', 'gone'));
  await new Promise((done) => setTimeout(done, 300));
  sent.destroy();
  await until(
    async () => refused.length > 0,
    10_000,
    () => 'it was not told',
  );
  await post(review('shop'));
  assert.deepEqual(refused, ['gone'], 'once, and not of what was heard');
});

/**
 * A request that announces eight megabytes and sends so many bytes of them; resolves once it has ended, however that
 * is.
 */
function unfinished(bytes: number): { readonly destroy: () => void; readonly ended: Promise<void> } {
  const headers = { 'content-length': 8 * 1024 * 1024 };
  const sent = request(`${url}/validate`, { method: 'POST', ca, agent: false, headers });
  const ended = new Promise<void>((done) => {
    sent.on('response', (response) => response.resume());
    sent.on('close', () => done());
    sent.on('error', () => done());
  });
  sent.write(Buffer.alloc(bytes, 0x20));
  return { destroy: () => sent.destroy(), ended };
}

test('bodies that are announced and do not come take nobody’s place', async () => {
  const held = Array.from({ length: 40 }, () => unfinished(1));
  assert.equal((await post(review('other'))).status, 200);
  for (const { destroy } of held) destroy();
  await Promise.all(held.map((h) => h.ended));
});

test('bodies that come slowly and together fill what there is are ended, oldest first, and what follows is answered', async () => {
  const held: ReturnType<typeof unfinished>[] = [];
  for (let i = 0; i < 12; i++) held.push(unfinished(2 * 1024 * 1024)); // 24 MiB, where 16 are kept
  let over = 0;
  for (const { ended } of held) void ended.then(() => over++);
  await until(
    () => over >= 4,
    30_000,
    () => `${over} were ended`,
  );
  assert.ok(over < 12, 'those that came last are still coming');
  const large = review('shop').replace('"object":{', `"object":{"data":{"x":"${'x'.repeat(3 * 1024 * 1024)}"},`);
  assert.equal((await post(large)).status, 200);
  for (const { destroy } of held) destroy();
  await Promise.all(held.map((h) => h.ended));
});

test('an object of three megabytes is decided like any other', async () => {
  const large = review('shop').replace('"object":{', `"object":{"data":{"x":"${'x'.repeat(3 * 1024 * 1024)}"},`);
  const { status, text } = await post(large);
  assert.deepEqual(
    [status, (JSON.parse(text) as { response: { uid: string; allowed: boolean } }).response.uid],
    [200, 'u-1'],
  );
});

test('where an authority is named, a client with its certificate is answered and another is not', async () => {
  const at = scratch();
  await makeCertificates(at, '127.0.0.1', new Date());
  const args = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-subj',
    '/CN=kube-apiserver',
    '-days',
    '2',
  ];
  execFileSync(
    'openssl',
    ['req', '-x509', ...args, '-keyout', join(at, 'client.key'), '-out', join(at, 'client.crt')],
    {
      stdio: 'ignore',
    },
  );
  const read = (name: string) => readFileSync(join(at, name), 'utf8');
  const identity = { cert: read('tls.crt'), key: read('tls.key'), clientCa: read('client.crt') };
  const server = webhookServer(createWebhook(scopes, { log }), identity);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  const ask = (identity: object) =>
    new Promise<number>((done) => {
      const sent = request(
        { host: '127.0.0.1', port, path: '/validate', method: 'POST', ca: read('ca.crt'), agent: false, ...identity },
        (response) => {
          response.resume();
          done(response.statusCode ?? 0);
        },
      );
      sent.on('error', () => done(0));
      sent.end(review('other'));
    });
  assert.deepEqual([await ask({ cert: read('client.crt'), key: read('client.key') }), await ask({})], [200, 0]);
  server.close();
  server.closeAllConnections();
});

test('a client that sends nothing, or too slowly, is let go of', async () => {
  const other = scratch();
  const { cert, key } = await makeCertificates(other, '127.0.0.1', new Date());
  const server = webhookServer(createWebhook(scopes, { log }), { cert, key, clientCa: undefined });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  const ended = new Promise<number>((done, fail) => {
    const at = performance.now();
    const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false }, () =>
      socket.write('POST /validate HTTP/1.1\r\nhost: x\r\n'),
    );
    socket.on('close', () => done(performance.now() - at));
    socket.on('error', fail);
    socket.resume();
  });
  assert.ok((await ended) < 120_000);
  server.close();
  server.closeAllConnections();
});

test('requests that come while nothing decides wait for who will', async () => {
  const others = await (scopes.get() as AdmissionScopes);
  scopes.set(undefined);
  const waiting = post(review('other'));
  await new Promise((done) => setTimeout(done, 200));
  scopes.set(others);
  assert.equal((JSON.parse((await waiting).text) as { response: { allowed: boolean } }).response.allowed, true);
  scopes.set(undefined);
  const impatient = await post(review('other'), '/impatient/validate');
  const late = JSON.parse(impatient.text) as { response: { allowed: boolean } };
  assert.equal(late.response.allowed, false, 'for a while');
  scopes.set(others);
});

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

test('a certificate that was made while the clock was ahead is made again, also by another replica, and files of one are refused', async () => {
  const DAY = 86_400_000;
  const at = join(directory, 'ahead');
  const now = Date.now();
  const ahead = await makeCertificates(at, '127.0.0.1', new Date(now + 3 * DAY));
  const right = await makeCertificates(at, '127.0.0.1', new Date(now));
  assert.notEqual(right.cert, ahead.cert);
  assert.ok(new X509Certificate(right.cert).validFromDate.getTime() <= now);
  assert.equal((await makeCertificates(at, '127.0.0.1', new Date(now))).cert, right.cert, 'then it is kept');
  assert.equal((await makeCertificates(at, '127.0.0.1', new Date(now - DAY / 2))).cert, right.cert);
  const files = join(directory, 'future');
  mkdirSync(files);
  for (const [name, text] of [
    ['tls.crt', ahead.cert],
    ['tls.key', ahead.key],
    ['ca.crt', ahead.ca],
  ] as const)
    writeFileSync(join(files, name), text);
  await assert.rejects(fromFiles(files, '127.0.0.1')(new Date(now)), {
    code: 'config-invalid',
    message: /it is not valid before/,
  });
});

test('the shared certificate is judged by the API server’s clock: one that it does not accept yet is made again, once', async () => {
  const DAY = 86_400_000;
  let [stored, writes]: [Record<string, unknown> | undefined, number] = [undefined, 0];
  const serverOf = (now: Date) => ({
    now: () => now,
    request: async (method: string, _: string, body?: unknown) => {
      if (method === 'GET') return stored === undefined ? { status: 404, body: {} } : { status: 200, body: stored };
      writes++;
      stored = body as Record<string, unknown>;
      return { status: 200, body: stored };
    },
  });
  const now = Date.now();
  const source = (time: number) =>
    sharedCertificate(serverOf(new Date(time)) as never, 'countersign', 'tls', '127.0.0.1');
  await source(now + 3 * DAY)(new Date(now + 3 * DAY));
  const made = await source(now)(new Date(now + 3 * DAY));
  assert.ok(new X509Certificate(made.cert).validFromDate.getTime() <= now);
  // Two replicas, one of them with a clock a year ahead: they agree by the API server's.
  for (const own of [now, now + 360 * DAY, now - 3 * DAY]) await source(now)(new Date(own));
  assert.equal(writes, 2);
});

test('others count as many once twenty of them asked within a second; what is our own does not count', () => {
  let now = 0;
  const demand = new Demand(() => now);
  demand.ours = new Set(['system:serviceaccount:countersign:countersign']);
  assert.equal(demand.isBusy, false);
  for (let i = 0; i < 100; i++) demand.heard('system:serviceaccount:countersign:countersign');
  for (let i = 0; i < 19; i++) demand.heard('dev');
  assert.equal(demand.isBusy, false);
  now = 900;
  demand.heard('dev');
  assert.equal(demand.isBusy, true);
  now = 1001;
  assert.equal(demand.isBusy, false);
});

test('a newer certificate is told of before it is served; one that cannot be read or served leaves the one before', async () => {
  const of = (name: string, ca = 'ca'): Certificates => ({ cert: `cert ${name}`, key: `key ${name}`, ca });
  const steps: string[] = [];
  let newest: () => Certificates = () => of('1');
  let isServed = true;
  const keeper = await CertificateKeeper.open(async () => newest(), {
    log: { info: () => {}, error: (_, message) => void steps.push(message.slice(0, 60)) },
    renewed: async ({ ca }) => void steps.push(`renewed ${ca}`),
    serve: async ({ cert }) => {
      if (!isServed) throw new Error('a key of another certificate');
      steps.push(`serve ${cert}`);
    },
  });
  await keeper.look();
  assert.deepEqual(steps.splice(0), []);
  newest = () => of('2');
  await keeper.look();
  assert.deepEqual([steps.splice(0), keeper.identity.cert], [['serve cert 2'], 'cert 2']);
  newest = () => of('3', 'other');
  await keeper.look();
  assert.deepEqual([steps.splice(0), keeper.ca], [['renewed other', 'serve cert 3'], 'other']);
  for (const broken of [() => assert.fail('no file'), () => of('4', 'other')]) {
    newest = broken;
    isServed = false;
    await keeper.look();
    assert.equal(steps.splice(0).length, 1);
    assert.equal(keeper.identity.cert, 'cert 3');
  }
  keeper.close();
});
