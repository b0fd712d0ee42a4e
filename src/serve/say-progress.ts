import type { Logger } from 'pino';

/** A long ledger takes a while to be read back: ten seconds for a million entries. */
export function sayProgress(log: Logger): (done: number) => void {
  let told = Date.now();
  return (done) => {
    if (Date.now() - told < 5000) return;
    told = Date.now();
    log.info({ entries: done }, 'reading the ledger back');
  };
}
