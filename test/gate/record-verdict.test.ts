import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { recordVerdict } from '../../src/gate/record-verdict.ts';
import type { Verdict, Violation } from '../../src/model/index.ts';
import { recorderAt } from '../kit/recorder.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const [A, B, C] = ['a'.repeat(40), 'b'.repeat(40), 'c'.repeat(40)] as const;
const commit = {
  subject: 's',
  committedAt: 0,
  reason: 'written by mallory@example.test',
  seen: '2026-01-01T00:00:00.000Z',
  basis: 'ledger',
  payload: 'p',
} as const;
const verified = {
  ...commit,
  commit: A,
  author: 'Dana <dana@example.test>',
  committer: 'Dana <dana@example.test>',
  outcome: 'verified',
  code: 'verified',
  format: 'ssh',
  key: 'SHA256:d',
  signer: { principal: 'dana', kind: 'person', key: 'SHA256:d' },
} as const;
const refused = {
  ...commit,
  commit: B,
  author: 'Mallory',
  committer: 'Mallory',
  outcome: 'refused',
  code: 'unsigned',
} as const;
const violation: Violation = { code: 'policy', message: 'ask dana@example.test', rule: 'no-privileged' };
const waived = {
  ...violation,
  waived: { waiver: 'old-driver', approver: 'lee', ticket: 'T-1', reason: 'r', until: '2027-01-01' },
};
const approval = {
  principal: 'lee',
  key: 'SHA256:l',
  from: A,
  commit: B,
  tree: 't',
  issuedAt: '',
  reason: '',
  envelope: 'e1',
  class: 'A',
  match: 'exact',
} as const;
const verdict: Verdict = {
  outcome: 'denied',
  environment: 'production',
  from: C,
  to: B,
  tree: 't',
  commits: [verified, refused],
  approvals: [],
  violations: [violation],
  warnings: [],
  objects: 1,
  consulted: { trustDigest: 't', bundleDigest: 'b1', time: 'ledger' },
};

test('what is new in a verdict is on the ledger once: commits, approvals, rules, waivers and a rollback', async () => {
  const { ledger, recorder } = await recorderAt(join(directory, 'new'));
  const typesAfter = async (v: Verdict) => {
    const from = ledger.size;
    await recordVerdict(recorder, v, v.violations.length);
    return [...ledger.read.search({ from })].map((r) => r.entry.type);
  };
  assert.deepEqual(await typesAfter(verdict), ['commit.verified', 'commit.refused', 'policy.changed', 'change.judged']);
  assert.deepEqual(await typesAfter(verdict), ['change.judged'], 'nothing is new');
  assert.deepEqual(await typesAfter({ ...verdict, approvals: [approval] }), ['approval.recorded', 'change.judged']);
  const other = { ...refused, code: 'unknown-key' as const };
  assert.deepEqual(await typesAfter({ ...verdict, commits: [verified, other], approvals: [approval] }), [
    'commit.refused',
    'change.judged',
  ]);
  const allowed: Verdict = {
    ...verdict,
    outcome: 'allowed',
    violations: [],
    waived: [waived],
    rollback: true,
    consulted: { ...verdict.consulted, bundleDigest: 'b2' },
  };
  assert.deepEqual((await typesAfter(allowed)).slice(-3), ['change.judged', 'waiver.used', 'rollback.allowed']);
  const judged = ledger.read.latest(['change.judged'], 'production')?.index;
  assert.deepEqual(
    [
      ledger.read.latest(['waiver.used'], 'production')?.entry.verdict,
      ledger.read.latest(['rollback.allowed'], 'production')?.entry.verdict,
    ],
    [judged, judged],
  );
  assert.deepEqual(ledger.read.latest(['policy.changed'], 'production')?.entry.before, 'b1');
  await ledger.close();
});

test('no name or address of a person is in entries or evidence, and whoever reads them has it all the same', async () => {
  const { ledger, recorder } = await recorderAt(join(directory, 'names'));
  const { entry } = await recordVerdict(recorder, { ...verdict, waived: [waived] }, 1);
  assert.ok(entry.type === 'change.judged');
  const stored =
    [...ledger.read.stored()].map((s) => s.body).join('') + ledger.read.evidenceBytes(entry.evidence.sha256);
  for (const name of ['Dana', 'Mallory', 'example.test']) assert.ok(!stored.includes(name), name);
  assert.ok(stored.includes('"lee"') && stored.includes('"dana"'), 'principals are names of our own making');
  assert.deepEqual(ledger.read.evidence(entry.evidence), { ...verdict, waived: [waived] });
  await ledger.close();
});
