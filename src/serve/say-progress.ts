import type { Logger } from 'pino';

/** Logs progress: reading back a long ledger takes ten seconds for a million entries. */
export function sayProgress(log: Logger): (done: number) => void {
  let told = Date.now();
  return (done) => {
    if (Date.now() - told < 5000) return;
    told = Date.now();
    log.info({ entries: done }, 'reading the ledger back');
  };
}
