import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { KubeConfig } from '@kubernetes/client-node';
import { credentialsOf } from '../../src/cluster/credentials.ts';
import { ApiServer } from '../../src/cluster/index.ts';
import { fetchReviews } from '../../src/forge/index.ts';
import { openRepository } from '../../src/git/index.ts';
import { openTracing } from '../../src/http/index.ts';
import {
  type Anchor,
  type Ledger,
  type LedgerReader,
  openLedger,
  timestampAnchor,
  witnessAnchor,
} from '../../src/ledger/index.ts';
import { CountersignError, httpAddress, type Notifier, notifierSchema } from '../../src/model/index.ts';
import { Notifications } from '../../src/notify/index.ts';
import { downloadFile, pullImage, type Refuse } from '../../src/registry/index.ts';
import { deliver, periodWith } from '../../src/schedule/index.ts';
import { run } from '../kit/fleet.ts';
import { HostileServer, HTTP_MANNERS, leadingTo, WORDS } from '../kit/hostile-server.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const file = (name: string, text: string) => {
  writeFileSync(join(directory, name), text);
  return join(directory, name);
};
const secret = file('secret', 'a-secret-of-ours');
const limits = { bytes: 256 * 1024, quietMs: 400, totalMs: 1200 };
const LATE_MS = 30_000; // a busy machine takes long; what never ends takes longer
const MOST_MEMORY = 300 * 1024 * 1024;
const digest = `sha256:${'a'.repeat(64)}`;
const refuse: Refuse = (why, more = {}) =>
  new CountersignError(
    'render-failed',
    `the chart cannot be had: ${why}`,
    more.retry === true ? { recover: 'retry' } : {},
  );

// What somebody hears of it: resolves where the server's manner does no harm, throws the one error otherwise.
type Client = { readonly name: string; readonly codes: RegExp; readonly run: (url: string) => Promise<unknown> };
let n = 0;

const report = join(directory, 'report');
mkdirSync(report);
writeFileSync(join(report, 'manifest.txt'), 'signed');
writeFileSync(
  join(report, 'report.json'),
  JSON.stringify({ entity: 'e', status: 's', summary: {}, controls: [], reconciliation: [] }),
);
const issue = {
  schedule: 'm',
  period: periodWith('month', new Date('2026-10-15T00:00:00Z')),
  version: 1,
  report: 'r',
  manifest: 'x',
  directory: report,
};
const delivered = (place: object) =>
  deliver(place as never, issue, AbortSignal.timeout(20_000), async () => {}, limits);

async function told(to: object): Promise<void> {
  const document = { apiVersion: 'countersign.dev/v1alpha1', kind: 'Notifier', metadata: { name: 'n' }, spec: { to } };
  const said: string[] = [];
  const log = {
    info: () => {},
    warn: (fields: object, message: string) => void said.push(`${message} ${JSON.stringify(fields)}`),
  };
  const notifications = new Notifications([notifierSchema.parse(document) as Notifier], log, {
    ...limits,
    firstPauseMs: 1,
  });
  const at = new Date().toISOString();
  notifications.tell({ environment: 'e', event: 'failed', revision: 'a'.repeat(40), message: 'm', at });
  await notifications.close(25_000);
  if (said.length > 0) throw new CountersignError('forge-refused', said.join(' '));
}

function apiServer(url: string): ApiServer {
  const config = new KubeConfig();
  config.loadFromOptions({
    clusters: [{ name: 'c', server: url, skipTLSVerify: true }],
    users: [{ name: 'u', token: 'a' }],
    contexts: [{ name: 'x', cluster: 'c', user: 'u' }],
    currentContext: 'x',
  });
  return new ApiServer(credentialsOf(config), undefined, {
    quietMs: 400,
    totalMs: 1200,
    bytes: 256 * 1024,
    lineBytes: 64 * 1024,
  });
}

async function asked(url: string, ask: (server: ApiServer) => Promise<unknown>): Promise<void> {
  const server = apiServer(url);
  try {
    await ask(server);
  } finally {
    server.close();
  }
}

// A witness and an authority that nobody has: whatever comes in their place is not theirs.
const witnessKey = Buffer.concat([Buffer.from([4]), Buffer.alloc(32, 1)]);
const witnessId = createHash('sha256').update('witness.test/w1\n').update(witnessKey).digest('hex').slice(0, 8);
const WITNESS = `witness.test/w1+${witnessId}+${witnessKey.toString('base64')}`;
const authority = selfSigned();
let ledger: Promise<Ledger> | undefined;

function selfSigned(): string {
  const [key, certificate] = [join(directory, 'tsa.key'), join(directory, 'tsa.pem')];
  run('openssl', [
    'req',
    '-x509',
    '-newkey',
    'ed25519',
    '-nodes',
    '-keyout',
    key,
    '-out',
    certificate,
    '-subj',
    '/CN=tsa',
  ]);
  return readFileSync(certificate, 'utf8');
}

async function anchored(make: (reader: LedgerReader) => Anchor): Promise<void> {
  ledger ??= openLedger(join(directory, 'ledger'), 'countersign.dev/test'); // once, though several ask at once
  await make((await ledger).read).write(readFileSync(join(directory, 'ledger', 'checkpoint'), 'utf8'));
}

after(() => ledger?.then((opened) => opened.close()));

const CLIENTS: readonly Client[] = [
  {
    name: 'a forge',
    codes: /^forge-(unreachable|refused)$/,
    run: (url) =>
      fetchReviews({ forge: 'github', api: httpAddress(url), repository: 'a/b', number: 1, token: 'a' }, limits),
  },
  {
    name: 'a registry',
    codes: /^render-failed$/,
    run: (url) => pullImage(`${new URL(url).host}/a@${digest}`, { limits, credentials: 'u:p' }, refuse),
  },
  {
    name: 'a web server',
    codes: /^render-failed$/,
    run: (url) => downloadFile(`${url}/a.tgz`, digest, { limits }, refuse),
  },
  {
    name: 'an object store',
    codes: /^forge-(unreachable|refused)$/,
    run: (url) =>
      delivered({
        name: 'p',
        s3: {
          endpoint: url,
          region: 'us-east-1',
          bucket: 'evidence',
          prefix: '',
          accessKeyFile: secret,
          secretKeyFile: secret,
        },
      }),
  },
  {
    name: 'a webhook with a report',
    codes: /^forge-(unreachable|refused)$/,
    run: (url) => delivered({ name: 'p', webhook: { url: `${url}/in?token=our-token`, secretFile: secret } }),
  },
  { name: 'a webhook', codes: /^forge-refused$/, run: (url) => told({ webhook: { url, secretFile: secret } }) },
  {
    name: 'a chat',
    codes: /^forge-refused$/,
    run: (url) => told({ slack: { urlFile: file(`chat${n++}`, `${url}/services/our-token`) } }),
  },
  {
    name: 'a commit status',
    codes: /^forge-refused$/,
    run: (url) => told({ commitStatus: { forge: 'github', apiUrl: url, repository: 'a/b', tokenFile: secret } }),
  },
  {
    name: 'a deployment',
    codes: /^forge-refused$/,
    run: (url) => told({ deployment: { forge: 'gitlab', apiUrl: url, repository: 'a/b', tokenFile: secret } }),
  },
  {
    name: 'a Git server, by the git program',
    codes: /^git-(unreachable|ref-missing)$/,
    run: (url) =>
      openRepository(join(directory, `git${n++}`), {
        file: 'git',
        path: process.env['PATH'] ?? '',
        fetchMs: 2000,
      }).fetch(`${url}/a.git`, 'main'),
  },
  {
    name: 'a Git server, without the program',
    codes: /^git-unreachable$/,
    run: (url) => openRepository(join(directory, `git${n++}`), undefined, limits).fetch(`${url}/a.git`, 'main'),
  },
  {
    name: 'a witness',
    codes: /^ledger-unusable$/,
    run: (url) => anchored((reader) => witnessAnchor(httpAddress(url), WITNESS, directory, reader, limits)),
  },
  {
    name: 'a time-stamping authority',
    codes: /^ledger-unusable$/,
    run: (url) => anchored(() => timestampAnchor(httpAddress(url), authority, directory, limits)),
  },
  {
    name: 'an API server',
    codes: /^cluster-unreachable$/,
    run: (url) => asked(url, (server) => server.request('GET', '/api/v1/pods')),
  },
  {
    name: 'an API server, watched',
    codes: /^cluster-unreachable$/,
    run: (url) =>
      asked(url, (server) => server.follow('/api/v1/pods?watch=1', () => {}, AbortSignal.timeout(3000), 400)),
  },
];

// Manners that some clients may take for an answer: it is whole, and says nothing that counts.
const HARMLESS: Readonly<Record<string, RegExp>> = {
  'says more than it announced': /webhook|chat|commit status|object store|API server, watched|deployment/,
  'refuses with its words': /API server/, // a status is an answer
  'refuses without end': /API server, watched/,
  'writes its body drop by drop': /API server, watched/, // that is what a watch is; who asked for it ends it
  'leads elsewhere': /API server/, // so is this one, and it is not followed
  'leads in a circle': /API server/,
  'leads to a file': /API server/,
};

for (const [manner, act] of Object.entries(HTTP_MANNERS))
  test(`a server that ${manner} ends no client's patience, memory or silence`, async () => {
    const server = await HostileServer.start();
    after(() => server.stop());
    server.manner = act;
    const memory = process.memoryUsage().rss;
    const begun = performance.now();
    await Promise.all(
      CLIENTS.map(async ({ name, codes, run }) => {
        const outcome = await run(server.url).then(
          () => undefined,
          (thrown: unknown) => thrown,
        );
        const late = `${name}: after ${Math.round(performance.now() - begun)} ms`;
        assert.ok(performance.now() - begun < LATE_MS, late);
        if (outcome === undefined) {
          assert.match(name, HARMLESS[manner] ?? /^$/, `${name} took it for an answer`);
          return;
        }
        assert.ok(outcome instanceof CountersignError, `${name}: ${String(outcome)}`);
        assert.match(outcome.code, codes, `${name}: ${outcome.message}`);
        const told = `${outcome.message} ${outcome.hint ?? ''}`;
        assert.doesNotMatch(told, new RegExp(`${WORDS}|our-token|a-secret-of-ours`), name);
        if (outcome.code.endsWith('-unreachable')) assert.equal(outcome.recover, 'retry', `${name}: ${told}`);
      }),
    );
    assert.ok(
      process.memoryUsage().rss - memory < MOST_MEMORY,
      `${Math.round((process.memoryUsage().rss - memory) / 1e6)} MB more`,
    );
    for (let i = 0; i < 250 && server.open.size > 0; i++) await new Promise((done) => setTimeout(done, 20));
    assert.equal(server.open.size, 0, 'connections that nobody ended');
  });

test('no client goes where a server sends it', async () => {
  const [server, elsewhere] = [await HostileServer.start(), await HostileServer.start()];
  after(() => [server, elsewhere].map((s) => s.stop()));
  server.manner = leadingTo(elsewhere.url);
  for (const { name, run } of CLIENTS) {
    const before = server.connections;
    await run(server.url).catch(() => {});
    assert.ok(server.connections > before, `${name} asked nobody`);
    assert.equal(elsewhere.connections, 0, `${name} went elsewhere`);
  }
});

test('a collector of traces that misbehaves keeps nobody from stopping', async () => {
  for (const manner of [
    'accepts and says nothing',
    'writes its body drop by drop',
    'answers without end',
    'leads elsewhere',
  ]) {
    const server = await HostileServer.start();
    server.manner = HTTP_MANNERS[manner] as (typeof HTTP_MANNERS)[string];
    const begun = performance.now();
    const { trace, close } = await openTracing(`${server.url}/v1/traces`, '0', 500);
    await trace('look', {}, async () => {});
    await close();
    assert.ok(performance.now() - begun < LATE_MS, manner);
    for (let i = 0; i < 250 && server.open.size > 0; i++) await new Promise((done) => setTimeout(done, 20));
    assert.equal(server.open.size, 0, `${manner}: connections that nobody ended`);
    server.stop();
  }
});
