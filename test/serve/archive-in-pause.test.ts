import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { LedgerReader, prepareArchive } from '../../src/ledger/index.ts';
import { LedgerPauses } from '../../src/serve/ledger-pauses.ts';
import type { Serving } from '../../src/serve/open-serving.ts';
import { archiveInPause } from '../../src/serve/renew-ledger.ts';
import { oldLedger } from '../kit/old-ledger.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const serving = (options: object) => ({ options, log: { warn: () => {} } }) as unknown as Serving;

test('a running service moves what a command has written, in a pause', async () => {
  const [data, place] = [join(directory, 'data'), join(directory, 'place')];
  await oldLedger(data, 5);
  const request = await prepareArchive(data, { before: '2025-01-01T00:00:00.000Z', place, user: 'dana' }, new Date());
  const pauses = new LedgerPauses();
  const answer = archiveInPause({ ...request }, serving({ data }), pauses);
  assert.equal(pauses.asked.aborted, true);
  assert.deepEqual(await pauses.run(), ['old entries were archived']);
  const { ok, result } = await answer;
  const { moved } = result as { readonly moved: { readonly entries: number; readonly entry: number } };
  assert.deepEqual([ok, moved.entries], [true, 15]);
  const reader = new LedgerReader(join(data, 'ledger.db'));
  assert.equal(reader.entry(moved.entry)?.entry.type, 'segment.archived');
  assert.equal(reader.all('segment.archived', '')[0]?.entry.user, 'dana');
  reader.close();
});

test('a service that shares its ledger, or does not see the archive, refuses before the pause', async () => {
  const pauses = new LedgerPauses();
  await assert.rejects(archiveInPause({}, serving({ data: directory, ledger: 'postgres://h/d' }), pauses), {
    code: 'usage',
    message: /PostgreSQL/,
  });
  for (const file of ['segment-1-2-ab.db', '../data/ledger.db'])
    await assert.rejects(archiveInPause({ file, place: directory }, serving({ data: directory }), pauses), {
      code: 'usage',
      message: /there is no archive/,
    });
  assert.equal(pauses.asked.aborted, false);
});
