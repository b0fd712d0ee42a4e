import { connect, type Socket } from 'node:net';
import type { SendMailOptions } from 'nodemailer';
import {
  CountersignError,
  isLoopback,
  type MailServerAddress,
  mailbox,
  mailServer,
  type Notifier,
} from '../model/index.ts';
import { readSecret } from './secret.ts';

/** The mail server, the sender and the recipients. */
export type Email = Extract<Notifier['spec']['to'], { email: unknown }>['email'];

/** One mail. Attachments are bytes: the mail library must not read files or fetch addresses. */
export type Mail = {
  readonly subject: string;
  readonly text: string;
  readonly attachments?: readonly { readonly filename: string; readonly content: Uint8Array }[];
};

/** Limits on the time of a step, the total time, and the bytes received from the server. */
export type MailLimits = { readonly stepMs: number; readonly totalMs: number; readonly maxBytes: number };

const LIMITS: MailLimits = {
  stepMs: 10_000,
  totalMs: 120_000, // 15 MiB over a slow line
  maxBytes: 256 * 1024, // a dialogue has about thirty lines
};
const LOOK_MS = 20;

/**
 * Sends one mail through the mail server. Throws `forge-unreachable` and `forge-refused` (with the server's number but
 * none of its text), `config-invalid` and `key-missing`.
 */
export async function sendMail(
  { smtp, from, to, username, passwordFile }: Email,
  mail: Mail,
  signal?: AbortSignal,
  limits: MailLimits = LIMITS,
): Promise<void> {
  const server = mailServer(smtp);
  const envelope = { from: mailbox(from), to: to.map(mailbox) };
  const login =
    username === undefined || passwordFile === undefined
      ? undefined
      : { user: username, pass: readSecret(passwordFile) };
  const { createTransport } = await import('nodemailer'); // loaded on demand: most services send no mail
  const line = await open(server, limits, signal);
  const transport = createTransport({
    ...optionsFor(server, limits),
    ...(login === undefined ? {} : { auth: login }),
    // Passwords are only sent to servers with a certificate, except on this machine, where no one can listen in.
    requireTLS: login !== undefined && !server.secure && !isLoopback(server.host),
    getSocket: (_, done) => done(null, { connection: line.socket }),
  });
  const address = (plain: string) => ({ name: '', address: plain });
  const message: SendMailOptions = {
    from: address(envelope.from),
    to: envelope.to.map(address),
    envelope,
    subject: mail.subject,
    text: mail.text,
    attachments: mail.attachments?.map(({ filename, content }) => ({ filename, content: Buffer.from(content) })) ?? [],
    disableFileAccess: true,
    disableUrlAccess: true,
  };
  try {
    await Promise.race([transport.sendMail(message), line.ended]);
  } catch (cause) {
    throw cause instanceof CountersignError ? cause : refusedBy(server, cause);
  } finally {
    line.close();
    transport.close();
  }
}

// Every option passed on is listed here. Certificates are always verified.
function optionsFor({ host, port, secure }: MailServerAddress, { stepMs }: MailLimits) {
  const name = host.replace(/^\[(.*)\]$/, '$1');
  return {
    host: name,
    port,
    secure,
    tls: { rejectUnauthorized: true, minVersion: 'TLSv1.2' as const },
    connectionTimeout: stepMs,
    greetingTimeout: stepMs,
    socketTimeout: stepMs,
    dnsTimeout: stepMs,
    disableFileAccess: true,
    disableUrlAccess: true,
  };
}

type Line = { readonly socket: Socket; readonly ended: Promise<never>; readonly close: () => void };

// We own the socket, so that we can end it: the library waits as long as the server keeps sending.
async function open(
  server: MailServerAddress,
  { stepMs, totalMs, maxBytes }: MailLimits,
  signal: AbortSignal | undefined,
): Promise<Line> {
  const socket = connect({ host: server.host.replace(/^\[(.*)\]$/, '$1'), port: server.port });
  const { promise: ended, reject } = Promise.withResolvers<never>();
  ended.catch(() => {});
  const end = (why: string) => {
    reject(unreachable(server, why));
    socket.destroy();
  };
  const onAbort = () => end('it was cancelled');
  const total = setTimeout(() => end(`it did not finish within ${totalMs / 1000} s`), totalMs);
  const look = setInterval(() => {
    if (socket.bytesRead > maxBytes) end(`it sent more than ${maxBytes} bytes`);
  }, LOOK_MS);
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted === true) onAbort();
  const close = () => {
    clearTimeout(total);
    clearInterval(look);
    signal?.removeEventListener('abort', onAbort);
    socket.destroy();
  };
  const step = setTimeout(() => end(`it does not answer within ${stepMs / 1000} s`), stepMs);
  const connected = new Promise<void>((resolve, failed) => {
    socket.once('connect', () => resolve());
    socket.on('error', (cause) => failed(unreachable(server, codeOf(cause))));
  });
  try {
    await Promise.race([connected, ended]);
  } catch (thrown) {
    close();
    throw thrown;
  } finally {
    clearTimeout(step);
  }
  return { socket, ended, close };
}

// A number and a word that we know: text from the server never appears in logs, entries or messages.
function refusedBy(server: MailServerAddress, cause: unknown): CountersignError {
  const { responseCode } = cause as { responseCode?: unknown };
  if (typeof responseCode !== 'number' || responseCode < 400 || responseCode > 599)
    return unreachable(server, codeOf(cause));
  return new CountersignError(
    'forge-refused',
    `the mail server \`${server.host}:${server.port}\` answers ${responseCode} (${codeOf(cause)})`,
    {
      hint:
        responseCode === 535
          ? 'check `username` and the file of `passwordFile`'
          : 'see the log of the mail server for the reason',
      recover: responseCode < 500 ? 'retry' : 'wait',
    },
  );
}

function unreachable({ host, port }: MailServerAddress, why: string): CountersignError {
  return new CountersignError(
    'forge-unreachable',
    `the mail server \`${host}:${port}\` did not accept the mail: ${why}`,
    {
      recover: 'retry',
    },
  );
}

function codeOf(thrown: unknown): string {
  const { code } = thrown as { code?: unknown };
  return typeof code === 'string' && /^[A-Za-z][A-Za-z0-9_]{0,63}$/.test(code) ? code : 'it broke off';
}
