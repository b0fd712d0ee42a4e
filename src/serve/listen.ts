import type { Server as PlainServer } from 'node:http';
import type { Server as TlsServer } from 'node:https';
import { CountersignError, messageOf } from '../model/index.ts';

type Server = PlainServer | TlsServer;

/** Parses `HOST:PORT` in an option. Throws `usage`. */
export function listenAddress(text: string, option = '--webhook'): { host: string; port: number } {
  const match = /^(.+):(\d{1,5})$/.exec(text);
  if (match === null)
    throw new CountersignError('usage', `\`${text}\` is not an address to listen on`, {
      hint: `use for example ${option} 127.0.0.1:9443, or ${option} off`,
    });
  return { host: match[1] ?? '', port: Number(match[2]) };
}

/**
 * Resolves once the server listens; with `shares`, others may listen at the same address. Throws `port-in-use`, or
 * `usage` for an address this machine does not have.
 */
export function listen(
  server: Server,
  host: string,
  port: number,
  option = '--webhook',
  shares = false,
): Promise<void> {
  return new Promise((done, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const taken = cause.code === 'EADDRINUSE';
      reject(
        new CountersignError(
          taken ? 'port-in-use' : 'usage',
          taken ? `the port ${port} on ${host} is in use` : `cannot listen on ${host}:${port}: ${messageOf(cause)}`,
          { cause, hint: `choose a different address with ${option} HOST:PORT` },
        ),
      );
    });
    server.listen({ port, host, ...(shares ? { reusePort: true } : {}) }, () => done());
  });
}

/** Waits up to two seconds for pending answers. */
export function closeServer(server: Server): Promise<void> {
  return new Promise((done) => {
    const late = setTimeout(() => {
      server.closeAllConnections();
      done(); // a connection that has not spoken TLS yet is none of the server's, and may stay for minutes
    }, 2000);
    server.close(() => {
      clearTimeout(late);
      done();
    });
    server.closeIdleConnections();
  });
}
