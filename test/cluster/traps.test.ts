import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tool } from '../../scripts/tools.ts';
import { buildBundle } from '../../src/bundle/index.ts';
import { deployment } from '../kit/manifests.ts';
import { filesIn } from '../kit/rules.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// Changes that a server-side apply alone does not bring about: fields that no one owns stay.
const PATH = 'clusters/production';
const directory = scratch();
const stage = await openStage(directory);

// The shipped rules would not let a Secret into the repository at all.
const bundle = join(directory, 'rules.tar.gz');
const root = filesIn({ 'r.rego': 'package countersign.object\ndeny contains "never" if input.object.kind == "Never"' });
writeFileSync(bundle, (await buildBundle({ opa: await tool('opa'), roots: [root] })).archive);

const secret = (ns: string, stringData: object) =>
  JSON.stringify({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'keys', namespace: ns }, stringData });
const ports = (ns: string, list: readonly object[]) =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: ns },
    spec: { ports: list },
  });
const web = (ns: string, from: string, to: string) => {
  const text = deployment(ns, 'web');
  assert.ok(text.includes(from));
  return text.replace(from, to);
};
const probe = '            httpGet:\n              path: /ready\n              port: 8080\n';
const volume = (source: object) => `      volumes: [${JSON.stringify({ name: 'v', ...source })}]\n      containers:`;
const strategy = '/spec/strategy';

type Trap = {
  readonly before: (ns: string) => string;
  readonly after: (ns: string) => string;
  readonly path: (ns: string) => string;
  readonly at: string;
  readonly is: unknown;
};
const core = (plural: string, name: string) => (ns: string) => `/api/v1/namespaces/${ns}/${plural}/${name}`;
const deployed = (ns: string) => `/apis/apps/v1/namespaces/${ns}/deployments/web`;

const TRAPS: Readonly<Record<string, Trap>> = {
  'a key of `stringData` that Git drops': {
    before: (ns) => secret(ns, { a: '1', b: '2' }),
    after: (ns) => secret(ns, { a: '1' }),
    ...{ path: core('secrets', 'keys'), at: '/data', is: { a: 'MQ==' } },
  },
  'RollingUpdate becomes Recreate': {
    before: (ns) => deployment(ns, 'web'),
    after: (ns) => web(ns, '  selector:', '  strategy: {type: Recreate}\n  selector:'),
    ...{ path: deployed, at: strategy, is: { type: 'Recreate' } },
  },
  'Recreate becomes RollingUpdate': {
    before: (ns) => web(ns, '  selector:', '  strategy: {type: Recreate}\n  selector:'),
    after: (ns) => deployment(ns, 'web'),
    path: deployed,
    at: strategy,
    is: { type: 'RollingUpdate', rollingUpdate: { maxSurge: '25%', maxUnavailable: '25%' } },
  },
  'a probe by HTTP becomes one by TCP': {
    before: (ns) => deployment(ns, 'web'),
    after: (ns) => web(ns, probe, '            tcpSocket: {port: 8080}\n'),
    path: deployed,
    at: '/spec/template/spec/containers/0/readinessProbe/httpGet',
    is: undefined,
  },
  'a volume from a ConfigMap becomes an empty one': {
    before: (ns) => web(ns, '      containers:', volume({ configMap: { name: 'settings' } })),
    after: (ns) => web(ns, '      containers:', volume({ emptyDir: {} })),
    ...{ path: deployed, at: '/spec/template/spec/volumes', is: [{ name: 'v', emptyDir: {} }] },
  },
  'a port of a Service becomes one of UDP': {
    before: (ns) => ports(ns, [{ port: 53, name: 'dns' }]),
    after: (ns) => ports(ns, [{ port: 53, name: 'dns', protocol: 'UDP' }]),
    ...{ path: core('services', 'web'), at: '/spec/ports/0/protocol', is: 'UDP' },
  },
};

for (const [index, [what, trap]] of Object.entries(TRAPS).entries())
  test(`${what}: the cluster is as Git has it, and stays without drift`, async () => {
    const ns = `trap-${index}`;
    const file = `${PATH}/object.yaml`;
    const { fleet, service } = await stage.running(
      ns,
      {},
      { files: { [file]: trap.before(ns) }, environment: { policies: { bundles: [{ file: bundle }] } } },
    );
    const next = await stage.change(fleet, what, { [file]: trap.after(ns) });
    await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
    const { body } = await stage.get(trap.path(ns));
    const found = trap.at
      .slice(1)
      .split('/')
      .reduce<unknown>((at, key) => (at as Record<string, unknown>)?.[key], body);
    assert.deepEqual(found, trap.is);
    assert.deepEqual(service.entries('drift.found', 'production'), []);
    // A later change finds an object without anything that is not in Git.
    const back = await stage.change(fleet, 'back', { [file]: trap.before(ns) });
    await service.entry('apply.result', 'production', (e) => e.revision === back && e.outcome === 'applied');
  });
