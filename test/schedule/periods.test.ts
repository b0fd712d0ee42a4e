import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ReportSchedule, reportScheduleSchema } from '../../src/model/index.ts';
import { duePeriods, periodFrom, periodWith } from '../../src/schedule/index.ts';

const schedule = (spec: object): ReportSchedule =>
  reportScheduleSchema.parse({
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'ReportSchedule',
    metadata: { name: 'regular' },
    spec: { schedule: '0 6 * * *', ...spec },
  });
const began = new Date('2025-03-10T12:00:00Z');
const due = (spec: object, reportedTo: string | undefined, now: string) =>
  duePeriods(schedule(spec), reportedTo, began, new Date(now)).map((p) => p.label);

for (const [kind, at, label, from, to] of [
  ['day', '2024-02-29T23:59:59.999Z', '2024-02-29', '2024-02-29', '2024-03-01'],
  ['week', '2026-01-01T00:00:00Z', '2026-W01', '2025-12-29', '2026-01-05'],
  ['week', '2027-01-03T12:00:00Z', '2026-W53', '2026-12-28', '2027-01-04'],
  ['week', '2024-12-30T00:00:00Z', '2025-W01', '2024-12-30', '2025-01-06'],
  ['month', '2026-12-31T00:00:00Z', '2026-12', '2026-12-01', '2027-01-01'],
  ['quarter', '2026-11-22T00:00:00Z', '2026-Q4', '2026-10-01', '2027-01-01'],
  ['year', '2026-01-01T00:00:00Z', '2026', '2026-01-01', '2027-01-01'],
] as const)
  test(`the ${kind} with ${at} is ${label}, and is told again by its ends`, () => {
    const period = { label, from: `${from}T00:00:00.000Z`, to: `${to}T00:00:00.000Z` };
    assert.deepEqual(periodWith(kind, new Date(at)), period);
    assert.deepEqual(periodFrom(period.from, period.to), period);
  });

test('what is no calendar period has both its ends for a label', () => {
  const [from, to] = ['2026-01-02T00:00:00.000Z', '2026-01-09T00:00:00.000Z'];
  assert.equal(periodFrom(from, to).label, `${from}_${to}`);
});

test('a period is due at the first time of the schedule after its end and the grace', () => {
  const monthly = { period: 'month', grace: '30h' };
  assert.deepEqual(due(monthly, '2026-10-01T00:00:00.000Z', '2026-11-02T05:59:00Z'), []);
  assert.deepEqual(due(monthly, '2026-10-01T00:00:00.000Z', '2026-11-02T06:00:00Z'), ['2026-10']);
  assert.deepEqual(due(monthly, '2026-11-01T00:00:00.000Z', '2026-11-22T06:00:00Z'), []);
});

test('a time of the schedule that is the end itself counts', () => {
  assert.deepEqual(due({ period: 'day', grace: '6h' }, '2026-11-21T00:00:00.000Z', '2026-11-22T06:00:00Z'), [
    '2026-11-21',
  ]);
});

test('what was missed is caught up, oldest first', () => {
  assert.deepEqual(due({ period: 'quarter' }, '2025-07-01T00:00:00.000Z', '2026-11-22T06:00:00Z'), [
    '2025-Q3',
    '2025-Q4',
    '2026-Q1',
    '2026-Q2',
    '2026-Q3',
  ]);
});

test('the first time it is the newest whole period, or those from `since` on; none that ended before the ledger began', () => {
  assert.deepEqual(due({}, undefined, '2026-11-22T06:00:00Z'), ['2026-10']);
  assert.deepEqual(due({ since: '2026-08-15T00:00:00Z' }, undefined, '2026-11-22T06:00:00Z'), [
    '2026-08',
    '2026-09',
    '2026-10',
  ]);
  assert.deepEqual(due({ since: '2019-01-01T00:00:00Z' }, undefined, '2025-05-22T06:00:00Z'), ['2025-03', '2025-04']);
  assert.deepEqual(due({}, undefined, '2025-03-31T23:00:00Z'), []);
  assert.deepEqual(due({ period: 'year' }, undefined, '2025-12-01T00:00:00Z'), []);
});

test('another kind of period goes on where the reports ended', () => {
  assert.deepEqual(due({ period: 'quarter' }, '2026-08-01T00:00:00.000Z', '2026-11-22T06:00:00Z'), ['2026-Q3']);
});

test('a schedule that never comes, has a field too many, or cannot be read is refused', () => {
  for (const wrong of ['0 0 31 2 *', '0 0 0 1 1 *', 'every monday', '61 * * * *', '@monthly and more'])
    assert.throws(() => schedule({ schedule: wrong }), /a five-field cron schedule that is due at some time/, wrong);
});
