import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agesChart, agesOf, flowChart, leadTimeChart, presenceChart, type Scene } from '../../src/report/charts.ts';
import { flowBook } from '../../src/report/flow.ts';
import type { ReportModel } from '../../src/report/index.ts';
import type { ChangeRecord } from '../../src/report/model.ts';

const WIDTH = 740;
const flowOf = (
  period: { from: string; to: string },
  asOf: string,
  changes: readonly (readonly [string, ChangeRecord['outcome']])[],
) => {
  const book = flowBook();
  for (const [time, outcome] of changes) book.see({ time, outcome } as ChangeRecord);
  return book.flow(period, asOf);
};
const rects = (scene: Scene | undefined) =>
  (scene?.shapes ?? []).flatMap((s) => (s.kind === 'rect' && s.width > 1 && s.height > 1 ? [s] : []));

/** Nothing may lie outside of what the page keeps free for it. */
function inside(scene: Scene | undefined): void {
  assert.ok(scene !== undefined);
  for (const s of scene.shapes) {
    assert.ok(s.x >= 0 && s.y >= 0 && s.x <= scene.width && s.y <= scene.height, JSON.stringify(s));
    if (s.kind === 'rect')
      assert.ok(s.x + s.width <= scene.width + 0.01 && s.y + s.height <= scene.height + 0.01, JSON.stringify(s));
  }
}

test('changes are counted by day, week or month of the period, the empty ones too', () => {
  const month = flowOf(
    { from: '2026-02-01T00:00:00.000Z', to: '2026-03-01T00:00:00.000Z' },
    '2026-03-02T00:00:00.000Z',
    [
      ['2026-02-01T00:00:00.000Z', 'applied'],
      ['2026-02-28T23:59:59.999Z', 'denied'],
      ['2026-02-28T12:00:00.000Z', 'applied'],
    ],
  );
  assert.deepEqual([month.unit, month.rows.length], ['day', 28]);
  assert.deepEqual(month.rows.at(0), { from: '2026-02-01', applied: 1, allowed: 0, failed: 0, denied: 0 });
  assert.deepEqual(month.rows.at(-1), { from: '2026-02-28', applied: 1, allowed: 0, failed: 0, denied: 1 });

  const quarter = flowOf(
    { from: '2026-07-01T00:00:00.000Z', to: '2026-10-01T00:00:00.000Z' },
    '2026-12-01T00:00:00.000Z',
    [
      ['2026-07-05T23:00:00.000Z', 'applied'], // a Sunday
      ['2026-07-06T01:00:00.000Z', 'failed'], // a Monday
    ],
  );
  assert.equal(quarter.unit, 'week');
  assert.deepEqual(
    quarter.rows.slice(0, 2).map((r) => [r.from, r.applied, r.failed]),
    [
      ['2026-06-29', 1, 0],
      ['2026-07-06', 0, 1],
    ],
  );
  assert.equal(quarter.rows.at(-1)?.from, '2026-09-28');

  const years = flowOf(
    { from: '2024-01-15T00:00:00.000Z', to: '2026-01-01T00:00:00.000Z' },
    '2026-02-01T00:00:00.000Z',
    [['2024-02-29T00:00:00.000Z', 'allowed']],
  );
  assert.deepEqual(
    [years.unit, years.rows.length, years.rows[1]],
    ['month', 24, { from: '2024-02-01', applied: 0, allowed: 1, failed: 0, denied: 0 }],
  );

  // From the beginning of time: the years without anything are not drawn.
  const always = flowOf(
    { from: '1970-01-01T00:00:00.000Z', to: '2100-01-01T00:00:00.000Z' },
    '2026-03-04T00:00:00.000Z',
    [['2026-03-01T00:00:00.000Z', 'applied']],
  );
  assert.deepEqual(
    [always.unit, always.rows.map((r) => r.from)],
    ['day', ['2026-03-01', '2026-03-02', '2026-03-03', '2026-03-04']],
  );
  assert.deepEqual(flowOf({ from: '2026-01-01T00:00:00.000Z', to: '2026-02-01T00:00:00.000Z' }, '', []), {
    unit: 'day',
    rows: [],
  });
});

test('bars are as high as their counts, on an axis that tells them', () => {
  const flow = flowOf(
    { from: '2026-02-01T00:00:00.000Z', to: '2026-02-05T00:00:00.000Z' },
    '2026-02-05T00:00:00.000Z',
    [
      ...Array.from({ length: 8 }, () => ['2026-02-01T00:00:00.000Z', 'applied'] as const),
      ...Array.from({ length: 4 }, () => ['2026-02-02T00:00:00.000Z', 'denied'] as const),
    ],
  );
  const scene = flowChart({ flow }, WIDTH);
  inside(scene);
  const [, , , eight, four] = rects(scene);
  assert.ok(eight !== undefined && four !== undefined);
  assert.ok(Math.abs(eight.height - 2 * four.height) < 0.01);
  assert.notEqual(eight.fill, four.fill);
  assert.match(
    scene?.alt ?? '',
    /^day from 2026-02-01: 8 changes, 8 applied, 0 denied or failed; day from 2026-02-02: 4 changes, 0 applied, 4/,
  );
  assert.equal(flowChart({ flow: { unit: 'day', rows: [] } }, WIDTH), undefined);
});

const exceptions = (days: readonly number[]) =>
  days.map((n, i) => ({
    disposition: i === 0 ? 'accepted' : 'open',
    severity: i % 2 === 0 ? 'high' : 'low',
    days: n,
  })) as unknown as ReportModel['exceptions'];

test('ages have no gap and count what is open alone', () => {
  const model = { exceptions: exceptions([400, 0, 7, 8, 30, 31, 90, 91, 4000]) };
  assert.deepEqual(
    agesOf(model).map((a) => [a.age, a.grave, a.other]),
    [
      ['0 to 7 days', 1, 1],
      ['8 to 30 days', 1, 1],
      ['31 to 90 days', 1, 1],
      ['91 days or more', 1, 1],
    ],
  );
  inside(agesChart(model, WIDTH));
  assert.equal(agesChart({ exceptions: exceptions([3]) }, WIDTH), undefined);
});

test('where the gate was away is drawn where it was, and nothing where that is not known', () => {
  const model = (status: string) =>
    ({
      period: { from: '2026-01-01T00:00:00.000Z', to: '2026-02-01T00:00:00.000Z' },
      asOf: '2026-02-03T00:00:00.000Z',
      flow: { unit: 'day', rows: [] },
      reconciliation: [{ id: 'R6', status }],
      exceptions: [{ type: 'gate-outage', time: '2026-01-17T12:00:00.000Z', exposed: 86_400 }],
    }) as unknown as ReportModel;
  const scene = presenceChart(model('ties'), WIDTH);
  inside(scene);
  const [, , whole, away] = rects(scene);
  assert.ok(whole !== undefined && away !== undefined);
  assert.ok(Math.abs((away.x - whole.x) / whole.width - 15.5 / 31) < 0.001);
  assert.ok(Math.abs(away.width / whole.width - 1 / 31) < 0.001);
  assert.equal(presenceChart(model('not determinable'), WIDTH), undefined);
});

test('lead times lie where they belong, whatever they are', () => {
  const metrics = [
    [60, 60],
    [3600, 86_400],
    [0, 90 * 86_400],
    [-50, -20],
  ].map(([median, p90], i) => ({
    environment: `team-${i}`,
    leadTime: { n: 9, median, p90 },
  })) as unknown as ReportModel['metrics'];
  inside(leadTimeChart({ metrics }, WIDTH));
  assert.equal(leadTimeChart({ metrics: [] }, WIDTH), undefined);
});
