import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Ajv } from 'ajv';
import { createKey, ledgerName, openLedger, readSigner, signNote, verifierText } from '../../src/ledger/index.ts';
import { NO_REVISION, sha256, type Violation, type ViolationCode } from '../../src/model/index.ts';
import type { ReportModel } from '../../src/report/index.ts';
import { without } from '../kit/machine.ts';
import { commitId, recordChange } from '../kit/report-ledger.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// Ten things that went wrong, each once, among changes that went well; and every form of the report about them.
const directory = scratch();
const data = join(directory, 'data');
const out = join(directory, 'out');
const environment = 'production';
const ref = 'refs/heads/main';
const object = { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'shop', name: 'web' };
const SCHEMAS = fileURLToPath(new URL('../../../shared/data/oscal-1.2.1/', import.meta.url));

before(async () => {
  const ledger = await openLedger(data, 'countersign.dev/test');
  const refused = (code: ViolationCode, commit: string): Violation => ({ code, message: `${code}: no`, commit });
  let last = NO_REVISION;
  const good = async (n: number, more = {}) => {
    const judged = await recordChange(ledger, commitId(n), { from: last, ...more });
    last = commitId(n);
    return judged;
  };
  for (let n = 0; n < 40; n++) await good(n);
  await recordChange(ledger, commitId('unsigned'), {
    from: last,
    outcome: 'denied',
    violations: [refused('unsigned', commitId('unsigned'))],
  });
  await recordChange(ledger, commitId('self'), {
    from: last,
    outcome: 'denied',
    violations: [refused('self-approval', commitId('self'))],
  });
  await recordChange(ledger, commitId('revoked'), {
    from: last,
    outcome: 'denied',
    violations: [refused('key-revoked', commitId('revoked'))],
  });
  await ledger.record({
    type: 'approval.recorded',
    environment,
    commit: commitId(3),
    tree: '',
    principal: 'kim',
    key: 'k',
    class: 'A',
    envelope: 'late',
  });
  await ledger.record({ type: 'drift.found', environment, revision: last, objects: [object] });
  await ledger.record({
    type: 'breakglass.opened',
    environment,
    user: ledger.subject('olga'),
    reason: 'INC-7',
    ticket: 'INC-7',
    until: '2099-01-01T00:00:00.000Z',
    namespaces: ['shop'],
  });
  const use = await ledger.record({
    type: 'breakglass.used',
    environment,
    user: ledger.subject('olga'),
    operation: 'UPDATE',
    object,
    reason: 'INC-7',
    until: '2099-01-01T00:00:00.000Z',
  });
  // A use that was refused after all is none.
  const late = { environment, object, uid: 'late' };
  const by = { user: ledger.subject('olga'), operation: 'UPDATE', reason: 'INC-7', until: '2099-01-01T00:00:00.000Z' };
  await ledger.record({ type: 'breakglass.used', ...late, ...by, use: 'a' });
  await ledger.record({ type: 'breakglass.refused', ...late, use: 'a' });
  // What break-glass let somebody do is found as drift later; that is the same thing.
  const details = [{ object, fields: ['/spec/replicas'], manager: 'kubectl', at: '', admission: use.index }];
  await ledger.record({ type: 'drift.found', environment, revision: last, objects: [object], details });
  await ledger.record({ type: 'ref.advanced', environment, ref, before: commitId(38), after: commitId(39) });
  await ledger.record({ type: 'ref.rewound', environment, ref, before: commitId(39), after: commitId(5) });
  const waived: Violation = { code: 'policy', rule: 'privileged', message: 'privileged' };
  const judged = await good(41, { waived: [waived], subject: '=cmd|calc 山田 \u202Eevil\u0007 CHG-1' });
  const waiver = {
    verdict: judged.index,
    rule: 'privileged',
    waiver: 'old-driver',
    approver: 'lee',
    until: '2027-01-01',
  };
  await ledger.record({ type: 'waiver.used', environment, ...waiver });
  await ledger.record({
    type: 'epoch.opened',
    origin: 'countersign.dev/test',
    epoch: 2,
    reason: 'restored',
    previous: '',
  });
  const period = { from: '2020-01-01T00:00:00.000Z', to: '2100-01-01T00:00:00.000Z' };
  await ledger.record({ type: 'report.issued', report: 'earlier', ...period, manifest: '', checkpoint: 1 });
  const [name, user] = [ledger.subject('Robin \u202E Example'), ledger.subject('robin')];
  await ledger.record({
    type: 'report.reviewed',
    report: 'earlier',
    name,
    role: 'Head of Platform',
    remarks: '',
    user,
  });
  await ledger.record({
    type: 'heartbeat',
    everySeconds: 1,
    environments: [{ name: environment, revision: last, state: 'applied' }],
  });
  await new Promise((done) => setTimeout(done, 2600));
  await ledger.record({
    type: 'heartbeat',
    everySeconds: 3600,
    environments: [{ name: environment, revision: last, state: 'applied' }],
  });
  await ledger.close();
  const made = await report(out);
  assert.equal(made.code, 0, made.stderr);
});

const report = (at: string, ...more: string[]) =>
  countersign([
    'report',
    '--data',
    data,
    '--out',
    at,
    '--from',
    '2020-01-01',
    '--to',
    '2100-01-01',
    '--framework',
    'soc2',
    'iso27001',
    ...more,
  ]);
const text = (name: string, at = out) => readFileSync(join(at, name), 'utf8');
const modelOf = (at = out) => JSON.parse(text('report.json', at)) as ReportModel;

/** Rows of a CSV file, read by rules that are not ours. */
function csvRows(name: string, at = out): string[][] {
  const script =
    'import csv,json,sys; print(json.dumps(list(csv.reader(open(sys.argv[1], newline="", encoding="utf-8")))))';
  return JSON.parse(execFileSync('python3', ['-c', script, join(at, name)], { encoding: 'utf8' })) as string[][];
}

test('each of ten faults stands in exactly one row of the register, with what became of it', () => {
  const rows = modelOf()
    .exceptions.map((e) => [e.type, e.disposition])
    .sort();
  assert.deepEqual(rows, [
    ['approval-after-apply', 'open'],
    ['bad-signature', 'prevented'],
    ['break-glass', 'open'],
    ['force-push', 'open'],
    ['gate-outage', 'open'],
    ['ledger-fault', 'open'],
    ['out-of-band-change', 'open'],
    ['policy-overridden', 'accepted'],
    ['self-approval', 'prevented'],
    ['unsigned', 'prevented'],
  ]);
  assert.deepEqual(
    modelOf().emergencies.map((e) => e.uses.length),
    [1],
    'a use that was refused after all is none',
  );
});

test('counts agree in every form', () => {
  const model = modelOf();
  const { summary } = model;
  assert.deepEqual(
    [summary.changes, summary.applied, summary.denied, summary.exceptions, summary.open],
    [44, 41, 3, 10, 6],
  );
  assert.equal(csvRows('population.csv').length - 1, summary.changes);
  assert.equal(csvRows('exceptions.csv').length - 1, summary.exceptions);
  assert.equal(
    csvRows('access.csv').length - 1,
    model.access.reduce((n, p) => n + Math.max(1, p.keys.length), 0),
  );
  const oscal = JSON.parse(text('oscal-ar.json'))['assessment-results'].results[0];
  assert.equal(oscal.risks.length, summary.exceptions);
  assert.equal(oscal.observations.length, summary.exceptions + model.controls.length);
  assert.equal(JSON.parse(text('oscal-poam.json'))['plan-of-action-and-milestones']['poam-items'].length, summary.open);
  for (const { tested, passed, undetermined } of model.controls) assert.ok(passed + undetermined <= tested);
  const approval = model.controls.find((c) => c.id === 'CS-02');
  assert.deepEqual(
    [approval?.population, approval?.passed, approval?.exceptions, approval?.dispositioned],
    [41, 41, 2, 1],
  );
});

test('a sheet has the same cells, and nothing that a spreadsheet would run', {
  skip: hasOpenpyxl() ? false : 'openpyxl is not here',
}, () => {
  const script =
    'import openpyxl,json,sys; w=openpyxl.load_workbook(sys.argv[1]); print(json.dumps({s.title:[["" if c is None else str(c) for c in r] for r in s.iter_rows(values_only=True)] for s in w}))';
  const sheets = JSON.parse(
    execFileSync('python3', ['-c', script, join(out, 'population.xlsx')], { encoding: 'utf8' }),
  ) as Record<string, string[][]>;
  assert.deepEqual(sheets['population'], csvRows('population.csv'));
  assert.deepEqual(sheets['exceptions'], csvRows('exceptions.csv'));
});

function hasOpenpyxl(): boolean {
  try {
    execFileSync('python3', ['-c', 'import openpyxl'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

test('what looks like a formula is text, and controls are gone', () => {
  const [head, ...rows] = csvRows('population.csv');
  const title = head?.indexOf('title') ?? -1;
  const hostile = rows.map((r) => r[title]).find((t) => t?.includes('calc'));
  assert.equal(hostile, "'=cmd|calc 山田 \u202Eevil CHG-1");
});

test('what the ledger has no source for is not determinable, and a store that was put back does not tie', () => {
  const status = Object.fromEntries(modelOf().reconciliation.map((r) => [r.id, r.status]));
  assert.deepEqual(status, {
    R1: 'ties',
    R2: 'ties',
    R3: 'not determinable',
    R4: 'not determinable',
    R5: 'does not tie',
    R6: 'ties',
    R7: 'does not tie',
  });
});

for (const [file, schema] of [
  ['oscal-ar.json', 'oscal_assessment-results_schema.json'],
  ['oscal-poam.json', 'oscal_poam_schema.json'],
] as const)
  test(`${file} is valid OSCAL 1.2.1`, { skip: existsSync(SCHEMAS) ? false : 'the schemas are not here' }, () => {
    const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
    const validate = ajv.compile(JSON.parse(readFileSync(join(SCHEMAS, schema), 'utf8')) as object);
    assert.ok(validate(JSON.parse(text(file))), JSON.stringify(validate.errors?.slice(0, 3)));
  });

test('a sample is the same for everybody who has the seed, and another for another seed', async () => {
  const at = join(directory, 'sample');
  assert.equal((await report(at, '--seed', 'of the auditor', '--sample', '5')).code, 0);
  const { sample, ledger, period } = modelOf(at);
  // Drawn again in another language, from the population and what stands in the report alone.
  const script = `import csv,hmac,json,sys
rows=[r for r in csv.DictReader(open(sys.argv[1], newline="", encoding="utf-8")) if r["outcome"]=="applied"]
key="|".join([sys.argv[2],sys.argv[3],sys.argv[4],"standard",sys.argv[5]]).encode()
print(json.dumps(sorted([hmac.new(key,r["change_id"].encode(),"sha256").hexdigest(),r["change_id"]] for r in rows)[:5]))`;
  const root = ledger.checkpoint.split('\n')[2] ?? '';
  const args = ['-c', script, join(at, 'population.csv'), root, period.from, period.to, 'of the auditor'];
  assert.deepEqual(
    JSON.parse(execFileSync('python3', args, { encoding: 'utf8' })),
    sample?.items.map((i) => [i.rank, i.change]),
  );
  const other = join(directory, 'other');
  await report(other, '--seed', 'another', '--sample', '5');
  assert.notDeepEqual(modelOf(other).sample?.items, sample?.items);
  assert.equal(csvRows('sample.csv', at).length, 6);
});

test('the hooks of a change are among its entries', async () => {
  const [own, at] = [join(directory, 'data-hooks'), join(directory, 'out-hooks')];
  const ledger = await openLedger(own, 'countersign.dev/test');
  const judged = await recordChange(ledger, commitId('hooked'));
  const about = { environment, object: { ...object, apiVersion: 'batch/v1', kind: 'Job' }, phase: 'before' } as const;
  const started = { type: 'hook.started', intent: judged.index + 1, revision: commitId('hooked'), uid: 'u' } as const;
  const { index } = await ledger.record({ ...about, ...started });
  await ledger.record({ ...about, type: 'hook.ended', started: index, outcome: 'succeeded' });
  await ledger.close();
  const made = await countersign(['report', '--data', own, '--out', at, '--from', '2020-01-01', '--to', '2100-01-01']);
  assert.equal(made.code, 0, made.stderr);
  assert.match(
    text('population.csv', at),
    new RegExp(`\\b${judged.index + 1}; ${judged.index + 2}; ${index}; ${index + 1}\\b`),
  );
});

test('an environment that is left out is named, and its changes are not counted', async () => {
  const at = join(directory, 'part');
  assert.equal((await report(at, '--environment', 'staging')).code, 0);
  assert.deepEqual([modelOf(at).summary.changes, modelOf(at).scope.excluded], [0, ['production']]);
});

test('a framework of one’s own is read from a file, and one that cannot be read is refused', async () => {
  const file = join(directory, 'own.json');
  writeFileSync(
    file,
    JSON.stringify({ id: 'own', name: 'Our own', requirements: { 'CS-01': [{ id: 'X-1', title: 'Signed' }] } }),
  );
  const at = join(directory, 'own');
  assert.equal((await report(at, '--framework', file)).code, 0);
  assert.deepEqual(
    modelOf(at).controls[0]?.requirements.find((r) => r.framework === 'own'),
    { framework: 'own', ids: ['X-1'] },
  );
  writeFileSync(file, '{"id": 1}');
  for (const name of [file, 'soc3']) {
    const refused = await report(join(directory, 'never'), '--framework', name);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /framework/);
  }
});

test('the PDF says what the model says, section by section', {
  skip: without('pdftotext'),
}, () => {
  const shown = execFileSync('pdftotext', ['-layout', join(out, 'report.pdf'), '-'], { encoding: 'utf8' });
  for (const section of [
    'Contents',
    'Scope',
    'Summary of controls',
    'Is the population whole?',
    'Register of exceptions',
    'Emergency changes',
  ])
    assert.ok(shown.includes(section), section);
  for (const { id, type } of modelOf().exceptions)
    assert.ok(shown.includes(id) && shown.includes(type), `${id} ${type}`);
  assert.doesNotMatch(shown, /SOC 2 report|compliant/i);
});

test('an exception is settled by name, with who says so, and stays in every report; what was prevented, or is break-glass, is not', async () => {
  const on = (...args: string[]) => countersign(['exception', ...args, '--data', data]);
  const id = (type: string) => modelOf().exceptions.find((e) => e.type === type)?.id ?? '';
  const listed = await on('list');
  assert.equal(listed.code, 1);
  assert.match(listed.stdout, /6 exceptions open/);
  const drift = id('out-of-band-change');
  const explained = await on('explain', drift);
  assert.equal(explained.code, 0, explained.stderr);
  assert.match(explained.stdout, /drift\.found/);
  assert.match(explained.stdout, /owner +no one yet/);
  for (const owner of ['Sam Example', 'Robin Example'])
    assert.equal((await on('assign', drift, '--to', owner, '--reason', 'on call that night')).code, 0);
  assert.match((await on('list')).stdout, /; owner Robin Example\n/);
  assert.match(
    (await on('assign', id('waived'), '--to', 'Robin Example', '--reason', 'x')).stderr,
    /there is no exception/,
  );
  const done = await on(
    'settle',
    drift,
    '--as',
    'remediated',
    '--reason',
    'scaled back',
    '--ticket',
    'INC-9',
    '--link',
    'https://wiki.example.com/9',
  );
  assert.equal(done.code, 0, done.stderr);
  assert.match((await on('list')).stdout, /5 exceptions open/);
  const at = join(directory, 'settled');
  assert.equal((await report(at)).code, 0);
  const row = modelOf(at).exceptions.find((e) => e.id === drift);
  assert.deepEqual(
    [row?.owner, row?.disposition, row?.reason, row?.ticket, row?.link],
    ['Robin Example', 'remediated', 'scaled back', 'INC-9', 'https://wiki.example.com/9'],
  );
  assert.match(row?.by ?? '', /@/);
  assert.match(readFileSync(join(at, 'exceptions.csv'), 'utf8'), /,Robin Example,remediated,/);
  assert.doesNotMatch(readFileSync(join(at, 'entries.jsonl'), 'utf8'), /Robin Example/); // a commitment, as every name
  assert.match((await on('assign', id('unsigned'), '--to', 'Sam Example', '--reason', 'late')).stderr, /was prevented/);
  assert.equal((await countersign(['verify', join(at, 'report.pdf'), '--key', join(data, 'ledger.pub')])).code, 0);
  for (const [which, message] of [
    [id('unsigned'), /was prevented/],
    [id('break-glass'), /break-glass settle/],
    ['E99999', /no exception/],
  ] as const) {
    const refused = await on('settle', which, '--as', 'accepted', '--reason', 'x');
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, message);
  }
  assert.equal((await on('settle', drift, '--as', 'accepted', '--reason', ' ')).code, 2);
  assert.equal((await on('settle', drift, '--as', 'forgotten', '--reason', 'x')).code, 2);
});

test('a checker that was written from the documentation alone agrees, and finds what is altered', async () => {
  const at = join(directory, 'checked');
  assert.equal((await report(at, '--seed', 's', '--sample', '7')).code, 0);
  const script = fileURLToPath(new URL('check_report.py', import.meta.url));
  const check = () => spawnSync('python3', [script, at, join(data, 'ledger.pub')], { encoding: 'utf8' });
  const fine = check();
  assert.equal(fine.status, 0, fine.stderr);
  assert.match(fine.stdout, /44 changes: as they should be/);
  for (const name of ['population.csv', 'exceptions.csv', 'entries.jsonl', 'report.json', 'manifest.txt']) {
    const whole = readFileSync(join(at, name));
    const altered = Buffer.from(whole);
    const place = Math.floor(altered.length / 2);
    altered[place] = (altered[place] ?? 0) ^ 1;
    writeFileSync(join(at, name), altered);
    assert.notEqual(check().status, 0, name);
    writeFileSync(join(at, name), whole);
  }
});

test('the checker that goes along agrees, and finds what is altered, also where whoever altered it has the key', async () => {
  const at = join(directory, 'handed-out');
  assert.equal((await report(at, '--seed', 's', '--sample', '7')).code, 0);
  const key = join(data, 'ledger.pub');
  const check = (...more: string[]) =>
    spawnSync(process.execPath, [join(at, 'verify.mjs'), ...more], { encoding: 'utf8', cwd: '/' });
  const fine = check('--key', key);
  assert.equal(fine.status, 0, fine.stdout);
  assert.match(fine.stdout, /44 changes are in the log, each at its entry/);
  assert.match(fine.stdout, /the sample is what the seed draws: \d+ changes/);
  assert.match(fine.stdout, /not checked here, but by `countersign verify`: /);
  assert.match(check().stdout, /^WRONG name the ledger’s public key/);
  const stranger = join(directory, 'stranger.pub');
  writeFileSync(stranger, verifierText(readSigner('countersign.dev/test', createKey())));
  assert.match(check('--key', stranger).stdout, /^WRONG manifest\.txt is not signed by this key/);

  // A period that begins after the ledger did: the tree is continued from the hashes before it.
  const { time } = JSON.parse(readFileSync(join(at, 'entries.jsonl'), 'utf8').split('\n')[70] ?? '') as {
    time: string;
  };
  const later = join(directory, 'later');
  assert.equal(
    (await countersign(['report', '--data', data, '--out', later, '--from', time, '--to', '2100-01-01'])).code,
    0,
  );
  const partly = spawnSync(process.execPath, [join(later, 'verify.mjs'), '--key', key], { encoding: 'utf8' });
  assert.match(partly.stdout, /entries, from [1-9]\d* on, give the signed root/);
  assert.equal(partly.status, 0, partly.stdout);

  const names = readdirSync(at).filter((name) => name !== 'manifest.txt');
  const signer = readSigner(ledgerName(data) ?? '', readFileSync(join(data, 'ledger.key'), 'utf8'));
  const resign = () => {
    const lines = names.sort().map((name) => `${sha256(readFileSync(join(at, name)))}  ${name}\n`);
    writeFileSync(join(at, 'manifest.txt'), signNote(`countersign.dev/report/v2\n${lines.join('')}`, signer));
  };
  const line = (text: string, n: number) => text.split('\n')[n] ?? '';
  for (const [name, alter, expected] of [
    ['entries.jsonl', (t) => t.replace(`${line(t, 3)}\n`, ''), /the entries do not end where the checkpoint does/],
    ['entries.jsonl', (t) => t.replace(line(t, 3), line(t, 4)), /the entries do not give the root/],
    ['evidence.jsonl', (t) => t.replace(`${line(t, 0)}\n`, ''), /the evidence of a verdict is missing/],
    ['subjects.jsonl', (t) => t.replace('Dana', 'Dora'), /a name is not the one behind subject:/],
    ['population.csv', (t) => t.replace(/\r\n.*\r\n$/, '\r\n'), /changes are not counted alike/],
    ['population.csv', (t) => t.replace(/(\r\n(?:[^,]*,){2})[0-9a-f]{64}/, `$1${'0'.repeat(64)}`), /has another leaf/],
    ['exceptions.csv', (t) => t.replace(/,open,/, ',accepted,'), /open exceptions are not counted alike/],
    [
      'report.json',
      (t) => t.replace(/"seed":"s","size":7/, '"seed":"t","size":7'),
      /the sample is not what the seed draws/,
    ],
    ['checkpoint', (t) => `${t}\n`, /checkpoint is not the one of range\.json/],
  ] as [string, (text: string) => string, RegExp][]) {
    const whole = readFileSync(join(at, name), 'utf8');
    const altered = alter(whole);
    assert.notEqual(altered, whole, name);
    writeFileSync(join(at, name), altered);
    assert.match(check('--key', key).stdout, new RegExp(`WRONG ${name} is not the file that was signed`));
    resign();
    const found = check('--key', key);
    assert.equal(found.status, 1, name);
    assert.match(found.stdout, expected);
    writeFileSync(join(at, name), whole);
    resign();
  }
  assert.equal(check('--key', key).status, 0);
});
