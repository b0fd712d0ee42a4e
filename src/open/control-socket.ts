import { existsSync, lstatSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import type { ControlAnswer } from '../http/index.ts';
import { ownerOf } from '../ledger/index.ts';
import { CountersignError } from '../model/index.ts';

const LONGEST_SOCKET = 100; // bytes; the kernel's limit is 107
const ELSEWHERE = 'control.path';

/**
 * Sends a command to the service running on a data directory; returns undefined if there is none. Throws the same
 * errors as the command.
 */
export async function askService(data: string, command: string, options: object): Promise<ControlAnswer | undefined> {
  const socket = socketOf(data);
  if (!existsSync(socket)) return undefined;
  const { sendCommand } = await import('../http/index.ts'); // loaded on demand: it imports most of a service
  return sendCommand(socket, command, options);
}

const BEGINNING_MS = 60_000; // a service that begins holds the ledger before it takes commands
const LOOK_MS = 200;

/**
 * Lets the service on a data directory do something, or does it here if there is none. Waits for a service that holds
 * the ledger and takes no commands yet.
 */
export async function byServiceOrAlone<T>(
  data: string,
  command: string,
  options: object,
  alone: () => Promise<T>,
): Promise<{ readonly result: T; readonly isAlone: boolean }> {
  for (const end = performance.now() + BEGINNING_MS; ; ) {
    const answer = await askService(data, command, options);
    if (answer !== undefined) return { result: answer.result as T, isAlone: false };
    try {
      return { result: await alone(), isAlone: true };
    } catch (thrown) {
      const isHeld = thrown instanceof CountersignError && thrown.code === 'ledger-held';
      if (!isHeld || performance.now() > end) throw thrown;
      await wait(LOOK_MS);
    }
  }
}

function socketOf(data: string): string {
  const [directory, pointer] = [resolve(data), join(resolve(data), ELSEWHERE)];
  if (!existsSync(pointer)) return join(directory, 'control.sock');
  const socket = readFileSync(pointer, 'utf8').trim();
  refuseStranger(socket, directory);
  return socket;
}

// Anyone may make the path again once its service was killed and the system removed it.
function refuseStranger(socket: string, directory: string): void {
  const owner = ownerOf(directory)?.uid ?? 0;
  for (const path of [dirname(socket), socket]) {
    const uid = lstatSync(path, { throwIfNoEntry: false })?.uid ?? owner;
    if (uid !== owner && uid !== 0)
      throw new CountersignError(
        'ledger-unusable',
        `\`${path}\` belongs to uid ${uid}, and the data directory to uid ${owner}: no command is given there`,
        { hint: `if no service runs on \`${directory}\`, remove \`${join(directory, ELSEWHERE)}\`` },
      );
  }
}

/**
 * Returns the path of the socket: in the data directory or, if that path is too long for the kernel, in a private
 * directory, whose name is written into the data directory.
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
