import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LedgerReader, parseVerifiers, verifyLedger } from '../../src/ledger/index.ts';

// A process of its own, so that what it holds is what checking needs.
const [data = ''] = process.argv.slice(2);
const memory: number[] = [];
const reader = new LedgerReader(join(data, 'ledger.db'));
const keys = parseVerifiers(readFileSync(join(data, 'ledger.pub'), 'utf8'));
const started = performance.now();
const { finding, checked } = verifyLedger(reader, keys, {
  onProgress: (done) => {
    if (done % 65_536 === 0) memory.push(Math.round(process.memoryUsage().rss / 2 ** 20));
  },
});
const seconds = (performance.now() - started) / 1000;
reader.close();
process.stdout.write(JSON.stringify({ seconds, checked, finding: finding?.message, memory }));
