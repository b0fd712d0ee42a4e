import { spawn } from 'node:child_process';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

/** A real smart-HTTP Git server (`git http-backend`) on loopback over a directory of bare repositories. */
export type GitServerOptions = {
  /** PEM; makes it an HTTPS server. */
  readonly tls?: { readonly cert: string; readonly key: string };
  /** `user:password` that every request must bring. */
  readonly login?: string;
};
export type GitServer = { readonly url: string; readonly stop: () => Promise<void> };

// In a thread of its own, so that a test may run `git push` and wait for it.
export async function startGitServer(root: string, port = 0, options: GitServerOptions = {}): Promise<GitServer> {
  const worker = new Worker(new URL(import.meta.url), { workerData: { root, port, options } });
  const url = await new Promise<string>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  return { url, stop: async () => void (await worker.terminate()) };
}

if (!isMainThread && workerData?.root !== undefined)
  void serve(workerData.root, workerData.port, workerData.options).then((url) => parentPort?.postMessage(url));

async function serve(root: string, port: number, { tls, login }: GitServerOptions): Promise<string> {
  const answer: RequestListener = (request, response) => {
    if (login !== undefined && request.headers.authorization !== `Basic ${Buffer.from(login).toString('base64')}`) {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="git"' }).end();
      return;
    }
    const url = new URL(request.url ?? '/', 'http://git');
    const backend = spawn('git', ['http-backend'], {
      env: {
        PATH: process.env['PATH'],
        GIT_PROJECT_ROOT: root,
        GIT_HTTP_EXPORT_ALL: '1',
        PATH_INFO: url.pathname,
        QUERY_STRING: url.search.slice(1),
        REQUEST_METHOD: request.method,
        CONTENT_TYPE: request.headers['content-type'],
        CONTENT_LENGTH: request.headers['content-length'],
        HTTP_CONTENT_ENCODING: request.headers['content-encoding'],
        HTTP_GIT_PROTOCOL: request.headers['git-protocol'] as string | undefined,
        GIT_PROTOCOL: request.headers['git-protocol'] as string | undefined,
        REMOTE_USER: 'test',
        REMOTE_ADDR: '127.0.0.1',
      },
    });
    request.pipe(backend.stdin);
    backend.stdin.on('error', () => {});
    let head = Buffer.alloc(0);
    let begun = false;
    backend.stdout.on('data', (chunk: Buffer) => {
      if (begun) return void response.write(chunk);
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf('\r\n\r\n');
      if (end < 0) return;
      begun = true;
      let status = 200;
      for (const line of head.toString('latin1', 0, end).split('\r\n')) {
        const [name, value] = line.split(/: (.*)/s) as [string, string];
        if (name.toLowerCase() === 'status') status = Number.parseInt(value, 10);
        else response.setHeader(name, value);
      }
      response.statusCode = status;
      response.write(head.subarray(end + 4));
    });
    backend.on('close', () => response.end());
  };
  const server = tls === undefined ? createServer(answer) : createTlsServer(tls, answer);
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  return `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${(server.address() as { port: number }).port}`;
}
