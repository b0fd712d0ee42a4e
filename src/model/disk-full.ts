import { CountersignError } from './error.ts';

/** Tests whether an error says that a disk of this machine, or a quota on it, is full. */
export function isDiskFull(thrown: unknown): boolean {
  const { code } = (thrown ?? {}) as { code?: unknown };
  return code === 'ENOSPC' || code === 'EDQUOT';
}

/** Tests whether a program says so. Lines that it passes on from another machine do not count. */
export function saysDiskFull(stderr: string): boolean {
  return stderr
    .split('\n')
    .some((line) => !line.startsWith('remote:') && /No space left on device|Disk quota exceeded/.test(line));
}

/** Returns the error for a full disk. */
export function diskFull(directory: string, cause?: unknown): CountersignError {
  return new CountersignError('disk-full', `the disk of \`${directory}\` is full`, {
    cause,
    recover: 'retry',
    hint: 'free space there; the service then goes on by itself',
  });
}
