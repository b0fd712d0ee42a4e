import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Known, referenceProblem } from '../../src/ledger/references.ts';
import { type Entry, NO_REVISION } from '../../src/model/index.ts';

// Each rule alone: what an entry says of others, held against a ledger of a few entries.
const NOW = Date.parse('2026-06-01T12:00:00.000Z');
const at = { v: 1, time: '2026-06-01T12:00:00.000Z', environment: 'production' };
const [one, two] = ['1'.repeat(40), '2'.repeat(40)];
const ON_LEDGER = [
  { ...at, type: 'change.judged', outcome: 'allowed', to: one },
  { ...at, type: 'change.judged', outcome: 'denied', to: one },
  { ...at, type: 'change.judged', outcome: 'allowed', to: one, environment: 'staging' },
  { ...at, type: 'apply.intent', revision: one, verdict: 0, purpose: 'apply' },
  { ...at, type: 'apply.result', revision: one, intent: 3 },
  { ...at, type: 'breakglass.used' },
  { ...at, type: 'report.issued' },
  { ...at, type: 'content.unproven' },
  { ...at, type: 'breakglass.opened' },
  { ...at, type: 'breakglass.closed' },
] as unknown as readonly Entry[];
const [ALLOWED, DENIED, ELSEWHERE, INTENT, RESULT, USE, ISSUED] = [0, 1, 2, 3, 4, 5, 6];
const [UNPROVEN, OPENED, CLOSED, NOTHING] = [7, 8, 9, 10];
const known: Known = {
  size: ON_LEDGER.length,
  entry: (index) => ON_LEDGER[index],
  hasEvidence: (digest) => digest === 'e',
};
const problem = (entry: object) =>
  referenceProblem({ ...at, ...entry } as unknown as Entry, known, { now: NOW, holdFor: { production: 3_600_000 } });
const after = (ms: number) => new Date(NOW + ms).toISOString();
const evidence = { sha256: 'e', size: 1 };
const intent = { type: 'apply.intent', revision: one, verdict: ALLOWED, purpose: 'apply', evidence };
const result = { type: 'apply.result', revision: one, intent: INTENT, outcome: 'applied', evidence };
const use = { type: 'breakglass.used', until: after(3_600_000) };
const span = { type: 'audit.covered', from: after(-1000), to: after(0) };

for (const [name, entry] of Object.entries({
  'an intent': intent,
  'an intent that goes on with another': { ...intent, continues: INTENT, takesOver: INTENT },
  'an intent to correct, under the verdict of an earlier revision': { ...intent, purpose: 'correct', revision: two },
  'going back to nothing': { ...intent, purpose: 'restore', revision: NO_REVISION, verdict: -1 },
  'a result': result,
  'a failed result, at the revision from before': { ...result, outcome: 'failed', revision: two },
  'a waiver, under a verdict that denies for another reason': { type: 'waiver.used', verdict: DENIED },
  'a new TrustPolicy': { type: 'trust.changed', verdict: ALLOWED },
  'a rollback': { type: 'rollback.allowed', verdict: ALLOWED },
  'what remains': { type: 'drift.remains', result: RESULT },
  'a hook': { type: 'hook.started', intent: INTENT },
  'content that is proven now': { type: 'content.resolved', found: UNPROVEN },
  'an opening that never was': { type: 'breakglass.unconfirmed', of: OPENED },
  'a closing that never was': { type: 'breakglass.unconfirmed', of: CLOSED },
  'a correction': { type: 'drift.corrected', result: RESULT },
  'drift that a request explains': { type: 'drift.found', details: [{ admission: USE }, {}] },
  'a review': { type: 'breakglass.settled', uses: [USE] },
  'a settled exception': { type: 'exception.settled', exception: 'E6.2' },
  'a report': { type: 'report.issued', checkpoint: 7, supersedes: ISSUED },
  'a delivery': { type: 'report.delivered', issued: ISSUED },
  'an anchor': { type: 'checkpoint.anchored', size: 7 },
  'a clock that is four minutes ahead': { type: 'heartbeat', time: after(4 * 60_000) },
  'break-glass for an hour': use,
  'break-glass where no such environment is configured': {
    ...use,
    environment: 'other',
    until: after(30 * 86_400_000),
  },
  'break-glass for a month in an environment named like a property': {
    ...use,
    environment: 'constructor',
    until: after(30 * 86_400_000),
  },
  'a span': span,
}))
  test(`may be recorded: ${name}`, () => assert.equal(problem(entry), undefined));

for (const [name, entry, expected] of [
  [
    'what remains after no result',
    { type: 'drift.remains', result: INTENT },
    /`result` names entry 3, .*apply\.intent/,
  ],
  ['a hook of no intent', { type: 'hook.started', intent: RESULT }, /`intent` names entry 4, .*apply\.result/],
  ['the end of no hook', { type: 'hook.ended', started: INTENT }, /`started` names entry 3, .*apply\.intent/],
  ['content that was never found', { type: 'content.resolved', found: USE }, /`found` names entry 5/],
  ['a use as what never was', { type: 'breakglass.unconfirmed', of: USE }, /`of` names entry 5/],
  ['a time of tomorrow', { type: 'heartbeat', time: after(86_400_000) }, /its time is in the future/],
  ['a time that is none', { type: 'heartbeat', time: 'soon' }, /its time is in the future/],
  ['`at` of tomorrow', { type: 'admission.denied', at: after(86_400_000) }, /`at` is in the future/],
  ['break-glass for a day', { ...use, until: after(86_400_000) }, /3600 s \(holdFor\)/],
  ['break-glass for ever', { ...use, until: 'never' }, /holdFor/],
  ['opened break-glass for a day', { ...use, type: 'breakglass.opened', until: after(86_400_000) }, /holdFor/],
  ['break-glass counted from `at`', { ...use, at: after(-3_600_000) }, /holdFor/],
  ['break-glass for a year elsewhere', { ...use, environment: 'other', until: after(365 * 86_400_000) }, /holdFor/],
  [
    'break-glass in an environment named like a property',
    { ...use, environment: 'constructor', until: after(365 * 86_400_000) },
    /holdFor/,
  ],
  ['a span that ends tomorrow', { ...span, to: after(86_400_000) }, /`to` is in the future/],
  ['a span that ends before it begins', { ...span, from: after(0), to: after(-1) }, /`from` is later/],
  [
    'the same of what was let through',
    { ...span, type: 'admission.allowed', from: after(0), to: after(-1), evidence },
    /`from` is later/,
  ],
  ['evidence that is nowhere', { ...intent, evidence: { sha256: 'f', size: 1 } }, /neither given nor on the ledger/],
  ['a verdict that is not there', { ...intent, verdict: NOTHING }, /`verdict` names entry 10, which does not exist/],
  ['no verdict at all', { ...intent, verdict: -1 }, /`verdict` names entry -1/],
  ['no verdict, to restore a revision', { ...intent, purpose: 'restore', verdict: -1 }, /`verdict` names entry -1/],
  ['no verdict, to apply nothing', { ...intent, revision: NO_REVISION, verdict: -1 }, /`verdict` names entry -1/],
  ['a verdict that denies', { ...intent, verdict: DENIED }, /which denies/],
  ['a verdict that denies, to correct', { ...intent, purpose: 'correct', verdict: DENIED }, /which denies/],
  ['a verdict on another environment', { ...intent, verdict: ELSEWHERE }, /a different environment/],
  ['a verdict on another revision', { ...intent, revision: two }, /about a different revision/],
  ['a verdict that is a result', { ...intent, verdict: RESULT }, /of type apply\.result, not change\.judged/],
  ['going on with what is no intent', { ...intent, continues: RESULT }, /`continues`/],
  ['taking over what is no intent', { ...intent, takesOver: RESULT }, /`takesOver`/],
  ['a new TrustPolicy that was denied', { type: 'trust.changed', verdict: DENIED }, /which denies/],
  ['a rollback that was denied', { type: 'rollback.allowed', verdict: DENIED }, /which denies/],
  ['a waiver without a verdict', { type: 'waiver.used', verdict: INTENT }, /`verdict`/],
  ['a result without an intent', { ...result, intent: ALLOWED }, /`intent`/],
  ['a result of another revision', { ...result, revision: two }, /about a different revision/],
  ['a correction without a result', { type: 'drift.corrected', result: INTENT }, /`result`/],
  [
    'drift explained by what is not there',
    { type: 'drift.found', details: [{}, { admission: NOTHING }] },
    /`admission`/,
  ],
  ['a review of what is no use', { type: 'breakglass.settled', uses: [USE, INTENT] }, /`uses`/],
  ['an exception that is not there', { type: 'exception.settled', exception: 'E10' }, /`exception`/],
  ['an exception before the first', { type: 'exception.settled', exception: 'E-1' }, /`exception`/],
  ['an exception without a number', { type: 'exception.assigned', exception: 'Ex' }, /`exception`/],
  ['a report over more than there is', { type: 'report.issued', checkpoint: 11 }, /`checkpoint`/],
  ['a report in place of none', { type: 'report.issued', checkpoint: 7, supersedes: USE }, /`supersedes`/],
  ['a delivery of none', { type: 'report.delivered', issued: USE }, /`issued`/],
  ['an anchor over more than there is', { type: 'checkpoint.anchored', size: 11 }, /`size`/],
] as readonly (readonly [string, object, RegExp])[])
  test(`is not recorded: ${name}`, () => assert.match(problem(entry) ?? '', expected));

test('where no hold is configured, none is asked for', () => {
  const entry = { ...at, ...use, until: after(365 * 86_400_000) } as unknown as Entry;
  assert.equal(referenceProblem(entry, known, { now: NOW }), undefined);
});
