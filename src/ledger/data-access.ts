import { accessSync, constants, lchownSync, lstatSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { CountersignError } from '../model/index.ts';
import { LEDGER_FILES } from './ledger-files.ts';

type Purpose = 'read' | 'write';

/** Reads a file of a data directory. Throws `ledger-unusable` with file, owner and fix if this account may not. */
export function readData(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (thrown) {
    throw accessTrouble(file, 'read') ?? thrown;
  }
}

/** Refuses a data directory in which this account may not do what a writer of the ledger does. */
export function refuseForeign(directory: string): void {
  const { store, lock, key, oldKey, verifier, anchor } = LEDGER_FILES;
  const files = [
    ...[store, lock].map((name) => [name, 'write'] as const),
    ...[key, oldKey, verifier, anchor].map((name) => [name, 'read'] as const),
  ];
  for (const [name, purpose] of [['', 'write'] as const, ...files]) {
    const refused = accessTrouble(join(directory, name), purpose);
    if (refused !== undefined) throw refused;
  }
}

/** Returns the error for a path that this account may not use; undefined if it may, or if nothing is there. */
export function accessTrouble(file: string, purpose: Purpose): CountersignError | undefined {
  const { R_OK, W_OK } = constants;
  try {
    accessSync(file, purpose === 'read' ? R_OK : R_OK | W_OK);
    return undefined;
  } catch (cause) {
    const { code } = cause as { code?: string };
    if (code !== 'EACCES' && code !== 'EPERM' && code !== 'EROFS') return undefined;
    if (code === 'EROFS')
      return unusable(`\`${file}\` is on a file system that is mounted read-only`, 'mount it read-write', cause);
    const own = process.geteuid?.();
    const stats = statSync(file, { throwIfNoEntry: false });
    const owner = stats?.uid;
    const fix =
      owner === own
        ? `\`chmod u+rwX ${file}\``
        : `if this account runs the service, \`chown ${own} ${file}\` as root; otherwise run the command as ` +
          `uid ${owner} (in a pod with \`runAsUser\`, elsewhere with \`sudo -u '#${owner}'\`)`;
    return unusable(`\`${file}\` belongs to uid ${owner}: uid ${own} may not ${purpose} it`, fix, cause);
  }
}

/**
 * Returns the account that runs the service on a data directory, as far as its files tell; undefined for root. A
 * command of root may have left files there, and a volume may belong to root itself.
 */
export function ownerOf(directory: string): { readonly uid: number; readonly gid: number } | undefined {
  const { store, verifier, key, anchor } = LEDGER_FILES;
  return [store, verifier, key, anchor, '']
    .map((name) => lstatSync(join(directory, name), { throwIfNoEntry: false }))
    .find((stats) => stats !== undefined && stats.uid !== 0);
}

/**
 * Hands files that root made in a data directory to the account that runs the service there. Opens none of them: that
 * would end SQLite's locks.
 */
export function handToOwner(directory: string): void {
  const owner = process.geteuid?.() === 0 ? ownerOf(directory) : undefined;
  if (owner === undefined) return;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const file = join(directory, entry.name);
    const stats = entry.isFile() ? lstatSync(file, { throwIfNoEntry: false }) : undefined;
    if (stats?.isFile() !== true || stats.uid !== 0 || stats.nlink > 1) continue;
    try {
      lchownSync(file, owner.uid, owner.gid);
    } catch (cause) {
      throw unusable(
        `\`${file}\` belongs to root, and the ledger to uid ${owner.uid}`,
        `\`chown ${owner.uid} ${file}\` before the service starts`,
        cause,
      );
    }
  }
}

function unusable(message: string, hint: string, cause: unknown): CountersignError {
  return new CountersignError('ledger-unusable', message, { cause, recover: 'halt', hint });
}
