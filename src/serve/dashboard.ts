import { createServer } from 'node:http';
import type { LedgerView } from '../gate/index.ts';
import { breakGlassNow } from '../gate/index.ts';
import { createDashboard, type DashboardView } from '../http/index.ts';
import { CountersignError, type EntryOf, type EntryType, type Recorded, refText } from '../model/index.ts';
import type { Reconciler } from '../reconcile/index.ts';
import { plain } from '../terminal/index.ts';
import { guardConnections } from '../webhook/index.ts';
import type { AdmissionFront } from './admission-front.ts';
import { closeServer, listen, listenAddress } from './listen.ts';
import type { Serving } from './open-serving.ts';
import type { ServeOptions } from './options.ts';

const NEWEST = 20; // verdicts, and as many refusals
const LOOPBACK = ['localhost', '127.0.0.1', '[::1]'];

/** Opens the dashboard if `--dashboard` is given. Throws `usage` or `port-in-use`. */
export async function openDashboard(
  loops: readonly Reconciler[],
  serving: Serving<ServeOptions>,
  front: AdmissionFront | undefined,
): Promise<void> {
  const { options, log, closing } = serving;
  if (options.dashboard === 'off') return;
  const { host, port } = listenAddress(options.dashboard, '--dashboard');
  const isHere = LOOPBACK.includes(host);
  const app = createDashboard({
    view: () => dashboardView(loops, serving, front),
    hosts: isHere ? LOOPBACK : undefined,
  });
  const server = createServer({ requestTimeout: 15_000, headersTimeout: 10_000 }, app);
  guardConnections(server);
  await listen(server, host.replace(/^\[(.*)\]$/, '$1'), port, '--dashboard');
  closing.push(() => closeServer(server));
  if (!isHere)
    log.warn(
      { dashboard: options.dashboard },
      'the dashboard has no login: put an authenticating proxy before it, or use 127.0.0.1',
    );
  log.info({ dashboard: `http://${options.dashboard}/` }, 'the dashboard is in place');
}

function dashboardView(
  loops: readonly Reconciler[],
  { recorder, ledger }: Serving,
  front: AdmissionFront | undefined,
): DashboardView {
  const at = new Date().toISOString();
  const names = loops.map((l) => l.name);
  const refused = newestRefused(recorder, names);
  return {
    at,
    ledger: { name: plain(ledger.verifier.name), entries: ledger.size },
    environments: loops.map(({ name, status }) => {
      const { open, unsettled } = breakGlassNow(recorder, front, name, at);
      const { current, progressing, failed, missing, trouble } = status.health;
      return {
        name,
        state: status.state,
        message: plain(status.message),
        revision: status.revision,
        tip: status.tip,
        looked: status.looked,
        healthy: current,
        objects: current + progressing + failed + missing,
        trouble: trouble.map(plain),
        grants: open.map((g) => ({
          namespaces: g.namespaces.map(plain),
          until: g.until,
          user: plain(g.user),
          reason: plain(g.reason),
          ticket: plain(g.ticket),
        })),
        unsettled: unsettled.length,
      };
    }),
    changes: newest(recorder, ['change.judged'], names).map(({ index, entry }) => ({
      entry: index,
      time: entry.time,
      environment: entry.environment,
      outcome: entry.outcome,
      revision: entry.to,
      violations: entry.violations,
    })),
    refused: refused.rows.map(({ index, entry }) => ({
      entry: index,
      time: entry.time,
      environment: entry.environment,
      user: plain(entry.user),
      request: plain(`${entry.operation} ${refText(entry.object)}`),
      letThrough: entry.type === 'admission.warned' || entry.mode === 'audit',
      reason: plain(entry.reason),
    })),
    ...(refused.archived === undefined ? {} : { refusedBefore: plain(refused.archived) }),
  };
}

// Merges all environments, newest first: only the environment whose entry was taken is asked for its next one.
// Older entries may be archived, and not at hand: the page says so in place of them.
function newestRefused(
  ledger: LedgerView,
  environments: readonly string[],
): { readonly rows: ReturnType<typeof newest<'admission.denied' | 'admission.warned'>>; readonly archived?: string } {
  const rows: ReturnType<typeof newest<'admission.denied' | 'admission.warned'>> = [];
  try {
    newest(ledger, ['admission.denied', 'admission.warned'], environments, rows);
    return { rows };
  } catch (thrown) {
    if (!(thrown instanceof CountersignError) || thrown.code !== 'entry-archived') throw thrown;
    return { rows, archived: thrown.message };
  }
}

function newest<T extends EntryType>(
  ledger: LedgerView,
  types: readonly T[],
  environments: readonly string[],
  found: Recorded<EntryOf<T>>[] = [],
): Recorded<EntryOf<T>>[] {
  const heads = new Map(environments.map((name) => [name, ledger.latest(types, name)]));
  while (found.length < NEWEST) {
    let of: string | undefined;
    let head: Recorded<EntryOf<T>> | undefined;
    for (const [name, one] of heads)
      if (one !== undefined && (head === undefined || one.index > head.index)) [of, head] = [name, one];
    if (of === undefined || head === undefined) return found;
    found.push(head);
    heads.set(of, ledger.latest(types, of, head.index));
  }
  return found;
}
