import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { CountersignError, messageOf } from '../model/index.ts';

/**
 * Reads a secret from the current content of a file, so that it can be rotated. Throws `key-missing`, also for an empty
 * file: an empty key protects nothing.
 */
export function readSecret(file: string): string {
  const text = read(file);
  if (text === '')
    throw new CountersignError('key-missing', `the file \`${file}\` is empty`, { hint: 'write the secret into it' });
  return text;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (cause) {
    throw new CountersignError('key-missing', `the file \`${file}\` cannot be read: ${messageOf(cause)}`, { cause });
  }
}

/**
 * Returns headers that prove to a receiver that a body is ours and recent: the time in seconds since 1970, and
 * HMAC-SHA-256 over `TIME.BODY`, in hex.
 */
export function signatureHeaders(body: string, at: Date, secret: string): Readonly<Record<string, string>> {
  const time = String(Math.floor(at.getTime() / 1000));
  const signature = createHmac('sha256', secret).update(`${time}.${body}`).digest('hex');
  return { 'x-countersign-time': time, 'x-countersign-signature': signature };
}
