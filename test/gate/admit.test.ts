import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  AdmissionRecords,
  type AdmissionRequest,
  type AdmissionScope,
  AdmissionScopes,
  admit,
  BreakGlass,
  type EnvironmentState,
  type LedgerView,
  type LiveGrants,
  type LiveReason,
  type SureRecorder,
  usesOf,
} from '../../src/gate/index.ts';
import {
  ADMITS,
  type AdmissionMode,
  admissionDigest,
  canonicalJson,
  type EntryBody,
  environmentSchema,
  type KubernetesObject,
  type ObjectRef,
  type OwnerReference,
  type ProvenWrites,
  sha256,
  type Told,
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

type Options = {
  mode?: AdmissionMode;
  state?: EnvironmentState | (() => EnvironmentState);
  isShared?: boolean;
  broken?: boolean;
  holdFor?: string;
  spec?: Record<string, unknown>;
  admission?: Record<string, unknown>;
  rules?: AdmissionScope['rules'];
  owners?: Record<string, { uid: string; owner?: OwnerReference }>;
  /** Surely recorded, but not known to be on the ledger yet. */
  beside?: boolean;
  /** The reason that the API server has on the Namespace. */
  stored?: () => string | undefined;
  live?: () => LiveReason | undefined;
  proof?: Awaited<ReturnType<AdmissionScope['prove']>>;
};

type TestScope = AdmissionScope & { records: AdmissionRecords; breakGlass: BreakGlass } & {
  entries: EntryBody[];
  evidence: Map<string, unknown>;
  told: Told[];
  at: (ms: number) => void;
  all: LedgerView['all'];
};

function scope(options: Options = {}): TestScope {
  const entries: EntryBody[] = [];
  const evidence = new Map<string, unknown>();
  const told: Told[] = [];
  let now = Date.parse('2026-01-01T00:00:00Z');
  const clock = () => new Date(now);
  const document = environmentDocument({
    url: 'https://git.example.com/fleet',
    namespaces: ['shop'],
    mode: 'enforce',
    ...(options.holdFor === undefined ? {} : { holdFor: options.holdFor }),
    ...(options.spec === undefined ? {} : { spec: options.spec }),
  }) as { spec: { admission: object } };
  Object.assign(document.spec.admission, { mode: options.mode ?? 'enforce' }, options.admission);
  const environment = environmentSchema.parse(document);
  const times = new Map<EntryBody | undefined, string>();
  const stored = (body: EntryBody | undefined) => ({ v: 1, time: times.get(body) ?? '', ...body }) as never;
  const record = async (body: EntryBody) => {
    if (options.broken) throw new Error('the disk is full');
    entries.push(body);
    times.set(body, clock().toISOString());
    return { index: entries.length - 1, entry: stored(body) };
  };
  const of = (types: readonly string[], before = entries.length) => {
    for (let i = before - 1; i >= 0; i--)
      if (types.includes(entries[i]?.type ?? '')) return { index: i, entry: stored(entries[i]) };
    return undefined;
  };
  const ledger: LedgerView & SureRecorder = {
    record,
    recordSurely: async (body) => {
      const recorded = await record(body);
      return options.beside ? undefined : recorded;
    },
    asEvidence: (value) => {
      const bytes = canonicalJson(value);
      const ref = { sha256: sha256(bytes), size: bytes.length };
      evidence.set(ref.sha256, value);
      return { ref, bytes };
    },
    subject: (text) => text,
    latest: (types, _, before) => of(types, before),
    all: (type) => entries.flatMap((e, index) => (e.type === type ? [{ index, entry: stored(e) }] : [])),
    entry: (index) => of([entries[index]?.type ?? ''], index + 1),
    evidence: (ref) => evidence.get(ref.sha256),
  };
  // The API server stores what it was allowed to; unless the test says what it has.
  const live: LiveGrants = {
    reasonIn: async () => {
      const last = entries.findLast((e) => e.type === 'breakglass.opened' || e.type === 'breakglass.closed');
      if (options.stored !== undefined) return { reason: options.stored(), approved: undefined };
      if (options.live !== undefined) return options.live() ?? { reason: undefined, approved: undefined };
      const approved = entries.findLast((e) => e.type === 'breakglass.approved')?.reason;
      return { reason: last?.type === 'breakglass.opened' ? last.reason : undefined, approved };
    },
    ended: () => told.push({ event: 'ended' } as never),
  };
  return {
    environment,
    state: () => (typeof options.state === 'function' ? options.state() : (options.state ?? STATE)),
    applier: 'countersign',
    isShared: options.isShared === true,
    records: new AdmissionRecords('production', ledger, clock),
    breakGlass: new BreakGlass(environment, ledger, clock, live, (t) => told.push(t)),
    facts: {
      owner: async (ref, uid) => {
        const found = options.owners?.[`${ref.kind}/${ref.name}`];
        return found?.uid === uid ? { owner: found.owner } : undefined;
      },
      labelsOf: async () => ({}),
    },
    prove: async () => options.proof ?? { kind: 'proven' },
    rules: options.rules,
    entries,
    evidence,
    told,
    all: ledger.all,
    at: (ms) => {
      now += ms;
    },
  };
}

const request = (changes: Partial<AdmissionRequest> = {}): AdmissionRequest => ({
  uid: 'u-1',
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

test('the status of a kind without the subresource is content: nobody changes it beside what is recorded', async () => {
  const more = { ...GOOD, status: { phase: 'mine' } };
  assert.equal((await admit(request({ object: more }), scope())).allowed, false);
  assert.equal((await admit(request({ object: more, oldObject: more }), scope())).allowed, true, 'it stays as it is');
  const ignored = { drift: { ignore: [{ kind: REF.kind, fields: ['/data/colour'] }] } };
  const red = object({ colour: 'red' });
  assert.equal((await admit(request({ object: red }), scope({ spec: ignored }))).allowed, true);
  const both = { ...red, status: { phase: 'mine' } };
  assert.equal((await admit(request({ object: both }), scope({ spec: ignored }))).allowed, false);
});

test('one field more than the recorded object is refused', async () => {
  assert.equal((await admit(request({ object: { ...GOOD, immutable: true } }), scope())).allowed, false);
  assert.equal((await admit(request({ object: object({ colour: 'blue' }, { extra: '1' }) }), scope())).allowed, false);
});

test('a refusal stands when it cannot be recorded, break-glass does not', async () => {
  assert.equal((await admit(request(), scope({ broken: true }))).allowed, false);
  await assert.rejects(
    admit(
      request({ groups: ['oncall'], object: object({}, { 'countersign.dev/break-glass': 'INC-1' }) }),
      scope({ broken: true }),
    ),
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

test('only the applier makes and removes the hooks of an open change: anyone else would run them again', async () => {
  const hooks = [{ object: REF, phase: 'before', order: 0 }] as const;
  const open = { intent: { index: 2 } as never, plan: { objects: [owned], prune: [], hooks }, failed: false };
  const s = scope({ state: { ...STATE, open } });
  const asked = [request({ object: GOOD, oldObject: undefined }), request({ operation: 'DELETE', object: undefined })];
  for (const one of asked) {
    assert.equal((await admit(one, s)).allowed, false, one.operation);
    assert.equal((await admit({ ...one, user: s.applier }, s)).allowed, true, one.operation);
  }
});

test('machinery passes by the proof of what it writes: unproven it is a stranger, not yet known it is noted', async () => {
  const asked = request({ user: 'system:serviceaccount:kube-system:replicaset-controller' });
  const reason = 'it is not what the ReplicaSet `web-1` makes of its template: `spec.containers[web].image` differs';
  const unproven = scope({ proof: { kind: 'unproven', reason } });
  const refused = await admit(asked, unproven);
  assert.equal(refused.allowed, false);
  assert.match(refused.message, /replicaset-controller` writes does not follow.*spec\.containers\[web\]\.image/);
  assert.equal(unproven.entries[0]?.type, 'admission.denied');
  const unknown = await admit(asked, scope({ proof: { kind: 'unknown', reason: 'the API server is away' } }));
  assert.deepEqual([unknown.allowed, unknown.notes['not-proven-yet']], [true, 'the API server is away']);
  const onlyAudited = await admit(asked, scope({ mode: 'audit', proof: { kind: 'unproven', reason } }));
  assert.equal(onlyAudited.allowed, true);
});

test('a subresource is not the object', async () => {
  assert.equal((await admit(request({ subresource: 'scale', object: GOOD }), scope())).allowed, false);
});

test('the cluster’s own machinery passes', async () => {
  assert.equal(
    (await admit(request({ user: 'system:serviceaccount:kube-system:replicaset-controller' }), scope())).allowed,
    true,
  );
  assert.equal(
    (
      await admit(
        request({ user: 'system:serviceaccount:kube-system:x', groups: ['system:serviceaccounts:kube-system'] }),
        scope(),
      )
    ).allowed,
    false,
    'an account of kube-system that is not on the list',
  );
  assert.equal(
    (await admit(request({ user: 'group:system:nodes' }), scope())).allowed,
    false,
    'a user named like a group is none',
  );
});

test('the applier’s dry run is told what will be admitted; its real write is not excused', async () => {
  const dry = await admit(request({ user: 'countersign', dryRun: true }), scope());
  assert.deepEqual(
    [dry.allowed, dry.warnings],
    [true, [`${ADMITS}${admissionDigest(object({ colour: 'red' }), 'UPDATE')}`]],
  );
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
  assert.equal(
    (await admit(request({ dryRun: true, fieldManager: 'countersign' }), s)).allowed,
    true,
    'countersign diff',
  );
  assert.equal(
    (await admit(request({ fieldManager: 'countersign' }), scope())).allowed,
    false,
    'a name is no right to write',
  );
  assert.deepEqual(s.entries, []);
});

test('a reason that an object brings along counts once', async () => {
  const s = scope();
  const manifest = object({ colour: 'red' }, { 'countersign.dev/break-glass': 'INC-1' });
  const ask = (operation: string, name = 'settings') =>
    admit(
      request({
        ...{ user: 'oncall', groups: ['oncall'], operation, ref: { ...REF, name }, uid: `u-${s.entries.length}` },
        object: operation === 'DELETE' ? undefined : manifest,
        oldObject: operation === 'CREATE' ? undefined : manifest,
      }),
      s,
    ).then((d) => d.allowed);
  assert.equal(await ask('CREATE'), true);
  assert.equal(await ask('DELETE'), false, 'the reason of its creation');
  assert.equal(await ask('CREATE'), false, 'made again with it');
  assert.equal(await ask('CREATE', 'other'), true, 'another object');
});

test('break-glass needs the group and a new reason, and is recorded with its end', async () => {
  const glass = (annotations: Record<string, string>, changes: Partial<AdmissionRequest> = {}) =>
    request({ user: 'oncall', groups: ['oncall'], object: object({ colour: 'red' }, annotations), ...changes });
  const s = scope();
  const decision = await admit(
    glass({ 'countersign.dev/break-glass': 'INC-1', 'countersign.dev/break-glass-for': '10m' }),
    s,
  );
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
        glass(
          { 'countersign.dev/break-glass': 'INC-1' },
          { oldObject: object({}, { 'countersign.dev/break-glass': 'INC-1' }) },
        ),
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

test('audit lets through and records; warn says so as well', async () => {
  const audit = scope({ mode: 'audit' });
  const silent = await admit(request(), audit);
  assert.deepEqual(
    [silent.allowed, silent.warnings, audit.entries.map((e) => e.type)],
    [true, [], ['admission.denied']],
  );
  assert.match(silent.notes['would-deny'] ?? '', /no recorded verdict/);
  const warn = scope({ mode: 'warn' });
  const loud = await admit(request(), warn);
  assert.deepEqual([loud.allowed, warn.entries.map((e) => e.type)], [true, ['admission.warned']]);
  assert.match(loud.warnings[0] ?? '', /not enforced yet.*no recorded verdict/);
});

test('audit and warn refuse nothing, also when nothing can be recorded or decided', async () => {
  const broken = () => {
    throw new Error('unreadable');
  };
  for (const mode of ['audit', 'warn'] as const) {
    assert.equal((await admit(request(), scope({ mode, broken: true }))).allowed, true);
    const decision = await admit(request(), { ...scope({ mode }), state: broken });
    assert.deepEqual([decision.allowed, decision.notes['undecided']], [true, 'unreadable']);
  }
  await assert.rejects(admit(request(), { ...scope(), state: broken }), /unreadable/);
});

test('a refusal names repository, branch and file, without credentials, and the way out only to whom it is open', async () => {
  const { message } = await admit(request(), scope());
  assert.match(message, /settings\.yaml` \(line 3\) on branch `main` of https:\/\/git\.example\.com\/fleet/);
  assert.doesNotMatch(message, /token|break-glass/);
  assert.match((await admit(request({ groups: ['oncall'] }), scope())).message, /break-glass open/);
});

test('the same refusal again is counted, and the count recorded', async () => {
  const s = scope();
  for (let i = 0; i < 5; i++) await admit(request({ uid: `u-${i}` }), s);
  await admit(request({ user: 'other' }), s);
  assert.equal(s.entries.length, 2, 'one for each of both');
  await s.records.close();
  const last = s.entries.at(-1);
  assert.equal(last?.type === 'admission.denied' ? last.repeated : undefined, 4);
});

test('a refusal is recorded with who and what, and never with the object', async () => {
  const s = scope();
  const secret = { ...object({ password: 'hunter2' }), kind: 'Secret' };
  await admit(
    request({ ref: { ...REF, kind: 'Secret' }, object: secret, oldObject: undefined, operation: 'CREATE' }),
    s,
  );
  const [entry] = s.entries;
  assert.ok(entry?.type === 'admission.denied');
  assert.deepEqual([entry.user, entry.groups, entry.uid], ['dev', ['developers'], 'u-1']);
  assert.equal(entry.digest, admissionDigest(secret, 'CREATE'));
  assert.doesNotMatch(JSON.stringify([...s.entries, ...s.evidence.values()]), /hunter2/);
});

test('what is let through is on record before it is answered, many in one entry', async () => {
  const s = scope({ proof: { kind: 'unknown', reason: 'the API server is away' } });
  const machinery = (uid: string) =>
    request({ uid, user: 'system:kube-scheduler', object: undefined, operation: 'DELETE' });
  await Promise.all(['1', '2', '3'].map((uid) => admit(machinery(uid), s)));
  const [entry] = s.entries;
  assert.ok(entry?.type === 'admission.allowed');
  assert.equal(entry.count, 3);
  const rows = s.evidence.get(entry.evidence.sha256) as { uid: string; as: string; user: string }[];
  assert.deepEqual(
    rows.map((r) => [r.uid, r.as, r.user]),
    ['1', '2', '3'].map((uid) => [uid, 'machinery', 'system:kube-scheduler']),
  );
});

test('what the machinery writes and is proven is summed up: counts, names and one digest, by user, kind and owner', async () => {
  const s = scope();
  const pod = (name: string, owner: string) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      ...{ name, namespace: 'shop' },
      ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: owner, uid: owner, controller: true }],
    },
  });
  const made = (name: string, owner: string, more: Partial<AdmissionRequest> = {}) =>
    admit(
      request({
        ...{ uid: `u-${name}`, user: 'system:kube-scheduler', operation: 'CREATE', oldObject: undefined },
        ref: { ...REF, kind: 'Pod', name },
        object: pod(name, owner) as unknown as KubernetesObject,
        ...more,
      }),
      s,
    );
  for (const name of ['a', 'b', 'c']) assert.equal((await made(name, 'web')).allowed, true);
  await made('d', 'api');
  await made('e', 'web', { dryRun: true });
  assert.equal(s.entries.length, 0, 'nothing waits for it');
  s.at(61_000);
  await made('f', 'web');
  await s.records.close();
  const [entry] = s.entries;
  assert.ok(entry?.type === 'admission.proven');
  assert.deepEqual([entry.count, entry.from, entry.to], [5, '2026-01-01T00:00:00.000Z', '2026-01-01T00:01:01.000Z']);
  const [web, api] = s.evidence.get(entry.evidence.sha256) as ProvenWrites[];
  assert.deepEqual(
    [web?.count, web?.user, web?.owner, web?.kind, web?.namespace],
    [4, 'system:kube-scheduler', 'ReplicaSet web', 'Pod', 'shop'],
  );
  assert.deepEqual(web?.writes[3], ['f', 'u-f']);
  const digests = ['a', 'b', 'c', 'f'].map((n) =>
    admissionDigest(pod(n, 'web') as unknown as KubernetesObject, 'CREATE'),
  );
  assert.equal(web?.content, sha256(digests.map((d) => `${d}\n`).join('')));
  assert.deepEqual([api?.count, api?.owner], [1, 'ReplicaSet api']);
  assert.equal(s.entries.length, 1);
});

test('what an intent lets through bears its commit, verdict and entry for the API server’s audit log', async () => {
  const { notes } = await admit(request({ object: GOOD }), scope());
  assert.deepEqual(notes, { 'allowed-as': 'intent', commit: 'r', verdict: '1', entry: '1' });
});

test('that an intent was met is recorded too, without anybody waiting for it', async () => {
  const s = scope();
  await Promise.all(['1', '2'].map((uid) => admit(request({ uid, object: GOOD }), s)));
  assert.equal(s.entries.length, 0);
  await s.records.close();
  const [entry] = s.entries;
  assert.ok(entry?.type === 'admission.allowed');
  const rows = s.evidence.get(entry.evidence.sha256) as { as: string; digest: string }[];
  assert.deepEqual(
    rows.map((r) => [r.as, r.digest]),
    [1, 2].map(() => ['intent', admissionDigest(GOOD, 'UPDATE')]),
  );
});

test('machinery goes on when nothing can be recorded, connections do not', async () => {
  const proof = { kind: 'unknown', reason: 'the API server is away' } as const;
  const decision = await admit(request({ user: 'system:kube-scheduler' }), scope({ broken: true, proof }));
  assert.deepEqual([decision.allowed, decision.notes['unrecorded']], [true, 'the disk is full']);
  const exec = request({
    operation: 'CONNECT',
    subresource: 'exec',
    ref: { ...REF, kind: 'Pod' },
    object: undefined,
    oldObject: undefined,
  });
  await assert.rejects(admit(exec, scope({ broken: true, admission: { connect: 'record' } })), /disk is full/);
});

test('connections are closed, or open on record where the environment says so', async () => {
  for (const subresource of ['exec', 'attach', 'portforward', 'proxy']) {
    const connect = request({
      operation: 'CONNECT',
      subresource,
      ref: { ...REF, kind: 'Pod' },
      object: undefined,
      oldObject: undefined,
    });
    const refused = await admit(connect, scope());
    assert.equal(refused.allowed, false);
    assert.match(refused.message, new RegExp(`\`${subresource}\` into its workloads is closed`));
    const s = scope({ admission: { connect: 'record' } });
    assert.equal((await admit(connect, s)).allowed, true);
    assert.deepEqual(
      s.entries.map((e) => e.type),
      ['admission.allowed'],
    );
  }
});

test('a pod that a controller made may be evicted, one that Git has may not', async () => {
  const pod = { ...REF, kind: 'Pod', name: 'web-1' };
  const evict = request({
    operation: 'CREATE',
    subresource: 'eviction',
    ref: pod,
    object: undefined,
    oldObject: undefined,
  });
  assert.equal((await admit(evict, scope())).allowed, true);
  const state = { ...STATE, owned: new Map([['/Pod/shop/web-1', { ...owned, ref: pod }]]) };
  assert.equal((await admit(evict, scope({ state }))).allowed, false);
});

test('fields that Git leaves to others may be set by others, and nothing beside them', async () => {
  const ref = { ...REF, apiVersion: 'apps/v1', kind: 'Deployment', name: 'web' };
  const web = (replicas: number, image: string): KubernetesObject => ({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web', namespace: 'shop' },
    spec: { replicas, image },
  });
  const spec = { drift: { ignore: [{ kind: 'Deployment', fields: ['/spec/replicas'] }] } };
  const change = (replicas: number, image: string) =>
    request({ ref, object: web(replicas, image), oldObject: web(2, 'a') });
  assert.equal((await admit(change(9, 'a'), scope({ spec }))).allowed, true);
  assert.equal((await admit(change(9, 'b'), scope({ spec }))).allowed, false);
  assert.equal((await admit(change(9, 'a'), scope())).allowed, false);
  const scale = request({ ref, subresource: 'scale', object: web(9, ''), oldObject: web(2, '') });
  assert.equal((await admit(scale, scope({ spec }))).allowed, true);
  assert.equal((await admit(scale, scope())).allowed, false);
});

test('an operator may write what belongs to an object of Git, by references that are so', async () => {
  const reference = (kind: string, name: string, uid: string) => ({
    apiVersion: 'v1',
    kind,
    name,
    uid,
    controller: true,
  });
  const made = (ownerReferences: object[]): KubernetesObject => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'made', namespace: 'shop', ownerReferences },
  });
  const ref = { ...REF, name: 'made' };
  const owners = {
    'ConfigMap/settings': { uid: 'git' },
    'Secret/between': { uid: 'between', owner: reference('ConfigMap', 'settings', 'git') },
    'Secret/free': { uid: 'free' },
  };
  const ask = (
    object: KubernetesObject,
    changes: Partial<AdmissionRequest> = {},
    admission: object = { operators: ['user:operator'] },
  ) =>
    admit(
      request({ user: 'operator', operation: 'CREATE', ref, object, oldObject: undefined, ...changes }),
      scope({ owners, admission: { ...admission } }),
    );
  assert.equal((await ask(made([reference('ConfigMap', 'settings', 'git')]))).allowed, true);
  assert.equal((await ask(made([reference('Secret', 'between', 'between')]))).allowed, true, 'over another one');
  assert.equal(
    (await ask(made([reference('ConfigMap', 'settings', 'forged')]))).allowed,
    false,
    'another object of that name',
  );
  assert.equal(
    (await ask(made([reference('Secret', 'free', 'free')]))).allowed,
    false,
    'owned by what Git does not have',
  );
  assert.equal((await ask(made([]))).allowed, false, 'owned by nothing');
  assert.equal(
    (await ask(made([{ ...reference('ConfigMap', 'settings', 'git'), controller: false }]))).allowed,
    false,
    'no controller',
  );
  assert.equal(
    (await ask(made([reference('ConfigMap', 'settings', 'git')]), { user: 'dev' })).allowed,
    false,
    'somebody else',
  );
  const adopted = { operation: 'UPDATE', oldObject: made([]) };
  assert.equal(
    (await ask(made([reference('ConfigMap', 'settings', 'git')]), adopted)).allowed,
    false,
    'taken over by writing a reference',
  );
});

test('an operator that was declared to make something makes nothing else', async () => {
  const owner = { apiVersion: 'v1', kind: 'ConfigMap', name: 'settings', uid: 'git', controller: true };
  const ask = (kind: string, apiVersion: string, more: object, operators: readonly object[], operation = 'CREATE') => {
    const object = { apiVersion, kind, metadata: { name: 'a', namespace: 'shop', ownerReferences: [owner] }, ...more };
    const to = { apiVersion, kind, namespace: 'shop', name: 'a' };
    const [now, before] = operation === 'DELETE' ? [undefined, object] : [object, undefined];
    return admit(
      request({ user: 'operator', operation, ref: to, object: now, oldObject: before }),
      scope({ owners: { 'ConfigMap/settings': { uid: 'git' } }, admission: { operators } }),
    );
  };
  const pods = (...images: (string | undefined)[]) => ({
    spec: {
      template: { spec: { initContainers: [{ image: 'db/init:1' }], containers: images.map((image) => ({ image })) } },
    },
  });
  const makes = { kinds: ['Service', 'StatefulSet.apps'], images: ['db/*'] };
  const only = [{ identity: 'user:operator', makes }];
  assert.equal((await ask('Service', 'v1', {}, only)).allowed, true);
  assert.equal((await ask('StatefulSet', 'apps/v1', pods('db/main:2'), only)).allowed, true);
  const secret = await ask('Secret', 'v1', {}, only);
  assert.equal(secret.allowed, false);
  assert.match(secret.message, /`operator` makes no Secret: `makes.kinds` does not have it. If it should make this/);
  assert.equal((await ask('Secret', 'v1', {}, only, 'DELETE')).allowed, false);
  assert.equal((await ask('StatefulSet', 'apps.example.test/v1', pods('db/a'), only)).allowed, false, 'another group');
  const evil = await ask('StatefulSet', 'apps/v1', pods('db/main:2', 'evil/db:1'), only);
  assert.match(evil.message, /makes nothing with the image `evil\/db:1`: no pattern in `makes.images` matches it/);
  assert.equal((await ask('StatefulSet', 'apps/v1', pods(undefined), only)).allowed, false, 'no image');
  const custom = { spec: { parts: [{ containers: [{ image: 'evil' }] }] } };
  const anyKind = [{ identity: 'user:operator', makes: { images: ['db/*'] } }];
  assert.equal((await ask('Cluster', 'example.test/v1', custom, anyKind)).allowed, false, 'in a custom kind');
  const two = [...only, { identity: 'user:operator', makes: { kinds: ['Secret'] } }];
  assert.equal((await ask('Secret', 'v1', {}, two)).allowed, true, 'one of two entries fits');
  assert.equal((await ask('Secret', 'v1', {}, [...only, { identity: 'user:operator' }])).allowed, true);
});

test('an operator changes nothing in a running pod, whoever owns it', async () => {
  const owner = { apiVersion: 'v1', kind: 'ConfigMap', name: 'settings', uid: 'git', controller: true };
  const ref = { ...REF, kind: 'Pod', name: 'web' };
  const pod = (more: object = {}): KubernetesObject => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'web', namespace: 'shop', ownerReferences: [owner], ...more },
  });
  const ask = (subresource: string) =>
    admit(
      request({ user: 'operator', ref, subresource, object: pod({ labels: {} }), oldObject: pod() }),
      scope({ owners: { 'ConfigMap/settings': { uid: 'git' } }, admission: { operators: ['user:operator'] } }),
    );
  for (const subresource of ['ephemeralcontainers', 'resize']) {
    const refused = await ask(subresource);
    assert.equal(refused.allowed, false, subresource);
    assert.match(refused.message, new RegExp(`no recorded verdict allows this UPDATE of \`${subresource}\``));
  }
  assert.equal((await ask('')).allowed, true);
});

const ns: ObjectRef = { apiVersion: 'v1', kind: 'Namespace', namespace: '', name: 'shop' };
const shop = (annotations: Record<string, string>, labels: Record<string, string> = {}): KubernetesObject => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name: 'shop', annotations, labels },
});

test('a grant on the namespace opens it for the group until its time, and nothing else', async () => {
  const s = scope();
  const by = { user: 'ola', groups: ['oncall'] };
  const grant = {
    'countersign.dev/break-glass': 'INC-1',
    'countersign.dev/break-glass-for': '30m',
    'countersign.dev/break-glass-ticket': 'T-1',
  };
  const open = (who: object, object: KubernetesObject) =>
    admit(request({ ...who, ref: ns, object, oldObject: shop({}) }), s);
  assert.equal((await open({ user: 'dev', groups: ['developers'] }, shop(grant))).allowed, false);
  const opened = await open(by, shop(grant));
  assert.match(opened.warnings[0] ?? '', /open in `shop` until 2026-01-01T00:30/);
  const [, entry] = s.entries;
  assert.ok(entry?.type === 'breakglass.opened');
  assert.deepEqual(
    [entry.user, entry.ticket, entry.namespaces, entry.until],
    ['ola', 'T-1', ['shop'], '2026-01-01T00:30:00.000Z'],
  );
  const exec = {
    operation: 'CONNECT',
    subresource: 'exec',
    ref: { ...REF, kind: 'Pod' },
    object: undefined,
    oldObject: undefined,
  };
  assert.equal((await admit(request({ ...by, user: 'another' }), s)).allowed, true, 'everybody of the group');
  assert.equal(
    (await admit(request({ ...by, operation: 'DELETE', object: undefined }), s)).allowed,
    true,
    'removals without an annotation',
  );
  assert.equal((await admit(request({ ...by, ...exec }), s)).allowed, true);
  assert.equal((await admit(request(), s)).allowed, false, 'nobody else');
  assert.equal(
    (await admit(request({ ...by, ref: { ...REF, namespace: 'other' } }), s)).allowed,
    false,
    'nowhere else',
  );
  assert.equal(s.entries.filter((e) => e.type === 'breakglass.used').length, 3);
  assert.equal(s.told.length, 4);
  s.at(31 * 60_000);
  assert.equal(
    (await admit(request({ ...by, uid: 'late', reason: 'x' } as never), s)).allowed,
    false,
    'not after its time',
  );
});

test('grants that were recorded beside the ledger are open, and once they are on it they are not two', async () => {
  const s = scope({ beside: true });
  const by = { user: 'ola', groups: ['oncall'], ref: ns };
  await admit(request({ ...by, object: shop({ 'countersign.dev/break-glass': 'INC-1' }), oldObject: shop({}) }), s);
  const told = () => s.breakGlass.open().map((g) => [g.user, g.reason]);
  assert.deepEqual(told(), [['ola', 'INC-1']]);
  s.entries.length = 0;
  assert.deepEqual(told(), [['ola', 'INC-1']], 'the ledger has not got it');
  s.at(25 * 60 * 60_000);
  assert.deepEqual(told(), []);
});

test('on call adds debug containers of named images without break-glass, and nothing else with them', async () => {
  const admission = { breakGlass: { groups: ['oncall'], debugImages: ['registry.example.test/debug/*'] } };
  const pod = (...ephemeralContainers: object[]) =>
    ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'web', namespace: 'shop' },
      spec: { containers: [{ name: 'web', image: 'x' }], ephemeralContainers },
    }) as unknown as KubernetesObject;
  const shell = {
    name: 'debug',
    image: 'registry.example.test/debug/shell:1',
    stdin: true,
    targetContainerName: 'web',
  };
  const ask = (object: KubernetesObject, oldObject: KubernetesObject, more: Partial<AdmissionRequest> = {}) =>
    admit(
      request({
        ...{ user: 'ola', groups: ['oncall'], subresource: 'ephemeralcontainers', object, oldObject },
        ref: { ...REF, kind: 'Pod', name: 'web' },
        ...more,
      }),
      scope({ admission }),
    );
  assert.equal((await ask(pod(shell), pod())).allowed, true);
  assert.equal((await ask(pod(shell, { ...shell, name: 'more' }), pod(shell))).allowed, true);
  for (const [what, object, before, more] of [
    ['another image', pod({ ...shell, image: 'registry.example.test/evil:1' }), pod()],
    ['privileges', pod({ ...shell, securityContext: { privileged: true } }), pod()],
    ['an environment', pod({ ...shell, env: [{ name: 'A', value: 'b' }] }), pod()],
    ['a volume', pod({ ...shell, volumeMounts: [{ name: 'data', mountPath: '/data' }] }), pod()],
    ['one that goes', pod({ ...shell, name: 'more' }), pod(shell)],
    ['one that changes', pod({ ...shell, tty: true }), pod(shell)],
    ['another person', pod(shell), pod(), { user: 'dev', groups: ['developers'] }],
    ['the pod itself', pod(shell), pod(), { subresource: '' }],
  ] as const)
    assert.equal((await ask(object, before, more)).allowed, false, what);
});

test('a forged review opens nothing, closes nothing, and is an exception', async () => {
  let stored: string | undefined;
  const s = scope({ stored: () => stored });
  const by = { user: 'ola', groups: ['oncall'] };
  const grant = { 'countersign.dev/break-glass': 'INC-1' };
  const write = () => admit(request({ ...by, uid: `u-${s.entries.length}` }), s);
  await admit(request({ ...by, ref: ns, object: shop(grant), oldObject: shop({}) }), s);
  assert.equal((await write()).allowed, false, 'the Namespace has no such reason');
  assert.deepEqual(s.breakGlass.open(), []);
  s.at(11_000);
  await s.breakGlass.confirm();
  const unconfirmed = () => s.entries.flatMap((e) => (e.type === 'breakglass.unconfirmed' ? [e.of] : []));
  assert.deepEqual(unconfirmed(), [0]);
  stored = 'another';
  assert.equal((await write()).allowed, false, 'the reason is another one');
  stored = 'INC-1';
  assert.equal((await write()).allowed, true);
  assert.equal(s.breakGlass.open().length, 1);
  const closing = s.entries.length;
  await admit(request({ ...by, ref: ns, object: shop({}), oldObject: shop(grant) }), s);
  assert.equal(s.entries[closing]?.type, 'breakglass.closed');
  assert.equal((await write()).allowed, true, 'the Namespace still has the reason');
  assert.equal(s.breakGlass.open().length, 1);
  await s.breakGlass.confirm();
  stored = undefined;
  assert.equal((await write()).allowed, false, 'it ends without any request');
  assert.deepEqual(s.breakGlass.open(), []);
  assert.ok(s.told.some((t) => (t.event as string) === 'ended'));
});

test('with a second person, a grant counts once somebody else has approved its reason', async () => {
  let live: LiveReason | undefined;
  const s = scope({
    admission: { breakGlass: { groups: ['oncall'], approvals: 1 } },
    live: () => live,
  });
  const reason = { 'countersign.dev/break-glass': 'INC-1' };
  const both = { ...reason, 'countersign.dev/break-glass-approved': 'INC-1' };
  const by = (user: string) => ({ user, groups: ['oncall'] });
  const onNamespace = (user: string, object: object, oldObject: object) =>
    admit(request({ ...by(user), ref: ns, object: shop({ ...object }), oldObject: shop({ ...oldObject }) }), s);
  const write = async (user = 'ola') =>
    (await admit(request({ ...by(user), uid: `u-${s.entries.length}` }), s)).allowed;
  const refusedFor = async (what: Promise<{ allowed: boolean; message: string }>, expected: RegExp) => {
    const { allowed, message } = await what;
    assert.equal(allowed, false);
    assert.match(message, expected);
    assert.equal(s.entries.at(-1)?.type, 'admission.denied');
  };
  await refusedFor(onNamespace('pat', both, {}), /no recorded verdict allows/); // asked for and approved in one
  await refusedFor(onNamespace('pat', both, reason), /no open break-glass with the reason/); // never asked for
  const asked = await onNamespace('ola', reason, {});
  assert.match(asked.warnings[0] ?? '', /asked for in `shop`.*once a second member/);
  const seen = s.entries.at(-1);
  assert.equal(seen?.type === 'breakglass.opened' && seen.approvals, 1);
  live = { reason: 'INC-1', approved: undefined };
  assert.equal(await write(), false, 'not approved yet');
  const alone = object({ colour: 'red' }, { 'countersign.dev/break-glass': 'INC-2' });
  await refusedFor(admit(request({ ...by('ola'), object: alone }), s), /break-glass approve/);
  await refusedFor(onNamespace('ola', both, reason), /who opened break-glass cannot approve it/);
  await refusedFor(
    onNamespace('pat', { ...reason, 'countersign.dev/break-glass-approved': 'INC-9' }, reason),
    /no open break-glass with the reason/,
  );
  await refusedFor(
    admit(request({ user: 'dev', groups: ['dev'], ref: ns, object: shop(both), oldObject: shop(reason) }), s),
    /no recorded verdict allows/,
  );
  live = { reason: 'INC-1', approved: 'INC-1' };
  assert.equal(await write(), false, 'the annotation alone approves nothing');
  live = { reason: 'INC-1', approved: undefined };
  const approved = await onNamespace('pat', both, reason);
  assert.match(approved.warnings[0] ?? '', /break-glass is approved in `shop` until .*: INC-1/);
  assert.equal(await write(), false, 'the API server does not have the approval');
  s.at(11_000);
  await s.breakGlass.confirm();
  assert.equal(s.entries.at(-1)?.type, 'breakglass.unconfirmed');
  live = { reason: 'INC-1', approved: 'INC-1' };
  assert.equal(await write(), false, 'a forged approval stays one');
  assert.equal((await onNamespace('pat', both, reason)).allowed, true);
  assert.equal(await write(), true);
  assert.equal(await write('pat'), true);
  assert.deepEqual(
    s.breakGlass.open().map((g) => [g.user, g.approvals, g.approver]),
    [['ola', 1, 'pat']],
  );
});

test('a grant ends when its annotation is taken away; other changes of the namespace are uses', async () => {
  const s = scope();
  const grant = { 'countersign.dev/break-glass': 'INC-1' };
  const by = { user: 'ola', groups: ['oncall'], ref: ns };
  await admit(request({ ...by, object: shop(grant), oldObject: shop({}) }), s);
  assert.equal((await admit(request({ ...by, object: shop({}), oldObject: shop(grant) }), s)).allowed, true);
  assert.deepEqual(
    s.entries.map((e) => e.type),
    ['breakglass.opened', 'breakglass.closed'],
  );
  assert.equal((await admit(request({ user: 'ola', groups: ['oncall'] }), s)).allowed, false);
  const more = await admit(
    request({ ...by, object: shop({ 'countersign.dev/break-glass': 'INC-2' }, { team: 'x' }), oldObject: shop({}) }),
    s,
  );
  assert.equal(more.allowed, true);
  assert.equal(s.entries.at(-1)?.type, 'breakglass.used', 'a change with its reason is no grant');
});

test('only an update of a Namespace opens a grant: annotations alone on any other object are one use of it', async () => {
  const s = scope();
  const glass = { 'countersign.dev/break-glass': 'INC-1', 'countersign.dev/break-glass-for': '30m' };
  const only = { groups: ['oncall'], user: 'ola', object: object({}, glass), oldObject: object({}, {}) };
  assert.equal((await admit(request(only), s)).allowed, true);
  assert.deepEqual(
    s.entries.map((e) => e.type),
    ['breakglass.used'],
  );
  assert.deepEqual(s.breakGlass.open(), []);
  assert.equal((await admit(request({ groups: ['oncall'], user: 'ola' }), s)).allowed, false, 'nothing is open');
});

test('rules are told beside a yes to machinery and break-glass, and refuse operators', async () => {
  const violation = { code: 'policy' as const, rule: 'privileged', message: 'runs privileged' };
  const rules = { ask: async () => ({ violations: [violation], warnings: [], waived: [], bundle: 'b1' }) };
  const machinery = await admit(request({ user: 'system:kube-scheduler' }), scope({ rules }));
  assert.deepEqual(
    [machinery.allowed, machinery.notes['violations'], machinery.notes['rules']],
    [true, 'privileged', 'b1'],
  );
  const glass = request({ groups: ['oncall'], object: object({}, { 'countersign.dev/break-glass': 'INC-1' }) });
  assert.match((await admit(glass, scope({ rules }))).warnings.join(), /privileged: runs privileged/);
});

test('rules that cannot be asked, or do not answer, hold up neither machinery nor break-glass', async () => {
  const broken = { ask: () => Promise.reject(new Error('not loaded')) };
  const silent = { ask: () => new Promise<never>(() => {}) };
  const glass = request({ groups: ['oncall'], object: object({}, { 'countersign.dev/break-glass': 'INC-1' }) });
  for (const rules of [broken, silent]) {
    assert.equal((await admit(request({ user: 'system:kube-scheduler' }), scope({ rules }))).allowed, true);
    const s = scope({ rules });
    assert.equal((await admit(glass, s)).allowed, true);
    assert.deepEqual(
      s.entries.map((e) => e.type),
      ['breakglass.used'],
    );
  }
});

test('a use whose answer came too late is on record as refused, and counts for nothing', async () => {
  const s = scope();
  const by = { user: 'ola', groups: ['oncall'] };
  const grant = { 'countersign.dev/break-glass': 'INC-1' };
  await admit(request({ ...by, uid: 'grant', ref: ns, object: shop(grant), oldObject: shop({}) }), s);
  const use = request({ ...by, uid: 'late' });
  const late = await admit(use, s);
  const good = await admit(request({ ...by, uid: 'good' }), s);
  assert.deepEqual([late.allowed, good.allowed], [true, true]);
  assert.notEqual(late.use, good.use);
  await s.breakGlass.refuse(use, late.use ?? '');
  assert.deepEqual(s.entries.at(-1), {
    type: 'breakglass.refused',
    environment: 'production',
    uid: 'late',
    use: late.use,
    object: REF,
  });
  const left = () => usesOf({ all: s.all }, 'production').map(({ entry }) => entry.uid);
  assert.deepEqual(left(), ['good']);
  // Whoever sends a uid again, and too late, takes back what they sent and nothing else.
  const again = { ...by, uid: 'good' };
  assert.equal(
    (await admit(request({ ...again, dryRun: true }), s)).use,
    undefined,
    'a dry run has no use to take back',
  );
  const sent = await admit(request(again), s);
  assert.deepEqual(left(), ['good', 'good']);
  await s.breakGlass.refuse(request(again), sent.use ?? '');
  assert.deepEqual(left(), ['good']);
  const [stands] = usesOf({ all: s.all }, 'production');
  assert.equal(stands?.entry.use, good.use, 'and not what someone else did');
});

test('what a sibling writes by an intent that is not heard yet waits for it; alone, nothing waits', async () => {
  const RED = object({ colour: 'red' });
  const own = request({ user: 'countersign', object: RED });
  const red = { ...owned, admitted: admissionDigest(RED, 'UPDATE') };
  const heard: EnvironmentState = { ...STATE, inventory: { objects: [red], leaving: [] } };
  let looks = 0;
  const late = () => (++looks > 8 ? heard : STATE);
  const shared = scope({ isShared: true, state: late });
  assert.deepEqual([(await admit(own, shared)).allowed, shared.entries.length], [true, 0]);
  looks = 0;
  assert.equal((await admit({ ...own, user: 'dev' }, scope({ isShared: true, state: late }))).allowed, false);
  assert.ok(looks < 8, 'anyone else is answered at once');
  looks = 0;
  assert.equal((await admit(own, scope({ state: late }))).allowed, false);
  const never = scope({ isShared: true });
  assert.equal((await admit(own, never)).allowed, false);
  assert.equal(never.entries[0]?.type, 'admission.denied');
});

test('rules decide alone in namespaces that an environment names, by their own mode', async () => {
  const ruled = (violations: object[]) =>
    ({ ask: async () => ({ violations, warnings: [], waived: [], bundle: 'b1' }) }) as never;
  const violation = { code: 'policy' as const, rule: 'privileged', message: 'runs privileged' };
  const there = request({ ref: { ...REF, namespace: 'team-a' }, operation: 'CREATE', oldObject: undefined });
  const ask = async (options: Options) => {
    const s = scope({
      ...options,
      admission: { policy: { namespaces: ['team-*'], ...(options.admission as object) } },
    });
    return { s, decision: await (new AdmissionScopes([s]).find(there) ?? assert.fail()).decide(there) };
  };
  const denied = await ask({ rules: ruled([violation]) });
  assert.equal(denied.decision.allowed, false);
  assert.match(denied.decision.message, /deny it: privileged: runs privileged/);
  assert.deepEqual(
    denied.s.entries.map((e) => e.type),
    ['admission.denied'],
  );
  assert.equal((await ask({ rules: ruled([]) })).decision.allowed, true);
  const warned = await ask({ rules: ruled([violation]), admission: { mode: 'warn' } });
  assert.deepEqual([warned.decision.allowed, warned.decision.warnings.length], [true, 1]);
  await assert.rejects(ask({ rules: { ask: () => Promise.reject(new Error('not loaded')) } }), /not loaded/);
  assert.equal(new AdmissionScopes([scope()]).find(there), undefined, 'nobody names it');
});

const ROLE = { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', namespace: '', name: 'edit-all' };
const ROLE_KEY = 'rbac.authorization.k8s.io/ClusterRole//edit-all';
const governing = (name: string, clusterScoped: readonly unknown[], state?: EnvironmentState): AdmissionScope => {
  const s = scope({
    spec: { target: { namespaces: [name], clusterScoped } },
    ...(state === undefined ? {} : { state }),
  });
  return { ...s, environment: { ...s.environment, metadata: { name } } };
};

test('a cluster-scoped object is decided by the environment whose names it is in', () => {
  const shop = governing('shop', ['Namespace', { kind: 'ClusterRole', names: ['shop-*'] }]);
  const edit = governing('edit', [{ kind: 'ClusterRole', group: 'rbac.authorization.k8s.io', names: ['edit-all'] }]);
  const scopes = new AdmissionScopes([shop, edit]);
  const decider = (ref: object) => scopes.find(request({ ref: { ...ROLE, ...ref } }))?.environment;
  assert.equal(decider({}), 'edit');
  assert.equal(decider({ name: 'shop-reader' }), 'shop');
  assert.equal(decider({ name: 'other' }), undefined, 'free for others');
  assert.equal(decider({ name: '' }), 'shop', 'not known yet: somebody has to decide');
  assert.equal(decider({ apiVersion: 'example.com/v1' }), undefined, 'a kind of another group');
  assert.equal(decider({ kind: 'ClusterRoleBinding' }), undefined);
  assert.equal(decider({ apiVersion: 'v1', kind: 'Namespace', name: 'other' }), undefined);
});

test('where two environments have one kind, the one that has the object decides, or the first', () => {
  const having = { ...STATE, owned: new Map([[ROLE_KEY, { ...owned, ref: ROLE }]]) };
  const ask = request({ ref: ROLE });
  const [one, two] = [governing('one', ['ClusterRole']), governing('two', ['ClusterRole'], having)];
  assert.equal(new AdmissionScopes([one, two]).find(ask)?.environment, 'two');
  assert.equal(new AdmissionScopes([one, governing('two', ['ClusterRole'])]).find(ask)?.environment, 'one');
  assert.equal(new AdmissionScopes([scope()]).find(ask), undefined);
});

test('a connection to a node that names no pod is decided by the strictest environment, and by break-glass', async () => {
  const through = request({
    operation: 'CONNECT',
    subresource: 'proxy',
    ref: { apiVersion: 'v1', kind: 'Node', namespace: '', name: 'node-a' },
    object: undefined,
    oldObject: undefined,
  });
  const named = (name: string, mode: AdmissionMode): TestScope => {
    const s = scope({ mode });
    return { ...s, environment: { ...s.environment, metadata: { name } } };
  };
  const all = (['off', 'audit', 'warn', 'enforce'] as const).map((mode) => named(mode, mode));
  assert.equal(new AdmissionScopes(all).find(through)?.environment, 'enforce');
  assert.equal(new AdmissionScopes(all.slice(0, 3)).find(through)?.environment, 'warn');
  assert.equal(new AdmissionScopes([]).find(through), undefined);
  const s = scope();
  const by = { user: 'ola', groups: ['oncall'] };
  const refused = await admit({ ...through, ...by }, s);
  assert.equal(refused.allowed, false);
  assert.match(refused.message, /Node node-a is governed.*open break-glass first/);
  const open = shop({ 'countersign.dev/break-glass': 'INC-1' });
  assert.equal((await admit(request({ ...by, ref: ns, object: open, oldObject: shop({}) }), s)).allowed, true);
  assert.equal((await admit({ ...through, ...by }, s)).allowed, true);
  assert.equal((await admit(through, s)).allowed, false, 'by nobody else');
  const role = { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', namespace: '', name: 'a' };
  assert.equal((await admit(request({ ...by, ref: role }), s)).allowed, false, 'nothing else without a namespace');
});

test('an object whose name moved to another environment is removed by the one that had it, and only by its intent', async () => {
  const open = { intent: { index: 2 } as never, plan: { objects: [], prune: [ROLE] }, failed: false };
  const leaving: EnvironmentState = { ...STATE, open };
  const at = (state: EnvironmentState) =>
    new AdmissionScopes([
      governing('old', ['Namespace'], state),
      governing('new', [{ kind: 'ClusterRole', names: ['edit-*'] }]),
    ]);
  const removal = request({ ref: ROLE, operation: 'DELETE' });
  assert.equal(at(leaving).find(removal)?.environment, 'old');
  assert.equal((await at(leaving).find(removal)?.decide(removal))?.allowed, true);
  assert.equal(at(STATE).find(removal)?.environment, 'new', 'without an intent');
  assert.equal(at(leaving).find(request({ ref: ROLE }))?.environment, 'new', 'no other request');
  const elsewhere = governing('old', ['Namespace'], leaving);
  const { target } = elsewhere.environment.spec;
  for (const cluster of [{ context: 'another' }, { kubeconfig: '/another' }]) {
    const there = { ...elsewhere.environment.spec, target: { ...target, ...cluster } };
    const apart = new AdmissionScopes([
      { ...elsewhere, environment: { ...elsewhere.environment, spec: there } },
      governing('new', ['ClusterRole']),
    ]);
    assert.equal(apart.find(removal)?.environment, 'new', 'an intent for another cluster');
  }
});

test('what is named like a part of Countersign and is not as it is installed is refused, and told how it can be', async () => {
  const asked = request({ ref: { ...ROLE, name: 'countersign' }, operation: 'CREATE', oldObject: undefined });
  const decision = await admit(asked, governing('shop', ['ClusterRole']));
  assert.equal(decision.allowed, false);
  assert.match(
    decision.message,
    /; it has the name of a part of Countersign, .* with the output of `countersign manif/,
  );
  assert.doesNotMatch((await admit(request({ ref: ROLE }), governing('shop', ['ClusterRole']))).message, /a part of/);
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
