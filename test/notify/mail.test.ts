import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { SMTPServer } from 'smtp-server';
import { notifierSchema } from '../../src/model/index.ts';
import { sendMail } from '../../src/notify/index.ts';
import { MailServer } from '../kit/mail-server.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const proof = join(directory, 'proof');
const mail = { subject: 'a subject', text: 'a text' };
const from = 'gate@example.test';
const to = ['people@example.test'];
const notifier = (email: object) => ({
  apiVersion: 'countersign.dev/v1alpha1',
  kind: 'Notifier',
  metadata: { name: 'n' },
  spec: { to: { email: { smtp: 'smtp://mail.example.test', from, to, ...email } } },
});
const problems = (email: object) =>
  JSON.stringify(notifierSchema.safeParse(notifier(email)).error?.issues ?? 'taken', undefined, 1).replaceAll(
    '\\"',
    '"',
  );

const program = `sendmail=true&path=/bin/sh&args=-c&args=${encodeURIComponent(`id > ${proof}; cat > /dev/null`)}`;
const SERVERS: readonly (readonly [string, RegExp])[] = [
  [`smtp://mail.example.test/?${program}`, /it has more than a host and a port/],
  [`smtp://mail.example.test?${program}`, /it has more than a host and a port/],
  [`smtps://mail.example.test:465/?tls.rejectUnauthorized=false`, /it has more than a host and a port/],
  ['smtp://mail.example.test/', /it has more than a host and a port/],
  ['smtp://mail.example.test#x', /it has more than a host and a port/],
  ['smtp://user:password@mail.example.test', /it contains a user or a password: use `username` and `passwordFile`/],
  ['smtp://mail.example.test ', /its port|its host/],
  ['smtp://mail.example.test\n', /its port|its host/],
  ['smtp://mail.example.test:0', /its port is not a number from 1 to 65535/],
  ['smtp://mail.example.test:65536', /its port/],
  ['smtp://mail.example.test:025', /its port/],
  ['smtp://Mail.example.test', /its host/],
  ['smtp://', /its host/],
  ['smtp://0x7f.1', /its host/],
  ['smtp://2130706433', /its host/],
  ['smtp:mail.example.test', /it does not begin with `smtp:\/\/`/],
  ['direct:mail.example.test', /it does not begin with/],
  [' smtp://mail.example.test', /it does not begin with/],
];

test('a mail server is a host and a port: whatever else an address could say is refused, in the schema and at use', async () => {
  for (const [smtp, why] of SERVERS) {
    assert.match(problems({ smtp }), why, smtp);
    await assert.rejects(
      sendMail({ smtp, from, to }, mail),
      { code: 'config-invalid', recover: 'wait', message: why },
      smtp,
    );
  }
  for (const smtp of ['smtp://mail', 'smtps://mail.example.test', 'smtp://127.0.0.1:2525', 'smtp://[::1]:25'])
    assert.equal(problems({ smtp }), '"taken"', smtp);
  assert.ok(!existsSync(proof), 'no program was started');
});

test('people are plain addresses: no lines, lists, groups, names, comments or quotes', async () => {
  const server = await MailServer.start();
  after(() => server.stop());
  for (const bad of [
    'people@example.test\r\nBcc: all@example.test',
    'a@example.test, b@example.test',
    'People <people@example.test>',
    'group: a@example.test;',
    'people(comment)@example.test',
    '"two words"@example.test',
    'people@example.test>',
    'people@[127.0.0.1]',
    'a@b@example.test',
    '.a@example.test',
    'people',
    '',
  ]) {
    assert.match(problems({ to: [bad] }), /one plain mail address/, bad);
    assert.match(problems({ from: bad }), /one plain mail address/, bad);
    await assert.rejects(sendMail({ smtp: server.url, from, to: [bad] }, mail), { code: 'config-invalid' }, bad);
    await assert.rejects(sendMail({ smtp: server.url, from: bad, to }, mail), { code: 'config-invalid' }, bad);
  }
  assert.deepEqual(server.mails, []);
});

test('a user needs the file of a password, and a file needs a user', () => {
  assert.match(problems({ username: 'gate' }), /both `username` and `passwordFile`, or neither/);
  assert.match(problems({ passwordFile: 'file' }), /both `username` and `passwordFile`, or neither/);
  assert.equal(problems({ username: 'gate', passwordFile: 'file' }), '"taken"');
});

test('a password leaves this machine over TLS only', async () => {
  const server = await MailServer.start({ user: 'gate', password: 'a-password' });
  after(() => server.stop());
  const passwordFile = join(directory, 'password');
  writeFileSync(passwordFile, 'a-password');
  const login = { from, to, username: 'gate', passwordFile };
  await sendMail({ smtp: server.url, ...login }, mail);
  assert.equal(server.mails.length, 1);
  // The same server by an address that is not known to be this machine.
  const smtp = server.url.replace('127.0.0.1', '[::ffff:7f00:1]');
  await assert.rejects(sendMail({ smtp, ...login }, mail), { code: /^forge-/, message: /ETLS|ESTARTTLS|5\d\d/ });
  assert.equal(server.mails.length, 1);
});

test('a server whose certificate nobody vouches for gets no mail', async () => {
  let asked = 0;
  const server = new SMTPServer({
    secure: true,
    authOptional: true,
    onMailFrom: (_, __, done) => {
      asked++;
      done();
    },
  });
  server.on('error', () => {});
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  after(() => new Promise<void>((resolve) => server.close(resolve)));
  const smtp = `smtps://127.0.0.1:${(server.server.address() as AddressInfo).port}`;
  await assert.rejects(sendMail({ smtp, from, to }, mail), { code: 'forge-unreachable', recover: 'retry' });
  assert.equal(asked, 0);
});

const GREETING = '220 hello\r\n';
const MANNERS: Readonly<Record<string, (socket: Socket) => void>> = {
  'says nothing': () => {},
  'greets and says nothing more': (socket) => void socket.write(GREETING),
  'says one byte at a time': (socket) => {
    const timer = setInterval(() => socket.write('2'), 20);
    socket.on('close', () => clearInterval(timer));
  },
  'goes on with its greeting': (socket) => {
    const timer = setInterval(() => socket.write('220-very-secret\r\n'.repeat(4000)), 5);
    socket.on('close', () => clearInterval(timer));
  },
  'says a line without end': (socket) => {
    const timer = setInterval(() => socket.write('very-secret'.repeat(10_000)), 5);
    socket.on('close', () => clearInterval(timer));
  },
  'refuses with a text': (socket) => void socket.end('554 very-secret\r\n'),
  'hangs up': (socket) => socket.destroy(),
  'is no mail server': (socket) => void socket.write('HTTP/1.1 400 very-secret\r\n\r\n'),
};

test('a mail server that does not keep to SMTP ends with one error, without its words, in bounded time, and the socket is closed', async () => {
  let manner: (socket: Socket) => void = () => {};
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => open.delete(socket));
    socket.resume();
    manner(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  after(() => server.close());
  const smtp = `smtp://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const limits = { stepMs: 1000, totalMs: 2000, maxBytes: 64 * 1024 };
  for (const [name, one] of Object.entries(MANNERS)) {
    manner = one;
    const memory = process.memoryUsage().rss;
    const begun = performance.now();
    await assert.rejects(
      sendMail({ smtp, from, to }, mail, undefined, limits),
      (thrown: Error & { code: string; recover: string }) => {
        assert.match(thrown.code, /^forge-(unreachable|refused)$/, name);
        assert.doesNotMatch(thrown.message, /very-secret/, name);
        return true;
      },
    );
    assert.ok(performance.now() - begun < 30_000, name);
    assert.ok(process.memoryUsage().rss - memory < 256 * 1024 * 1024, name);
    for (let i = 0; i < 100 && open.size > 0; i++) await new Promise((done) => setTimeout(done, 20));
    assert.equal(open.size, 0, `${name}: the socket is still open`);
  }
  manner = MANNERS['says nothing'] as (socket: Socket) => void;
  const stopped = new AbortController();
  const sent = sendMail({ smtp, from, to }, mail, stopped.signal);
  setTimeout(() => stopped.abort(), 100);
  await assert.rejects(sent, { code: 'forge-unreachable', message: /it was cancelled$/ });
});
