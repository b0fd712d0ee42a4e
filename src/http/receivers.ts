import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Express, Request, Response } from 'express';
import { Recent, sha256 } from '../model/index.ts';

/** An endpoint for a forge: its environment, its authentication, and the action it triggers. */
export type Receiver = {
  readonly environment: string;
  readonly from: 'github' | 'gitlab' | 'gitea' | 'bitbucket' | 'generic';
  /** Read at each call, so that it can be rotated. */
  readonly secret: () => string;
  readonly poke: () => void;
};

const MAX_BODY = 25 * 1024 * 1024; // GitHub sends at most this much; the body is discarded
const BODY_MS = 10_000;
const SKEW_S = 300;
const REMEMBERED = 10_000;

type Log = { info(fields: object, message: string): void; warn(fields: object, message: string): void };
type Refused = { readonly status: 401 | 408 | 413; readonly why: string };

/**
 * Adds `POST /receive/ENVIRONMENT`. It answers 202 to an authenticated call. Accepted are HMAC-SHA-256 of the body
 * (GitHub `X-Hub-Signature-256`, Gitea `X-Gitea-Signature`, Bitbucket `X-Hub-Signature`) and the secret itself (GitLab
 * `X-Gitlab-Token`). The generic form is the HMAC of `TIME.BODY` in `X-Countersign-Signature`, with
 * `X-Countersign-Time` in seconds, at most five minutes old. Each call counts once.
 */
export function addReceivers(app: Express, receivers: readonly Receiver[], log: Log): void {
  const byEnvironment = new Map(receivers.map((r) => [r.environment, r]));
  const heard = new Recent<true>(REMEMBERED);
  app.post('/receive/:environment', async (request: Request, response: Response) => {
    const receiver = byEnvironment.get(String(request.params['environment']));
    if (receiver === undefined) {
      response.status(404).type('text').send('no such receiver\n');
      return;
    }
    const refused = await prove(request, receiver, heard);
    if (refused !== undefined) {
      log.warn(
        { environment: receiver.environment, from: receiver.from, why: refused.why },
        'refused a call from a forge',
      );
      response.status(refused.status).set('connection', 'close').type('text').send(`${refused.why}\n`);
      return;
    }
    log.info({ environment: receiver.environment, from: receiver.from }, 'a forge reports a push');
    receiver.poke();
    response.status(202).type('text').send('looking\n');
  });
}

async function prove(request: Request, { from, secret }: Receiver, heard: Recent<true>): Promise<Refused | undefined> {
  const header = (name: string) => request.get(name) ?? '';
  const time = header('x-countersign-time');
  if (from === 'generic' && !(/^\d{1,12}$/.test(time) && Math.abs(Date.now() / 1000 - Number(time)) <= SKEW_S))
    return { status: 401, why: 'its time is missing, or differs from ours by more than five minutes' };
  const key = secret();
  const mac = createHmac('sha256', key);
  if (from === 'generic') mac.update(`${time}.`);
  const read = await readBody(request, (chunk) => mac.update(chunk));
  if (read !== undefined) return read;
  const [given, wanted] = proofs(from, header, mac.digest('hex'), key);
  if (!equal(given, wanted)) return { status: 401, why: 'it is not authenticated' };
  // Identified by the authenticated content, never by a header, which an eavesdropper could change. GitLab always sends
  // the same secret, so its event id must do.
  const call = `${from} ${from === 'gitlab' ? header('x-gitlab-event-uuid') : given}`;
  if (from === 'gitlab' && header('x-gitlab-event-uuid') === '') return undefined;
  if (heard.get(call) === true) return { status: 401, why: 'this call was already received' };
  heard.set(call, true);
  return undefined;
}

function proofs(from: Receiver['from'], header: (name: string) => string, mac: string, key: string): [string, string] {
  switch (from) {
    case 'github':
      return [header('x-hub-signature-256'), `sha256=${mac}`];
    case 'bitbucket':
      return [header('x-hub-signature'), `sha256=${mac}`];
    case 'gitea':
      return [header('x-gitea-signature'), mac];
    case 'gitlab':
      return [header('x-gitlab-token'), key];
    case 'generic':
      return [header('x-countersign-signature'), mac];
  }
}

// Compares digests, which always have equal length.
function equal(given: string, wanted: string): boolean {
  return timingSafeEqual(Buffer.from(sha256(given)), Buffer.from(sha256(wanted)));
}

function readBody(request: Request, take: (chunk: Buffer) => void): Promise<Refused | undefined> {
  return new Promise((resolve) => {
    let size = 0;
    const timer = setTimeout(() => end({ status: 408, why: 'it took too long' }), BODY_MS);
    const end = (refused: Refused | undefined) => {
      clearTimeout(timer);
      request.pause();
      resolve(refused);
    };
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_BODY) end({ status: 413, why: 'it is too large' });
      else take(chunk);
    });
    request.on('end', () => end(undefined));
    request.on('error', () => end({ status: 408, why: 'it broke off' }));
    request.on('close', () => end({ status: 408, why: 'it broke off' }));
  });
}
