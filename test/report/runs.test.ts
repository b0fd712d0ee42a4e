import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildReport } from '../../src/report/index.ts';

const revision = 'b'.repeat(40);
const previous = 'a'.repeat(40);
const evidence = { sha256: 'e', size: 1 };
const base = { v: 1, time: '2026-01-02T00:00:00.000Z', environment: 'production', evidence };
const intent = (more: object) => ({ ...base, type: 'apply.intent', revision, previous, verdict: 0, ...more });

// The types of the register's rows for a period with these entries.
function rows(entries: readonly object[]): readonly string[] {
  const model = buildReport({
    from: '2026-01-01T00:00:00.000Z',
    to: '2026-02-01T00:00:00.000Z',
    first: 0,
    entries: entries.map((entry) => JSON.stringify(entry)),
    evidence: new Map([['e', JSON.stringify({ objects: [], prune: [] })]]),
    subjects: [],
    checkpoint: `countersign.dev/test\n${entries.length}\nAAAA\n`,
    origin: 'countersign.dev/test',
    definition: {
      ...{ entity: 'x', classification: 'x', frameworks: [], environments: [], sample: undefined },
      ...{ failureHours: 24, reviewHours: 72 },
    },
  });
  return model.exceptions.map((e) => e.type).filter((type) => type.startsWith('apply-'));
}

const failed = {
  ...base,
  type: 'apply.result',
  intent: 0,
  revision: previous,
  outcome: 'failed',
  applied: 0,
  pruned: 0,
};

test('a change that failed and was undone is one row: it was not interrupted', () => {
  const undone = intent({ purpose: 'restore', revision: previous, takesOver: 0 });
  assert.deepEqual(rows([intent({ purpose: 'apply' }), { ...failed, error: 'not healthy' }, undone]), ['apply-failed']);
});

test('a change without a result that another one takes over was interrupted', () => {
  assert.deepEqual(rows([intent({ purpose: 'apply' }), intent({ purpose: 'apply', takesOver: 0 })]), [
    'apply-interrupted',
  ]);
});
