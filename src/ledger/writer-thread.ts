import { parentPort, workerData } from 'node:worker_threads';
import { CountersignError, collectLeftovers, type ErrorCode, messageOf, type Recover } from '../model/index.ts';
import { type Appender, type LedgerPlace, openSequencer } from './open-sequencer.ts';
import type { Found, Sequenced, Waiting } from './sequencer.ts';
import type { Sharing } from './shared-sequencer.ts';
import { type PackedEntries, unpack } from './store.ts';

/** Data the thread is started with. `startedAt` is in milliseconds since 1970, by the ledger's clock. */
export type WriterData = { readonly place: LedgerPlace; readonly startedAt: number };

type Packed = Omit<Waiting, 'entries'> & { readonly entries: PackedEntries };

/** Message to the thread: a batch to record, with a number that the answer repeats; or the request to close. */
export type ToWriter = { readonly id: number; readonly waiting: Packed } | { readonly close: true };

/** An error in transit between threads. */
export type Fault = {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string | undefined;
  readonly recover: Recover;
};

/** Message from the thread. */
export type FromWriter =
  | { readonly opened: { readonly verifier: string; readonly size: number; readonly found: Found } }
  | { readonly id: number; readonly done: Sequenced }
  | { readonly id: number; readonly fault: Fault }
  | { readonly failed: Fault }
  | { readonly warning: string }
  | { readonly progress: number }
  | { readonly sharing: Sharing }
  | { readonly closed: true };

function faultOf(thrown: unknown): Fault {
  const error =
    thrown instanceof CountersignError
      ? thrown
      : new CountersignError('ledger-unusable', messageOf(thrown), { recover: 'halt', cause: thrown });
  return { code: error.code, message: error.message, hint: error.hint, recover: error.recover };
}

async function run({ place, startedAt }: WriterData, say: (message: FromWriter) => void): Promise<void> {
  const since = performance.now();
  const opened = await openSequencer(place, {
    clock: () => new Date(startedAt + performance.now() - since),
    openedAt: new Date(startedAt),
    warn: (warning) => say({ warning }),
    progress: (progress) => say({ progress }),
    onSharing: (sharing) => say({ sharing }),
  });
  const { sequencer, verifier, close } = opened;
  say({ opened: { verifier, size: sequencer.size, found: sequencer.found } });
  collectLeftovers();
  let last: Promise<void> = Promise.resolve();
  parentPort?.on('message', (message: ToWriter) => {
    last = last.then(() => ('close' in message ? end(close, say) : answer(sequencer, message, say)));
  });
}

async function answer(
  sequencer: Appender,
  { id, waiting }: { id: number; waiting: Packed },
  say: (m: FromWriter) => void,
): Promise<void> {
  try {
    say({ id, done: await sequencer.append({ ...waiting, entries: unpack(waiting.entries) }) });
  } catch (thrown) {
    say({ id, fault: faultOf(thrown) });
  }
}

async function end(close: () => Promise<void>, say: (m: FromWriter) => void): Promise<void> {
  await close();
  say({ closed: true });
  parentPort?.close();
}

if (parentPort !== null) {
  const port = parentPort;
  const say = (message: FromWriter) => port.postMessage(message);
  await run(workerData as WriterData, say).catch((thrown: unknown) => {
    say({ failed: faultOf(thrown) });
    port.close();
  });
}
