import assert from 'node:assert/strict';
import { test } from 'node:test';
import { misplaced, placementOf } from '../../src/gate/placement.ts';
import { render } from '../../src/render/index.ts';

/** A ConfigMap with these lines as its annotations. */
function annotated(...lines: readonly string[]) {
  const annotations = lines.map((line) => `    ${line}\n`).join('');
  const text = `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: shop\n  annotations:\n${annotations}`;
  const { objects, violations } = render([{ path: 'a.yaml', mode: '100644', content: Buffer.from(text) }]);
  assert.deepEqual(violations, []);
  const [object] = objects;
  assert.ok(object !== undefined);
  return object;
}

const refused = (...lines: readonly string[]) =>
  misplaced(annotated(...lines)).map(({ code, message, hint, source }) => ({
    code,
    message,
    hint,
    line: source?.line,
  }));

test('an order that is not an integer is refused, with its line and what to write', () => {
  for (const [value, shown] of [
    ['"first"', '`first`'],
    ['"1.5"', '`1.5`'],
    ['""', '``'],
    ['" 5"', '` 5`'],
    ['"12345678901"', '`12345678901`'],
    ['true', 'boolean `true`'],
  ])
    assert.deepEqual(refused(`team: shop`, `countersign.dev/order: ${value}`), [
      {
        code: 'order-unreadable',
        message: `ConfigMap shop/a: \`countersign.dev/order\` must be an integer in quotes, not ${shown}`,
        hint: 'write `countersign.dev/order: "-5"`, or remove the annotation',
        line: 8,
      },
    ]);
  assert.match(refused('argocd.argoproj.io/sync-wave: "x"')[0]?.message ?? '', /`argocd.argoproj.io\/sync-wave` must/);
});

test('a number without quotes, which an API server refuses, is shown with them', () => {
  assert.equal(
    refused('countersign.dev/order: -3')[0]?.hint,
    'write `countersign.dev/order: "-3"`, or remove the annotation',
  );
});

test('two spellings that contradict each other are refused, at the second', () => {
  assert.deepEqual(refused('argocd.argoproj.io/sync-wave: "2"', 'countersign.dev/order: "1"'), [
    {
      code: 'order-contradicts',
      message: 'ConfigMap shop/a: `countersign.dev/order` says 1, and `argocd.argoproj.io/sync-wave` says 2',
      hint: 'remove one of them, or write `argocd.argoproj.io/sync-wave: "1"`',
      line: 7,
    },
  ]);
  assert.deepEqual(refused('argocd.argoproj.io/sync-wave: "1"', 'countersign.dev/order: "+1"'), []);
});

test('the order is that of either spelling, and 0 without one', () => {
  assert.deepEqual(placementOf(annotated('countersign.dev/order: "-5"')), { order: -5, isStated: true });
  assert.deepEqual(placementOf(annotated('argocd.argoproj.io/sync-wave: "03"')), { order: 3, isStated: true });
  assert.deepEqual(placementOf(annotated('team: shop')), { order: 0, isStated: false });
});
