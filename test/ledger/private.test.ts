import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openLedger } from '../../src/ledger/index.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const modes = (data: string) =>
  readdirSync(data).map((file) => `${file} ${(statSync(join(data, file)).mode & 0o777).toString(8)}`);

test('only the account that runs the service reads the data directory, whatever the umask is', async () => {
  const data = join(directory, 'deep', 'data');
  const before = process.umask(0);
  try {
    const ledger = await openLedger(data, 'test');
    await ledger.record({ type: 'service.stopped', reason: ledger.subject('dana@example.com') });
    assert.equal(statSync(data).mode & 0o777, 0o700);
    const open = modes(data);
    assert.ok(open.some((m) => m.startsWith('ledger.db-wal')));
    assert.deepEqual(
      open.filter((m) => !m.endsWith(' 600')),
      [],
    );
    await ledger.close();
    assert.deepEqual(
      modes(data).filter((m) => !m.endsWith(' 600')),
      [],
    );
  } finally {
    process.umask(before);
  }
});

test('a looser directory of an older version is tightened, and that is said', async () => {
  const data = join(directory, 'older');
  await (await openLedger(data, 'test')).close();
  mkdirSync(join(data, 'reports'));
  writeFileSync(join(data, 'write-ahead.jsonl'), '');
  for (const file of ['ledger.db', 'ledger.pub', 'checkpoint', 'ledger.lock', 'write-ahead.jsonl'])
    chmodSync(join(data, file), 0o644);
  chmodSync(data, 0o755);
  const said: string[] = [];
  await (await openLedger(data, 'test', { warn: (m) => said.push(m) })).close();
  assert.equal(statSync(data).mode & 0o777, 0o700);
  assert.deepEqual(
    modes(data).filter((m) => !m.endsWith(' 600') && !m.startsWith('reports')),
    [],
  );
  assert.match(said.join(), /other accounts could read .*; now only this account can enter it/);
});
