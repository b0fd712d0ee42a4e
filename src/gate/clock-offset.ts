import { CountersignError, durationMs } from '../model/index.ts';
import type { Gate } from './gate.ts';
import type { ClockOffset } from './ports.ts';

const LEAST_MS = 5000; // the witness states whole seconds, and its answer takes a moment

/**
 * Throws `clock-wrong` (retry) if the clock is behind: what has ended would still count, and the approval of a minute
 * ago would come from the future. A gate waits for its clock instead of blaming an approver.
 */
export function waitIfBehind(gate: Gate): void {
  const offset = gate.clockOffset?.();
  if (offset !== undefined && offset.behindMs > toleranceOf(gate)) throw wrong(offset);
}

/** Throws `clock-wrong` (retry) if the clock is off either way: then a denial may be the clock's and no one's fault. */
export function waitIfOff(gate: Gate): void {
  const offset = gate.clockOffset?.();
  if (offset !== undefined && Math.abs(offset.behindMs) > toleranceOf(gate)) throw wrong(offset);
}

function toleranceOf({ trust }: Gate): number {
  return Math.max(LEAST_MS, durationMs(trust.policy.spec.times.skew));
}

function wrong({ behindMs, witness }: ClockOffset): CountersignError {
  const seconds = Math.round(Math.abs(behindMs) / 1000);
  return new CountersignError(
    'clock-wrong',
    `the clock of this machine is ${seconds} s ${behindMs > 0 ? 'behind' : 'ahead of'} ${witness}: ` +
      `${behindMs > 0 ? 'nothing is judged' : 'nothing is denied'} until it is right`,
    { recover: 'retry', hint: 'correct the clock of the machine (NTP)' },
  );
}
