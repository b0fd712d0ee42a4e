import type { Logger } from 'pino';
import type { ApiServer } from '../cluster/index.ts';
import type { ClockOffset } from '../gate/index.ts';
import type { Ledger } from '../ledger/index.ts';

const AGREES_MS = 5000; // its answers state whole seconds
const SAID_MS = 60_000; // difference that is reported
const LOOK_MS = 5000;
const SAY_EVERY_MS = 600_000;

/**
 * Compares this machine's clock with the API server's, as its last answer stated it, and with the newest entry of the
 * ledger. The API server's word counts more: after a clock was ahead, the ledger's time is wrong, and the clock right.
 */
export class ClockWitness {
  #server: ApiServer | undefined;

  /** Takes the time of this API server from now on. */
  follow(server: ApiServer): void {
    this.#server = server;
  }

  /**
   * Returns the time that decides what has ended: this machine's, unless the API server's last answer was seconds away
   * from it.
   */
  now(): Date {
    const [here, there] = [new Date(), this.#server?.now()];
    return there === undefined || Math.abs(there.getTime() - here.getTime()) < AGREES_MS ? here : there;
  }

  /** Returns how far the clock is behind its best witness; negative if it is ahead. */
  offset(ledger: Ledger): ClockOffset | undefined {
    const there = this.#server?.now();
    if (there !== undefined) return { behindMs: there.getTime() - Date.now(), witness: 'the API server' };
    const behindMs = behindLedger(ledger);
    return behindMs > 0 ? { behindMs, witness: 'the newest entry of the ledger' } : undefined;
  }

  /** Returns the difference in words, if it is worth telling. */
  trouble(ledger: Ledger): string | undefined {
    const offset = this.offset(ledger);
    return offset === undefined || Math.abs(offset.behindMs) < SAID_MS ? undefined : clockText(offset);
  }

  /** Reports a difference in the log when it begins or changes, every ten minutes, and when it is gone. */
  watch(ledger: Ledger, log: Logger): () => void {
    let said: { readonly at: number; readonly behindMs: number } | undefined;
    const look = () => {
      const offset = this.offset(ledger);
      if (offset === undefined || Math.abs(offset.behindMs) < SAID_MS) {
        if (said !== undefined) log.info({}, 'the clock of this machine agrees with the API server again');
        said = undefined;
        return;
      }
      const { behindMs } = offset;
      const isKnown = said !== undefined && Math.abs(said.behindMs - behindMs) < SAID_MS;
      if (isKnown && performance.now() - (said?.at ?? 0) < SAY_EVERY_MS) return;
      said = { at: performance.now(), behindMs };
      log.error({}, `${clockText(offset)}: changes may wait until it is right`);
    };
    look();
    const timer = setInterval(look, LOOK_MS).unref();
    return () => clearInterval(timer);
  }
}

/** Returns how far the clock is behind the newest entry of a ledger, in milliseconds; 0 if it is not. */
export function behindLedger(ledger: Ledger): number {
  const newest = Date.parse(ledger.read.entry(ledger.size - 1)?.entry.time ?? '');
  return Number.isNaN(newest) ? 0 : Math.max(0, newest - Date.now());
}

function clockText({ behindMs, witness }: ClockOffset): string {
  const seconds = Math.round(Math.abs(behindMs) / 1000);
  const far = seconds < 7200 ? `${Math.round(seconds / 6) / 10} min` : `${Math.round(seconds / 360) / 10} h`;
  return `the clock of this machine is ${far} ${behindMs > 0 ? 'behind' : 'ahead of'} ${witness}`;
}
