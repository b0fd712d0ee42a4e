import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { openLedger } from '../../src/ledger/index.ts';
import type { ReportModel } from '../../src/report/index.ts';
import { findOnPath } from '../../src/tools/index.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// What happened to the ledger itself: records it refused, and names that were erased from beside it.
const directory = scratch();
const data = join(directory, 'data');
const REPLICA = 'ab'.repeat(16);

before(async () => {
  const ledger = await openLedger(data, 'countersign.dev/test');
  const refused = { type: 'record.refused', digest: 'd'.repeat(64) } as const;
  await ledger.record({
    ...refused,
    source: 'outbox',
    replica: 'unauthenticated',
    reason: 'it is not signed',
    count: 1,
  });
  await ledger.record({ ...refused, source: 'write-ahead', replica: REPLICA, reason: 'it comes twice', count: 3 });
  const forgotten = {
    type: 'subject.forgotten',
    claimedBy: ledger.subject('lee@host'),
    digest: 'e'.repeat(64),
  } as const;
  await ledger.record({ ...forgotten, reason: 'HR-311', commitments: 2 });
  await ledger.record({
    ...forgotten,
    reason: 'HR-312',
    commitments: 1,
    exceptions: ['E7'],
    approvedBy: 'dana',
    approval: 'x',
  });
  await ledger.close();
});

async function report(name: string): Promise<{ readonly at: string; readonly model: ReportModel }> {
  const at = join(directory, name);
  const made = await countersign(['report', '--data', data, '--out', at, '--from', '2020-01-01', '--to', '2100-01-01']);
  assert.equal(made.code, 0, made.stderr);
  return { at, model: JSON.parse(readFileSync(join(at, 'report.json'), 'utf8')) as ReportModel };
}

test('a refused record is an open exception until somebody settles it, and counts against the control over records', async () => {
  const { at, model } = await report('refused');
  assert.deepEqual(
    model.exceptions.map((e) => [e.id, e.type, e.severity, e.object, e.actor, e.cause, e.disposition]),
    [
      [
        'E1',
        'record-refused',
        'high',
        'outbox',
        'unauthenticated',
        '1 record was not taken onto the ledger: it is not signed',
        'open',
      ],
      [
        'E2',
        'record-refused',
        'high',
        'write-ahead',
        REPLICA,
        '3 records were not taken onto the ledger: it comes twice',
        'open',
      ],
    ],
  );
  assert.equal(model.controls.find((c) => c.id === 'CS-08')?.exceptions, 2);
  assert.match(readFileSync(join(at, 'exceptions.csv'), 'utf8'), /record-refused/);
  assert.match(
    (await countersign(['exception', 'list', '--data', data])).stdout,
    /E1 .*open {2}record-refused \(high\)/,
  );
  assert.match((await countersign(['exception', 'explain', 'E2', '--data', data])).stdout, /record\.refused/);
  const settled = ['exception', 'settle', 'E1', '--as', 'remediated', '--reason', 'password changed', '--data', data];
  assert.equal((await countersign(settled)).code, 0);
  const after = (await report('settled')).model.exceptions;
  assert.deepEqual(
    after.map((e) => [e.disposition, e.reason]),
    [
      ['remediated', 'password changed'],
      ['open', ''],
    ],
  );
});

test('an erased name is listed with who asked, why and who agreed, and is counted where the ledger is reconciled', async () => {
  const { at, model } = await report('erased');
  assert.deepEqual(
    model.ledger.erased.map((e) => [e.entry, e.claimedBy, e.reason, e.commitments, e.exceptions, e.approvedBy]),
    [
      [3, 'lee@host', 'HR-311', 2, [], ''],
      [4, 'lee@host', 'HR-312', 1, ['E7'], 'dana'],
    ],
  );
  assert.equal(
    model.reconciliation.find((r) => r.id === 'R5')?.explained,
    '0 anchors outside of the store; 2 names erased on request; 4 records refused',
  );
  const pdftotext = findOnPath('pdftotext', process.env['PATH'] ?? '');
  if (pdftotext !== undefined)
    assert.match(
      execFileSync(pdftotext, ['-layout', join(at, 'report.pdf'), '-'], { encoding: 'utf8' }),
      /Names that were erased[\s\S]*HR-312/,
    );
  const shown = await countersign(['ledger', 'show', '--type', 'subject.forgotten', 'record.refused', '--data', data]);
  assert.match(shown.stdout, /record\.refused[\s\S]*subject\.forgotten[\s\S]*approvedBy dana/);
});

test('records that could be written nowhere are an exception, with their number and time', async () => {
  const place = join(directory, 'missing');
  const ledger = await openLedger(place, 'countersign.dev/test');
  const [since, until] = ['2026-03-01T00:00:00.000Z', '2026-03-01T00:01:00.000Z'];
  await ledger.record({ type: 'records.missing', replica: REPLICA, count: 3, since, until, reason: 'ENOSPC' });
  await ledger.close();
  const { stdout } = await countersign(['exception', 'list', '--data', place, '--output', 'json']);
  assert.match(stdout, /"ledger-fault"/);
  assert.match(stdout, /3 records from 2026-03-01T00:00:00\.000Z to .* could be written nowhere: ENOSPC/);
});
