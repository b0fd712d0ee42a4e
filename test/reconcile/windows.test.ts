import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LocalClock, type Window } from '../../src/model/index.ts';
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

const BERLIN = { timeZone: 'Europe/Berlin' } as const; // its clocks change on 29 March and 25 October 2026, at 01:00 UTC

test('a daily freeze is without a gap on the day of 25 hours and on the day of 23', () => {
  const windows = [window({ ...BERLIN, schedule: '0 0 * * *', duration: '24h' })];
  assert.equal(closedBy(windows, at('2026-10-25T22:30:00Z'))?.until, '2026-10-25T23:00:00.000Z');
  assert.equal(closedBy(windows, at('2026-03-29T21:59:00Z'))?.until, '2026-03-29T22:00:00.000Z');
  assert.equal(closedBy(windows, at('2026-03-29T22:00:00Z'))?.until, '2026-03-30T22:00:00.000Z');
});

test('a window of local times ends by the clock on the wall, not after so many hours', () => {
  const night = { ...BERLIN, schedule: '0 22 * * *', duration: '8h' };
  for (const kind of ['freeze', 'maintenance'] as const) {
    const isOpen = (time: string) =>
      (closedBy([window({ ...night, kind })], at(time)) !== undefined) === (kind === 'freeze');
    assert.deepEqual([isOpen('2026-10-25T04:59:00Z'), isOpen('2026-10-25T05:00:00Z')], [true, false], 'nine hours');
    assert.deepEqual([isOpen('2026-03-29T03:59:00Z'), isOpen('2026-03-29T04:00:00Z')], [true, false], 'seven');
  }
});

test('an hour that comes twice is frozen both times; maintenance is open the first time', () => {
  const hour = { ...BERLIN, schedule: '15 2 * * *', duration: '30m' };
  const times = ['00:10', '00:15', '00:50', '01:14', '01:44', '01:45'].map((time) => `2026-10-25T${time}:00Z`);
  const isFrozen = (time: string) => closedBy([window(hour)], at(time)) !== undefined;
  assert.deepEqual(times.map(isFrozen), [false, true, true, true, true, false]);
  const isClosed = (time: string) => closedBy([window({ ...hour, kind: 'maintenance' })], at(time)) !== undefined;
  assert.deepEqual(times.map(isClosed), [true, false, true, true, true, true]);
});

test('an hour that does not come has no maintenance, and a freeze from it on begins when the clock jumps', () => {
  const gap = { ...BERLIN, schedule: '30 2 * * *' };
  assert.deepEqual(closedBy([window({ ...gap, kind: 'maintenance', duration: '15m' })], at('2026-03-29T01:00:00Z')), {
    window: 'w',
    until: '2026-03-30T00:30:00.000Z',
  });
  const freeze = [window({ ...gap, duration: '1h' })];
  assert.equal(closedBy(freeze, at('2026-03-29T00:59:59Z')), undefined);
  assert.equal(closedBy(freeze, at('2026-03-29T01:00:00Z'))?.until, '2026-03-29T01:30:00.000Z');
});

const ZONES = [
  'UTC',
  'Europe/Berlin',
  'America/New_York',
  'America/St_Johns',
  'Australia/Lord_Howe', // half an hour
  'Africa/Casablanca', // put back for Ramadan
  'Asia/Kathmandu',
  'Pacific/Apia',
];
const YEARS = { min: Date.UTC(2024, 0), max: Date.UTC(2031, 0) };
const DAY = 86_400_000;

// Instants anywhere, and often near a change of the clocks.
const moments = fc.constantFrom(...ZONES.map(changesOf)).chain(({ timeZone, changes }) => {
  const anywhere = fc.integer(YEARS);
  const nearby = fc
    .tuple(fc.constantFrom(YEARS.min, ...changes), fc.integer({ min: -DAY, max: 2 * DAY }))
    .map(([day, ms]) => day + ms);
  return fc.record({
    timeZone: fc.constant(timeZone),
    now: fc.oneof(anywhere, nearby),
  });
});

function changesOf(timeZone: string) {
  const changes: number[] = [];
  for (let day = YEARS.min; day < YEARS.max; day += DAY)
    if (wallMinutes(timeZone, day) !== wallMinutes(timeZone, day + DAY)) changes.push(day);
  return { timeZone, changes };
}

// Read from text, which the code does not do.
function wallMinutes(timeZone: string, instant: number): number {
  const [hours = 0, minutes = 0] = new Date(instant)
    .toLocaleTimeString('de-DE', { timeZone, hour: '2-digit', minute: '2-digit' })
    .split(':')
    .map(Number);
  return hours * 60 + minutes;
}

test('in every zone, a whole day is frozen at every moment, and a part of it whenever the clock on the wall is in it', () => {
  const part = fc.record({ start: fc.integer({ min: 0, max: 1439 }), length: fc.integer({ min: 1, max: 1440 }) });
  fc.assert(
    fc.property(moments, part, ({ timeZone, now }, { start, length }) => {
      const daily = { timeZone, schedule: `${start % 60} ${Math.floor(start / 60)} * * *`, duration: `${length}m` };
      const isIn = (wallMinutes(timeZone, now) - start + 1440) % 1440 < length;
      const isFrozen = closedBy([window(daily)], new Date(now)) !== undefined;
      const isHeld = closedBy([window({ ...daily, kind: 'maintenance' })], new Date(now)) !== undefined;
      assert.ok(closedBy([window({ ...daily, duration: '24h' })], new Date(now)) !== undefined, 'the whole day');
      if (isIn) assert.ok(isFrozen, 'frozen by the clock');
      else assert.ok(isHeld, 'no maintenance outside of it');
      const isOrdinary = wallMinutes(timeZone, now - 2 * DAY) === wallMinutes(timeZone, now + 2 * DAY);
      if (isOrdinary) assert.deepEqual([isFrozen, isHeld], [isIn, !isIn], 'exactly, on a day of 24 hours');
    }),
    { numRuns: 1500 },
  );
});

test('a moment has one time on the wall, and that time leads back to it', () => {
  fc.assert(
    fc.property(moments, ({ timeZone, now }) => {
      const clock = new LocalClock(timeZone);
      const { first, last } = clock.instantsOf(clock.shown(now));
      assert.ok(first === now || last === now);
      assert.equal(Math.floor((clock.shown(now) / 60_000) % 1440), wallMinutes(timeZone, now));
    }),
  );
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
