import assert from 'node:assert/strict';
import { test } from 'node:test';
import { builtInScope } from '../../src/model/index.ts';

const scope = (apiVersion: string, kind: string) => builtInScope({ apiVersion, kind });

test('the kinds of Kubernetes itself are known, in every version of their group', () => {
  assert.deepEqual(
    [scope('v1', 'Service'), scope('apps/v1', 'Deployment'), scope('policy/v1beta1', 'PodDisruptionBudget')],
    ['Namespaced', 'Namespaced', 'Namespaced'],
  );
  assert.deepEqual(
    [scope('v1', 'Namespace'), scope('rbac.authorization.k8s.io/v1', 'ClusterRole'), scope('v1', 'Node')],
    ['Cluster', 'Cluster', 'Cluster'],
  );
});

test('of any other kind nothing is known, whatever it is called', () => {
  assert.equal(scope('serving.knative.dev/v1', 'Service'), undefined, 'the group counts');
  assert.equal(scope('tenancy.example.com/v1', 'Namespace'), undefined);
  assert.equal(scope('apps/v1', 'Service'), undefined);
  assert.equal(scope('apps/v1', 'Invention'), undefined, 'a later Kubernetes may have it');
  for (const name of ['constructor', '__proto__', 'toString']) {
    assert.equal(scope(`${name}/v1`, 'Service'), undefined);
    assert.equal(scope('v1', name), undefined);
  }
});
