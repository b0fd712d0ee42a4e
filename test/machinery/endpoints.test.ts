import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Approved, type MachineryFacts, proveEndpoints } from '../../src/machinery/index.ts';
import type { KubernetesObject } from '../../src/model/index.ts';

type Json = Readonly<Record<string, unknown>>;
const V1 = 'discovery.k8s.io/v1';

const object = (apiVersion: string, kind: string, name: string, metadata: Json = {}, rest: Json = {}) =>
  ({
    ...{ apiVersion, kind },
    metadata: { name, namespace: 'shop', uid: `uid of ${name}`, ...metadata },
    ...rest,
  }) as KubernetesObject;

const container = { name: 'web', image: 'web', ports: [{ name: 'http', containerPort: 8080, protocol: 'TCP' }] };
const pod = (name: string, podIP: string, labels: Json = { app: 'web' }, phase = 'Running') =>
  object(
    'v1',
    'Pod',
    name,
    { labels },
    { spec: { containers: [container] }, status: { phase, podIP, podIPs: [{ ip: podIP }] } },
  );
const service = (name: string, spec: Json) => object('v1', 'Service', name, {}, { spec });
const WEB = service('web', {
  selector: { app: 'web' },
  ports: [
    { name: 'http', port: 80, targetPort: 'http', protocol: 'TCP' },
    { name: 'fixed', port: 81, targetPort: 8081, protocol: 'TCP' },
  ],
});
const ALL = [
  WEB,
  service('outside', { ports: [{ port: 80 }] }),
  object('v1', 'Endpoints', 'outside', {}, { subsets: [{ addresses: [{ ip: '192.0.2.1' }], ports: [{ port: 443 }] }] }),
  object('example.test/v1', 'Mesh', 'mesh'),
  pod('one', '10.0.0.1'),
  pod('two', '10.0.0.2'),
  pod('other', '10.0.0.3', { app: 'other' }),
  pod('ended', '10.0.0.4', { app: 'web' }, 'Failed'),
];

const end = (address: string, of: string, more: Json = {}) => ({
  addresses: [address],
  targetRef: { kind: 'Pod', name: of, uid: `uid of ${of}` },
  ...more,
});
const HTTP = { name: 'http', port: 8080, protocol: 'TCP' };

function slice(
  endpoints: readonly Json[],
  { ports = [HTTP], labels = {}, owner = WEB, uid = owner.metadata['uid'] } = {} as {
    ports?: readonly Json[];
    labels?: Json;
    owner?: KubernetesObject;
    uid?: unknown;
  },
): KubernetesObject {
  const { apiVersion, kind, metadata } = owner;
  const own = {
    'kubernetes.io/service-name': metadata.name,
    'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
  };
  const ownerReferences = [{ apiVersion, kind, name: metadata.name, uid, controller: true }];
  return object(
    V1,
    'EndpointSlice',
    'web-abc',
    { labels: { ...own, ...labels }, ownerReferences },
    { endpoints, ports },
  );
}

async function proofOf(o: KubernetesObject, { hasOperators = false } = {}): Promise<string> {
  const approved: Approved = { injected: [], hasOperators, isOwned: () => true, templates: () => undefined };
  const facts: MachineryFacts = {
    get: async ({ kind, name }) => ALL.find((f) => f.kind === kind && f.metadata.name === name),
    list: async (_, kind) => ALL.filter((f) => f.kind === kind),
  };
  const proof = await proveEndpoints(o, approved, facts);
  return proof.kind === 'unproven' ? proof.reason : proof.kind;
}

test('a slice is proven while each address is the one of a pod that its Service selects', async () => {
  assert.equal(await proofOf(slice([end('10.0.0.1', 'one'), end('10.0.0.2', 'two')])), 'proven');
  assert.equal(await proofOf(slice([])), 'proven');
  for (const [what, one] of [
    ['an address outside', { addresses: ['192.0.2.9'] }],
    ['an address outside, said to be of a pod', end('192.0.2.9', 'one')],
    ['the address of another pod', end('10.0.0.2', 'one')],
    ['a pod that is not selected', end('10.0.0.3', 'other')],
    ['a pod that has ended', end('10.0.0.4', 'ended')],
    ['a pod that is gone', end('10.0.0.5', 'gone')],
    ['a second address', end('10.0.0.1', 'one', { addresses: ['10.0.0.1', '192.0.2.9'] })],
  ] as const)
    assert.match(
      await proofOf(slice([end('10.0.0.2', 'two'), one])),
      /is not the address of a pod that the Service `web`/,
      what,
    );
});

test('its ports are those of the Service', async () => {
  const ported = (port: Json) => proofOf(slice([end('10.0.0.1', 'one')], { ports: [port] }));
  assert.equal(await ported({ name: 'fixed', port: 8081, protocol: 'TCP' }), 'proven');
  for (const port of [
    { name: 'http', port: 9090, protocol: 'TCP' },
    { name: 'admin', port: 8080, protocol: 'TCP' },
    { name: 'http', port: 8080, protocol: 'UDP' },
    { name: 'http', port: 8080, protocol: 'TCP', appProtocol: 'h2c' },
  ])
    assert.match(await ported(port), /port \d+ of `10.0.0.1` is not one that the Service `web` leads to/);
});

test('a slice that names a Service and belongs to none, or that the controller does not keep, is unproven', async () => {
  const good = [end('10.0.0.1', 'one')];
  const byHand = slice(good);
  const { ownerReferences: _, ...metadata } = byHand.metadata as Json;
  assert.match(await proofOf({ ...byHand, metadata } as KubernetesObject), /no controller owns it/);
  assert.match(await proofOf(slice(good, { uid: 'another' })), /does not exist/);
  assert.match(await proofOf(slice(good, { owner: ALL[4] as KubernetesObject })), /the Pod `one` has no slices/);
  const named = { 'kubernetes.io/service-name': 'outside' };
  assert.match(
    await proofOf(slice(good, { labels: named })),
    /names the Service `outside`, and the Service `web` owns it/,
  );
  const kept = { 'endpointslice.kubernetes.io/managed-by': 'me' };
  assert.match(await proofOf(slice(good, { labels: kept })), /says that `me` keeps it/);
});

test('a Service without a selector leads where its Endpoints lead', async () => {
  const [, outside, endpoints] = ALL as [KubernetesObject, KubernetesObject, KubernetesObject];
  const labels = { 'endpointslice.kubernetes.io/managed-by': 'endpointslicemirroring-controller.k8s.io' };
  const mirrored = (address: string, port = 443) =>
    proofOf(slice([{ addresses: [address] }], { labels, owner: endpoints, ports: [{ port }] }));
  assert.equal(await mirrored('192.0.2.1'), 'proven');
  assert.match(await mirrored('192.0.2.9'), /is not one of the Endpoints `outside`/);
  assert.match(await mirrored('192.0.2.1', 444), /with port 444 is not one of/);
  assert.match(await proofOf(slice([{ addresses: ['192.0.2.1'] }], { owner: outside })), /has no selector/);
  assert.match(await proofOf(endpoints), /has no selector/, 'they are not of Git here');
});

test('Endpoints are proven like slices, by the Service of their name', async () => {
  const named = (name: string, addresses: readonly Json[]) =>
    proofOf(object('v1', 'Endpoints', name, {}, { subsets: [{ addresses, ports: [HTTP] }] }));
  const one = { ip: '10.0.0.1', targetRef: { kind: 'Pod', uid: 'uid of one' } };
  assert.equal(await named('web', [one]), 'proven');
  assert.match(await named('web', [one, { ip: '192.0.2.9' }]), /`192.0.2.9` is not the address of a pod/);
  assert.match(await named('nothing', [one]), /no Service has their name/);
});

test('a slice that claims to be of an operator is not proven by its owner', async () => {
  const mesh = ALL.find((o) => o.kind === 'Mesh') as KubernetesObject;
  const made = slice([{ addresses: ['192.0.2.9'] }], { owner: mesh });
  assert.match(await proofOf(made, { hasOperators: true }), /the Mesh `mesh` has no slices/);
});
