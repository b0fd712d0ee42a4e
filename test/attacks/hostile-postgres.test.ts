import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { after, test } from 'node:test';
import { PostgresTables } from '../../src/ledger/postgres.ts';
import { CountersignError } from '../../src/model/index.ts';
import { WORDS } from '../kit/hostile-server.ts';

// A database server that means harm, or only looks as if it did: nobody waits for it, keeps what it sends, or repeats
// what it says.
const limits = { connectMs: 1000, answerMs: 1000, bytes: 8 * 1024 * 1024 };
const MOST_MEMORY = 300 * 1024 * 1024;
const LATE_MS = 20_000; // a busy machine takes long; what never ends takes longer
const closing: (() => void)[] = [];
after(() => closing.forEach((close) => void close()));

function message(type: string, ...parts: readonly (Buffer | string)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part as string)));
  const head = Buffer.from(`${type}0000`);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}
const int16 = (n: number) => Buffer.from([n >> 8, n & 255]);
const int32 = (n: number) => Buffer.from([n >> 24, (n >> 16) & 255, (n >> 8) & 255, n & 255]);
const error = (fields: Readonly<Record<string, string>>) =>
  message(
    'E',
    Object.entries(fields)
      .map(([key, value]) => `${key}${value}\0`)
      .join(''),
    '\0',
  );

const READY = message('Z', 'I');
const WELCOME = Buffer.concat([message('R', int32(0)), READY]);
const LONG = `${WORDS} `.repeat(100_000);

// One row that answers every question of a client that connects: [name, type, text].
const COLUMNS = [
  ['pid', 23, '7'],
  ['since', 25, 'then'],
  ['there', 16, 't'],
  ['change', 16, 'f'],
  ['held', 16, 't'],
] as const;
const DESCRIPTION = message(
  'T',
  int16(COLUMNS.length),
  ...COLUMNS.flatMap(([name, type]) => [
    `${name}\0`,
    int32(0),
    int16(0),
    int32(type),
    int16(-1 & 0xffff),
    int32(-1),
    int16(0),
  ]),
);
const ROW = message('D', int16(COLUMNS.length), ...COLUMNS.flatMap(([, , text]) => [int32(text.length), text]));
const ANSWER = Buffer.concat([message('1'), message('2'), DESCRIPTION, ROW, message('C', 'SELECT 1\0'), READY]);

function pour(socket: Socket, piece: Buffer): void {
  const more = () => {
    while (socket.writable && socket.write(piece));
  };
  socket.on('drain', more);
  more();
}

/** Answers what comes with one piece after the other, in the order of the questions; the last one again and again. */
type Act = (socket: Socket) => void;
const send =
  (bytes: Buffer | string): Act =>
  (socket) =>
    void socket.write(bytes);
const silent: Act = () => {};

async function server(...acts: readonly Act[]): Promise<{ readonly port: number; readonly open: Set<Socket> }> {
  const open = new Set<Socket>();
  const listening = createServer((socket) => {
    open.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => open.delete(socket));
    let asked = 0;
    socket.on('data', () => acts[Math.min(asked++, acts.length - 1)]?.(socket));
  });
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
  closing.push(() => listening.close());
  return { port: (listening.address() as { port: number }).port, open };
}

async function refused(run: () => Promise<unknown>): Promise<CountersignError> {
  const [memory, begun] = [process.memoryUsage().rss, performance.now()];
  const thrown = await run().then(
    () => assert.fail('it was taken for an answer'),
    (e: unknown) => e,
  );
  assert.ok(thrown instanceof CountersignError, String(thrown));
  assert.deepEqual([thrown.code, thrown.recover], ['ledger-unusable', 'retry']);
  const whole = `${thrown.message} ${thrown.hint ?? ''} ${String(thrown.cause ?? '')}`;
  assert.doesNotMatch(whole, new RegExp(`${WORDS}|a-password`));
  assert.ok(whole.length < 1000);
  assert.ok(performance.now() - begun < LATE_MS, `after ${Math.round(performance.now() - begun)} ms`);
  assert.ok(
    process.memoryUsage().rss - memory < MOST_MEMORY,
    `${Math.round((process.memoryUsage().rss - memory) / 1e6)} MB more`,
  );
  return thrown;
}

async function ended(open: Set<Socket>): Promise<void> {
  for (let i = 0; i < 250 && open.size > 0; i++) await new Promise((done) => setTimeout(done, 20));
  assert.equal(open.size, 0, 'connections that nobody ended');
}

const endless: Act = (socket) => {
  socket.write(Buffer.concat([message('1'), message('2'), DESCRIPTION]));
  pour(socket, Buffer.concat(Array.from({ length: 1000 }, () => ROW)));
};
const oneWithoutEnd: Act = (socket) => {
  socket.write(Buffer.concat([Buffer.from('D'), int32(0x7fff_ffff)]));
  pour(socket, Buffer.alloc(1024 * 1024, WORDS));
};
const torn = send(message('D', int16(5))); // five columns are announced, and none comes
const manyWords = error({ S: 'FATAL', V: 'FATAL', C: '28P01', M: LONG, D: LONG, H: LONG });
const noCode = error({ S: 'FATAL', V: 'FATAL', C: `${WORDS}\n`, M: LONG });

const WHILE_CONNECTING: Readonly<
  Record<string, { readonly acts: readonly Act[]; readonly says: RegExp; readonly query?: string }>
> = {
  'says nothing': { acts: [silent], says: /does not answer within 1 s|broke off/ },
  'says nothing after TLS was agreed on': {
    acts: [send('S'), silent],
    says: /does not answer within 1 s|broke off/,
    query: '?sslmode=require',
  },
  'refuses TLS': { acts: [send('N'), silent], says: /broke off/, query: '?sslmode=require' },
  'says nothing after the startup': { acts: [send(WELCOME), silent], says: /does not answer within 1 s/ },
  'writes garbage': { acts: [send(Buffer.alloc(4096, `${WORDS}\0\xff`))], says: /./ },
  'asks for a password in a way that is none': { acts: [send(message('R', int32(99)))], says: /./ },
  'asks for the password again and again': {
    acts: [send(message('R', int32(3)))],
    says: /does not answer within 1 s|broke off/,
  },
  'answers the first statement without end': { acts: [send(WELCOME), endless], says: /more than 8388608 bytes/ },
  'answers with a message without end': { acts: [send(WELCOME), oneWithoutEnd], says: /more than 8388608 bytes/ },
  'answers with a torn row': { acts: [send(WELCOME), torn], says: /not valid PostgreSQL|does not answer/ },
  'refuses with many words': {
    acts: [send(manyWords)],
    says: /rejects this user or password \(SQLSTATE 28P01\)/,
  },
  'refuses with a code that is none': { acts: [send(noCode)], says: /database: its answer is not valid PostgreSQL/ },
  'closes at once': { acts: [(socket) => void socket.destroy()], says: /broke off|ECONNRESET/ },
};

for (const [name, { acts, says, query = '' }] of Object.entries(WHILE_CONNECTING))
  test(`a database that ${name} is left, while connecting`, async () => {
    const { port, open } = await server(...acts);
    const tables = new PostgresTables(`postgres://gate:a-password@127.0.0.1:${port}/x${query}`, () => {}, limits);
    assert.match((await refused(() => tables.connect())).message, says);
    assert.equal(tables.isConnected, false);
    await tables.close();
    await ended(open);
  });

async function connected(...acts: readonly Act[]) {
  const answers = [
    send(WELCOME),
    send(Buffer.concat([message('C', 'SET\0'), READY])),
    ...Array.from({ length: 6 }, () => send(ANSWER)),
  ];
  const at = await server(...answers, ...acts);
  const tables = new PostgresTables(`postgres://gate@127.0.0.1:${at.port}/x`, () => {}, limits);
  await tables.connect();
  return { ...at, tables };
}

for (const [name, act, says] of [
  ['says nothing', silent, /does not answer within 1 s/],
  ['answers without end', endless, /more than 8388608 bytes/],
  ['sends a row without end', oneWithoutEnd, /more than 8388608 bytes/],
  ['sends a torn row', torn, /not valid PostgreSQL/],
  ['writes garbage', send(Buffer.alloc(4096, `${WORDS}\0\xff`)), /./],
  ['hangs up', (socket) => void socket.destroy(), /broke off|ECONNRESET/],
] as readonly (readonly [string, Act, RegExp])[])
  test(`a database that ${name} is left, later on`, async () => {
    const { tables, open } = await connected(act);
    assert.match((await refused(() => tables.hasEntries())).message, says);
    assert.equal(tables.isConnected, false, 'what it says next would be taken for an answer to another question');
    await ended(open);
  });

test('a refusal is told by its SQLSTATE and our words, and the connection stays', async () => {
  const denied = Buffer.concat([error({ S: 'ERROR', V: 'ERROR', C: '42501', M: LONG, t: WORDS }), READY]);
  const strange = Buffer.concat([error({ S: 'ERROR', V: 'ERROR', C: 'ZZ123', M: LONG }), READY]);
  const { tables, open } = await connected(send(denied), send(strange), send(ANSWER));
  assert.match((await refused(() => tables.hasEntries())).message, /the role lacks a privilege.*SQLSTATE 42501/);
  assert.match((await refused(() => tables.hasEntries())).message, /it refuses \(SQLSTATE ZZ123\)/);
  assert.equal(tables.isConnected, true);
  assert.equal(await tables.hasEntries(), true);
  await tables.close();
  await ended(open);
});

test('a row in the way is told by its number, and by nothing else that the server says of it', async () => {
  const taken = (detail: string) =>
    Buffer.concat([error({ S: 'ERROR', V: 'ERROR', C: '23505', M: LONG, t: 'entry', D: detail }), READY]);
  const { tables } = await connected(
    send(taken('Key (seq)=(7) already exists.')),
    send(taken(`Key (seq)=(${'9'.repeat(100_000)})`)),
  );
  assert.match((await refused(() => tables.hasEntries())).message, /next row of the table `entry` belongs at 7/);
  assert.match((await refused(() => tables.hasEntries())).message, /at \?/);
  await tables.close();
});

test('what comes without a question is not kept', async () => {
  const { tables, open } = await connected(silent);
  const memory = process.memoryUsage().rss;
  for (const socket of open) oneWithoutEnd(socket);
  await ended(open);
  assert.equal(tables.isConnected, false);
  assert.ok(process.memoryUsage().rss - memory < MOST_MEMORY);
});
