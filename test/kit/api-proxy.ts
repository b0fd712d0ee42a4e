import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { request } from 'node:https';
import { join } from 'node:path';
import type { ControlPlane } from './control-plane.ts';

/**
 * What happens to a request: `pass`; `mute`, so that an answer begins and says nothing; an answer of the proxy's own,
 * before or after the server did the work; no answer; or a delay.
 */
export type Fault =
  | 'pass'
  | 'mute'
  | { readonly status: number; readonly after?: boolean; readonly retryAfter?: number; readonly body?: object }
  | { readonly drop: 'before' | 'after' }
  | { readonly delayMs: number };

export type Asked = {
  readonly method: string;
  readonly path: string;
  readonly dryRun: boolean;
  readonly watch: boolean;
  ended?: true;
};

/** A proxy between service and API server on which requests fail as a test says, and which counts what passes. */
export type ApiProxy = {
  readonly kubeconfig: string;
  /** Every request so far, watches included. */
  readonly seen: Asked[];
  fault: (asked: Asked) => Fault;
  /** Breaks off the answers to what was asked. */
  readonly cut: (which: (asked: Asked) => boolean) => void;
  readonly stop: () => Promise<void>;
};

/** Starts one for a user of the control plane. */
export async function startApiProxy(controlPlane: ControlPlane, user: string): Promise<ApiProxy> {
  const ca = readFileSync(join(controlPlane.directory, 'certs', 'apiserver.crt'));
  const target = new URL(controlPlane.url);
  const seen: Asked[] = [];
  const answering = new Map<Asked, ServerResponse>();
  const proxy = { seen, fault: (): Fault => 'pass' } as { seen: Asked[]; fault: (asked: Asked) => Fault };
  const server = createServer((incoming, response) => {
    const path = incoming.url ?? '';
    const chunks: Buffer[] = [];
    incoming.on('data', (c: Buffer) => chunks.push(c));
    incoming.on('end', () => {
      const body = Buffer.concat(chunks);
      const dryRun = path.includes('dryRun=All') || body.includes('"dryRun":["All"]');
      const asked: Asked = { method: incoming.method ?? '', path, dryRun, watch: path.includes('watch=1') };
      seen.push(asked);
      answering.set(asked, response);
      response.once('close', () => {
        answering.delete(asked);
        asked.ended = true;
      });
      void answer(asked, proxy.fault(asked), incoming, body, response);
    });
  });
  const forward = (incoming: IncomingMessage, body: Buffer): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      const headers = { ...incoming.headers, host: target.host };
      const sent = request(
        { host: target.hostname, port: target.port, path: incoming.url, method: incoming.method, headers, ca },
        resolve,
      );
      sent.on('error', reject);
      sent.end(body);
    });
  const answer = async (
    asked: Asked,
    fault: Fault,
    incoming: IncomingMessage,
    body: Buffer,
    response: ServerResponse,
  ) => {
    const own = (status: number, retryAfter?: number, given?: object) => {
      response.writeHead(status, {
        'content-type': 'application/json',
        ...(retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) }),
      });
      response.end(
        JSON.stringify(
          given ?? {
            kind: 'Status',
            status: 'Failure',
            code: status,
            reason: 'Injected',
            message: `injected ${status}`,
          },
        ),
      );
    };
    try {
      if (typeof fault === 'object' && 'drop' in fault && fault.drop === 'before')
        return void incoming.socket.destroy();
      if (typeof fault === 'object' && 'status' in fault && fault.after !== true)
        return own(fault.status, fault.retryAfter, fault.body);
      if (typeof fault === 'object' && 'delayMs' in fault)
        await new Promise((resolve) => setTimeout(resolve, fault.delayMs));
      const upstream = await forward(incoming, body);
      if (typeof fault === 'object' && ('status' in fault || 'drop' in fault)) {
        upstream.resume();
        await new Promise((resolve) => upstream.once('end', resolve));
        return 'status' in fault ? own(fault.status, fault.retryAfter, fault.body) : void incoming.socket.destroy();
      }
      response.writeHead(upstream.statusCode ?? 502, upstream.headers);
      if (fault === 'mute') upstream.resume().on('end', () => response.end());
      else upstream.pipe(response);
      upstream.on('error', () => response.destroy());
      response.on('close', () => upstream.destroy());
      if (asked.watch) response.flushHeaders();
    } catch {
      incoming.socket.destroy();
    }
  };
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const kubeconfig = join(controlPlane.directory, 'kube', `${user}-through-${port}.yaml`);
  const config = JSON.parse(readFileSync(controlPlane.kubeconfig(user), 'utf8')) as { clusters: { cluster: object }[] };
  (config.clusters[0] as { cluster: object }).cluster = {
    server: `http://127.0.0.1:${port}`,
    'insecure-skip-tls-verify': true,
  };
  writeFileSync(kubeconfig, JSON.stringify(config));
  return Object.assign(proxy, {
    kubeconfig,
    cut: (which: (asked: Asked) => boolean) => {
      for (const [asked, response] of answering) if (which(asked)) response.destroy();
    },
    stop: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  });
}
