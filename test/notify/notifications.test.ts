import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { type Notifier, notifierSchema, type Told } from '../../src/model/index.ts';
import { Notifications } from '../../src/notify/index.ts';
import { MailServer } from '../kit/mail-server.ts';
import { scratch } from '../kit/scratch.ts';
import { until } from '../kit/service.ts';

const directory = scratch();
const COMMIT = 'a'.repeat(40);
type Heard = { method: string; path: string; headers: Record<string, string | string[] | undefined>; body: string };
let heard: Heard[] = [];
let answers: number[] = [];
let bodies: Readonly<Record<string, unknown>> = {};
let server: Server;
let url = '';
before(async () => {
  server = createServer((request, response) => {
    let body = '';
    request.on('data', (d) => (body += d));
    request.on('end', () => {
      heard.push({ method: request.method ?? '', path: request.url ?? '', headers: request.headers, body });
      response.statusCode = answers.shift() ?? 200;
      const answer = bodies[`${request.method} ${(request.url ?? '').split('?')[0]}`];
      response.end(answer === undefined ? undefined : JSON.stringify(answer));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  writeFileSync(join(directory, 'address'), `${url}/services/T0/B0/very-secret\n`);
  writeFileSync(join(directory, 'token'), 'a-token\n');
});
beforeEach(() => {
  heard = [];
  answers = [];
  bodies = {};
});
after(() => new Promise((resolve) => server.close(resolve)));

const notifier = (to: unknown, spec: object = {}): Notifier =>
  notifierSchema.parse({
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'Notifier',
    metadata: { name: 'n' },
    spec: { to, ...spec },
  });
const happened = (changes: Partial<Told> = {}): Told => ({
  environment: 'production',
  event: 'failed',
  revision: COMMIT,
  message: 'Deployment shop/web: <0 of 2> & more',
  at: '2026-11-21T10:00:00.000Z',
  ...changes,
});
type Logged = { fields: object; message: string };

async function told(notifiers: Notifier[], all: Told[], enough = all.length): Promise<Logged[]> {
  const logged: Logged[] = [];
  const log = { info: () => {}, warn: (fields: object, message: string) => void logged.push({ fields, message }) };
  const notifications = new Notifications(notifiers, log);
  for (const one of all) notifications.tell(one);
  await until(
    () => heard.length + logged.length >= enough,
    20_000,
    () => `heard ${heard.length}, logged ${JSON.stringify(logged)}`,
  );
  await notifications.close(1000);
  return logged;
}

test('Slack and Teams hear a sentence in which nothing is markup', async () => {
  const file = join(directory, 'address');
  await told(
    [notifier({ slack: { urlFile: file } }), notifier({ teams: { urlFile: file } })],
    [happened({ message: 'a <b> & `c`\nd' })],
    2,
  );
  const [slack, teams] = heard.map(
    (h) => JSON.parse(h.body) as { text?: string; attachments?: { content: { body: { text: string }[] } }[] },
  );
  assert.equal(slack?.text, `production: failed ${COMMIT.slice(0, 12)}: a &lt;b&gt; &amp; \`c\` d`);
  assert.equal(
    teams?.attachments?.[0]?.content.body[0]?.text,
    `production: failed ${COMMIT.slice(0, 12)}: a \\<b\\> & \\\`c\\\` d`,
  );
});

test('a webhook is signed over its time and its body', async () => {
  await told(
    [
      notifier(
        { webhook: { url: `${url}/hook`, secretFile: join(directory, 'token') } },
        { template: '{event} at {environment}, {nothing}' },
      ),
    ],
    [happened()],
  );
  const [one] = heard;
  const time = one?.headers['x-countersign-time'];
  assert.equal(
    one?.headers['x-countersign-signature'],
    createHmac('sha256', 'a-token').update(`${time}.${one?.body}`).digest('hex'),
  );
  assert.equal((JSON.parse(one?.body ?? '') as { text: string }).text, 'failed at production, {nothing}');
});

test('an alert begins with trouble and ends when all is well', async () => {
  await told([notifier({ alertmanager: { url } })], [happened(), happened({ event: 'applied', message: '2 objects' })]);
  const [begun, ended] = heard.map(
    (h) => JSON.parse(h.body) as { labels: Record<string, string>; startsAt?: string; endsAt?: string }[],
  );
  assert.deepEqual([begun?.[0]?.labels['event'], begun?.[0]?.startsAt], ['failed', '2026-11-21T10:00:00.000Z']);
  assert.ok(ended?.some((a) => a.labels['event'] === 'failed' && a.endsAt !== undefined));
});

test('commit statuses on GitHub, GitLab and Gitea', async () => {
  const tokenFile = join(directory, 'token');
  const of = (forge: string) =>
    notifier(
      { commitStatus: { forge, apiUrl: `${url}/${forge}`, repository: 'team/fleet', tokenFile } },
      { events: ['applying', 'applied', 'failed'] },
    );
  await told([of('github'), of('gitlab'), of('gitea')], [happened()], 3);
  assert.deepEqual(
    heard
      .map((h) => [
        h.path,
        h.headers['authorization'] ?? h.headers['private-token'],
        (JSON.parse(h.body) as { state: string }).state,
      ])
      .sort(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
    [
      [`/gitea/repos/team/fleet/statuses/${COMMIT}`, 'token a-token', 'failure'],
      [`/github/repos/team/fleet/statuses/${COMMIT}`, 'Bearer a-token', 'failure'],
      [`/gitlab/projects/team%2Ffleet/statuses/${COMMIT}`, 'a-token', 'failed'],
    ],
  );
});

test('the same thing is told once, others are told each; only what was asked for', async () => {
  const hook = { webhook: { url: `${url}/hook`, secretFile: join(directory, 'token') } };
  await told(
    [notifier(hook, { environments: ['prod*'], events: ['failed'] })],
    [
      happened(),
      happened({ at: '2026-11-21T10:00:07.000Z' }),
      happened({ revision: 'b'.repeat(40) }),
      happened({ environment: 'staging' }),
      happened({ event: 'applied' }),
    ],
    2,
  );
  assert.deepEqual(
    heard.map((h) => (JSON.parse(h.body) as { revision: string }).revision[0]),
    ['a', 'b'],
  );
});

test('what is busy is tried again; what says no is not; neither tells the address', async () => {
  const to = { slack: { urlFile: join(directory, 'address') } };
  answers = [503, 429, 200];
  assert.deepEqual(await told([notifier(to)], [happened()], 3), []);
  assert.equal(heard.length, 3);
  answers = [404];
  const [logged] = await told([notifier(to)], [happened()], 5);
  assert.match(logged?.message ?? '', /^cannot send the message: 127\.0\.0\.1:\d+ answers 404$/);
  const gone = notifier({ slack: { urlFile: join(directory, 'none') } });
  const [missing] = await told([gone], [happened()], heard.length + 1);
  assert.match(missing?.message ?? '', /cannot be read/);
  writeFileSync(join(directory, 'empty'), '\n');
  const unsigned = notifier({ webhook: { url, secretFile: join(directory, 'empty') } });
  const before = heard.length;
  const [empty] = await told([unsigned], [happened()], before + 1);
  assert.match(empty?.message ?? '', /^cannot send the message: the file `.*empty` is empty$/);
  assert.equal(heard.length, before);
  writeFileSync(join(directory, 'not-an-address'), 'https://chat.example.test/very secret');
  const [wrong] = await told(
    [notifier({ teams: { urlFile: join(directory, 'not-an-address') } })],
    [happened()],
    before + 1,
  );
  assert.match(
    wrong?.message ?? '',
    /^cannot send the message: the file `.*not-an-address` does not contain an address: its path is not plain/,
  );
});

test('mail goes out by SMTP, with no line of its head made by a message', async () => {
  const server = await MailServer.start();
  after(() => server.stop());
  const email = { smtp: server.url, from: 'gate@example.test', to: ['oncall@example.test'] };
  const notifications = new Notifications([notifier({ email })], { info: () => {}, warn: (_, m) => assert.fail(m) });
  notifications.tell(happened({ message: 'x\r\nBcc: everybody@example.test' }));
  await until(
    () => server.mails.length > 0,
    10_000,
    () => 'no mail came',
  );
  await notifications.close(1000);
  const [mail] = server.mails;
  assert.match(mail?.text ?? '', /^Subject: \[countersign\] production: failed a{12}$/m);
  assert.deepEqual(mail?.to, ['oncall@example.test']);
  assert.doesNotMatch(mail?.text ?? '', /^Bcc:/m);
});

test('a deployment on GitHub and GitLab is made once for a commit, and then told what became of it', async () => {
  const tokenFile = join(directory, 'token');
  const of = (forge: string) =>
    notifier(
      { deployment: { forge, apiUrl: `${url}/${forge}`, repository: 'team/fleet', tokenFile } },
      { events: ['applying', 'applied', 'failed', 'drift'] },
    );
  const said = () =>
    heard.map((h) => [h.method, h.path.split('?')[0], h.body === '' ? {} : (JSON.parse(h.body) as object)]);
  const github = '/github/repos/team/fleet/deployments';
  bodies = { [`GET ${github}`]: [], [`POST ${github}`]: { id: 7 } };
  await told([of('github')], [happened({ event: 'applying', message: 'applying' }), happened({ event: 'drift' })], 3);
  assert.deepEqual(said(), [
    ['GET', github, {}],
    [
      'POST',
      github,
      { ref: COMMIT, environment: 'production', auto_merge: false, required_contexts: [], description: 'countersign' },
    ],
    ['POST', `${github}/7/statuses`, { state: 'in_progress', environment: 'production', description: 'applying' }],
  ]);
  assert.equal(heard[0]?.headers['authorization'], 'Bearer a-token');
  heard = [];
  bodies = { [`GET ${github}`]: [{ id: 7 }] };
  await told([of('github')], [happened({ event: 'applied', message: 'done' })], 2);
  assert.deepEqual(said().at(-1), [
    'POST',
    `${github}/7/statuses`,
    { state: 'success', environment: 'production', description: 'done' },
  ]);
  heard = [];
  const gitlab = '/gitlab/projects/team%2Ffleet/deployments';
  bodies = { [`GET ${gitlab}`]: [{ id: 3, sha: 'b'.repeat(40) }] };
  await told([of('gitlab')], [happened({ event: 'applying' })], 2);
  assert.deepEqual(said().at(-1), [
    'POST',
    gitlab,
    { environment: 'production', sha: COMMIT, ref: 'main', tag: false, status: 'running' },
  ]);
  heard = [];
  bodies = { [`GET ${gitlab}`]: [{ id: 4, sha: COMMIT }] };
  await told([of('gitlab')], [happened()], 2);
  assert.deepEqual(said().at(-1), ['PUT', `${gitlab}/4`, { status: 'failed' }]);
  assert.throws(() => of('gitea'));
});
