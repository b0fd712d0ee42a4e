import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isNeverWritten, misplaced, neverWritten, placementOf } from '../../src/gate/placement.ts';
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

const hookOf = (...lines: readonly string[]) => placementOf(annotated(...lines)).hook;
const ALWAYS = ['install', 'upgrade', 'rollback'];

test('a name that is no hook or no delete policy is refused, with its line and the name that was meant', () => {
  for (const [line, message, hint] of [
    ['argocd.argoproj.io/hook: presync', /has no meaning for `presync`/, 'write `argocd.argoproj.io/hook: PreSync`'],
    ['argocd.argoproj.io/hook: PreSync,Postsync', /`Postsync`/, 'write `argocd.argoproj.io/hook: PostSync`'],
    ['helm.sh/hook: pre-instal', /`pre-instal`/, 'write `helm.sh/hook: pre-install`'],
    ['helm.sh/hook: before', /`before`/, /^write one or more of pre-install, pre-upgrade, /],
    ['helm.sh/hook: ""', /no meaning for ``/, /^write one or more/],
    ['argocd.argoproj.io/hook: ","', /no meaning for `,`/, /^write one or more/],
    ['helm.sh/hook: constructor', /`constructor`/, /^write one or more/],
    ['argocd.argoproj.io/hook: true', /no meaning for boolean `true`/, /^write one or more of PreSync/],
    ['helm.sh/hook-delete-policy: hook-success', /`hook-success`/, /before-hook-creation, hook-succeeded, hook-failed/],
  ] as const) {
    const [found, ...others] = refused('team: shop', line);
    assert.deepEqual([found?.code, found?.line, others], ['hook-unknown', 8, []], line);
    assert.match(found?.message ?? '', message);
    if (typeof hint === 'string') assert.equal(found?.hint, hint);
    else assert.match(found?.hint ?? '', hint);
  }
});

test('two spellings of a hook that mean different phases are refused', () => {
  const [found] = refused('argocd.argoproj.io/hook: PreSync', 'helm.sh/hook: post-install');
  assert.deepEqual([found?.code, found?.line], ['hook-contradicts', 7]);
  assert.match(found?.message ?? '', /`argocd.argoproj.io\/hook: PreSync` and `helm.sh\/hook: post-install` mean/);
  assert.deepEqual(refused('argocd.argoproj.io/hook: PreSync', 'helm.sh/hook: "pre-install, pre-upgrade"'), []);
});

test("Argo CD's hooks run on every occasion, and its own annotation counts beside Helm's", () => {
  assert.deepEqual(hookOf('argocd.argoproj.io/hook: "PreSync, SyncFail"'), {
    runs: [
      { phase: 'before', on: ALWAYS },
      { phase: 'failure', on: ALWAYS },
    ],
    remove: ['before'],
  });
  assert.deepEqual(hookOf('helm.sh/hook: post-install', 'argocd.argoproj.io/hook: PostSync')?.runs, [
    { phase: 'after', on: ALWAYS },
  ]);
});

test("Helm's hooks of one phase are one run, and policies of both spellings add up", () => {
  const policy = ['argocd.argoproj.io/hook-delete-policy: HookFailed', 'helm.sh/hook-delete-policy: hook-succeeded'];
  assert.deepEqual(hookOf('helm.sh/hook: pre-install,pre-upgrade,test', ...policy), {
    runs: [{ phase: 'before', on: ['install', 'upgrade'] }],
    remove: ['failed', 'succeeded'],
  });
});

test('a weight counts on a hook only, and must agree with the other spellings there', () => {
  assert.deepEqual(placementOf(annotated('helm.sh/hook-weight: "3"')), { order: 0, isStated: false });
  assert.equal(placementOf(annotated('helm.sh/hook: pre-install', 'helm.sh/hook-weight: "3"')).order, 3);
  assert.equal(refused('helm.sh/hook: pre-install', 'helm.sh/hook-weight: "x"')[0]?.code, 'order-unreadable');
  const both = ['helm.sh/hook-weight: "3"', 'argocd.argoproj.io/sync-wave: "4"'];
  assert.equal(refused('helm.sh/hook: pre-install', ...both)[0]?.code, 'order-contradicts');
  assert.deepEqual(refused(...both), []);
});

test('what is for a test, a deletion or no one is never written; all but tests with a warning', () => {
  for (const [line, warns] of [
    ['argocd.argoproj.io/hook: Skip', true],
    ['argocd.argoproj.io/hook: PostDelete', true],
    ['helm.sh/hook: pre-delete', true],
    ['helm.sh/hook: test', false],
    ['helm.sh/hook: test-success', false],
  ] as const) {
    const object = annotated('team: shop', line);
    assert.equal(isNeverWritten(object), true, line);
    const warning = neverWritten(object);
    assert.deepEqual(
      [warning?.code, warning?.source?.line],
      warns ? ['hook-not-run', 8] : [undefined, undefined],
      line,
    );
  }
  assert.equal(isNeverWritten(annotated('argocd.argoproj.io/hook: Skip,PreSync')), false);
  assert.equal(isNeverWritten(annotated('helm.sh/hook: crd-install')), false);
  assert.equal(hookOf('helm.sh/hook: crd-install'), undefined);
});
