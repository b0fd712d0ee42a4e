import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** A file system of a few MiB that can be filled up, and freed again. */
export type SmallDisk = {
  readonly path: string;
  fill(): void;
  free(): void;
  unmount(): void;
};

/** Mounts a small file system in memory. Returns the reason, if this machine does not permit that. */
export function mountSmallDisk(path: string, mebibytes: number): SmallDisk | string {
  mkdirSync(path, { recursive: true });
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'countersign-test', path], {
    encoding: 'utf8',
  });
  if (mounted.status !== 0) return `mounting a small file system is not permitted here: ${mounted.stderr?.trim()}`;
  const filler = join(path, 'filler');
  return {
    path,
    fill: () => {
      const file = openSync(filler, 'a');
      // Large pieces first, then what is left.
      for (let piece = Buffer.alloc(64 * 1024, 1); piece.length > 0; ) {
        try {
          while (writeSync(file, piece) > 0);
        } catch {
          piece = piece.subarray(0, piece.length >> 1);
        }
      }
      closeSync(file);
    },
    free: () => rmSync(filler, { force: true }),
    unmount: () => {
      spawnSync('umount', ['-l', path]);
    },
  };
}
