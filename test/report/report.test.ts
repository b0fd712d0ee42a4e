import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { createKey, evidenceRef, openLedger, readSigner, verifierText } from '../../src/ledger/index.ts';
import { canonicalJson, type Verdict } from '../../src/model/index.ts';
import { buildReport, type ReportDefinition, type ReportDocument, renderPdf } from '../../src/report/index.ts';
import { without } from '../kit/machine.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign, countersignProcess } from '../kit/service.ts';

const directory = scratch();
const data = join(directory, 'data');
const out = join(directory, 'out');
const definition: ReportDefinition = {
  entity: 'Example',
  classification: 'internal',
  frameworks: [],
  environments: [],
  sample: undefined,
  failureHours: 24,
  reviewHours: 72,
};
const HOSTILE = `Řehoř 山田 \u202Eevil\u0007 <x> ${'long '.repeat(400)}`;

function verdict(to: string, outcome: 'allowed' | 'denied', author = 'Dana <dana@example.test>'): Verdict {
  const signer = { principal: 'dana', kind: 'person', key: 'SHA256:abc' } as const;
  const violations: Verdict['violations'] =
    outcome === 'allowed'
      ? []
      : [
          {
            code: 'policy',
            rule: 'privileged',
            severity: 'critical',
            title: 'Containers are not privileged',
            controls: ['CC6.1', 'CC6.8'],
            message: 'the container is privileged',
            source: { file: 'web.yaml', line: 23 },
          },
        ];
  return {
    outcome,
    environment: 'production',
    from: '0'.repeat(40),
    to,
    tree: 't',
    violations,
    warnings: [],
    ...(outcome === 'denied'
      ? {}
      : {
          waived: [
            {
              code: 'policy',
              rule: 'privileged',
              message: 'the container is privileged',
              title: 'Containers are not privileged',
            },
          ],
        }),
    objects: 3,
    consulted: { trustDigest: '', bundleDigest: '', time: 'ledger' },
    commits: [
      {
        commit: to,
        subject: HOSTILE,
        author,
        committer: author,
        committedAt: 1,
        outcome: 'verified',
        code: 'verified',
        reason: '',
        signer,
        seen: '2026-01-01T00:00:00.000Z',
        basis: 'ledger',
        payload: '',
      },
    ],
    approvals:
      outcome === 'allowed'
        ? [
            {
              principal: 'lee',
              key: 'SHA256:def',
              from: '',
              commit: to,
              tree: 't',
              issuedAt: '',
              reason: 'ok',
              envelope: 'e',
              class: 'A',
              match: 'exact',
            },
          ]
        : [],
  };
}

before(async () => {
  const ledger = await openLedger(data, 'countersign.dev/test');
  const judge = async (to: string, outcome: 'allowed' | 'denied') => {
    const evidence = evidenceRef(verdict(to, outcome, HOSTILE));
    return ledger.record(
      {
        type: 'change.judged',
        environment: 'production',
        from: '0'.repeat(40),
        to,
        tree: 't',
        outcome,
        violations: outcome === 'denied' ? 1 : 0,
        evidence: evidence.ref,
      },
      [evidence],
    );
  };
  const [a, b] = ['a'.repeat(40), 'b'.repeat(40)];
  await judge(a, 'denied');
  const allowed = await judge(a, 'allowed'); // the same change, judged again when its approval came
  const plan = evidenceRef({ objects: [], prune: [] });
  const intent = await ledger.record(
    {
      type: 'apply.intent',
      environment: 'production',
      revision: a,
      previous: '',
      verdict: allowed.index,
      purpose: 'apply',
      evidence: plan.ref,
    },
    [plan],
  );
  await ledger.record(
    {
      type: 'apply.result',
      environment: 'production',
      intent: intent.index,
      revision: a,
      outcome: 'applied',
      applied: 3,
      pruned: 0,
      evidence: plan.ref,
    },
    [],
  );
  await judge(b, 'denied');
  const ref = { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'a' };
  await ledger.record({
    type: 'breakglass.used',
    environment: 'production',
    user: 'oncall',
    operation: 'UPDATE',
    object: ref,
    reason: 'INC-1',
    until: '2026-01-01T00:00:00Z',
  });
  await ledger.record({ type: 'drift.found', environment: 'production', revision: a, objects: [ref] });
  await ledger.record({
    type: 'admission.denied',
    environment: 'production',
    user: 'dev',
    operation: 'DELETE',
    object: ref,
    mode: 'enforce',
    reason: 'no',
  });
  await ledger.close();
  const made = await countersign(['report', '--data', data, '--out', out]);
  assert.equal(made.code, 0, made.stderr);
});

const model = () => JSON.parse(readFileSync(join(out, 'report.json'), 'utf8')) as ReportDocument;
const verify = (at: string, key = join(data, 'ledger.pub')) =>
  countersign(['verify', join(at, 'report.pdf'), '--key', key]);

test('a change is counted once, by its last verdict; exceptions and refusals have their registers', () => {
  const { summary, changes, exceptions, refused, access, rules } = model();
  assert.deepEqual(summary, {
    changes: 2,
    applied: 1,
    denied: 1,
    failed: 0,
    exceptions: 2,
    open: 2,
    admissionsDenied: 1,
  });
  assert.deepEqual(
    changes.map((c) => [c.outcome, c.judged, c.commits.map((k) => k.signer), c.approvals.map((a) => a.principal)]),
    [
      ['applied', 2, ['dana'], ['lee']],
      ['denied', 1, ['dana'], []],
    ],
  );
  assert.deepEqual(
    exceptions.map((e) => e.type),
    ['late-emergency-review', 'out-of-band-change'],
  );
  assert.deepEqual(
    refused.map((r) => r.actor),
    ['dev'],
  );
  assert.deepEqual(
    access.filter((p) => p.kind === 'person').map((p) => p.principal),
    ['dana', 'lee'],
  );
  assert.deepEqual(rules, [
    {
      rule: 'privileged',
      title: 'Containers are not privileged',
      severity: 'critical',
      controls: ['CC6.1', 'CC6.8'],
      denied: 1,
      warned: 0,
      waived: 1,
    },
  ]);
});

test('the report verifies offline with the public key alone', async () => {
  const copy = join(directory, 'copy');
  cpSync(out, copy, { recursive: true });
  const result = await verify(copy);
  assert.equal(result.code, 0, result.stdout + result.stderr);
  assert.match(result.stdout, /verified: the report is what the ledger of countersign\.dev\/test says/);
});

for (const name of ['report.pdf', 'report.json', 'entries.jsonl', 'evidence.jsonl', 'range.json', 'manifest.txt']) {
  test(`one byte of ${name} changed, or the file gone, and it does not`, async () => {
    const copy = join(directory, `altered-${name}`);
    cpSync(out, copy, { recursive: true });
    const bytes = readFileSync(join(copy, name));
    const at = Math.floor(bytes.length / 2);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(join(copy, name), bytes);
    assert.equal((await verify(copy)).code, 1);
    rmSync(join(copy, name));
    assert.notEqual((await verify(copy)).code, 0);
  });
}

test('another key does not verify it', async () => {
  const other = join(directory, 'other.pub');
  writeFileSync(other, `${verifierText(readSigner('countersign.dev/test', createKey()))}\n`);
  const result = await verify(out, other);
  assert.equal(result.code, 1);
  assert.match(result.stdout, /manifest\.txt is signed by this key/);
});

test('without a key from elsewhere nothing is verified', async () => {
  const result = await countersign(['verify', join(out, 'report.pdf')]);
  assert.equal(result.code, 2);
  assert.match(result.stderr, /--key/);
});

test('the same ledger and period give the same bytes', async () => {
  const period = ['--from', '2020-01-01', '--to', '2100-01-01'];
  for (const name of ['one', 'two'])
    assert.equal(
      (
        await countersignProcess(['report', '--data', data, '--out', join(directory, name), ...period], {
          env: { TZ: name === 'one' ? 'UTC' : 'Asia/Tokyo' },
        })
      ).code,
      0,
    );
  for (const file of ['report.pdf', 'report.json', 'manifest.txt'])
    assert.deepEqual(readFileSync(join(directory, 'one', file)), readFileSync(join(directory, 'two', file)), file);
});

test('an empty period is a report that says so; one without end is refused', async () => {
  const result = await countersign([
    'report',
    '--data',
    data,
    '--out',
    join(directory, 'empty'),
    '--from',
    '2000-01-01',
    '--to',
    '2001-01-01',
    '--output',
    'json',
  ]);
  assert.equal(JSON.parse(result.stdout).summary.changes, 0);
  assert.equal((await countersign(['report', '--data', data, '--from', '2026-02-01', '--to', '2026-01-01'])).code, 2);
});

test('no report is made from a ledger that is not consistent', async () => {
  const copy = join(directory, 'inconsistent');
  cpSync(data, copy, { recursive: true });
  const bytes = readFileSync(join(copy, 'ledger.db'));
  const at = bytes.indexOf('INC-1');
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(join(copy, 'ledger.db'), bytes);
  const result = await countersign(['report', '--data', copy, '--out', join(directory, 'never')]);
  assert.equal(result.code, 2);
  assert.match(result.stderr, /inconsistent ledger: entry 6 was altered/);
});

test('the PDF reads back as what the model says, hostile names made harmless', {
  skip: without('pdftotext'),
}, () => {
  const text = execFileSync('pdftotext', ['-layout', join(out, 'report.pdf'), '-'], { encoding: 'utf8' });
  for (const expected of [
    'Change management evidence report',
    'late-emergency-review',
    'INC-1',
    'Řehoř',
    '<U+5C71>',
    '<U+202E>',
    '<U+0007>',
    'web.yaml:23',
    'page 1 of',
  ])
    assert.ok(text.includes(expected), expected);
});

test('an open break-glass is an exception, a use says whether and how it was settled, a warning and a touched gate stand too', () => {
  const at = { v: 1, time: '2026-01-01T00:00:00.000Z' } as const;
  const object = { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: 'a' };
  const [environment, user, until] = ['production', 'ola', '2026-01-01T01:00:00Z'];
  const use = {
    ...at,
    type: 'breakglass.used',
    environment,
    user,
    operation: 'UPDATE',
    object,
    reason: 'INC-1',
    until,
  };
  const entries = [
    {
      ...at,
      type: 'breakglass.opened',
      environment,
      user,
      reason: 'INC-1',
      ticket: 'T-1',
      until,
      namespaces: ['shop'],
    },
    use,
    use,
    {
      ...at,
      type: 'breakglass.settled',
      environment,
      uses: [1],
      user: 'lee',
      reason: 'reviewed',
      commit: 'a'.repeat(40),
    },
    { ...at, type: 'admission.warned', environment, user, operation: 'CREATE', object, reason: 'no verdict' },
    { ...at, type: 'protection.changed', object, change: 'removed', manager: '' },
  ].map(canonicalJson);
  const period = {
    from: '2025-01-01',
    to: '2027-01-01',
    first: 0,
    evidence: new Map(),
    subjects: [],
    checkpoint: 'c',
    origin: 'o',
    definition,
  };
  assert.deepEqual(
    buildReport({ ...period, entries }).exceptions.map((e) => [e.type, e.disposition]),
    [
      ['break-glass', 'open'],
      ['not-enforced', 'open'],
      ['gate-tampered', 'remediated'],
    ],
  );
  const settled = { ...at, type: 'breakglass.settled', environment, uses: [2], user: 'lee', reason: 'reviewed' };
  const { exceptions, emergencies } = buildReport({ ...period, entries: [...entries, canonicalJson(settled)] });
  assert.deepEqual(
    [exceptions[0]?.disposition, exceptions[0]?.by, emergencies[0]?.uses.length],
    ['remediated', 'lee', 2],
  );
});

test('a report of thousands of changes stays whole', async () => {
  const entries = Array.from({ length: 2000 }, (_, i) =>
    canonicalJson({
      v: 1,
      time: '2026-01-01T00:00:00.000Z',
      type: 'breakglass.used',
      environment: 'production',
      user: `u${i}`,
      operation: 'UPDATE',
      object: { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: 'a' },
      reason: 'r',
      until: 'u',
    }),
  );
  const big = buildReport({
    from: '2025-01-01',
    to: '2027-01-01',
    first: 0,
    entries,
    evidence: new Map(),
    subjects: [],
    checkpoint: 'c',
    origin: 'o',
    definition,
  });
  assert.equal(big.exceptions.length, 2000);
  let size = 0;
  await renderPdf(big, (bytes) => {
    size += bytes.length;
  });
  assert.ok(size > 100_000);
});

test('what was judged before the period and deployed in it does not go unnoticed', () => {
  const revision = 'a'.repeat(40);
  const intent = {
    v: 1,
    type: 'apply.intent',
    environment: 'production',
    revision,
    previous: '',
    verdict: 3,
    purpose: 'apply',
  };
  const entry = canonicalJson({
    ...intent,
    time: '2026-01-02T00:00:00.000Z',
    evidence: { sha256: '0'.repeat(64), size: 1 },
  });
  const input = {
    from: '2026-01-01',
    to: '2027-01-01',
    first: 9,
    evidence: new Map(),
    subjects: [],
    checkpoint: 'c',
    origin: 'o',
  };
  const found = (entries: string[]) =>
    buildReport({ ...input, definition, entries }).reconciliation.find((r) => r.id === 'R2');
  assert.deepEqual([found([entry])?.status, found([entry])?.unexplained], ['does not tie', 1]);
  assert.match(found([entry])?.explained ?? '', /1 deployments of changes that were judged before the period/);
  assert.equal(found([])?.status, 'ties');
});
