import { chmodSync, existsSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, request } from 'node:http';
import type { Socket } from 'node:net';
import { CountersignError, messageOf } from '../model/index.ts';

/** Answer to a command: success or failure for the exit code, and a result to show. */
export type ControlAnswer = { readonly ok: boolean; readonly result: unknown };

/** Executes a command. Throws a `CountersignError` if that is impossible. */
export type Control = (command: string, options: Readonly<Record<string, unknown>>) => Promise<ControlAnswer>;

const MAX_BODY = 64 * 1024;
const MAX_ANSWER = 64 * 1024 * 1024;
const ANSWER_MS = 900_000; // a rollback waits until its objects are healthy

/**
 * Accepts commands on a socket in the data directory. Anyone who can write there controls this service anyway, because
 * they have its ledger and key. Returns a function that stops it; commands that outlive it are still answered.
 */
export async function listenForCommands(
  socket: string,
  control: Control,
  outlives: (command: string) => boolean = () => false,
): Promise<() => Promise<void>> {
  // left by a service that was killed: the ledger's own lock ensures that none is running
  if (existsSync(socket)) rmSync(socket);
  const ending = new Set<Socket>();
  const server = createServer(async (incoming, response) => {
    const command = (incoming.url ?? '').slice(1);
    if (!outlives(command)) ending.add(incoming.socket);
    incoming.socket.once('close', () => ending.delete(incoming.socket));
    const say = (status: number, body: unknown) => {
      response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
      response.end(JSON.stringify(body));
    };
    try {
      const text = await readAll(incoming, MAX_BODY);
      const options = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
      say(200, await control(command, options));
    } catch (thrown) {
      const { code = 'usage', hint } = thrown instanceof CountersignError ? thrown : {};
      say(500, { code, message: messageOf(thrown), hint });
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socket, resolve);
  });
  chmodSync(socket, 0o600);
  return async () => {
    server.close();
    server.closeIdleConnections();
    for (const connection of ending) connection.destroy();
  };
}

/** Sends a command to the service running on a data directory; returns undefined if there is none. */
export function sendCommand(socket: string, command: string, options: object): Promise<ControlAnswer | undefined> {
  const payload = JSON.stringify(options);
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        socketPath: socket,
        path: `/${command}`,
        method: 'POST',
        headers: { 'content-length': Buffer.byteLength(payload) },
        timeout: ANSWER_MS,
      },
      (response) => {
        readAll(response, MAX_ANSWER).then((text) => {
          const body = JSON.parse(text) as ControlAnswer & {
            code?: CountersignError['code'];
            message?: string;
            hint?: string;
          };
          if (response.statusCode === 200) return resolve(body);
          reject(
            new CountersignError(
              body.code ?? 'usage',
              body.message ?? 'the service could not execute the command',
              body.hint === undefined ? {} : { hint: body.hint },
            ),
          );
        }, reject);
      },
    );
    sent.on('timeout', () => sent.destroy(new Error('the service does not answer')));
    sent.on('error', (cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT' || cause.code === 'ECONNREFUSED') return resolve(undefined);
      reject(
        new CountersignError('usage', `cannot reach the service at \`${socket}\`: ${messageOf(cause)}`, {
          cause,
          hint: 'run this as the same user as the service',
        }),
      );
    });
    sent.end(payload);
  });
}

async function readAll(stream: IncomingMessage, limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw new CountersignError('usage', `more than ${limit} bytes were sent`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
