import { createHash, X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { RFC3161Timestamp } from '@sigstore/core';
import { CountersignError, messageOf } from '../model/index.ts';
import type { Anchor } from './anchors.ts';
import { parseCheckpoint } from './checkpoint.ts';
import { cosignedAt, parseWitness } from './cosignature.ts';
import type { LedgerReader } from './ledger-reader.ts';
import { consistencyProof } from './merkle.ts';
import { splitNote } from './note.ts';
import { halt } from './sequencer.ts';

const TIMEOUT_MS = 15_000;
const MAX_ANSWER = 100_000; // a token with its certificates is a few kB, a cosignature two hundred bytes

/** A file, on another disk or machine than the ledger. */
export function fileAnchor(path: string): Anchor {
  return {
    name: `file ${path}`,
    read: async () => (existsSync(path) ? readFileSync(path, 'utf8') : undefined),
    write: async (note) => replace(path, note),
  };
}

/**
 * A witness (C2SP tlog-witness): it co-signs a checkpoint only if that extends the last one it saw, and so cannot be shown
 * two histories. The note with its signature is kept in `directory`. One that saw more than the ledger holds halts it.
 */
export function witnessAnchor(address: string, keyText: string, directory: string, reader: LedgerReader): Anchor {
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
        const { status, body } = await post(
          `${address.replace(/\/$/, '')}/add-checkpoint`,
          `old ${old}\n${hashes.join('')}\n${note}`,
          'text/plain',
        );
        const answer = body.toString('utf8');
        if (status === 200) {
          const cosigned = `${note}${answer.endsWith('\n') ? answer : `${answer}\n`}`;
          if (cosignedAt(cosigned, witness) === undefined) throw trouble(`${name} answers without a good signature of its own`);
          return replace(file, cosigned);
        }
        // 409 names the size that it saw last; 422 means that the proof does not lead there.
        const seen = status === 409 && /^\d+\s*$/.test(answer) ? Number(answer) : undefined;
        if (seen !== undefined && seen > size && seen > reader.size)
          throw halt(`${name} has seen ${seen} entries of this ledger, and it holds ${reader.size}: it was put back to an older state`);
        if (status === 422) throw halt(`${name} has seen another history of this ledger: it does not extend what was signed before`);
        if (seen === undefined || seen > size || attempt === 3)
          throw trouble(`${name} answers ${status}: ${answer.split('\n')[0]?.slice(0, 200)}`);
        old = seen;
      }
    },
  };
}

/** A time-stamping authority (RFC 3161): it says when a checkpoint was there. Token and note are kept in `directory`. */
export function timestampAnchor(address: string, certificate: string, directory: string): Anchor {
  const key = new X509Certificate(certificate).publicKey;
  const { hostname } = new URL(address);
  const file = join(directory, `timestamp-${hostname}`);
  return {
    name: `timestamp ${hostname}`,
    read: async () => (existsSync(file) ? readFileSync(file, 'utf8') : undefined),
    write: async (note) => {
      const { status, body } = await post(address, timestampQuery(note), 'application/timestamp-query');
      if (status !== 200) throw trouble(`the time-stamping authority answers ${status}`);
      try {
        const token = RFC3161Timestamp.parse(Buffer.from(body));
        if (token.status !== 0n && token.status !== 1n) throw new Error('it refuses');
        token.verify(Buffer.from(note), key);
      } catch (cause) {
        throw trouble(`the time-stamping authority gives no good token: ${messageOf(cause)}`, cause);
      }
      replace(`${file}.tsr`, body);
      replace(file, note);
    },
  };
}

/** RFC 3161 section 2.4.1: a request for a time-stamp over the SHA-256 of a text, with the certificate. */
function timestampQuery(text: string): Buffer {
  const der = (tag: number, ...parts: readonly Buffer[]) => {
    const content = Buffer.concat(parts);
    return Buffer.concat([Buffer.from([tag, content.length]), content]); // all of it is far below 128 bytes
  };
  const sha256 = der(0x30, Buffer.from('0609608648016503040201', 'hex'), Buffer.from('0500', 'hex'));
  const imprint = der(0x30, sha256, der(0x04, createHash('sha256').update(text).digest()));
  return der(0x30, der(0x02, Buffer.from([1])), imprint, der(0x01, Buffer.from([0xff])));
}

async function post(address: string, body: string | Buffer, type: string): Promise<{ status: number; body: Buffer }> {
  try {
    const response = await fetch(address, {
      method: 'POST',
      headers: { 'content-type': type },
      body: typeof body === 'string' ? body : new Uint8Array(body),
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of response.body ?? []) {
      size += chunk.length;
      if (size > MAX_ANSWER) throw new Error('the answer is too long');
      chunks.push(chunk);
    }
    return { status: response.status, body: Buffer.concat(chunks) };
  } catch (cause) {
    throw trouble(`\`${new URL(address).host}\` does not answer: ${messageOf(cause)}`, cause);
  }
}

function trouble(message: string, cause?: unknown): CountersignError {
  return new CountersignError('ledger-unusable', message, { recover: 'retry', ...(cause === undefined ? {} : { cause }) });
}

function sizeOf(note: string): number {
  return parseCheckpoint(splitNote(note)?.text ?? '')?.size ?? 0;
}

function replace(path: string, content: string | Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.new`, content);
  renameSync(`${path}.new`, path);
}
