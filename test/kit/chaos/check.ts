import { DatabaseSync } from 'node:sqlite';
import { countersign } from '../service.ts';
import type { Actors } from './actors.ts';
import { ENVIRONMENTS, type World } from './world.ts';

type Row = { readonly seq: number; readonly leaf: string; readonly type: string; readonly body: string };
type Entry = {
  readonly type: string;
  readonly environment?: string;
  readonly revision?: string;
  readonly intent?: number;
  readonly user?: string;
  readonly uid?: string;
  readonly object?: { readonly name: string };
};

/** Returns what went wrong, judged by what was pushed and asked; empty if all is well. Counts are for the reader. */
export async function problemsOf(
  world: World,
  actors: Actors,
): Promise<{ readonly problems: readonly string[]; readonly counts: Readonly<Record<string, number>> }> {
  const rows = (await world.databases.ask(
    "SELECT seq::int AS seq, encode(leaf, 'hex') AS leaf, type, body FROM countersign.entry ORDER BY seq",
  )) as Row[];
  const entries = rows.map((r) => JSON.parse(r.body) as Entry);
  const problems = [
    ...(await copyProblems(world, rows)),
    ...personProblems(actors, entries),
    ...changeProblems(actors, entries),
    ...ownProblems(entries),
  ];
  const of = (type: string) => entries.filter((e) => e.type === type).length;
  return {
    problems,
    counts: {
      entries: entries.length,
      pushed: actors.pushed.length,
      'versions in the cluster': actors.seen.length,
      intents: of('apply.intent'),
      'uses of break-glass': of('breakglass.used'),
      refusals: of('admission.denied'),
      'asked by people': actors.asked.length,
    },
  };
}

// Every replica's copy is whole, and the same as the database, leaf by leaf.
async function copyProblems(world: World, rows: readonly Row[]): Promise<string[]> {
  const found: string[] = [];
  for (const { name, service } of world.replicas) {
    const { code, stdout, stderr } = await countersign(['ledger', 'verify', '--data', service.data]);
    if (code !== 0) found.push(`the copy of ${name} is not verified: ${(stdout + stderr).slice(0, 300)}`);
    const copy = new DatabaseSync(`${service.data}/ledger.db`, { readOnly: true, timeout: 30_000 });
    const leaves = copy.prepare('SELECT lower(hex(leaf)) AS leaf FROM entry ORDER BY seq').all();
    copy.close();
    const other = leaves.findIndex(({ leaf }, i) => leaf !== rows[i]?.leaf);
    if (other >= 0) found.push(`the copy of ${name} differs from the database at entry ${other}`);
    if (leaves.length < rows.length) found.push(`the copy of ${name} has ${leaves.length} of ${rows.length} entries`);
  }
  return found;
}

function personProblems({ asked }: Actors, entries: readonly Entry[]): string[] {
  const refused = new Set(entries.filter((e) => e.type === 'breakglass.refused').map((e) => e.uid));
  const used = new Map<string, number>();
  for (const { type, object, uid } of entries)
    if (type === 'breakglass.used' && !refused.has(uid))
      used.set(object?.name ?? '', (used.get(object?.name ?? '') ?? 0) + 1);
  const found: string[] = [];
  for (const { who, name, status, message } of asked) {
    const uses = used.get(name) ?? 0;
    if (who === 'dev' && status === 201) found.push(`${name} was let through without a verdict`);
    if (who !== 'oncall') continue;
    if (status === 201 && uses === 0) found.push(`break-glass ${name} was let through and is not on the ledger`);
    // The API server sends a request again when the connection broke: each of them was asked.
    if (status === 429 && uses > 0)
      found.push(`break-glass ${name} was refused (${message}) and is on the ledger as used`);
  }
  return found;
}

function changeProblems({ pushed, seen }: Actors, entries: readonly Entry[]): string[] {
  const found: string[] = [];
  for (const environment of ENVIRONMENTS) {
    const versions = seen.filter((s) => s.environment === environment);
    versions.forEach(({ count }, i) => {
      if (count < (versions[i - 1]?.count ?? 0)) found.push(`${environment} went back to ${count}`);
      const intended = pushed.find((p) => p.environment === environment && p.count === count)?.commit;
      if (count > 0 && !entries.some((e) => e.type === 'apply.intent' && e.revision === intended))
        found.push(`${environment} had ${count} without an intent`);
    });
    const last = pushed.findLast((p) => p.environment === environment)?.count;
    if (versions.at(-1)?.count !== last) found.push(`${environment} is not at ${last}, the last that was pushed`);
  }
  const results = entries.filter((e) => e.type === 'apply.result').map((e) => e.intent);
  if (new Set(results).size !== results.length) found.push('an intent has two results');
  return found;
}

// The gate must not refuse what it writes itself: that would look like an attack in every report.
function ownProblems(entries: readonly Entry[]): string[] {
  const own = entries.filter((e) => e.type === 'admission.denied' && e.user?.includes('serviceaccount:countersign'));
  return own.length === 0 ? [] : [`${own.length} writes of the service's own account were refused`];
}
