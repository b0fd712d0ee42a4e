import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { createServer } from 'node:http';
import { openCheckpoint, parseVerifier } from '../../src/ledger/index.ts';
import { isConsistent } from '../../src/ledger/merkle.ts';

/** A witness on loopback (C2SP tlog-witness): it remembers what it saw, and co-signs only what extends that. */
export async function startWitness(
  logKey: string,
): Promise<{ url: string; key: string; seen: () => number; stop: () => Promise<void> }> {
  const name = 'witness.test/w1';
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const raw = publicKey.export({ type: 'spki', format: 'der' }).subarray(12);
  const key = Buffer.concat([Buffer.from([4]), raw]);
  const id = createHash('sha256').update(`${name}\n`).update(key).digest().subarray(0, 4);
  let seen = { size: 0, root: createHash('sha256').digest() as Buffer };

  const decide = (body: string): { status: number; text: string } => {
    const match = /^old (\d+)\n((?:[A-Za-z0-9+/=]{44}\n)*)\n([\s\S]+)$/.exec(body);
    const checkpoint = openCheckpoint(match?.[3] ?? '', parseVerifier(logKey));
    if (match === null || checkpoint === undefined) return { status: 403, text: 'not a checkpoint of a log I know\n' };
    if (Number(match[1]) !== seen.size) return { status: 409, text: `${seen.size}\n` };
    const proof = (match[2] ?? '')
      .split('\n')
      .slice(0, -1)
      .map((line) => Buffer.from(line, 'base64'));
    if (!isConsistent([seen.size, seen.root], [checkpoint.size, checkpoint.root], proof))
      return { status: 422, text: 'not consistent\n' };
    seen = checkpoint;
    const time = Math.floor(Date.now() / 1000);
    const text = (match[3] ?? '').slice(0, (match[3] ?? '').lastIndexOf('\n\n') + 1);
    const stamp = Buffer.alloc(8);
    stamp.writeBigUInt64BE(BigInt(time));
    const signature = sign(null, Buffer.from(`cosignature/v1\ntime ${time}\n${text}`), privateKey);
    return { status: 200, text: `— ${name} ${Buffer.concat([id, stamp, signature]).toString('base64')}\n` };
  };

  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (d) => (body += d));
    request.on('end', () => {
      const { status, text } = request.url === '/add-checkpoint' ? decide(body) : { status: 404, text: '' };
      response.writeHead(status, { 'content-type': status === 409 ? 'text/x.tlog.size' : 'text/plain' }).end(text);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as { port: number }).port}`,
    key: `${name}+${id.toString('hex')}+${key.toString('base64')}`,
    seen: () => seen.size,
    stop: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
