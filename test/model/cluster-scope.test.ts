import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { rightSpelling } from '../../src/model/cluster-scope.ts';
import { clusterScopes, isInScope, scopesOverlap, scopeText, wildcardMatches } from '../../src/model/index.ts';

const of = (...written: Parameters<typeof clusterScopes>[0]) => clusterScopes(written)[0] ?? assert.fail();
const names = (...patterns: string[]) => of({ kind: 'ClusterRole', names: patterns });
const ref = (apiVersion: string, kind: string, name: string) => ({ apiVersion, kind, namespace: '', name });
const RBAC = 'rbac.authorization.k8s.io/v1';

test('an entry means its kind, its group if it has one, and its names', () => {
  const role = ref(RBAC, 'ClusterRole', 'shop-reader');
  assert.equal(isInScope(of('ClusterRole'), role), true);
  assert.equal(isInScope(of('ClusterRole.rbac.authorization.k8s.io'), role), true);
  assert.equal(isInScope(of('ClusterRole.example.com'), role), false, 'another group');
  assert.equal(isInScope(of('ClusterRoleBinding'), role), false);
  assert.equal(isInScope(names('other', 'shop-*'), role), true);
  assert.equal(isInScope(names('shop-reader'), role), true);
  assert.equal(isInScope(names('shop', 'reader', 'hop-*', '*-reade'), role), false, 'the whole name');
  assert.equal(isInScope(of({ kind: 'ClusterRole', group: 'example.com', names: ['*'] }), role), false);
  assert.equal(isInScope(names('shop-*'), ref(RBAC, 'ClusterRole', '')), true, 'a name that is not known yet');
});

test('`Namespace` without a group is the one of Kubernetes', () => {
  assert.equal(isInScope(of('Namespace'), ref('v1', 'Namespace', 'shop')), true);
  assert.equal(isInScope(of('Namespace'), ref('tenancy.example.com/v1', 'Namespace', 'shop')), false);
  assert.equal(
    isInScope(of('Namespace.tenancy.example.com'), ref('tenancy.example.com/v1', 'Namespace', 'shop')),
    true,
  );
});

test('two entries overlap exactly if one name is in both', () => {
  const overlaps = (a: string, b: string) => scopesOverlap(names(a), names(b)) && scopesOverlap(names(b), names(a));
  assert.equal(overlaps('a', 'a'), true);
  assert.equal(overlaps('a', 'b'), false);
  assert.equal(overlaps('shop-*', 'shop-x'), true);
  assert.equal(overlaps('shop-*', 'bank-*'), false);
  assert.equal(overlaps('*.example.com', '*.example.org'), false);
  assert.equal(overlaps('shop-*', '*-reader'), true, 'shop-reader');
  assert.equal(overlaps('*', 'x'), true);
  assert.equal(scopesOverlap(of('ClusterRole'), names('x')), true);
  assert.equal(scopesOverlap(of('ClusterRole'), of('PriorityClass')), false);
  assert.equal(scopesOverlap(of('A.example.com'), of('A.example.org')), false);
  assert.equal(scopesOverlap(of('A'), of('A.example.org')), true, 'any group is that one, too');
  const pattern = fc.array(fc.constantFrom('a', 'b', '*'), { minLength: 1, maxLength: 5 }).map((p) => p.join(''));
  const texts = allTexts('ab', 8);
  fc.assert(
    fc.property(pattern, pattern, (one, other) => {
      const common = texts.some((text) => wildcardMatches(one, text) && wildcardMatches(other, text));
      assert.equal(scopesOverlap(names(one), names(other)), common);
    }),
  );
});

test('an entry is shown as it is written', () => {
  assert.equal(scopeText(of('ClusterRole')), 'ClusterRole');
  assert.equal(scopeText(of('ClusterRole.rbac.authorization.k8s.io')), 'ClusterRole.rbac.authorization.k8s.io');
  const definitions = { kind: 'CustomResourceDefinition', group: 'apiextensions.k8s.io', names: ['a.x.io', '*.y.io'] };
  assert.equal(scopeText(of(definitions)), 'CustomResourceDefinition.apiextensions.k8s.io (a.x.io, *.y.io)');
});

test('other spellings of a kind are known by their right one', () => {
  for (const [written, right] of [
    ['clusterrole', 'ClusterRole'],
    ['clusterroles.rbac.authorization.k8s.io', 'ClusterRole.rbac.authorization.k8s.io'],
    ['rbac.authorization.k8s.io/ClusterRole', 'ClusterRole.rbac.authorization.k8s.io'],
    ['rbac.authorization.k8s.io/v1/ClusterRole', 'ClusterRole.rbac.authorization.k8s.io'],
    ['ClusterRole.v1.rbac.authorization.k8s.io', 'ClusterRole.rbac.authorization.k8s.io'],
    ['ClusterRole.rbac', 'ClusterRole.rbac.authorization.k8s.io'],
    ['v1/PersistentVolume', 'PersistentVolume'],
    ['persistentvolumes', 'PersistentVolume'],
    ['example.com/v1alpha1/Widget', 'Widget.example.com'],
    ['widgets.example.com', undefined],
    ['ClusterRole shop-*', undefined],
    ['', undefined],
  ] as const)
    assert.equal(rightSpelling(written), right, written);
});

function allTexts(letters: string, longest: number): string[] {
  let last = [''];
  const all = [...last];
  for (let length = 1; length <= longest; length++) {
    last = last.flatMap((text) => [...letters].map((letter) => text + letter));
    all.push(...last);
  }
  return all;
}
