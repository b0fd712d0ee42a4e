import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isInstallation, isOwnBinding, type KubernetesObject } from '../../src/model/index.ts';

const USER = 'system:serviceaccount:countersign:countersign';
const SUBJECT = { kind: 'ServiceAccount', name: 'countersign', namespace: 'countersign' };
const binding = (more: object = {}, metadata: object = {}): KubernetesObject => ({
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'RoleBinding',
  metadata: { name: 'countersign', namespace: 'shop', ...metadata },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'countersign-governed' },
  subjects: [SUBJECT],
  ...more,
});

test('the binding of the service is known by what it gives, and to whom', () => {
  assert.ok(isOwnBinding(binding(), USER));
  assert.ok(!isOwnBinding(binding(), 'system:serviceaccount:other:countersign'), 'another service');
  const others: Readonly<Record<string, KubernetesObject>> = {
    'one more subject': binding({ subjects: [SUBJECT, { ...SUBJECT, namespace: 'shop' }] }),
    'another account': binding({ subjects: [{ ...SUBJECT, namespace: 'shop' }] }),
    'a user of that name': binding({ subjects: [{ ...SUBJECT, kind: 'User' }] }),
    'no subject': binding({ subjects: [] }),
    'no list': binding({ subjects: undefined }),
    'another role': binding({ roleRef: { kind: 'ClusterRole', name: 'cluster-admin' } }),
    'a Role of that name': binding({ roleRef: { kind: 'Role', name: 'countersign-governed' } }),
    'another name': binding({}, { name: 'other' }),
    'an owner': binding({}, { ownerReferences: [{}] }),
    'another kind': binding({ kind: 'ClusterRoleBinding' }),
    'another group': binding({ apiVersion: 'example.com/v1' }),
  };
  for (const [what, object] of Object.entries(others)) assert.ok(!isOwnBinding(object, USER), what);
});

test('both ClusterRoles are part of the installation, and no binding of the second in the cluster', () => {
  const ref = (kind: string, name: string) => ({
    ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind, namespace: '', name },
  });
  for (const name of ['countersign', 'countersign-governed']) assert.ok(isInstallation(ref('ClusterRole', name)), name);
  assert.ok(isInstallation(ref('ClusterRoleBinding', 'countersign')));
  assert.ok(!isInstallation(ref('ClusterRoleBinding', 'countersign-governed')));
  assert.ok(!isInstallation(ref('ClusterRole', 'countersign-other')));
});
