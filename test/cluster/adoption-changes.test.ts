import assert from 'node:assert/strict';
import { test } from 'node:test';
import { adoptionChanges } from '../../src/cluster/index.ts';
import type { KubernetesObject } from '../../src/model/index.ts';

const of = (metadata: object, spec: object = {}): KubernetesObject => ({
  ...{ apiVersion: 'example.test/v1', kind: 'Widget', spec },
  metadata: { name: 'w', ...metadata },
});

test('a controller that Git does not name is a difference, also where an apply would leave it', () => {
  const ownerReferences = [{ apiVersion: 'v1', kind: 'ConfigMap', name: 'o', uid: 'u', controller: true }];
  const live = of({ ownerReferences });
  assert.deepEqual(adoptionChanges(live, live, of({})), ['/metadata/ownerReferences']);
  assert.deepEqual(adoptionChanges(live, live, live), []);
  const loose = of({ ownerReferences: ownerReferences.map((o) => ({ ...o, controller: false })) });
  assert.deepEqual(adoptionChanges(loose, loose, of({})), []);
});

test('what restarts pods is found however many labels differ before it', () => {
  const labels = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`l${i}`, 'x']));
  const found = adoptionChanges(of({ labels }, { template: 1 }), of({ labels: { l: 'y' } }, { template: 2 }), of({}));
  assert.equal(found.length, 52);
  assert.ok(found.includes('/spec/template'));
});

test('marks of tools are no difference unless both have one with different values', () => {
  const helm = { 'meta.helm.sh/release-name': 'web', 'kubectl.kubernetes.io/last-applied-configuration': '{}' };
  const labels = { 'app.kubernetes.io/managed-by': 'Helm', 'app.kubernetes.io/instance': 'web' };
  const git = of({});
  assert.deepEqual(adoptionChanges(of({ annotations: helm }), git, git), []);
  assert.deepEqual(adoptionChanges(of({ labels }), git, git), ['/metadata/labels']);
  const tracked = { annotations: { 'argocd.argoproj.io/tracking-id': 'web:apps/Deployment:a/b' } };
  assert.deepEqual(adoptionChanges(of({ labels, ...tracked }), git, git), []);
  assert.deepEqual(adoptionChanges(of({ labels: { 'app.kubernetes.io/managed-by': 'me' } }), git, git), [
    '/metadata/labels',
  ]);
  const other = of({ labels: { 'app.kubernetes.io/managed-by': 'Kustomize' } });
  assert.deepEqual(adoptionChanges(of({ labels: { 'app.kubernetes.io/managed-by': 'Helm' } }), other, other), [
    '/metadata/labels/app.kubernetes.io~1managed-by',
  ]);
});
