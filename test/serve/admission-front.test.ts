import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, test } from 'node:test';
import pino from 'pino';
import { readProcessSettings } from '../../src/config/index.ts';
import { AdmissionRecords, BreakGlass, type SureRecorder } from '../../src/gate/index.ts';
import { openLedger } from '../../src/ledger/index.ts';
import { environmentSchema } from '../../src/model/index.ts';
import { recorderOf } from '../../src/open/read-ledger.ts';
import { PolicyPool } from '../../src/policy/index.ts';
import { AdmissionFront, type FrontOptions, type ServedScope } from '../../src/serve/admission-front.ts';
import { freePorts } from '../kit/control-plane.ts';
import { environmentDocument } from '../kit/documents.ts';
import { bundleOf } from '../kit/rules.ts';
import { scratch } from '../kit/scratch.ts';
import { until } from '../kit/service.ts';

const SLOW = `package countersign.object
deny contains "bad" if input.object.metadata.name == "bad"
deny contains "slow" if { some end in ["b", "c", "d", "e", "f", "g"]; regex.match(sprintf("((a{1,5}){1,14}){1,14}%s", [end]), input.object.metadata.annotations.text) }
`;
const bundle = await bundleOf({ 'rule.rego': SLOW });
const directory = scratch();
const ledger = await openLedger(join(directory, 'ledger'), 'test');
const said: string[] = [];
const log = pino({ level: 'info' }, { write: (line: string) => void said.push(line) });
after(() => ledger.close());

const recorder: SureRecorder & ReturnType<typeof recorderOf> = {
  ...recorderOf(ledger),
  recordSurely: (body, evidence) => ledger.record(body, evidence),
};

function scope(): ServedScope {
  const environment = environmentSchema.parse(
    environmentDocument({
      url: 'https://git.example.com/fleet',
      namespaces: ['shop'],
      mode: 'enforce',
      admission: { policy: { namespaces: ['team-*'], mode: 'enforce' } },
    }),
  );
  const clock = () => new Date();
  const pool = new PolicyPool([bundle]); // only lent: no thread of it is started
  return {
    environment,
    applier: 'countersign',
    isShared: false,
    records: new AdmissionRecords('production', recorder, clock),
    breakGlass: new BreakGlass(environment, recorder, clock, {
      reasonIn: async () => ({ reason: undefined, approved: undefined }),
      ended: () => {},
    }),
    facts: { owner: async () => undefined, labelsOf: async () => ({ team: 'a' }) },
    prove: async () => ({ kind: 'proven' }),
    loadRules: async () => ({ pool, waivers: [], images: { digest: '', of: new Map() }, bundle: bundle.digest }),
  };
}

async function opened(threads: string): Promise<{ front: AdmissionFront; port: number; options: FrontOptions }> {
  const [port] = (await freePorts(1)) as [number];
  const options = { listen: `127.0.0.1:${port}`, data: join(directory, `front${port}`), webhookThreads: threads };
  const front = (await AdmissionFront.open(options, readProcessSettings({}), log)) as AdmissionFront;
  after(() => front.close());
  return { front, port, options };
}

const review = (name: string, namespace = 'team-a') =>
  JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'u-1',
      operation: 'CREATE',
      namespace,
      name,
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      userInfo: { username: 'dev', groups: [] },
      object: {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name, namespace, ...(name === 'slow' ? { annotations: { text: 'a'.repeat(60_000) } } : {}) },
        spec: {},
      },
    },
  });

type Response = { allowed: boolean; status?: { code: number; message: string } };

function ask(port: number, body: string): Promise<Response> {
  return new Promise((done, fail) => {
    const sent = request(
      `https://127.0.0.1:${port}/validate`,
      { method: 'POST', rejectUnauthorized: false, agent: false },
      (response) =>
        text(response).then((answer) => done((JSON.parse(answer) as { response: Response }).response), fail),
    );
    sent.on('error', fail);
    sent.end(body);
  });
}

test('threads share an address, which no other service can take beside them', async () => {
  const { front, port, options } = await opened('3');
  await front.decideBy([scope()], ledger);
  assert.equal(front.ready, true);
  const answers = await Promise.all(
    Array.from({ length: 30 }, (_, i) => ask(port, review(i % 2 === 0 ? 'good' : 'bad'))),
  );
  assert.deepEqual(
    answers.map((a) => a.allowed),
    answers.map((_, i) => i % 2 === 0),
  );
  await assert.rejects(
    AdmissionFront.open({ ...options, data: join(directory, 'other') }, readProcessSettings({}), log),
    {
      code: 'port-in-use',
    },
  );
  for (const threads of ['0', '1.5', '65', 'many'])
    await assert.rejects(AdmissionFront.open({ ...options, webhookThreads: threads }, readProcessSettings({}), log), {
      code: 'usage',
    });
});

test('where admission is off everywhere, nothing listens and nothing is missing', async () => {
  const { front, port } = await opened('2');
  const { environment, ...rest } = scope();
  const { spec } = environment;
  await front.decideBy(
    [{ ...rest, environment: { ...environment, spec: { ...spec, admission: { ...spec.admission, mode: 'off' } } } }],
    ledger,
  );
  assert.equal(front.ready, true);
  await assert.rejects(ask(port, review('good')), /ECONNREFUSED/);
  await front.decideBy([scope()], ledger);
  assert.equal((await ask(port, review('good'))).allowed, true);
});

test('what is refused in a governed namespace is on the ledger, by way of the service', async () => {
  const { front, port } = await opened('2');
  await front.decideBy([scope()], ledger);
  const before = ledger.size;
  const refused = await ask(port, review('good', 'shop'));
  assert.match(refused.status?.message ?? '', /no recorded verdict allows this CREATE/);
  assert.equal(ledger.size, before + 1);
  assert.equal(ledger.read.latest(['admission.denied'], 'production')?.entry.user, 'dev');
});

test('requests are answered while the service itself is at something else', async () => {
  const { front, port } = await opened('1');
  await front.decideBy([scope()], ledger);
  const go = join(directory, 'go');
  const answered = join(directory, 'answered');
  // Waits for a round, asks five times, and says that all were answered in it.
  const asker = `
    const { existsSync, readFileSync, writeFileSync } = require('node:fs');
    const { request } = require('node:https');
    const ask = () => new Promise((done, fail) => {
      const sent = request('https://127.0.0.1:${port}/validate', { method: 'POST', rejectUnauthorized: false }, (r) => { r.resume(); r.on('end', done); });
      sent.on('error', fail);
      sent.end(${JSON.stringify(review('good'))});
    });
    const round = () => (existsSync('${go}') ? readFileSync('${go}', 'utf8') : '');
    (async () => {
      for (let before = ''; ; ) {
        await new Promise((done) => setTimeout(done, 10));
        const now = round();
        if (now === before) continue;
        for (let i = 0; i < 5; i++) await ask();
        if (round() === now) writeFileSync('${answered}', now);
        before = now;
      }
    })();`;
  const child = spawn(process.execPath, ['-e', asker], { stdio: ['ignore', 'ignore', 'inherit'] });
  const cell = new Int32Array(new SharedArrayBuffer(4));
  await until(
    async () => {
      // A thread asks the service for a namespace's labels once a second, so a busy machine needs several rounds.
      await ask(port, review('good'));
      writeFileSync(go, `${performance.now()}`);
      // Nothing else gets a turn on this thread while they are asked.
      Atomics.wait(cell, 0, 0, 800);
      const isAnswered = existsSync(answered) && readFileSync(answered, 'utf8') === readFileSync(go, 'utf8');
      writeFileSync(go, '');
      return isAnswered;
    },
    120_000,
    () => 'no five requests in a row were answered',
  ).finally(() => child.kill());
});

test('a second thread answers once the first is busy, and not before', async () => {
  const { front, port } = await opened('2');
  await front.decideBy([scope()], ledger);
  const threads = () => said.filter((line) => line.includes('one more thread answers')).length;
  for (let i = 0; i < 20; i++) await ask(port, review('good'));
  await new Promise((done) => setTimeout(done, 1500));
  assert.equal(threads(), 0);
  const load = `
    const { request } = require('node:https');
    const ask = () => {
      const sent = request('https://127.0.0.1:${port}/validate', { method: 'POST', rejectUnauthorized: false, agent: false }, (r) => { r.resume(); r.on('end', ask); });
      sent.on('error', () => setTimeout(ask, 100));
      sent.end(${JSON.stringify(review('good'))});
    };
    for (let i = 0; i < 8; i++) ask();`;
  const askers = Array.from({ length: 2 }, () => spawn(process.execPath, ['-e', load], { stdio: 'ignore' }));
  await until(
    () => Promise.resolve(threads() === 1),
    120_000,
    () => 'one thread has all the work',
  ).finally(() => askers.map((child) => child.kill()));
  for (let i = 0; i < 20; i++) assert.equal((await ask(port, review('bad'))).allowed, false);
  assert.equal(threads(), 1, 'and no third one');
});

test('while there is nothing to decide by, requests wait; what comes then decides them', async () => {
  const { front, port } = await opened('2');
  await front.decideBy([scope()], ledger);
  await front.decideBy(undefined);
  assert.equal(front.ready, false);
  let isAnswered = false;
  const waiting = ask(port, review('bad')).then((answer) => {
    isAnswered = true;
    return answer;
  });
  await new Promise((done) => setTimeout(done, 300));
  assert.equal(isAnswered, false);
  await front.decideBy([scope()], ledger);
  assert.match((await waiting).status?.message ?? '', /bad/);
});

test('what is asked for last holds, also where what was asked before takes longer', async () => {
  const { front, port } = await opened('1');
  const slowly = scope();
  const loadRules: ServedScope['loadRules'] = async (revision) => {
    await new Promise((done) => setTimeout(done, 400));
    return slowly.loadRules(revision);
  };
  const first = front.decideBy([{ ...slowly, loadRules }], ledger);
  await front.decideBy(undefined);
  await first;
  let isAnswered = false;
  const waiting = ask(port, review('good')).then(({ allowed }) => {
    isAnswered = allowed;
  });
  await new Promise((done) => setTimeout(done, 300));
  assert.equal(isAnswered, false);
  await front.decideBy([scope()], ledger);
  await waiting;
  assert.equal(isAnswered, true);
});

test('a rule that does not end costs its thread once; then rules have threads of their own, and it is denied', async () => {
  const { front, port } = await opened('1');
  await front.decideBy([scope()], ledger);
  // Once they proved to be quick, which takes longer on a busy machine, they are asked on the thread that answers.
  await until(
    async () => {
      for (let i = 0; i < 60; i++) assert.equal((await ask(port, review('good'))).allowed, true);
      return ask(port, review('slow')).then(
        () => false,
        (thrown) => /ECONNRESET|socket hang up/.test(String(thrown)),
      );
    },
    120_000,
    () => 'the thread was not ended',
  );
  await until(
    () =>
      ask(port, review('good')).then(
        (a) => a.allowed,
        () => false,
      ),
    120_000,
    () => 'another thread takes its place',
  );
  assert.ok(said.some((line) => line.includes('rules run on separate threads from now on')));
  for (let i = 0; i < 60; i++) assert.equal((await ask(port, review('good'))).allowed, true);
  const denied = await ask(port, review('slow'));
  assert.match(denied.status?.message ?? '', /took longer than 2000 ms/);
  assert.equal((await ask(port, review('good'))).allowed, true);
});
