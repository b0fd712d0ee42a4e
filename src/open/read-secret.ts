import { readFileSync } from 'node:fs';
import { CountersignError, messageOf } from '../model/index.ts';

const SHORTEST = 16; // characters; shorter secrets can be guessed

/**
 * Reads a shared secret from a file. Throws `key-missing` if it cannot be read or is too short; `other` names the other
 * side.
 */
export function readSecret(file: string, what: 'secret' | 'token', other: string): string {
  try {
    const secret = readFileSync(file, 'utf8').trim();
    if (secret.length < SHORTEST) throw new Error(`it is shorter than ${SHORTEST} characters`);
    return secret;
  } catch (cause) {
    throw new CountersignError('key-missing', `the ${what} in \`${file}\` cannot be used: ${messageOf(cause)}`, {
      cause,
      hint: `\`openssl rand -hex 32\` makes one; ${other}`,
    });
  }
}
