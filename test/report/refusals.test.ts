import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIOLATIONS, type ViolationCode } from '../../src/model/index.ts';
import { buildReport } from '../../src/report/index.ts';
import { EXCEPTION_TYPES } from '../../src/report/model.ts';

const commit = 'b'.repeat(40);

// The register of a period in which one change was denied, for one reason.
function register(code: string): readonly { readonly type: string; readonly disposition: string }[] {
  const said = { commit, subject: 's', author: 'a', committer: 'c', committedAt: 1, seen: '2026-01-01T00:00:00.000Z' };
  const verdict = {
    outcome: 'denied',
    environment: 'production',
    from: 'a'.repeat(40),
    to: commit,
    tree: 'c'.repeat(40),
    commits: [{ ...said, outcome: 'refused', code, reason: 'r', basis: 'ledger', payload: 'p' }],
    approvals: [],
    violations: [{ code, message: 'm', commit }],
    warnings: [],
    objects: 0,
    consulted: { trustDigest: 't', bundleDigest: 'b', time: 'ledger' },
  };
  const { environment, from, to, tree, outcome } = verdict;
  const evidence = { sha256: 'e', size: 1 };
  const judged = {
    v: 1,
    type: 'change.judged',
    time: '2026-01-02T00:00:00.000Z',
    environment,
    from,
    to,
    tree,
    outcome,
  };
  const model = buildReport({
    from: '2026-01-01T00:00:00.000Z',
    to: '2026-02-01T00:00:00.000Z',
    first: 0,
    entries: [JSON.stringify({ ...judged, violations: 1, evidence })],
    evidence: new Map([['e', JSON.stringify(verdict)]]),
    subjects: [],
    checkpoint: 'countersign.dev/test\n1\nAAAA\n',
    origin: 'countersign.dev/test',
    definition: {
      entity: 'x',
      classification: 'x',
      frameworks: [],
      environments: [],
      sample: undefined,
      failureHours: 24,
      reviewHours: 72,
    },
  });
  return model.exceptions;
}

// Refusals that are the control at work: rules, rendering, and a change that still waits for approvals.
const AT_WORK =
  /^(policy|render|kustomize|helm|yaml|manifest|too-many|namespace-|scope-unknown|kind-not|lfs-|object-|order-|hook-|variable-|waiver-(ends|unused|unusable)$|image-evidence|cannot-be|not-|nothing-|change-too-long|approval-missing$|trust-unusable$)/;

for (const code of Object.keys(VIOLATIONS) as ViolationCode[])
  test(`a change denied for \`${code}\` ${AT_WORK.test(code) ? 'is the control at work' : 'is one row of the register'}`, () => {
    const rows = register(code);
    assert.equal(rows.length, AT_WORK.test(code) ? 0 : 1);
    for (const { type, disposition } of rows) {
      assert.ok(EXCEPTION_TYPES.some((t) => t === type));
      assert.equal(disposition, 'prevented');
    }
  });

test('a refusal by a code that only a newer version knows is a row, never passed over', () => {
  assert.deepEqual(
    register('signature-by-a-later-algorithm').map((r) => r.type),
    ['bad-signature'],
  );
});
