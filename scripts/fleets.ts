import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { buildBundle } from '../src/bundle/index.ts';
import { filesIn } from '../test/kit/rules.ts';
import { countersign, type Service, until } from '../test/kit/service.ts';
import { Stage } from '../test/kit/stage.ts';
import { tool } from './tools.ts';

// Other people's fleets, unchanged, through the service on a control plane with controllers and stand-in nodes, under
// `enforce`, with the account of `countersign manifests --grant-roles`:
// `node scripts/fleets.ts FLEETS.json [only=NAME,NAME]`.
// FLEETS.json is a list; each entry names a Git repository on this machine (`git`), what to take from it (`take`), and
// the fields of an Environment. Nothing is fetched. Prints a table; exits with 1 unless all are healthy.
const fleetSchema = z.strictObject({
  name: z.string(),
  git: z.string(),
  /** Files and directories of its newest commit. */
  take: z.array(z.string()).default(['.']),
  path: z.string().default('.'),
  render: z.record(z.string(), z.unknown()).default({ with: 'plain' }),
  namespaces: z.array(z.string()),
  namespace: z.string().optional(),
  clusterScoped: z.array(z.unknown()).optional(),
  /** Volumes that something else provides: how many of a class. */
  volumes: z.record(z.string(), z.int()).default({}),
  /** More of the Environment's `spec`. */
  spec: z.record(z.string(), z.unknown()).default({}),
});
type PublicFleet = z.infer<typeof fleetSchema>;
type Row = readonly [name: string, objects: string, seconds: string, state: string, notes: string];

const LIMIT_MS = 180_000;
const QUIET_MS = 15_000; // for drift that something else makes afterwards

const [file, ...words] = process.argv.slice(2);
if (file === undefined) throw new Error('usage: node scripts/fleets.ts FLEETS.json [only=NAME,NAME]');
const only = words
  .find((w) => w.startsWith('only='))
  ?.slice(5)
  .split(',');
const fleets = z.array(fleetSchema).parse(JSON.parse(readFileSync(file, 'utf8')));
const directory = mkdtempSync(join(tmpdir(), 'countersign-fleets-'));
const stage = await Stage.open(directory, { grantRoles: true });
const rules = join(directory, 'rules.tar.gz');
// These fleets are tried for what the service can apply. What the built-in rules find in them is another question.
const root = filesIn({ 'r.rego': 'package countersign.object\ndeny contains "never" if input.object.kind == "Never"' });
writeFileSync(rules, (await buildBundle({ opa: await tool('opa'), roots: [root] })).archive);
const rows: Row[] = [];
try {
  for (const fleet of fleets.filter((f) => only?.includes(f.name) ?? true)) {
    process.stderr.write(`${fleet.name}: begins\n`);
    const row = await tried(fleet).catch((thrown: unknown): Row => [fleet.name, '', '', 'error', String(thrown)]);
    rows.push(row);
    process.stderr.write(`${row.join('  ')}\n`);
  }
} finally {
  await stage.close();
}
const titles: Row = ['fleet', 'objects', 'seconds', 'state', 'notes'];
const widths = titles.map((_, i) => Math.max(...[titles, ...rows].map((row) => row[i]?.length ?? 0)));
for (const row of [titles, ...rows])
  process.stdout.write(`${row.map((cell, i) => (i === 4 ? cell : cell.padEnd(widths[i] ?? 0))).join('  ')}\n`);
process.stdout.write(`the services' logs and ledgers are in ${directory}\n`);
process.exit(rows.every((row) => row[3] === 'applied') ? 0 : 1);

async function tried(fleet: PublicFleet): Promise<Row> {
  const { name, namespaces } = fleet;
  const repository = stage.fleet(name);
  const archive = execFileSync('git', ['-C', fleet.git, 'archive', 'HEAD', '--', ...fleet.take], {
    maxBuffer: 1 << 30,
  });
  execFileSync('tar', ['-x', '-C', repository.work], { input: archive });
  for (const namespace of namespaces)
    await stage.admin.request('POST', '/api/v1/namespaces', { metadata: { name: namespace } });
  for (const [storageClassName, count] of Object.entries(fleet.volumes))
    for (let i = 0; i < count; i++)
      await stage.admin.request('POST', '/api/v1/persistentvolumes', {
        metadata: { name: `${name}-${i}` },
        spec: {
          ...{
            capacity: { storage: '1Ti' },
            accessModes: ['ReadWriteOnce'],
            hostPath: { path: `/volumes/${name}/${i}` },
          },
          storageClassName,
        },
      });
  const configuration = stage.configuration(name, [
    {
      ...{ url: repository.url, namespaces, path: fleet.path, mode: 'enforce' },
      policies: { bundles: [{ file: rules }] },
      spec: {
        render: fleet.render,
        health: { wait: true, timeout: '2m' },
        ...fleet.spec,
        target: {
          namespaces,
          ...(fleet.namespace === undefined ? {} : { namespace: fleet.namespace }),
          ...(fleet.clusterScoped === undefined ? {} : { clusterScoped: fleet.clusterScoped }),
        },
      },
    },
  ]);
  const revision = await stage.change(repository, 'as it is', {});
  const begun = performance.now();
  const service = await stage.serve(configuration, name);
  try {
    await until(
      () => ended(service, revision) !== undefined,
      LIMIT_MS,
      () => `neither applied nor refused within ${LIMIT_MS / 1000} s`,
    );
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    return await judged(fleet, service, revision, seconds);
  } finally {
    await stage.stopServices();
  }
}

// The first of the entries that end a change, in words.
function ended(service: Service, revision: string): { readonly state: string; readonly notes: string } | undefined {
  const mine = (e: { readonly revision: string }) => e.revision === revision;
  const result = service.entries('apply.result', 'production').find((r) => mine(r.entry))?.entry;
  if (result !== undefined) return { state: result.outcome, notes: result.error ?? '' };
  const refused = service.entries('apply.refused', 'production').find((r) => mine(r.entry))?.entry;
  if (refused !== undefined) return { state: 'refused', notes: refused.error };
  const judged = service
    .entries('change.judged', 'production')
    .find((r) => r.entry.to === revision && r.entry.outcome === 'denied');
  if (judged === undefined) return undefined;
  const { violations } = service.evidence<{ violations: { message: string }[] }>(judged.entry.evidence);
  return {
    state: judged.entry.outcome,
    notes: violations
      .map((v) => v.message)
      .join('; ')
      .slice(0, 800),
  };
}

async function judged({ name }: PublicFleet, service: Service, revision: string, seconds: string): Promise<Row> {
  const { state, notes } = ended(service, revision) ?? { state: 'unknown', notes: '' };
  const applied = service.entries('apply.result', 'production').at(-1)?.entry.applied;
  if (state !== 'applied') return [name, '', seconds, state, notes];
  await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
  const drift = service.entries('drift.found', 'production').length;
  const hooks = service.entries('hook.ended', 'production').length;
  const { stdout } = await countersign(['exception', 'list', '--data', service.data, '--output', 'json']);
  const rows = JSON.parse(stdout) as { readonly type?: string; readonly cause?: string }[];
  const open = Array.isArray(rows) ? rows : [];
  return [
    name,
    String(applied),
    seconds,
    state,
    [
      `${hooks} hooks`,
      `${drift} drift`,
      `${open.length} exceptions${open
        .map((row) => `; ${row.cause}`)
        .slice(0, 3)
        .join('')}`,
    ].join(', '),
  ];
}
