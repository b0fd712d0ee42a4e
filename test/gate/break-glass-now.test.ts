import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { breakGlassNow } from '../../src/gate/break-glass-now.ts';
import type { Grant } from '../../src/gate/index.ts';
import { openLedger } from '../../src/ledger/index.ts';
import { recorderOf } from '../../src/open/read-ledger.ts';
import { scratch } from '../kit/scratch.ts';

test('what was opened and closed while the ledger was away stands as it is, not as the ledger has it', async () => {
  const ledger = await openLedger(join(scratch(), 'ledger'), 'test');
  const recorder = recorderOf(ledger);
  const grant = {
    user: 'dev',
    reason: 'the shop is down',
    ticket: 'INC-1',
    namespaces: ['shop'],
    until: '2099-01-01T00:00:00.000Z',
  };
  const free = { approvals: 0, approver: undefined };
  const opened = '2026-01-01T00:00:00.000Z';
  const { index: entry } = await ledger.record({
    type: 'breakglass.opened',
    environment: 'production',
    uid: 'u-1',
    at: opened,
    ...grant,
  });
  const now = (grants?: (environment: string) => readonly Grant[]) =>
    breakGlassNow(recorder, grants === undefined ? undefined : { grants }, 'production', '2026-01-01T00:00:00.000Z')
      .open;
  assert.deepEqual(now(), [{ entry, opened, ...grant, ...free }], 'without a webhook');
  const other = { ...grant, ...free, opened, namespaces: ['payments'] };
  assert.deepEqual(
    now((environment) => (environment === 'production' ? [other] : [])),
    [other],
  );
  assert.deepEqual(
    now(() => []),
    [],
    'given back, and the ledger has not got that yet',
  );
  await ledger.close();
});
