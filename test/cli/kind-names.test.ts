import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isKind, kindOf } from '../../src/cli/kind-names.ts';

const deployment = { apiVersion: 'apps/v1', kind: 'Deployment' };
const service = { apiVersion: 'v1', kind: 'Service' };
const policy = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' };
const custom = { apiVersion: 'example.dev/v1alpha1', kind: 'Gateway' };

for (const [spelled, ref] of [
  ['deploy', deployment],
  ['Deployment', deployment],
  ['deployments', deployment],
  ['deployment.apps', deployment],
  ['deployments.v1.apps', deployment],
  ['svc', service],
  ['services', service],
  ['services.v1', service],
  ['netpol', policy],
  ['networkpolicies.networking.k8s.io', policy],
  ['gateways.example.dev', custom],
  ['gateway.v1alpha1.example.dev', custom],
] as const)
  test(`\`${spelled}\` means ${ref.kind}`, () => assert.ok(isKind(spelled, ref)));

for (const [spelled, ref] of [
  ['deployments.extensions', deployment],
  ['deployment.v2.apps', deployment],
  ['svc', deployment],
  ['services.apps', service],
  ['gateways.networking.k8s.io', custom],
  ['', service],
] as const)
  test(`\`${spelled}\` does not mean ${ref.apiVersion} ${ref.kind}`, () => assert.ok(!isKind(spelled, ref)));

test('a spelling is turned into the kind of the API', () => {
  assert.deepEqual(['po', 'pods', 'pod', 'rs', 'replicasets.apps', 'jobs'].map(kindOf), [
    'Pod',
    'Pod',
    'Pod',
    'ReplicaSet',
    'ReplicaSet',
    'Job',
  ]);
  assert.equal(kindOf('widget'), 'widget');
});
