import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Answer, ApiServer } from '../../src/cluster/index.ts';
import type { AdmittedRequest } from '../../src/model/index.ts';
import { configMap, deployment, namespace, service as serviceManifest } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import type { Service } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

const page = readFileSync(fileURLToPath(new URL('../../docs/admission.md', import.meta.url)), 'utf8');
const stage = await openStage(scratch(), { own: true }); // its webhook also decides about nodes

type Table = {
  readonly columns: readonly string[];
  readonly rows: readonly { readonly name: string; readonly cells: readonly string[] }[];
};

function tableUnder(heading: string): Table {
  const part = page.slice(page.indexOf(`## ${heading}`)).split('\n## ')[0] ?? '';
  const [head, , ...rows] = part
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    );
  assert.ok(head !== undefined && rows.length > 0, heading);
  return { columns: head.slice(1), rows: rows.map(([name = '', ...cells]) => ({ name, cells })) };
}

const MERGE = 'application/merge-patch+json';
const metadata = (name: string, more: object = {}) => ({ name, ...more });

/** How many requests of somebody the ledger tells of, whatever became of them: the cluster's controllers write too. */
function recorded(service: Service, environment: string, user: string): number {
  const uids = new Set<string>();
  for (const { entry } of service.entries('admission.allowed', environment))
    for (const r of service.evidence<AdmittedRequest[]>(entry.evidence))
      if (r.as !== 'intent' && r.user === user) uids.add(r.uid);
  for (const type of ['admission.denied', 'admission.warned', 'breakglass.used', 'breakglass.opened'] as const)
    for (const { entry } of service.entries(type, environment)) if (entry.user === user) uids.add(entry.uid ?? '');
  return uids.size;
}

async function nameOf(who: ApiServer): Promise<string> {
  const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' };
  const { body } = await who.request('POST', '/apis/authentication.k8s.io/v1/selfsubjectreviews', review);
  return (body['status'] as { userInfo: { username: string } }).userInfo.username;
}

function isRefused({ status, body }: Answer): boolean {
  return status === 403 && /countersign\.dev" denied/.test(String(body['message']));
}

test('who may do what in a governed namespace: every cell of the table', async () => {
  const ns = 'matrix';
  const { service } = await stage.running(
    ns,
    { drift: { mode: 'report', ignore: [{ kind: 'Deployment', name: 'loose', fields: ['/spec/replicas'] }] } },
    {
      environment: {
        clusterScoped: ['Namespace', 'PriorityClass'],
        admission: { operators: ['user:operator'] },
      },
      // The table is about the webhook. One who only borrows the name of a controller would not even be asked about.
      arguments: ['--no-protect'],
      files: {
        'clusters/production/web.yaml': deployment(ns, 'web'),
        'clusters/production/loose.yaml': deployment(ns, 'loose'),
        'clusters/production/svc.yaml': serviceManifest(ns, 'web'),
        ...Object.fromEntries(
          [...Array(12).keys()].map((i) => [
            `clusters/production/spare-${i}.yaml`,
            configMap(ns, `spare-${i}`, { a: '1' }),
          ]),
        ),
      },
    },
  );
  const table = tableUnder('Who may do what in a governed namespace');
  let now = '';
  const people: Record<string, ApiServer> = {
    machinery: await stage.as('aggregator'),
    declared: await stage.as('controller'),
    operator: await stage.as('operator'),
    developer: await stage.as('dev'),
    'on call': await stage.as('oncall'),
    'on call, open': await stage.as('oncall'),
    us: await stage.as('countersign'),
  };
  const names = new Map<string, string>();
  for (const [column, who] of Object.entries(people)) names.set(column, await nameOf(who));
  const core = `/api/v1/namespaces/${ns}`;
  const apps = `/apis/apps/v1/namespaces/${ns}`;
  const settings = (await stage.get(`${core}/configmaps/settings`)).body['metadata'] as { uid: string };
  const owner = { apiVersion: 'v1', kind: 'ConfigMap', name: 'settings', uid: settings.uid, controller: true };
  let serial = 0;
  let spare = 0;
  const fresh = () => `m-${serial++}`;
  // Both, so that the pod keeps its class.
  const moreCpu = () => {
    const cpu = `${900 + serial++}m`;
    return { limits: { cpu }, requests: { cpu } };
  };
  const cm = (more: object = {}) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: metadata(fresh(), more),
    data: { a: '1' },
  });
  // One that runs: the controllers make another when it is gone.
  const onePod = async () => {
    let path = '';
    await stage.waitFor(async () => {
      const { body } = await stage.get(`${core}/pods?labelSelector=app%3Dweb&fieldSelector=status.phase%3DRunning`);
      const pods = body['items'] as readonly { metadata: { name: string; deletionTimestamp?: string } }[];
      const pod = pods.find((p) => p.metadata.deletionTimestamp === undefined);
      path = `${core}/pods/${pod?.metadata.name}`;
      return pod !== undefined;
    }, 'a pod');
    return path;
  };
  const connect = (what: string) => async (who: ApiServer) => who.request('POST', `${await onePod()}/${what}`);
  // The pod has a node, so the API server refuses a binding after admission has let it through.
  const bind = (more: object) => async (who: ApiServer) => {
    const path = await onePod();
    return who.request('POST', `${path}/binding`, {
      apiVersion: 'v1',
      kind: 'Binding',
      metadata: metadata(path.split('/').at(-1) ?? '', more),
      target: { kind: 'Node', name: 'node-a' },
    });
  };
  const throughNode = (path: string) => (who: ApiServer) => who.request('POST', `/api/v1/nodes/node-a/proxy${path}`);
  const scale = (name: string) => (who: ApiServer) =>
    who.request('PATCH', `${apps}/deployments/${name}/scale`, { spec: { replicas: 10 + serial++ } }, MERGE);
  const requests: Record<string, (who: ApiServer) => Promise<Answer>> = {
    'CREATE of an object': (who) => who.request('POST', `${core}/configmaps`, cm()),
    "CREATE of an object that belongs to one of Git's": (who) =>
      who.request('POST', `${core}/configmaps`, cm({ ownerReferences: [owner] })),
    'UPDATE of an object of Git': (who) =>
      who.request('PATCH', `${core}/configmaps/settings`, { data: { colour: fresh() } }, MERGE),
    'DELETE of an object of Git': (who) => who.request('DELETE', `${core}/configmaps/spare-${spare++}`),
    'UPDATE of `scale`': scale('web'),
    'UPDATE of `scale`, left to others by `spec.drift.ignore`': scale('loose'),
    'UPDATE of `status`': (who) =>
      who.request('PATCH', `${apps}/deployments/web/status`, { status: { replicas: serial++ } }, MERGE),
    'UPDATE of `status` that changes metadata': (who) =>
      who.request(
        'PATCH',
        `${apps}/deployments/web/status`,
        { metadata: { annotations: { touched: fresh() } } },
        MERGE,
      ),
    'DELETE of a pod that a controller made': async (who) => who.request('DELETE', await onePod()),
    'CREATE of `eviction` of a pod that a controller made': async (who) => {
      const path = await onePod();
      return who.request('POST', `${path}/eviction`, {
        apiVersion: 'policy/v1',
        kind: 'Eviction',
        metadata: { name: path.split('/').at(-1), namespace: ns },
      });
    },
    'CREATE of `binding`': bind({}),
    'CREATE of `binding` that annotates the pod': bind({ annotations: { a: '1' } }),
    'UPDATE of `ephemeralcontainers`': async (who) =>
      who.request(
        'PATCH',
        `${await onePod()}/ephemeralcontainers`,
        {
          spec: {
            ephemeralContainers: [
              {
                name: 'debug',
                image: 'registry.example.com/d:1',
                terminationMessagePolicy: 'File',
                imagePullPolicy: 'IfNotPresent',
              },
            ],
          },
        },
        'application/strategic-merge-patch+json',
      ),
    'UPDATE of `resize`': async (who) =>
      who.request(
        'PATCH',
        `${await onePod()}/resize`,
        { spec: { containers: [{ name: 'web', resources: moreCpu() }] } },
        'application/strategic-merge-patch+json',
      ),
    'CONNECT of `exec`': connect('exec?command=ls&stdout=1'),
    'CONNECT of `attach`': connect('attach?stdout=1'),
    'CONNECT of `portforward`': connect('portforward?ports=80'),
    "CONNECT of a pod's `proxy`": connect('proxy/'),
    "CONNECT of a Service's `proxy`": (who) => who.request('POST', `${core}/services/web/proxy/`),
    "CONNECT of a node's `proxy` that acts in a pod": throughNode(`/exec/${ns}/web/web`),
    "CONNECT of a node's `proxy` by any other path": throughNode('/cri/exec/x'),
    "CONNECT of a node's `proxy` that reads": throughNode('/metrics/cadvisor'),
    "CONNECT of a node's `proxy` that acts in a namespace that is not governed": throughNode('/exec/default/web/web'),
    'CREATE of `token` of a ServiceAccount': (who) =>
      who.request('POST', `${core}/serviceaccounts/default/token`, {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        spec: { audiences: ['a'] },
      }),
    'CREATE of a Lease': (who) =>
      who.request('POST', `/apis/coordination.k8s.io/v1/namespaces/${ns}/leases`, {
        apiVersion: 'coordination.k8s.io/v1',
        kind: 'Lease',
        metadata: metadata(fresh()),
        spec: {},
      }),
    'CREATE of a LocalSubjectAccessReview': (who) =>
      who.request('POST', `/apis/authorization.k8s.io/v1/namespaces/${ns}/localsubjectaccessreviews`, {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'LocalSubjectAccessReview',
        metadata: { namespace: ns },
        spec: { user: 'x', resourceAttributes: { namespace: ns, verb: 'get', resource: 'pods' } },
      }),
    'CREATE of an Event': (who) =>
      who.request('POST', `${core}/events`, {
        apiVersion: 'v1',
        kind: 'Event',
        metadata: metadata(fresh()),
        involvedObject: { kind: 'Pod', namespace: ns, name: 'x' },
      }),
    // Where the kind is not there it cannot be refused either; admission.test.ts writes one.
    'CREATE of a Report (openreports.io)': (who) =>
      who.request('POST', `/apis/openreports.io/v1alpha1/namespaces/${ns}/reports`, {
        apiVersion: 'openreports.io/v1alpha1',
        kind: 'Report',
        metadata: metadata(fresh()),
      }),
    'CREATE of Endpoints': (who) =>
      who.request('POST', `${core}/endpoints`, { apiVersion: 'v1', kind: 'Endpoints', metadata: metadata(fresh()) }),
    'UPDATE of the Namespace': (who) =>
      who.request('PATCH', `/api/v1/namespaces/${ns}`, { metadata: { labels: { touched: fresh() } } }, MERGE),
    // Where it is let through, as a dry run: the namespace is still needed. That is answered as the real thing, and not
    // recorded.
    'UPDATE of `status` of the Namespace that changes metadata': (who) =>
      who.request('PATCH', `/api/v1/namespaces/${ns}/status`, { metadata: { labels: { touched: fresh() } } }, MERGE),
    'DELETE of the Namespace': (who) => {
      const cells = table.rows.find((r) => r.name === 'DELETE of the Namespace')?.cells ?? [];
      const isLetThrough = table.columns.some(
        (column, i) => people[column] === who && cells[i] === 'yes' && column === now,
      );
      return who.request('DELETE', `/api/v1/namespaces/${ns}${isLetThrough ? '?dryRun=All' : ''}`);
    },
    'CREATE of a cluster-scoped kind that is governed': (who) =>
      who.request('POST', '/apis/scheduling.k8s.io/v1/priorityclasses', {
        apiVersion: 'scheduling.k8s.io/v1',
        kind: 'PriorityClass',
        metadata: metadata(fresh()),
        value: 1,
      }),
    'CREATE of a cluster-scoped kind that is not': (who) =>
      who.request('POST', '/apis/rbac.authorization.k8s.io/v1/clusterroles', {
        apiVersion: 'rbac.authorization.k8s.io/v1',
        kind: 'ClusterRole',
        metadata: metadata(fresh()),
        rules: [],
      }),
    'CREATE in a namespace that is not governed': (who) =>
      who.request('POST', '/api/v1/namespaces/default/configmaps', cm()),
  };
  assert.deepEqual(table.columns, Object.keys(people));
  assert.deepEqual(
    table.rows.map((r) => r.name),
    Object.keys(requests),
  );
  const wrong: string[] = [];
  for (const [i, column] of table.columns.entries()) {
    const who = people[column] as ApiServer;
    now = column;
    if (column === 'on call, open') {
      const annotations = { 'countersign.dev/break-glass': 'INC-1', 'countersign.dev/break-glass-for': '20m' };
      assert.equal(
        (await who.request('PATCH', `/api/v1/namespaces/${ns}`, { metadata: { annotations } }, MERGE)).status,
        200,
      );
    }
    for (const { name, cells } of table.rows) {
      const user = names.get(column) ?? '';
      const before = recorded(service, 'production', user);
      const answer = await (requests[name] ?? assert.fail(name))(who);
      if (answer.status === 500) assert.doesNotMatch(String(answer.body['message']), /failed calling webhook/);
      const more = recorded(service, 'production', user) - before; // a record precedes its answer
      const told = isRefused(answer)
        ? 'no'
        : more > 0 || (name.startsWith('DELETE of the Namespace') && answer.status === 200)
          ? 'yes'
          : 'not asked';
      if (told !== cells[i])
        wrong.push(
          `${column}: ${name}: ${told}, and the page says ${cells[i]} (${answer.status} ${String(answer.body['message']).slice(0, 200)})`,
        );
    }
  }
  assert.deepEqual(wrong, []);
});

test('a path to a kubelet that is spelled in another way is taken for one that acts in a governed pod', async () => {
  const ns = 'matrix-nodes';
  const { service } = await stage.running(ns);
  const [dev, machinery, oncall] = [await stage.as('dev'), await stage.as('aggregator'), await stage.as('oncall')];
  const through = (path: string) => `/api/v1/nodes/node-a/proxy${path}`;
  const acting = ['run', 'exec', 'attach', 'portForward', 'checkpoint'].map((act) => `/${act}/${ns}/web/web`);
  const strange = [
    '',
    '/',
    '/exec',
    `/exec/${ns}`,
    `//exec/${ns}/web/web`,
    `/exec//${ns}/web/web`,
    `/exec/default/..%2f${ns}/web/web`,
    `/exec/default%2f..%2f${ns}/web/web`,
    `/Exec/default/web/web`,
    `/pods/..%2fexec/${ns}/web/web`,
    `/pods/%2e%2e%2fexec/${ns}/web/web`,
    '/pods%2f..%2fexec',
    '/metrics2',
    '/debug/pprof/profile',
    '/cri/exec/x',
    '/new-in-some-version',
  ];
  for (const path of [...acting, ...strange])
    for (const who of [dev, machinery, oncall]) {
      const answer = await who.request('POST', through(path));
      assert.ok(isRefused(answer), `${path}: ${answer.status} ${answer.body['message']}`);
    }
  const refused = await dev.request('POST', through(acting[0] ?? ''));
  assert.match(String(refused.body['message']), /Pod matrix-nodes\/web is governed by the environment `production`/);
  const reading = ['/healthz', '/metrics', '/metrics/cadvisor', '/stats/summary', '/pods', '/pods/', '/configz'];
  const elsewhere = [
    '/run/default/web/web',
    `/exec/${ns}-2/web/web`,
    '/exec/default/web/web',
    `/containerLogs/${ns}/web/web`,
  ];
  for (const path of [...reading, ...elsewhere])
    assert.ok(!isRefused(await dev.request('GET', through(path))), `${path} is not of the gate`);
  const annotations = { 'countersign.dev/break-glass': 'INC-1' };
  const opened = await oncall.request('PATCH', `/api/v1/namespaces/${ns}`, { metadata: { annotations } }, MERGE);
  assert.equal(opened.status, 200);
  for (const path of [acting[1] ?? '', '/cri/exec/x']) {
    assert.ok(!isRefused(await oncall.request('POST', through(path))), `${path} while break-glass is open`);
    assert.ok(isRefused(await dev.request('POST', through(path))), 'by nobody else');
  }
  const used = service.entries('breakglass.used', 'production').map(({ entry }) => entry.object);
  assert.deepEqual(
    used.map((o) => [o.kind, o.namespace, o.name]),
    [
      ['Pod', ns, 'web'],
      ['Node', '', 'node-a'],
    ],
  );
});

test('modes, and the ledger: every cell of the table', async () => {
  const modes = ['enforce', 'warn', 'audit', 'off'] as const;
  const fleet = stage.fleet('modes');
  const configuration = stage.configuration(
    'modes',
    modes.map((mode) => ({
      name: mode,
      url: fleet.url,
      path: `clusters/${mode}`,
      namespaces: [`mode-${mode}`],
      mode,
      interval: '10m',
      spec: { drift: { mode: 'report' } },
    })),
  );
  const first = await stage.change(
    fleet,
    'all',
    Object.fromEntries(
      modes.map((m) => [
        `clusters/${m}/all.yaml`,
        `${namespace(`mode-${m}`)}---\n${configMap(`mode-${m}`, 'settings', { a: '1' })}`,
      ]),
    ),
  );
  const service = await stage.serve(configuration, 'modes', ['--heartbeat', '1h']);
  for (const m of modes) await service.entry('apply.result', m, (r) => r.revision === first && r.outcome === 'applied');
  const [dev, oncall, controller] = [await stage.as('dev'), await stage.as('oncall'), await stage.as('controller')];
  let serial = 0;
  const write = async (who: ApiServer, mode: string, annotations: object = {}) => {
    const name = `x-${serial++}`;
    const body = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, annotations } };
    const answer = await who.request('POST', `/api/v1/namespaces/mode-${mode}/configmaps`, body);
    return { name, ...answer };
  };
  const glass = (mode: string) => write(oncall, mode, { 'countersign.dev/break-glass': `INC-${serial}` });
  const columns: Record<string, (mode: string) => ReturnType<typeof write>> = {
    'developer writes': (mode) => write(dev, mode),
    'developer writes, ledger away': (mode) => write(dev, mode),
    'break-glass': glass,
    'break-glass, ledger away': glass,
    'machinery, ledger away': (mode) => write(controller, mode),
  };
  const table = tableUnder('Modes, and the ledger');
  assert.deepEqual(table.columns, Object.keys(columns));
  const wrong: string[] = [];
  const beside: { mode: string; name: string; column: string }[] = [];
  const ask = async (mode: string, column: string, expected: string) => {
    const answer = await (columns[column] ?? assert.fail())(mode);
    const warned = answer.warnings.some((w) => /not enforced yet/.test(w));
    const isBeside =
      readFileSync(`${service.data}/write-ahead.jsonl`, { encoding: 'utf8', flag: 'a+' }).includes(
        `"${answer.name}"`,
      ) ||
      (column.startsWith('machinery') &&
        readFileSync(`${service.data}/write-ahead.jsonl`, 'utf8').includes(answer.name));
    const told = isRefused(answer)
      ? 'no'
      : warned
        ? 'yes, with a warning'
        : isBeside
          ? 'yes, beside the ledger'
          : 'yes';
    const matches =
      expected === 'yes, silently'
        ? answer.status === 201 && !warned
        : expected === 'not asked'
          ? told === 'yes'
          : told === expected;
    if (!matches)
      wrong.push(
        `${mode}: ${column}: ${told}, and the page says ${expected} (${answer.status} ${String(answer.body['message']).slice(0, 200)})`,
      );
    if (expected.includes('beside')) beside.push({ mode, name: answer.name, column });
  };
  const cell = (mode: string, column: string) =>
    table.rows.find((r) => r.name === `\`${mode}\``)?.cells[table.columns.indexOf(column)] ?? assert.fail(mode);
  for (const mode of modes)
    for (const column of table.columns.filter((c) => !c.includes('away'))) await ask(mode, column, cell(mode, column));
  // Somebody else holds the write lock: nothing can be committed.
  const lock = new DatabaseSync(`${service.data}/ledger.db`, { timeout: 30_000 }); // the service may be writing
  lock.exec('BEGIN IMMEDIATE');
  try {
    for (const mode of modes)
      for (const column of table.columns.filter((c) => c.includes('away'))) await ask(mode, column, cell(mode, column));
  } finally {
    lock.exec('ROLLBACK');
    lock.close();
  }
  assert.deepEqual(wrong, []);
  await service.says('from the write-ahead file are on it now', 30_000);
  for (const { mode, name, column } of beside) {
    if (column.startsWith('machinery')) {
      const rows = service
        .entries('admission.allowed', mode)
        .flatMap(({ entry }) => service.evidence<AdmittedRequest[]>(entry.evidence));
      assert.equal(rows.filter((r) => r.object.name === name).length, 1, `${mode} ${name}`);
    } else {
      const uses = service.entries('breakglass.used', mode).filter(({ entry }) => entry.object.name === name);
      assert.equal(uses.length, 1, `${mode} ${name}: ${uses.length}`);
    }
  }
});
