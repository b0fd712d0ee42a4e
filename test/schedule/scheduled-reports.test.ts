import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Ledger, openLedger } from '../../src/ledger/index.ts';
import {
  CountersignError,
  type EntryOf,
  type EntryType,
  type ReportSchedule,
  reportScheduleSchema,
} from '../../src/model/index.ts';
import { recorderOf } from '../../src/open/read-ledger.ts';
import type { ReportModel } from '../../src/report/index.ts';
import { ScheduledReports, type ScheduledReportsPorts } from '../../src/schedule/index.ts';
import { openScheduledReports } from '../../src/serve/reports.ts';
import { commitId, recordChange } from '../kit/report-ledger.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// Reports are made from real ledgers; only the clock is handed in.
const directory = scratch();
let now = new Date();
let n = 0;

type Opened = { readonly data: string; readonly ledger: Ledger; readonly out: string };

async function ledgerOf(at: string): Promise<Opened> {
  now = new Date(at);
  const data = join(directory, `data-${n++}`);
  const ledger = await openLedger(data, 'countersign.dev/test', { clock: () => now });
  await recordChange(ledger, commitId(1), { approvals: [] }); // nobody approved it: an exception
  return { data, ledger, out: join(data, 'reports') };
}

const schedule = (spec: object, name = 'monthly'): ReportSchedule =>
  reportScheduleSchema.parse({
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'ReportSchedule',
    metadata: { name },
    spec: { schedule: '0 6 * * *', ...spec },
  });

type Changed = Partial<Pick<ScheduledReportsPorts, 'make' | 'deliver' | 'ledger'>>;

function reportsOf(
  { data, ledger }: Opened,
  schedules: readonly ReportSchedule[],
  changed: (ports: ScheduledReportsPorts) => Changed = () => ({}),
) {
  const said: string[] = [];
  const log = { info: () => {}, error: (_: object, message: string) => void said.push(message) };
  let ports: ScheduledReportsPorts | undefined;
  // As the service opens it, with another clock and whatever a test breaks.
  const reports = openScheduledReports(
    { data, key: undefined, git: undefined, server: undefined, schedules, ledger: recorderOf(ledger), log },
    (made) => {
      ports = { ...made, clock: () => now };
      return new ScheduledReports({ ...ports, ...changed(ports) });
    },
  );
  return { reports, said };
}

const entriesOf = <T extends EntryType>({ ledger }: Opened, type: T): EntryOf<T>[] =>
  ledger.read.all(type, '').map((r) => r.entry);
const labels = ({ out }: Opened, name = 'monthly') =>
  existsSync(join(out, name)) ? readdirSync(join(out, name)).sort() : [];

test('a report is made when it is due, once, and what was missed is caught up', async () => {
  const opened = await ledgerOf('2026-07-10T12:00:00Z');
  const { reports, said } = reportsOf(opened, [schedule({})]);
  await reports.look();
  assert.deepEqual(labels(opened), []);
  now = new Date('2026-08-02T06:00:00Z');
  await reports.look();
  await reports.look();
  assert.deepEqual(labels(opened), ['2026-07']);
  now = new Date('2026-11-22T12:00:00Z');
  await reportsOf(opened, [schedule({})]).reports.look(); // another process, after a long time
  assert.deepEqual(labels(opened), ['2026-07', '2026-08', '2026-09', '2026-10']);
  assert.deepEqual(said, []);
  assert.deepEqual(
    entriesOf(opened, 'report.issued').map((e) => [e.schedule, e.from.slice(0, 10), e.to.slice(0, 10), e.version]),
    [
      ['monthly', '2026-07-01', '2026-08-01', 1],
      ['monthly', '2026-08-01', '2026-09-01', 1],
      ['monthly', '2026-09-01', '2026-10-01', 1],
      ['monthly', '2026-10-01', '2026-11-01', 1],
    ],
  );
  await opened.ledger.close();
  const pdf = join(opened.out, 'monthly', '2026-07', 'v1', 'report.pdf');
  const verified = await countersign(['verify', pdf, '--key', join(opened.data, 'ledger.pub')]);
  assert.equal(verified.code, 0, verified.stdout);
});

test('made again, it is a new version, which names the one it supersedes and what changed, and is verified with that', async () => {
  const opened = await ledgerOf('2026-07-10T12:00:00Z');
  const { reports } = reportsOf(opened, [schedule({})]);
  await assert.rejects(reports.runNow('monthly', true), { code: 'usage', message: /has not made a report yet/ });
  await assert.rejects(reports.runNow('weekly', false), {
    code: 'usage',
    message: /no ReportSchedule `weekly`/,
    hint: /one of monthly/,
  });
  now = new Date('2026-08-03T00:00:00Z');
  const [first] = await reports.runNow('monthly', false);
  const before = JSON.parse(readFileSync(join(opened.out, 'monthly/2026-07/v1/report.json'), 'utf8')) as ReportModel;
  assert.equal(before.supersedes, null);
  const open = before.exceptions.find((e) => e.disposition === 'open');
  assert.ok(open, 'the ledger of this test has an exception');
  const user = opened.ledger.subject('lee');
  await opened.ledger.record({
    type: 'exception.settled',
    environment: open.environment,
    exception: open.id,
    disposition: 'accepted',
    user,
    reason: 'known',
  });
  const [second] = await reports.runNow('monthly', true);
  assert.deepEqual([second?.entry.version, second?.entry.supersedes], [2, first?.index]);
  const after = JSON.parse(readFileSync(join(opened.out, 'monthly/2026-07/v2/report.json'), 'utf8')) as ReportModel;
  assert.deepEqual(after.supersedes, {
    entry: first?.index,
    report: first?.entry.report,
    differences: {
      counts: [{ name: 'open', before: before.summary.open, after: before.summary.open - 1 }],
      changes: [],
      exceptions: [{ id: open.id, before: 'open', after: 'accepted' }],
    },
  });
  assert.equal((await reports.runNow('monthly', false)).length, 0);
  await opened.ledger.close();
  const check = () =>
    countersign([
      'verify',
      join(opened.out, 'monthly/2026-07/v2/report.pdf'),
      '--key',
      join(opened.data, 'ledger.pub'),
    ]);
  assert.equal((await check()).code, 0);
  const range = join(opened.out, 'monthly/2026-07/v2/range.json');
  writeFileSync(
    range,
    readFileSync(range, 'utf8').replace(
      `"entries":${first?.entry.checkpoint}`,
      `"entries":${(first?.entry.checkpoint ?? 0) - 1}`,
    ),
  );
  assert.equal((await check()).code, 1);
});

test('ended between any two steps, nothing is lost, nothing is twice, and nothing half-done bears the name of a report', async () => {
  const opened = await ledgerOf('2026-07-10T12:00:00Z');
  now = new Date('2026-08-03T00:00:00Z');
  const place = join(directory, 'ended');
  const monthly = schedule({ deliver: [{ name: 'archive', directory: { path: place } }] });
  const crash = (step: string) =>
    Object.assign(new CountersignError('ledger-unusable', `ended at ${step}`, { recover: 'retry' }));
  const failing = (step: 'making' | 'made' | 'recorded' | 'delivered') =>
    reportsOf(opened, [monthly], ({ ledger, make, deliver }) => ({
      make: async (schedule, period, out, ...more) => {
        if (step === 'making') {
          mkdirSync(out, { recursive: true });
          writeFileSync(join(out, 'report.json'), '{'); // the disk is full
          throw crash(step);
        }
        return make(schedule, period, out, ...more);
      },
      ledger: {
        ...ledger,
        record: async (body, evidence) => {
          if (step === 'made' && body.type === 'report.issued') throw crash(step);
          if (step === 'delivered' && body.type === 'report.delivered') throw crash(step);
          const recorded = await ledger.record(body, evidence);
          if (step === 'recorded' && body.type === 'report.issued') throw crash(step);
          return recorded;
        },
      },
      deliver: (...asked) => (step === 'recorded' ? Promise.reject(crash(step)) : deliver(...asked)),
    }));
  const at = join(opened.out, 'monthly', '2026-07');
  for (const step of ['making', 'made', 'made', 'making'] as const) {
    const { reports, said } = failing(step);
    await reports.look();
    assert.match(said.join(), new RegExp(`ended at ${step}`));
    assert.equal(entriesOf(opened, 'report.issued').length, 0);
    assert.equal(existsSync(join(at, 'v1.new')), false);
  }
  assert.deepEqual(
    entriesOf(opened, 'report.failed').map((e) => e.error),
    ['ended at making', 'ended at made', 'ended at making'],
  );
  await failing('recorded').reports.look();
  assert.equal(entriesOf(opened, 'report.issued').length, 1);
  await failing('delivered').reports.look();
  assert.deepEqual(readdirSync(place), ['monthly-2026-07-v1']);
  assert.equal(entriesOf(opened, 'report.delivered').length, 0);
  await reportsOf(opened, [monthly]).reports.look();
  assert.deepEqual(readdirSync(at), ['v1']);
  assert.deepEqual(readdirSync(place), ['monthly-2026-07-v1']);
  assert.equal(entriesOf(opened, 'report.issued').length, 1);
  assert.deepEqual(
    entriesOf(opened, 'report.delivered').map((e) => [e.to, e.kind, e.outcome]),
    [['archive', 'directory', 'delivered']],
  );
  await opened.ledger.close();
});

test('a place that is away is tried again with longer and longer pauses; the ledger says so once, and when it is there', async () => {
  const opened = await ledgerOf('2026-07-10T12:00:00Z');
  now = new Date('2026-08-03T00:00:00Z');
  let tries = 0;
  let isAway = true;
  const monthly = schedule({
    deliver: [{ name: 'audit', webhook: { url: 'https://audit.example.test', secretFile: '/secret' } }],
  });
  const { reports } = reportsOf(opened, [monthly], () => ({
    deliver: async () => {
      tries++;
      if (isAway) throw new Error('away');
    },
  }));
  const after = async (seconds: number) => {
    now = new Date(now.getTime() + seconds * 1000);
    await reports.look();
    return tries;
  };
  const counted: number[] = [];
  for (const seconds of [0, 9, 1, 59, 1, 299, 1, 1799, 1]) counted.push(await after(seconds));
  assert.deepEqual(counted, [1, 1, 2, 2, 3, 3, 4, 4, 5]);
  assert.deepEqual(
    entriesOf(opened, 'report.delivered').map((e) => [e.outcome, e.attempts, e.error]),
    [['failed', 5, 'away']],
  );
  assert.equal(await after(3600), 6);
  const fresh = reportsOf(opened, [monthly], () => ({ deliver: () => Promise.reject(new Error('away')) }));
  for (let i = 0; i < 6; i++) {
    now = new Date(now.getTime() + 3_600_000);
    await fresh.reports.look();
  }
  assert.equal(entriesOf(opened, 'report.delivered').length, 1, 'a start says it no second time');
  isAway = false;
  assert.equal(await after(3600), 7);
  assert.equal(await after(36_000), 7);
  assert.deepEqual(
    entriesOf(opened, 'report.delivered').map((e) => e.outcome),
    ['failed', 'delivered'],
  );
  await opened.ledger.close();
});

test('after a week nobody tries any more; a superseded version is not delivered; a place that is new gets what comes from then on', async () => {
  const opened = await ledgerOf('2026-07-10T12:00:00Z');
  now = new Date('2026-08-03T00:00:00Z');
  const place = (name: string) => ({ name, directory: { path: join(directory, 'late', name) } });
  const away = reportsOf(opened, [schedule({ deliver: [place('one')] })], () => ({
    deliver: () => Promise.reject(new Error('away')),
  }));
  await away.reports.look();
  await away.reports.runNow('monthly', true);
  const { reports } = reportsOf(opened, [schedule({ deliver: [place('one'), place('two')] })]);
  await reports.look();
  assert.deepEqual(readdirSync(join(directory, 'late', 'one')), ['monthly-2026-07-v2']);
  assert.equal(existsSync(join(directory, 'late', 'two')), false);
  const idle = await ledgerOf('2026-07-10T12:00:00Z');
  now = new Date('2026-08-03T00:00:00Z');
  let tries = 0;
  const never = reportsOf(idle, [schedule({ deliver: [place('one')] })], () => ({
    deliver: async () => {
      tries++;
      throw new Error('away');
    },
  }));
  await never.reports.look();
  now = new Date(now.getTime() + 7 * 86_400_000 + 1);
  await never.reports.look();
  assert.equal(tries, 1);
  await opened.ledger.close();
  await idle.ledger.close();
});

test('a ledger that is not consistent gives no report, and says so once', async () => {
  const opened = await ledgerOf('2026-07-10T12:00:00Z');
  now = new Date('2026-08-03T00:00:00Z');
  writeFileSync(join(opened.data, 'ledger.pub'), 'nothing of use\n');
  const { reports, said } = reportsOf(opened, [schedule({})]);
  await reports.look();
  await reports.look(); // too early to try again
  assert.equal(said.length, 1);
  now = new Date(now.getTime() + 10_000);
  await reports.look();
  assert.equal(said.length, 2);
  assert.deepEqual(labels(opened), ['2026-07']);
  assert.deepEqual(readdirSync(join(opened.out, 'monthly', '2026-07')), []);
  assert.equal(entriesOf(opened, 'report.failed').length, 1);
  await opened.ledger.close();
});

test('told to stop, it gives up what it makes without a word on the ledger, and the next start makes it', async () => {
  const opened = await ledgerOf('2026-07-10T12:00:00Z');
  now = new Date('2026-08-03T00:00:00Z');
  const { reports } = reportsOf(opened, [schedule({})], ({ make }) => ({
    make: (...asked) => {
      setTimeout(() => reports.stop(), 50);
      return make(...asked);
    },
  }));
  await reports.run();
  assert.deepEqual([entriesOf(opened, 'report.issued').length, entriesOf(opened, 'report.failed').length], [0, 0]);
  assert.deepEqual(readdirSync(join(opened.out, 'monthly', '2026-07')), []);
  await reportsOf(opened, [schedule({})]).reports.look();
  assert.equal(entriesOf(opened, 'report.issued').length, 1);
  await opened.ledger.close();
});

test('a clock that is set back does not keep a delivery waiting', async () => {
  const opened = await ledgerOf('2026-07-10T12:00:00Z');
  now = new Date('2026-08-03T00:00:00Z');
  let tries = 0;
  const monthly = schedule({
    deliver: [{ name: 'audit', webhook: { url: 'https://audit.example.test', secretFile: '/secret' } }],
  });
  const { reports } = reportsOf(opened, [monthly], () => ({
    deliver: async () => {
      tries++;
      throw new Error('away');
    },
  }));
  await reports.look();
  now = new Date('2026-08-02T23:00:00Z');
  await reports.look();
  assert.equal(tries, 2);
  await opened.ledger.close();
});
