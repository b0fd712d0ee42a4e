import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Violation } from '../../src/model/index.ts';
import { applyWaivers, type Waiver } from '../../src/policy/index.ts';

const DAY = 86_400_000;
const UNTIL = Date.parse('2026-07-01T00:00:00Z');
const NOW = UNTIL - 60 * DAY;
const waiver = (more: Partial<Waiver> = {}): Waiver => ({
  name: 'w',
  rule: 'privileged',
  environments: ['prod*'],
  subjects: [{ kind: 'Deployment', namespace: 'shop', name: 'web' }],
  reason: 'old driver',
  ticket: 'OPS-1',
  approver: 'lee',
  until: UNTIL,
  place: 'countersign/waivers/w.yaml:1',
  ...more,
});
const violation = (more: Partial<Violation> = {}): Violation => ({
  code: 'policy',
  rule: 'privileged',
  message: 'no',
  object: { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'shop', name: 'web' },
  source: { file: 'a.yaml', line: 1 },
  ...more,
});
const apply = (v: Violation, w: Waiver, environment = 'production', now = NOW) =>
  applyWaivers([v], [w], environment, now);
const waived = (...args: Parameters<typeof apply>) => apply(...args).waived.length === 1;
const ref = (more: object) => ({
  object: { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'shop', name: 'web', ...more },
});

test('a waiver covers its rule, subject and environment, and says who, why and until when', () => {
  const { standing, waived: all, warnings } = apply(violation(), waiver());
  assert.deepEqual([standing, warnings], [[], []]);
  assert.deepEqual(all[0]?.waived, {
    waiver: 'w',
    approver: 'lee',
    ticket: 'OPS-1',
    reason: 'old driver',
    until: '2026-07-01',
  });
});

for (const [what, v, w, environment] of [
  ['another rule', violation({ rule: 'host-path' }), waiver(), 'production'],
  ['another environment', violation(), waiver(), 'staging'],
  ['another kind', violation(ref({ kind: 'DaemonSet' })), waiver(), 'production'],
  ['another namespace', violation(ref({ namespace: 'other' })), waiver(), 'production'],
  ['another name', violation(ref({ name: 'web2' })), waiver(), 'production'],
  ['another file', violation(), waiver({ subjects: [{ file: 'b.yaml' }] }), 'production'],
  ['a rule that could not answer', violation({ code: 'policy-timeout' }), waiver(), 'production'],
] as const) {
  test(`it does not cover ${what}, and is told as covering nothing`, () => {
    const { standing, warnings } = apply(v, w, environment);
    assert.deepEqual(standing, [v]);
    assert.deepEqual(
      warnings.map((x) => x.code),
      environment === 'staging' ? [] : ['waiver-unused'],
    );
  });
}

test('it is dead on its day and not a moment before, and the violation says so', () => {
  assert.ok(waived(violation(), waiver(), 'production', UNTIL - 1));
  const { standing, waived: all } = apply(violation({ hint: 'fix it' }), waiver(), 'production', UNTIL);
  assert.deepEqual(all, []);
  assert.equal(standing[0]?.hint, 'the waiver `w` expired on 2026-07-01; fix it');
});

test('in its last two weeks it is a warning', () => {
  const codes = (now: number) => apply(violation(), waiver(), 'production', now).warnings.map((w) => w.code);
  assert.deepEqual([codes(UNTIL - 15 * DAY), codes(UNTIL - 13 * DAY)], [[], ['waiver-ends']]);
});

test('of two, the one that still counts is taken', () => {
  const both = [waiver({ name: 'old', until: NOW - DAY }), waiver({ name: 'new' })];
  assert.equal(applyWaivers([violation()], both, 'production', NOW).waived[0]?.waived?.waiver, 'new');
});
