import { appendFileSync } from 'node:fs';
import { openLedger } from '../../src/ledger/index.ts';

// Writes to a ledger until it is killed, and tells what was acknowledged, and under which checkpoint, in a file.
const [directory = '', told = '', seed = '0'] = process.argv.slice(2);
const ledger = await openLedger(directory, 'countersign.dev/test');
appendFileSync(told, `found ${ledger.found.entries}\n`);
process.stdout.write('writing\n');
let n = Number(seed) * 1_000_000;
async function write(): Promise<never> {
  for (;;) {
    const mine = n++;
    const { index } = await ledger.record({
      type: 'apply.refused',
      environment: 'production',
      revision: 'r',
      verdict: mine,
      error: 'x'.repeat(mine % 900),
    });
    appendFileSync(told, `${mine} ${index}\n`);
    if (mine % 7 === 0) appendFileSync(told, `note ${JSON.stringify(ledger.read.latestCheckpoint())}\n`);
  }
}
await Promise.all(Array.from({ length: 16 }, write));
