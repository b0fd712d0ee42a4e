import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import type { ReportModel } from '../../src/report/index.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { installReports } from '../kit/open-reports.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { Stage } from '../kit/stage.ts';

const directory = scratch();
let stage: Stage;
before(async () => {
  stage = await Stage.open(directory, { own: true }); // one that does not know Reports at first
});
afterEach(() => stage.stopServices());
after(() => stage.close());

test('a running service keeps on the ledger which reports were made, what was drawn, and what became of an exception', async () => {
  const fleet = stage.fleet('shop');
  const configuration = stage.configuration('shop', [{ url: fleet.url, namespaces: ['shop'], mode: 'enforce' }]);
  await stage.change(fleet, 'first (CHG-1)', {
    'clusters/production/ns.yaml': namespace('shop'),
    'clusters/production/cm.yaml': configMap('shop', 'settings', { k: '0' }),
  });
  const service = await stage.serve(configuration, 'shop', ['--heartbeat', '1s', '--rescan', 'off']);
  await service.entry('apply.result', 'production', (e) => e.outcome === 'applied');
  // Somebody goes past the gate: the webhook is taken away, and comes back.
  const oncall = await stage.as('oncall');
  await oncall.request('DELETE', '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/countersign');
  const tampered = await service.entry('protection.changed', '', () => true);

  const period = ['--from', '2026-01-01', '--to', '2100-01-01'];
  const report = (name: string, ...more: string[]) =>
    countersign(['report', '--data', service.data, '--out', join(directory, name), ...period, ...more]);
  const first = await report('one');
  assert.equal(first.code, 0, first.stderr);
  assert.match(first.stderr, /^(waiting: the report of .*\n)?$/);
  const { entry: issued, index } = await service.entry('report.issued', '', () => true);
  assert.match(issued.manifest, /^[0-9a-f]{64}$/);
  assert.equal((await report('two', '--seed', 'said by the auditor', '--sample', '3')).code, 0);
  const again = await service.entry('report.issued', '', (e) => e.sample !== undefined);
  assert.deepEqual([again.entry.sample, again.entry.supersedes], [{ seed: 'said by the auditor', size: 3 }, index]);

  const assigned = await countersign([
    ...['exception', 'assign', `E${tampered.index}`, '--data', service.data],
    ...['--to', 'Robin Example', '--reason', 'owns the cluster'],
  ]);
  assert.equal(assigned.code, 0, assigned.stderr);
  const settled = await countersign([
    ...['exception', 'settle', `E${tampered.index}`, '--data', service.data],
    ...['--as', 'accepted', '--reason', 'the cluster was being upgraded', '--ticket', 'CHG-2'],
  ]);
  assert.equal(settled.code, 0, settled.stderr);
  await service.entry('exception.settled', '', (e) => e.exception === `E${tampered.index}`);
  assert.equal((await report('three')).code, 0);
  const model = JSON.parse(readFileSync(join(directory, 'three', 'report.json'), 'utf8')) as ReportModel;
  assert.deepEqual(
    model.earlier.map((e) => [e.seed, e.size]),
    [
      ['', 0],
      ['said by the auditor', 3],
    ],
  );
  const id = model.earlier.at(-1)?.report ?? '';
  const signOff = (report_: string, name = 'Robin Example') =>
    countersign([
      ...['report', 'sign-off', report_, '--data', service.data, '--name', name],
      ...['--role', 'Head of Platform', '--remarks', 'no findings'],
    ]);
  assert.match((await signOff('0000')).stderr, /there is no report `0000` on the ledger\n.*report list/);
  assert.match((await signOff(id, ' ')).stderr, /needs a report, a name and a role/);
  assert.equal((await signOff(id)).code, 0);
  assert.equal((await report('signed')).code, 0);
  const { reviews } = JSON.parse(readFileSync(join(directory, 'signed', 'report.json'), 'utf8')) as ReportModel;
  assert.deepEqual(
    reviews.map((r) => [r.report, r.name, r.role, r.remarks]),
    [[id, 'Robin Example', 'Head of Platform', 'no findings']],
  );
  const oscal = JSON.parse(readFileSync(join(directory, 'signed', 'oscal-ar.json'), 'utf8'));
  assert.equal(
    oscal['assessment-results'].results[0].attestations[0].parts[0].title,
    'Robin Example, Head of Platform',
  );
  const row = model.exceptions.find((e) => e.id === `E${tampered.index}`);
  assert.deepEqual(
    [row?.type, row?.owner, row?.disposition, row?.ticket],
    ['gate-tampered', 'Robin Example', 'accepted', 'CHG-2'],
  );
  const [change] = model.changes;
  assert.deepEqual(
    [change?.outcome, change?.tickets, change?.attributes.A, change?.attributes.C],
    ['applied', ['CHG-1'], 'pass', 'pass'],
  );
  // The webhook recorded what it let through, and the heartbeats tell where the environment is.
  const status = Object.fromEntries(model.reconciliation.map((r) => [r.id, r.status]));
  assert.deepEqual([status['R1'], status['R2'], status['R5'], status['R7']], ['ties', 'ties', 'ties', 'ties']);
  const verified = await countersign([
    'verify',
    join(directory, 'three', 'report.pdf'),
    '--key',
    join(service.data, 'ledger.pub'),
  ]);
  assert.equal(verified.code, 0, verified.stdout);

  // What the sampled change rests on goes along, from what the service fetched and the TrustPolicy of its
  // configuration.
  const sampled = await countersign(['verify', join(directory, 'two'), '--key', join(service.data, 'ledger.pub')]);
  assert.equal(sampled.code, 0, sampled.stdout);
  assert.match(sampled.stdout, /✓ signatures of 1 commits and 1 approvals of 1 changes of the sample/);
  assert.doesNotMatch(sampled.stdout, /not checked/);

  // Who governs what, and that it was changed, is in it too.
  const [scope] = model.scope.environments;
  assert.deepEqual(
    [scope?.namespaces, scope?.admission, scope?.source],
    [['shop'], 'enforce', `${fleet.url} main clusters/production`],
  );
  assert.deepEqual(
    model.scope.changed.map((c) => [c.environment, c.before]).filter(([, before]) => before !== ''),
    [],
    'the first statement tells of everything as new',
  );
  await service.stop();
  const admission = { breakGlass: { groups: ['oncall', 'leads'] } };
  const other = stage.configuration('shop', [{ url: fleet.url, namespaces: ['shop'], mode: 'audit', admission }]);
  await stage.serve(other, 'shop', ['--rescan', 'off']);
  assert.equal((await report('four')).code, 0);
  const { scope: after } = JSON.parse(readFileSync(join(directory, 'four', 'report.json'), 'utf8')) as ReportModel;
  assert.deepEqual(
    after.changed.filter((c) => c.before !== '').map((c) => [c.environment, c.what, c.before, c.after]),
    [
      ['production', 'admission', 'enforce', 'audit'],
      ['production', 'breakGlass', 'oncall', 'oncall, leads'],
    ],
  );
  assert.deepEqual(
    [after.environments[0]?.admission, after.environments[0]?.breakGlass],
    ['audit', ['oncall', 'leads']],
  );
});

test('a service makes and delivers the reports of a schedule when they are due, once, and again when somebody asks', async () => {
  const place = join(directory, 'delivered');
  const document = {
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'ReportSchedule',
    metadata: { name: 'daily' },
    spec: {
      schedule: '* * * * *',
      period: 'day',
      grace: '0s',
      deliver: [
        { name: 'archive', directory: { path: place } },
        { name: 'board', cluster: { namespace: 'regular' } },
      ],
    },
  };
  const { configuration, service: first } = await stage.running('regular', {}, { arguments: ['--rescan', 'off'] });
  writeFileSync(join(configuration, 'reports.yaml'), JSON.stringify(document));
  await first.stop();
  const clock = join(directory, 'clock.offset');
  writeFileSync(clock, '86400000');
  const shifted = `--import ${new URL('../kit/shifted-clock.mjs', import.meta.url)}`;
  const start = async () =>
    stage.start(await stage.arguments(configuration), 'regular', [], { CLOCK_FILE: clock, NODE_OPTIONS: shifted });
  let service = await start();
  const issued = await service.entry('report.issued', '', (e) => e.schedule === 'daily', 30_000);
  const done = await service.entry(
    'report.delivered',
    '',
    (e) => e.issued === issued.index && e.to === 'archive',
    30_000,
  );
  assert.deepEqual(
    [done.entry.to, done.entry.kind, done.entry.outcome, done.entry.attempts],
    ['archive', 'directory', 'delivered', 1],
  );
  // What only the service can do is tried again, here once the kind is there.
  await service.says('or the cluster does not have Reports of openreports.io');
  await installReports(stage);
  const day = issued.entry.from.slice(0, 10);
  assert.deepEqual(readdirSync(place), [`daily-${day}-v1`]);
  const model = JSON.parse(readFileSync(join(place, `daily-${day}-v1`, 'report.json'), 'utf8')) as ReportModel;
  assert.deepEqual([model.status, model.summary.applied, model.period.to], ['final', 1, issued.entry.to]);
  await service.stop();
  service = await start();
  await service.says('countersign is running');
  const run = (...more: string[]) =>
    countersign(['report', 'run', 'daily', '--data', service.data, '--config', configuration, ...more]);
  assert.match((await run()).stdout, /nothing of `daily` is due/);
  const again = await run('--again', '--output', 'json');
  assert.equal(again.code, 0, again.stderr);
  const board = (await stage.get('/apis/openreports.io/v1alpha1/namespaces/regular/reports/countersign-evidence-daily'))
    .body as {
    summary: Record<string, number>;
    results: { rule: string; result: string; message: string }[];
  };
  assert.equal(
    Object.values(board.summary).reduce((a, b) => a + b, 0),
    model.controls.length + 7,
  );
  assert.ok(
    board.results.some((r) => r.rule === 'CS-09' && r.result === 'warn' && r.message.includes('1 not determinable')),
    JSON.stringify(board),
  );
  assert.deepEqual(
    (JSON.parse(again.stdout) as { version: number; period: string }[]).map((r) => [r.period, r.version]),
    [[day, 2]],
  );
  const unknown = await countersign(['report', 'run', 'weekly', '--data', service.data]);
  assert.deepEqual(
    [unknown.code, /there is no ReportSchedule `weekly`\nfix: use one of daily/.test(unknown.stderr)],
    [2, true],
    unknown.stderr,
  );
  await service.stop();
  const alone = await run('--again');
  assert.deepEqual(
    [alone.code, /only a running service can write summaries into a cluster/.test(alone.stderr)],
    [1, true],
    alone.stderr,
  );
  assert.match(alone.stderr, /version 3 is not at `board` yet/);
  assert.deepEqual(readdirSync(place).sort(), [`daily-${day}-v1`, `daily-${day}-v2`, `daily-${day}-v3`]);
  const list = await countersign(['report', 'list', '--data', service.data]);
  assert.match(
    list.stdout,
    /daily, version 1\n +archive: delivered\n +board: .*\n(.*\n)+.*daily, version 3\n +archive: delivered\n +board: waiting\n3 reports\n/,
  );
  const pdf = join(place, `daily-${day}-v3`, 'report.pdf');
  assert.equal((await countersign(['verify', pdf, '--key', join(service.data, 'ledger.pub')])).code, 0);
});
