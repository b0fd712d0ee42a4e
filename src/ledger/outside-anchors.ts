import { createHash, X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { below, CountersignError, type HttpAddress, messageOf } from '../model/index.ts';
import { askServer, type Limits, type Reply } from '../outgoing/index.ts';
import type { Anchor } from './anchors.ts';
import { parseCheckpoint } from './checkpoint.ts';
import { cosignedAt, parseWitness } from './cosignature.ts';
import type { LedgerReader } from './ledger-reader.ts';
import { consistencyProof } from './merkle.ts';
import { splitNote } from './note.ts';
import { halt } from './sequencer.ts';

// A token with its certificates takes a few kB, a cosignature two hundred bytes.
const LIMITS: Limits = { bytes: 100_000, quietMs: 10_000, totalMs: 15_000 };
// The answer of a witness: signature lines only (C2SP signed-note).
const SIGNATURES = /^(?:— [^\s+]+ [A-Za-z0-9+/]+={0,2}\n){1,20}$/;

/** Returns an anchor in a file, which should be on another disk or machine than the ledger. */
export function fileAnchor(path: string): Anchor {
  return {
    name: `file ${path}`,
    read: async () => (existsSync(path) ? readFileSync(path, 'utf8') : undefined),
    write: async (note) => replace(path, note),
  };
}

/**
 * Returns an anchor at a witness (C2SP tlog-witness). A witness co-signs a checkpoint only if it extends the last one
 * it saw, so it cannot be shown two histories. The co-signed note is stored in `directory`. A witness that has seen
 * more than the ledger holds halts the ledger.
 */
export function witnessAnchor(
  address: HttpAddress,
  keyText: string,
  directory: string,
  reader: LedgerReader,
  limits: Limits = LIMITS,
): Anchor {
  const witness = parseWitness(keyText);
  const file = join(directory, `witness-${witness.name.replaceAll(/[^\w.-]/g, '_')}`);
  const name = `witness ${witness.name}`;
  return {
    name,
    read: async () => (existsSync(file) ? readFileSync(file, 'utf8') : undefined),
    write: async (note) => {
      const size = sizeOf(note);
      let old = existsSync(file) ? sizeOf(readFileSync(file, 'utf8')) : 0;
      for (let attempt = 1; ; attempt++) {
        const hashes = consistencyProof(old, size, reader.nodes(size)).map((h) => `${h.toString('base64')}\n`);
        const body = `old ${old}\n${hashes.join('')}\n${note}`;
        const reply = await post(name, below(address, '/add-checkpoint'), { body, type: 'text/plain' }, limits);
        const { status } = reply;
        const answer = reply.body.toString('utf8');
        if (status === 200) {
          const lines = answer.endsWith('\n') ? answer : `${answer}\n`;
          const cosigned = `${note}${lines}`;
          if (!SIGNATURES.test(lines) || cosignedAt(cosigned, witness) === undefined)
            throw trouble(`${name} answers without a valid signature of its own`);
          return replace(file, cosigned);
        }
        // 409 gives the size the witness saw last; 422 means that the proof does not lead there.
        const seen = status === 409 && /^\d{1,15}\s*$/.test(answer) ? Number(answer) : undefined;
        if (seen !== undefined && seen > size && seen > reader.size)
          throw halt(
            `${name} has seen ${seen} entries of this ledger, ` +
              `but it holds ${reader.size}: the ledger was rolled back to an older state`,
          );
        if (status === 422)
          throw halt(`${name} has seen a different history of this ledger: this one does not extend the signed state`);
        if (seen === undefined || seen > size || attempt === 3)
          throw trouble(`${name} does not co-sign: it answers ${status}`);
        old = seen;
      }
    },
  };
}

/**
 * Returns an anchor at a time-stamping authority (RFC 3161), which attests when a checkpoint existed. Token and note
 * are stored in `directory`.
 */
export function timestampAnchor(
  address: HttpAddress,
  certificate: string,
  directory: string,
  limits: Limits = LIMITS,
): Anchor {
  const key = new X509Certificate(certificate).publicKey;
  const file = join(directory, `timestamp-${address.host}`);
  const name = `timestamp ${address.host}`;
  return {
    name,
    read: async () => (existsSync(file) ? readFileSync(file, 'utf8') : undefined),
    write: async (note) => {
      const { status, body } = await post(
        name,
        address,
        { body: timestampQuery(note), type: 'application/timestamp-query' },
        limits,
      );
      if (status !== 200) throw trouble(`the time-stamping authority of ${name} answers ${status}`);
      const { RFC3161Timestamp } = await import('@sigstore/core');
      try {
        const token = RFC3161Timestamp.parse(Buffer.from(body));
        if (token.status !== 0n && token.status !== 1n) throw new Error('it refuses');
        token.verify(Buffer.from(note), key);
      } catch {
        throw trouble(`the time-stamping authority of ${name} returns no valid token`);
      }
      replace(`${file}.tsr`, body);
      replace(file, note);
    },
  };
}

/** Builds a request for a time-stamp, with certificate, over the SHA-256 of a text (RFC 3161 section 2.4.1). */
function timestampQuery(text: string): Buffer {
  const der = (tag: number, ...parts: readonly Buffer[]) => {
    const content = Buffer.concat(parts);
    return Buffer.concat([Buffer.from([tag, content.length]), content]); // the total is far below 128 bytes
  };
  const sha256 = der(0x30, Buffer.from('0609608648016503040201', 'hex'), Buffer.from('0500', 'hex'));
  const imprint = der(0x30, sha256, der(0x04, createHash('sha256').update(text).digest()));
  return der(0x30, der(0x02, Buffer.from([1])), imprint, der(0x01, Buffer.from([0xff])));
}

type Posted = { readonly body: string | Buffer; readonly type: string };

async function post(name: string, address: HttpAddress, { body, type }: Posted, limits: Limits): Promise<Reply> {
  try {
    return await askServer(address, { method: 'POST', headers: { 'content-type': type }, body }, limits);
  } catch (cause) {
    throw trouble(`cannot reach ${name}: ${messageOf(cause)}`, cause);
  }
}

function trouble(message: string, cause?: unknown): CountersignError {
  return new CountersignError('ledger-unusable', message, {
    recover: 'retry',
    ...(cause === undefined ? {} : { cause }),
  });
}

function sizeOf(note: string): number {
  return parseCheckpoint(splitNote(note)?.text ?? '')?.size ?? 0;
}

function replace(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.new`, content);
  renameSync(`${path}.new`, path);
}
