import { readFileSync } from 'node:fs';
import { parseVerifiers, type Verifier } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';

/** Reads a public key file: one key per line, newest first. */
export function readVerifiers(path: string): Verifier[] {
  const text = readText(path, 'public key');
  try {
    return parseVerifiers(text);
  } catch (cause) {
    throw new CountersignError('key-unusable', `\`${path}\` has no public key of a ledger: \`name+hash+key\``, {
      cause,
      hint:
        'it is in `ledger.pub` in the service’s data directory; if that file is damaged, remove it and start the ' +
        'service, which writes it again',
    });
  }
}

export function readText(path: string, what: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new CountersignError('key-missing', `there is no ${what} at \`${path}\``, {
      cause,
      hint:
        what === 'public key'
          ? 'name it with --key; it is `ledger.pub` in the service’s data directory'
          : 'name an existing file',
    });
  }
}
