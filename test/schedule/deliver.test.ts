import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { sha256 } from '../../src/model/index.ts';
import { deliver as deliverTo, type Issue, periodWith, type ReportSummary } from '../../src/schedule/index.ts';
import { MailServer } from '../kit/mail-server.ts';
import { ObjectStore } from '../kit/object-store.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const files = join(directory, 'report');
const secret = (name: string, text: string) => {
  writeFileSync(join(directory, name), `${text}\n`);
  return join(directory, name);
};
const summary = { changes: 12, applied: 9, denied: 3, failed: 0, exceptions: 2, open: 1, admissionsDenied: 4 };
let issue: Issue;
let store: ObjectStore;
const clusters: [string, string, ReportSummary][] = [];
const deliver = (place: Parameters<typeof deliverTo>[0], issue: Issue, signal: AbortSignal) =>
  deliverTo(place, issue, signal, async (...told) => void clusters.push(told));
const signal = () => AbortSignal.timeout(20_000);

before(async () => {
  mkdirSync(files);
  writeFileSync(join(files, 'report.json'), JSON.stringify({ entity: 'Example', status: 'final', summary }));
  writeFileSync(join(files, 'report.pdf'), Buffer.alloc(300_000, 'not really a PDF '));
  writeFileSync(join(files, 'population.csv'), 'change_id\n');
  writeFileSync(join(files, 'manifest.txt'), 'signed\n');
  const period = periodWith('month', new Date('2026-10-15T00:00:00Z'));
  const manifest = sha256(readFileSync(join(files, 'manifest.txt')));
  issue = { schedule: 'monthly', period, version: 2, report: 'abcdef0123456789', manifest, directory: files };
  store = await ObjectStore.start(join(directory, 'store'));
});
after(() => store?.stop());

test('a directory has it whole or not at all, and only once', async () => {
  const place = { name: 'archive', directory: { path: join(directory, 'archive', 'reports') } };
  await deliver(place, issue, signal());
  const at = join(place.directory.path, 'monthly-2026-10-v2');
  assert.deepEqual(readdirSync(place.directory.path), ['monthly-2026-10-v2']);
  assert.deepEqual(readdirSync(at).sort(), readdirSync(files).sort());
  writeFileSync(join(at, 'note'), 'somebody’s');
  await deliver(place, issue, signal());
  assert.ok(existsSync(join(at, 'note')), 'what is there is not touched');
  rmSync(join(at, 'manifest.txt'));
  await deliver(place, issue, signal());
  assert.deepEqual(readFileSync(join(at, 'report.pdf')), readFileSync(join(files, 'report.pdf')));
  const broken = { ...issue, version: 3, directory: join(directory, 'no-files') };
  await assert.rejects(deliver(place, broken, signal()));
  assert.deepEqual(readdirSync(place.directory.path), ['monthly-2026-10-v2']);
});

test('an object store has every file, the manifest last, and says no with its reason', async () => {
  const keys = { accessKeyFile: secret('access', store.accessKey), secretKeyFile: secret('secret', store.secretKey) };
  const s3 = { endpoint: store.url, region: 'us-east-1', bucket: 'evidence', prefix: 'soc2/production/', ...keys };
  await deliver({ name: 'bucket', s3 }, issue, signal());
  const at = 'soc2/production/monthly-2026-10-v2';
  const names = readdirSync(files).sort();
  assert.deepEqual(
    store.names,
    names.map((name) => `${at}/${name}`),
  );
  for (const name of names) assert.deepEqual(store.read(`${at}/${name}`), readFileSync(join(files, name)));
  assert.equal(store.newest, `${at}/manifest.txt`);
  await deliver({ name: 'bucket', s3 }, issue, signal()); // again, it is there once
  assert.equal(store.names.length, names.length);
  const host = new URL(store.url).host;
  for (const [changed, message] of [
    [{ bucket: 'elsewhere' }, `${host} answers 404 (NoSuchBucket)`],
    [{ secretKeyFile: secret('wrong', 'of somebody else') }, `${host} answers 403 (SignatureDoesNotMatch)`],
    [{ endpoint: 'http://127.0.0.1:9' }, /^127\.0\.0\.1:9 does not answer: /],
    [{ secretKeyFile: join(directory, 'nowhere') }, /^the file `.*nowhere` cannot be read/],
  ] as const)
    await assert.rejects(deliver({ name: 'bucket', s3: { ...s3, ...changed } }, issue, signal()), { message });
});

test('a mail has the summary, the digest and the PDF, and goes without it where it is too large or not wanted', async () => {
  const login = { user: 'gate', password: 'a-password' };
  const server = await MailServer.start(login);
  after(() => server.stop());
  const email = {
    smtp: server.url,
    username: 'gate',
    passwordFile: secret('password', login.password),
    from: 'gate@example.test',
    to: ['audit@example.test', 'cfo@example.test'],
    attach: true,
  };
  await deliver({ name: 'people', email }, issue, signal());
  const [mail] = server.mails;
  assert.deepEqual(mail?.to, email.to);
  assert.match(mail?.text ?? '', /^Subject: \[countersign\] Change management evidence report monthly-2026-10-v2$/m);
  const said = plain(mail?.text ?? '');
  assert.match(said, /Example: 2026-10-01 to 2026-11-01/);
  assert.match(said, /Changes judged +12/);
  assert.match(said, new RegExp(issue.manifest));
  assert.doesNotMatch(said, /compliant|SOC 2 report/);
  assert.deepEqual(attached(mail?.text ?? '', 'monthly-2026-10-v2.pdf'), readFileSync(join(files, 'report.pdf')));
  await deliver({ name: 'people', email: { ...email, attach: false } }, issue, signal());
  assert.doesNotMatch(server.mails[1]?.text ?? '', /attachment/);
  const large = join(directory, 'large');
  mkdirSync(large);
  for (const name of readdirSync(files)) writeFileSync(join(large, name), readFileSync(join(files, name)));
  truncateSync(join(large, 'report.pdf'), 16 * 1024 * 1024);
  await deliver({ name: 'people', email }, { ...issue, directory: large }, signal());
  assert.doesNotMatch(server.mails[2]?.text ?? '', /attachment/);
  assert.match(plain(server.mails[2]?.text ?? ''), /The PDF has 16 MiB and is not attached/);
  server.refuse = () => new Error('the mailbox is full');
  await assert.rejects(deliver({ name: 'people', email }, issue, signal()), {
    code: 'forge-refused',
    recover: 'retry',
    // the number, and none of its words
    message: `the mail server \`${new URL(server.url).host}\` answers 450 (EMESSAGE)`,
  });
  await assert.rejects(
    deliver({ name: 'people', email: { ...email, passwordFile: secret('other', 'guessed') } }, issue, signal()),
    {
      code: 'forge-refused',
      recover: 'wait',
      message: `the mail server \`${new URL(server.url).host}\` answers 535 (EAUTH)`,
    },
  );
});

test('a webhook hears what it is and the digest of every file, signed; and no secret stands in what is said of a failure', async () => {
  const heard: { headers: IncomingHttpHeaders; body: string }[] = [];
  let status = 200;
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (d) => (body += d));
    request.on('end', () => {
      heard.push({ headers: request.headers, body });
      response.writeHead(status, status === 302 ? { location: 'http://127.0.0.1:9/' } : {});
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const secretFile = secret('hook', 'between-us');
  const webhook = { url: `http://127.0.0.1:${port}/in?token=very-secret`, secretFile };
  await deliver({ name: 'tool', webhook }, issue, signal());
  const [{ headers, body } = { headers: {}, body: '' }] = heard;
  const time = String(headers['x-countersign-time']);
  assert.equal(
    headers['x-countersign-signature'],
    createHmac('sha256', 'between-us').update(`${time}.${body}`).digest('hex'),
  );
  assert.ok(Math.abs(Date.now() / 1000 - Number(time)) < 60);
  const said = JSON.parse(body) as { files: { name: string; sha256: string; bytes: number }[] };
  assert.deepEqual(said, {
    event: 'report',
    schedule: 'monthly',
    period: { label: '2026-10', from: '2026-10-01T00:00:00.000Z', to: '2026-11-01T00:00:00.000Z' },
    version: 2,
    report: issue.report,
    status: 'final',
    manifest: issue.manifest,
    summary,
    files: said.files,
  });
  for (const { name, sha256: digest, bytes } of said.files) {
    const there = readFileSync(join(files, name));
    assert.deepEqual([digest, bytes], [sha256(there), there.length]);
  }
  for (const [answer, message] of [
    [500, /answers 500$/],
    [302, /does not answer: /],
  ] as const) {
    status = answer;
    await assert.rejects(deliver({ name: 'tool', webhook }, issue, signal()), (thrown: Error) => {
      assert.match(thrown.message, message);
      assert.doesNotMatch(thrown.message, /very-secret/);
      return true;
    });
  }
});

test('a cluster is told the numbers, under the name of the schedule', async () => {
  await deliver({ name: 'board', cluster: { namespace: 'gate' } }, { ...issue, schedule: 'team/monthly' }, signal());
  assert.deepEqual(
    clusters.map(([namespace, name, told]) => [namespace, name, told.summary]),
    [['gate', 'team.monthly', summary]],
  );
});

// The first text part, with what quoted-printable hides.
function plain(mail: string): string {
  return mail
    .replaceAll(/=\r?\n/g, '')
    .replaceAll(/=([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

function attached(mail: string, name: string): Buffer {
  const part = mail.slice(mail.indexOf(`filename=${name}`));
  const [, base64 = ''] = /\r\n\r\n([A-Za-z0-9+/=\r\n]+?)\r\n--/.exec(part) ?? [];
  return Buffer.from(base64.replaceAll(/\s/g, ''), 'base64');
}
