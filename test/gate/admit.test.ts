import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type AdmissionRequest, type AdmissionScope, admit, type EnvironmentState } from '../../src/gate/index.ts';
import {
  ADMITS,
  admissionDigest,
  type EntryBody,
  environmentSchema,
  type KubernetesObject,
  type ObjectRef,
} from '../../src/model/index.ts';
import { environmentDocument } from '../kit/documents.ts';

const REF: ObjectRef = { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'settings' };
const object = (data: object, annotations?: Record<string, string>): KubernetesObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'settings', namespace: 'shop', ...(annotations === undefined ? {} : { annotations }) },
  data,
});
const GOOD = object({ colour: 'blue' });
const owned = {
  ref: REF,
  rendered: 'x',
  admitted: admissionDigest(GOOD, 'UPDATE'),
  revision: 'r',
  entry: 1,
  file: 'clusters/production/settings.yaml',
  line: 3,
};
const STATE: EnvironmentState = {
  revision: 'r',
  verdict: 1,
  inventory: { objects: [owned], leaving: [] },
  settled: 1,
  chain: 1,
  owned: new Map([['/ConfigMap/shop/settings', owned]]),
  open: undefined,
};

function scope(
  options: { mode?: 'enforce' | 'audit' | 'off'; state?: EnvironmentState; broken?: boolean; holdFor?: string } = {},
): AdmissionScope & { entries: EntryBody[] } {
  const entries: EntryBody[] = [];
  return {
    environment: environmentSchema.parse(
      environmentDocument({
        url: '/fleet',
        namespaces: ['shop'],
        mode: options.mode ?? 'enforce',
        ...(options.holdFor === undefined ? {} : { holdFor: options.holdFor }),
      }),
    ),
    state: () => options.state ?? STATE,
    applier: 'countersign',
    clock: () => new Date('2026-01-01T00:00:00Z'),
    recorder: {
      record: async (body) => {
        if (options.broken) throw new Error('the disk is full');
        entries.push(body);
        return { index: entries.length, entry: { v: 1, time: '', ...body } as never };
      },
      asEvidence: () => ({ ref: { sha256: '', size: 0 }, bytes: '' }),
      subject: (text) => text,
    },
    entries,
  };
}

const request = (changes: Partial<AdmissionRequest> = {}): AdmissionRequest => ({
  operation: 'UPDATE',
  user: 'dev',
  groups: ['developers'],
  ref: REF,
  subresource: '',
  object: object({ colour: 'red' }),
  oldObject: GOOD,
  dryRun: false,
  fieldManager: '',
  ...changes,
});

test('exactly the recorded object is allowed, whoever sends it', async () => {
  assert.equal((await admit(request({ object: GOOD }), scope())).allowed, true);
});

test('anything else is refused, says which file to change, and is recorded', async () => {
  const s = scope();
  const decision = await admit(request(), s);
  assert.equal(decision.allowed, false);
  assert.match(decision.message, /clusters\/production\/settings\.yaml` \(line 3\) on branch `main`/);
  assert.deepEqual(
    s.entries.map((e) => e.type),
    ['admission.denied'],
  );
});

test('one field more than the recorded object is refused', async () => {
  assert.equal((await admit(request({ object: { ...GOOD, immutable: true } }), scope())).allowed, false);
  assert.equal((await admit(request({ object: object({ colour: 'blue' }, { extra: '1' }) }), scope())).allowed, false);
});

test('a refusal stands when it cannot be recorded, break-glass does not', async () => {
  assert.equal((await admit(request(), scope({ broken: true }))).allowed, false);
  await assert.rejects(
    admit(request({ groups: ['oncall'], object: object({}, { 'countersign.dev/break-glass': 'INC-1' }) }), scope({ broken: true })),
    /disk is full/,
  );
});

test('a removal is refused, and allowed while an intent asks for it', async () => {
  const removal = request({ operation: 'DELETE', object: undefined });
  assert.equal((await admit(removal, scope())).allowed, false);
  const open = { intent: {} as never, plan: { objects: [], prune: [REF] }, failed: false };
  assert.equal((await admit(removal, scope({ state: { ...STATE, open } }))).allowed, true);
  assert.equal(
    (await admit(removal, scope({ state: { ...STATE, open: { ...open, failed: true } } }))).allowed,
    false,
    'not after it failed',
  );
});

test('a subresource is not the object', async () => {
  assert.equal((await admit(request({ subresource: 'scale', object: GOOD }), scope())).allowed, false);
});

test('the cluster’s own machinery passes', async () => {
  assert.equal(
    (await admit(request({ user: 'system:serviceaccount:kube-system:x', groups: ['system:serviceaccounts:kube-system'] }), scope()))
      .allowed,
    true,
  );
  assert.equal((await admit(request({ user: 'group:system:nodes' }), scope())).allowed, false, 'a user named like a group is none');
});

test('the applier’s dry run is told what will be admitted; its real write is not excused', async () => {
  const dry = await admit(request({ user: 'countersign', dryRun: true }), scope());
  assert.deepEqual([dry.allowed, dry.warnings], [true, [`${ADMITS}${admissionDigest(object({ colour: 'red' }), 'UPDATE')}`]]);
  assert.equal((await admit(request({ user: 'countersign' }), scope())).allowed, false);
});

test('the applier may take over fields without changing what they say; others may not', async () => {
  const red = object({ colour: 'red' });
  assert.equal((await admit(request({ user: 'countersign', object: red, oldObject: red }), scope())).allowed, true);
  assert.equal((await admit(request({ object: red, oldObject: red }), scope())).allowed, false);
});

test('others’ dry runs are answered as the real thing, and not recorded', async () => {
  const s = scope();
  assert.equal((await admit(request({ dryRun: true }), s)).allowed, false);
  assert.equal((await admit(request({ dryRun: true, fieldManager: 'countersign' }), s)).allowed, true, 'countersign diff');
  assert.equal((await admit(request({ fieldManager: 'countersign' }), scope())).allowed, false, 'a name is no right to write');
  assert.deepEqual(s.entries, []);
});

test('break-glass needs the group and a new reason, and is recorded with its end', async () => {
  const glass = (annotations: Record<string, string>, changes: Partial<AdmissionRequest> = {}) =>
    request({ user: 'oncall', groups: ['oncall'], object: object({ colour: 'red' }, annotations), ...changes });
  const s = scope();
  const decision = await admit(glass({ 'countersign.dev/break-glass': 'INC-1', 'countersign.dev/break-glass-for': '10m' }), s);
  assert.equal(decision.allowed, true);
  assert.match(decision.warnings[0] ?? '', /recorded/);
  assert.deepEqual(
    s.entries.map((e) => (e.type === 'breakglass.used' ? [e.reason, e.until] : e.type)),
    [['INC-1', '2026-01-01T00:10:00.000Z']],
  );
  assert.equal(
    (await admit(glass({ 'countersign.dev/break-glass': 'INC-1' }, { groups: ['developers'] }), scope())).allowed,
    false,
    'another group',
  );
  assert.equal((await admit(glass({ 'countersign.dev/break-glass': ' ' }), scope())).allowed, false, 'no reason');
  assert.equal(
    (
      await admit(
        glass({ 'countersign.dev/break-glass': 'INC-1' }, { oldObject: object({}, { 'countersign.dev/break-glass': 'INC-1' }) }),
        scope(),
      )
    ).allowed,
    false,
    'the reason of last time',
  );
  const capped = scope({ holdFor: '5m' });
  await admit(glass({ 'countersign.dev/break-glass': 'INC-2', 'countersign.dev/break-glass-for': '99d' }), capped);
  assert.equal(
    capped.entries[0]?.type === 'breakglass.used' && capped.entries[0].until,
    '2026-01-01T00:05:00.000Z',
    'no longer than the environment allows',
  );
});

test('audit lets through, warns and records', async () => {
  const s = scope({ mode: 'audit' });
  const decision = await admit(request(), s);
  assert.deepEqual([decision.allowed, s.entries.length], [true, 1]);
  assert.match(decision.warnings[0] ?? '', /audit/);
});

test('what the API server makes up for each request is not part of what is admitted', () => {
  const job = (uid: string): KubernetesObject => ({
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: 'a', uid, resourceVersion: uid, managedFields: [] },
    spec: { template: { metadata: { labels: { 'controller-uid': uid } } } },
    status: { a: uid },
  });
  assert.equal(admissionDigest(job('1-1'), 'CREATE'), admissionDigest(job('2-2'), 'CREATE'));
  const service = (clusterIP: string, port = 80): KubernetesObject => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'a' },
    spec: { clusterIP, clusterIPs: [clusterIP], ports: [{ port, nodePort: 30_000 + clusterIP.length }] },
  });
  assert.equal(admissionDigest(service('10.0.0.1'), 'CREATE'), admissionDigest(service('10.0.0.22'), 'CREATE'));
  assert.notEqual(admissionDigest(service('10.0.0.1'), 'UPDATE'), admissionDigest(service('10.0.0.22'), 'UPDATE'));
  assert.notEqual(admissionDigest(service('10.0.0.1'), 'CREATE'), admissionDigest(service('None'), 'CREATE'));
  assert.notEqual(admissionDigest(service('10.0.0.1'), 'CREATE'), admissionDigest(service('10.0.0.1', 81), 'CREATE'));
});
