import { appendFileSync } from 'node:fs';
import { openLedger } from '../../src/ledger/index.ts';

// Records entries on a shared ledger, one after the other, until it is killed; tells each that was acknowledged.
const [directory = '', url = '', key = '', told = ''] = process.argv.slice(2);
const ledger = await openLedger(directory, 'countersign.dev/test', { postgres: url, key: { files: [key] } });
for (let mine = 0; ; mine++) {
  const body = { type: 'apply.refused', environment: 'production', revision: 'r', verdict: mine, error: 'x' } as const;
  const recorded = await ledger.record(body).catch(() => undefined);
  if (recorded !== undefined) appendFileSync(told, `${mine} ${recorded.index}\n`);
}
