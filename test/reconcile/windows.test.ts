import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Window } from '../../src/model/index.ts';
import { DriftGuard } from '../../src/reconcile/drift-guard.ts';
import { closedBy } from '../../src/reconcile/windows.ts';

const window = (changes: Partial<Window>): Window => ({
  name: 'w',
  kind: 'freeze',
  schedule: '0 22 * * FRI',
  duration: '2h',
  timeZone: 'UTC',
  ...changes,
});
const at = (time: string) => new Date(time);

test('a freeze keeps changes back from its first to its last moment', () => {
  const windows = [window({})];
  assert.equal(closedBy(windows, at('2026-11-20T21:59:59Z')), undefined);
  assert.deepEqual(closedBy(windows, at('2026-11-20T22:00:00Z')), { window: 'w', until: '2026-11-21T00:00:00.000Z' });
  assert.notEqual(closedBy(windows, at('2026-11-20T23:59:59Z')), undefined);
  assert.equal(closedBy(windows, at('2026-11-21T00:00:00Z')), undefined);
});

test('with maintenance windows, changes wait for the next one to open', () => {
  const windows = [
    window({ kind: 'maintenance', name: 'night' }),
    window({ kind: 'maintenance', name: 'noon', schedule: '0 12 * * *' }),
  ];
  assert.deepEqual(closedBy(windows, at('2026-11-20T14:00:00Z')), {
    window: 'night',
    until: '2026-11-20T22:00:00.000Z',
  });
  assert.equal(closedBy(windows, at('2026-11-20T13:59:00Z')), undefined);
  assert.equal(
    closedBy([...windows, window({ name: 'stop', schedule: '0 13 * * *' })], at('2026-11-20T13:30:00Z'))?.window,
    'stop',
    'a freeze wins',
  );
});

test('windows keep their time zone, through the change of the clocks', () => {
  const windows = [window({ timeZone: 'Europe/Berlin', schedule: '30 2 * * *', duration: '30m' })];
  assert.equal(closedBy(windows, at('2026-07-01T00:30:00Z'))?.window, 'w', 'summer: two hours ahead');
  assert.equal(closedBy(windows, at('2026-12-01T01:30:00Z'))?.window, 'w', 'winter: one');
  assert.equal(closedBy(windows, at('2026-12-01T00:30:00Z')), undefined);
});

test('a schedule that cannot be read, or never comes, is told', () => {
  for (const schedule of ['every day', '0 0 30 2 *', '* * * * * *', '61 * * * *'])
    assert.throws(() => closedBy([window({ schedule })], new Date()), /the schedule of the window `w` is invalid/);
  assert.throws(() => closedBy([window({ timeZone: 'Mars/Base' })], new Date()), /time zone|timezone/i);
  assert.throws(() => closedBy([window({ duration: '40d' })], new Date()), /longer than 32 days/);
});

test('an object is put right five times in ten minutes, then more and more seldom; quiet, it begins anew', () => {
  const guard = new DriftGuard();
  for (let i = 0; i < 5; i++) {
    assert.ok(guard.allows('a', i * 1000));
    guard.corrected('a', i * 1000);
  }
  assert.ok(guard.isContested('a'));
  assert.ok(!guard.allows('a', 5000) && guard.allows('b', 5000));
  assert.equal(guard.nextAt(['a', 'b'], 5000), 64_000);
  assert.ok(guard.allows('a', 64_000));
  guard.corrected('a', 64_000);
  assert.ok(!guard.allows('a', 64_000 + 119_000) && guard.allows('a', 64_000 + 120_000), 'twice as long');
  guard.forget();
  assert.ok(guard.allows('a', 65_000) && !guard.isContested('a'));
});
