import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { ControlAnswer } from '../http/index.ts';

const LONGEST_SOCKET = 100; // bytes; the kernel takes 107
const ELSEWHERE = 'control.path';

/** Asks the service that runs on a data directory; undefined when none does. Throws what it throws. */
export async function askService(data: string, command: string, options: object): Promise<ControlAnswer | undefined> {
  const socket = socketOf(data);
  if (!existsSync(socket)) return undefined;
  const { sendCommand } = await import('../http/index.ts'); // only now: most of a service comes with it
  return sendCommand(socket, command, options);
}

function socketOf(data: string): string {
  try {
    return readFileSync(join(resolve(data), ELSEWHERE), 'utf8').trim();
  } catch {
    return join(resolve(data), 'control.sock');
  }
}

/**
 * Where to listen: in the data directory; where its name is too long for the kernel, in a directory that only we may
 * enter, and the data directory says where.
 */
export function makeSocket(data: string, closing: (() => void | Promise<void>)[]): string {
  rmSync(join(resolve(data), ELSEWHERE), { force: true });
  const inside = join(resolve(data), 'control.sock');
  if (Buffer.byteLength(inside) <= LONGEST_SOCKET) return inside;
  const directory = mkdtempSync(join(tmpdir(), 'countersign-'));
  closing.push(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(resolve(data), ELSEWHERE), join(directory, 'control.sock'), { mode: 0o600 });
  return join(directory, 'control.sock');
}
