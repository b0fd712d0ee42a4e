import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect } from '../../src/cluster/index.ts';
import { NamespaceWatch } from '../../src/cluster/namespace-watch.ts';
import { type LoadRules, RulesInForce, type Scan } from '../../src/gate/index.ts';
import { openLedger } from '../../src/ledger/index.ts';
import { environmentSchema, type ObjectRef, refText } from '../../src/model/index.ts';
import { recorderOf } from '../../src/open/read-ledger.ts';
import { keepRescanning } from '../../src/serve/rescan.ts';
import { type ApiProxy, startApiProxy } from '../kit/api-proxy.ts';
import { environmentDocument } from '../kit/documents.ts';
import { rulesOf } from '../kit/rules.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

const stage = await openStage(scratch());
const OTHER = 'c'.repeat(40); // a revision with other rules
const HOUR = 3_600_000;
const TIMES = { lookMs: 100, spacedMs: 100, laterMs: 100 };
const CONFIG_MAPS = (ns: string) => `/api/v1/namespaces/${ns}/configmaps`;
const pool = await rulesOf({
  'rule.rego': 'package countersign.object\ndeny contains "bad" if input.object.metadata.labels.bad == "yes"\n',
});

const configMap = (name: string, labels: Record<string, string> = {}) => ({
  ...{ apiVersion: 'v1', kind: 'ConfigMap' },
  metadata: { name, labels },
});

async function namespaceOf(name: string): Promise<string> {
  await stage.admin.request('POST', '/api/v1/namespaces', { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  return name;
}

/** Looks at a namespace through a proxy, all of it once an hour. */
async function looking(
  ns: string,
  more: { times?: typeof TIMES; owned?: Map<string, object>; open?: object; fault?: ApiProxy['fault'] } = {},
) {
  const { times = TIMES, owned = new Map(), open } = more;
  const proxy = await startApiProxy(stage.controlPlane, 'admin');
  const { server } = await connect({ kubeconfig: proxy.kubeconfig, context: undefined, namedBy: 'operator' });
  const ledger = await openLedger(join(scratch(), 'ledger'), 'test');
  const recorder = recorderOf(ledger);
  const environment = environmentSchema.parse(environmentDocument({ url: '/nowhere', namespaces: [ns] }));
  const at = { revision: 'a'.repeat(40), owned, open, isHere: true };
  const load: LoadRules = async (revision) => ({
    pool,
    waivers: [],
    images: { digest: '', of: new Map() },
    bundle: revision === OTHER ? 'c' : 'b',
  });
  const said: string[] = [];
  let looks = 0;
  const log = { info: () => {}, warn: (_: object, message: string) => void said.push(message) };
  const parts = {
    ...{ environment, server, ledger: recorder, log },
    state: () => at as never,
    rules: new RulesInForce(
      environment,
      () => at as never,
      load,
      () => new Date(),
    ),
    clock: () => new Date(),
    user: 'admin',
    isHere: () => {
      looks++;
      return at.isHere;
    },
  };
  const stop = keepRescanning([parts], HOUR, times);
  const results = () => {
    const last = recorder.latest(['cluster.scanned'], 'production');
    return last === undefined ? undefined : (recorder.evidence(last.entry.evidence) as Scan);
  };
  const revision = () => recorder.latest(['cluster.scanned'], 'production')?.entry.revision;
  const unmanaged = () => results()?.unmanaged.map((u) => refText(u.object));
  const bad = () => results()?.violations.map((v) => refText(v.object));
  if (more.fault === undefined) await stage.waitFor(async () => results() !== undefined, 'the first result');
  else proxy.fault = more.fault;
  const lists = () => proxy.seen.filter((s) => s.path.includes('limit=500&resourceVersion=0')).length;
  const close = async () => {
    await stop();
    server.close();
    await proxy.stop();
    await ledger.close();
  };
  return { proxy, at, said, revision, unmanaged, bad, lists, looks: () => looks, close };
}

test('what somebody made, changed or removed in a governed namespace is judged within seconds, and alone', async () => {
  const ns = await namespaceOf('rescan-watch');
  const { unmanaged, bad, lists, proxy, close } = await looking(ns);
  try {
    assert.deepEqual([unmanaged(), bad()], [[], []]);
    const whole = lists();
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('mine', { bad: 'yes' }));
    await stage.waitFor(async () => bad()?.[0] === `ConfigMap ${ns}/mine`, 'the violation');
    assert.deepEqual(unmanaged(), [`ConfigMap ${ns}/mine`]);
    const patch = { metadata: { labels: { bad: 'no' } } };
    await stage.admin.request('PATCH', `${CONFIG_MAPS(ns)}/mine`, patch, 'application/merge-patch+json');
    await stage.waitFor(async () => bad()?.length === 0, 'no violation');
    await stage.admin.request('DELETE', `${CONFIG_MAPS(ns)}/mine`);
    await stage.waitFor(async () => unmanaged()?.length === 0, 'nothing that no commit has');
    assert.equal(lists(), whole, 'nothing else was read again');
    await stage.admin.request(
      'POST',
      CONFIG_MAPS(await namespaceOf('rescan-elsewhere')),
      configMap('theirs', { bad: 'yes' }),
    );
    // The watch tells of both in their order.
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('after'));
    await stage.waitFor(async () => unmanaged()?.[0] === `ConfigMap ${ns}/after`, 'what came after it');
    assert.deepEqual(
      [unmanaged(), bad(), proxy.seen.filter((s) => s.path.endsWith('/theirs'))],
      [[`ConfigMap ${ns}/after`], [], []],
      'other namespaces are nobody’s here',
    );
  } finally {
    await close();
  }
});

test('another status is no other object', async () => {
  const ns = await namespaceOf('rescan-status');
  const at = `/apis/networking.k8s.io/v1/namespaces/${ns}/ingresses`; // a kind that no controller here writes to
  const { proxy, close } = await looking(ns);
  const reads = () => proxy.seen.filter((s) => s.method === 'GET' && s.path === `${at}/web`).length;
  try {
    const spec = (name: string) => ({ defaultBackend: { service: { name, port: { number: 80 } } } });
    const web = { apiVersion: 'networking.k8s.io/v1', kind: 'Ingress', metadata: { name: 'web' }, spec: spec('one') };
    assert.equal((await stage.admin.request('POST', at, web)).status, 201);
    await stage.waitFor(async () => reads() === 1, 'the new one');
    const status = { status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } } };
    assert.equal(
      (await stage.admin.request('PATCH', `${at}/web/status`, status, 'application/merge-patch+json')).status,
      200,
    );
    await stage.admin.request('PATCH', `${at}/web`, { spec: spec('two') }, 'application/merge-patch+json');
    await stage.waitFor(async () => reads() >= 2, 'the other one');
    assert.equal(reads(), 2, 'not for the status as well');
  } finally {
    await close();
  }
});

test('what could not be read when it changed is found by reading all again', async () => {
  const ns = await namespaceOf('rescan-missed');
  const { proxy, unmanaged, said, close } = await looking(ns);
  try {
    proxy.fault = (asked) => (asked.path.endsWith('/mine') ? { status: 500 } : 'pass');
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('mine'));
    await stage.waitFor(async () => said.some((s) => s.includes('cannot judge its namespaces')), 'the warning');
    await stage.waitFor(async () => unmanaged()?.length === 1, 'the whole look');
  } finally {
    await close();
  }
});

test('nothing is said of a namespace that could not be read whole, and it is not tried all the time', async () => {
  const ns = await namespaceOf('rescan-first');
  const isListed = (path: string) => path.startsWith(`/api/v1/namespaces/${ns}/secrets?`);
  const tries: number[] = [];
  const fault: ApiProxy['fault'] = (asked) => {
    if (!isListed(asked.path)) return 'pass';
    tries.push(performance.now());
    return { drop: 'before' };
  };
  const { proxy, unmanaged, said, close } = await looking(ns, {
    times: { lookMs: 100, spacedMs: 2000, laterMs: 100 },
    fault,
  });
  try {
    await stage.waitFor(async () => said.length > 0, 'the warning');
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('mine'));
    await stage.waitFor(async () => tries.length > 1, 'the second try');
    assert.ok((tries[1] ?? 0) - (tries[0] ?? 0) > 1000, 'not with every look');
    assert.equal(unmanaged(), undefined);
    proxy.fault = () => 'pass';
    await stage.waitFor(async () => unmanaged()?.length === 1, 'the result');
  } finally {
    await close();
  }
});

test('watches that broke off go on, with what came meanwhile', async () => {
  const ns = await namespaceOf('rescan-broken');
  const { proxy, unmanaged, close } = await looking(ns);
  try {
    const isOfMaps = (path: string) => path.startsWith('/api/v1/configmaps');
    proxy.fault = (asked) => (isOfMaps(asked.path) ? { drop: 'before' } : 'pass');
    proxy.cut((asked) => asked.watch && isOfMaps(asked.path));
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('meanwhile'));
    const tries = proxy.seen.length;
    const again = () => proxy.seen.slice(tries).filter((asked) => isOfMaps(asked.path)).length;
    await stage.waitFor(async () => again() > 0, 'a try to watch again');
    assert.deepEqual(unmanaged(), []);
    proxy.fault = () => 'pass';
    await stage.waitFor(async () => unmanaged()?.length === 1, 'what came meanwhile');
  } finally {
    await close();
  }
});

test('what is being applied just now waits until it has been; what flaps is recorded now and then', async () => {
  const ns = await namespaceOf('rescan-open');
  const { at, unmanaged, bad, lists, looks, proxy, close } = await looking(ns, {
    times: { lookMs: 100, spacedMs: 60_000, laterMs: 100 },
    owned: new Map([[`/ConfigMap/${ns}/planned`, { file: 'x.yaml', line: 1 }]]),
    open: { failed: false, intent: { entry: { revision: OTHER } } },
  });
  const whole = lists();
  try {
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('planned', { bad: 'yes' }));
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('one'));
    await stage.waitFor(async () => unmanaged()?.length === 1, 'the first of them, at once');
    assert.deepEqual([unmanaged(), bad()], [[`ConfigMap ${ns}/one`], []], 'and nothing of what is being applied');
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('two'));
    await stage.waitFor(async () => proxy.seen.some((asked) => asked.path.endsWith('/two')), 'the second');
    const seen = looks();
    await stage.waitFor(async () => looks() > seen + 3, 'a few looks');
    assert.equal(unmanaged()?.length, 1, 'the second has to wait');
    Object.assign(at, { revision: OTHER, open: undefined });
    await stage.waitFor(async () => unmanaged()?.length === 2, 'all of it, at a revision with other rules');
    assert.ok(lists() > whole);
  } finally {
    await close();
  }
});

test('a revision with the same rules reads nothing again, and is on the ledger with what is known', async () => {
  const ns = await namespaceOf('rescan-same');
  const { at, proxy, unmanaged, revision, close } = await looking(ns);
  try {
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('one'));
    await stage.waitFor(async () => unmanaged()?.length === 1, 'the first');
    const before = proxy.seen.length;
    at.revision = 'b'.repeat(40);
    at.owned.set(`/ConfigMap/${ns}/one`, { file: 'x.yaml', line: 1 });
    await stage.waitFor(async () => revision() === at.revision, 'the result at the new revision');
    assert.deepEqual(unmanaged(), [], 'it belongs to Git now');
    assert.deepEqual(
      proxy.seen
        .slice(before)
        .flatMap(({ path }) => (path.includes('watch=') || path.includes('reports') ? [] : [path])),
      [],
    );
  } finally {
    await close();
  }
});

test('what was told while all was read from an older cache is read once more', async () => {
  const ns = await namespaceOf('rescan-cache');
  const { at, proxy, unmanaged, lists, close } = await looking(ns);
  try {
    const whole = lists();
    const isListed = (path: string) => path.startsWith(`${CONFIG_MAPS(ns)}?limit=500&resourceVersion=0`);
    proxy.fault = (asked) => (isListed(asked.path) ? { status: 200, body: { items: null, metadata: {} } } : 'pass');
    at.revision = OTHER;
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('fresh'));
    await stage.waitFor(async () => lists() > whole && unmanaged()?.length === 1, 'the fresh one');
  } finally {
    await close();
  }
});

test('what another replica runs is looked at there', async () => {
  const ns = await namespaceOf('rescan-standby');
  const { at, unmanaged, looks, close } = await looking(ns);
  try {
    at.isHere = false;
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('mine'));
    const before = looks();
    await stage.waitFor(async () => looks() > before + 5, 'a few looks');
    assert.deepEqual(unmanaged(), []);
    at.isHere = true;
    await stage.waitFor(async () => unmanaged()?.length === 1, 'the look after it came here');
  } finally {
    await close();
  }
});

/** A watch on some namespaces, and what it tells. */
async function watching(
  user: string,
  namespaces: readonly string[],
  use: (w: Watching) => Promise<void>,
  most = 1000,
): Promise<void> {
  const proxy = await startApiProxy(stage.controlPlane, user);
  const { server } = await connect({ kubeconfig: proxy.kubeconfig, context: undefined, namedBy: 'operator' });
  const told: string[] = [];
  const said: string[] = [];
  const watch: NamespaceWatch = new NamespaceWatch(server, namespaces, {
    changed: (ref: ObjectRef) => told.push(refText(ref)),
    mayOpen: () => watch.connections < most,
    warn: (message) => void said.push(message),
  });
  try {
    await use({ watch, proxy, told, said });
  } finally {
    watch.close();
    server.close();
    await proxy.stop();
  }
}
type Watching = {
  readonly watch: NamespaceWatch;
  readonly proxy: ApiProxy;
  readonly told: string[];
  readonly said: string[];
};
const open = (proxy: ApiProxy, part: string) =>
  proxy.seen.filter((s) => s.watch && s.path.includes(part) && s.ended !== true).length;

test('kinds that come are watched from the next look on, kinds that go are left', async () => {
  const ns = await namespaceOf('rescan-kinds');
  const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
  const widgets = {
    ...{
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name: 'widgets.example.com' },
    },
    spec: {
      ...{ group: 'example.com', scope: 'Namespaced', names: { plural: 'widgets', kind: 'Widget' } },
      versions: [
        {
          ...{ name: 'v1', served: true, storage: true },
          schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
        },
      ],
    },
  };
  await watching('admin', [ns], async ({ watch, proxy, told }) => {
    await watch.follow();
    await stage.waitFor(async () => open(proxy, '/configmaps?') === 1, 'one watch for all namespaces');
    await stage.admin.request('POST', definitions, widgets);
    const path = `/apis/example.com/v1/namespaces/${ns}/widgets`;
    await stage.waitFor(async () => (await stage.admin.request('GET', path)).status === 200, 'the kind');
    await stage.waitFor(async () => {
      await watch.follow();
      return open(proxy, '/widgets?') === 1;
    }, 'its watch');
    await stage.admin.request('POST', path, { apiVersion: 'example.com/v1', kind: 'Widget', metadata: { name: 'w' } });
    await stage.waitFor(async () => told.includes(`Widget ${ns}/w`), 'what it tells');
    const ref = { apiVersion: 'example.com/v1', kind: 'Widget', namespace: ns, name: 'w' };
    assert.equal((await watch.read(ref))?.metadata.name, 'w');
    await stage.admin.request('DELETE', `${definitions}/widgets.example.com`);
    await stage.waitFor(async () => {
      await watch.follow();
      return open(proxy, '/widgets?') === 0;
    }, 'its end');
    assert.equal(await watch.read(ref), undefined);
    assert.equal(open(proxy, '/configmaps?'), 1, 'the others go on');
  });
});

test('where the account may not watch all of the cluster, it watches the namespaces; what it may not see at all is said once', async () => {
  const ns = await namespaceOf('rescan-narrow');
  const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${ns}`;
  const verbs = ['get', 'list', 'watch'];
  await stage.admin.request('POST', `${rbac}/roles`, {
    metadata: { name: 'r' },
    rules: [{ apiGroups: [''], resources: ['configmaps'], verbs }],
  });
  await stage.admin.request('POST', `${rbac}/rolebindings`, {
    metadata: { name: 'r' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'r' },
    subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: 'nobody' }],
  });
  await watching('nobody', [ns], async ({ watch, proxy, told, said }) => {
    await watch.follow();
    await watch.follow();
    await stage.admin.request('POST', CONFIG_MAPS(ns), configMap('mine'));
    await stage.waitFor(async () => told.includes(`ConfigMap ${ns}/mine`), 'what it tells');
    assert.equal(open(proxy, `/namespaces/${ns}/configmaps?`), 1);
    assert.equal(said.length, 1, said.join('\n'));
    assert.match(said[0] ?? '', /found later.*may not list and watch/);
  });
});

test('more connections than there may be are not opened, and it is said', async () => {
  const ns = await namespaceOf('rescan-many');
  const few = async ({ watch, said }: Watching) => {
    await watch.follow();
    await watch.follow();
    assert.equal(watch.connections, 5);
    assert.equal(said.length, 1, said.join('\n'));
    assert.match(said[0] ?? '', /found later.*too many watches are open/);
  };
  await watching('admin', [ns], few, 5);
});
