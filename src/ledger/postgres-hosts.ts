import { CountersignError } from '../model/index.ts';
import type { Query } from './postgres-term.ts';

export type Host = { readonly host: string; readonly port: number };

/** A server as it describes itself. */
export type Server = {
  readonly at: string;
  readonly isStandby: boolean;
  /** Grows with each promotion; 0 where the server does not tell. */
  readonly timeline: number;
  /** Whether a standby has an entry before it is acknowledged. */
  readonly isCopied: boolean;
};

export async function describeServer({ host, port }: Host, query: Query): Promise<Server> {
  const [row] = await query(
    "SELECT pg_is_in_recovery() AS standby, current_setting('synchronous_standby_names') <> '' AS copied",
  );
  const isStandby = row?.['standby'] === true;
  const sql = 'SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline';
  const [name] = isStandby ? [] : await query(sql).catch(() => []); // some hosted databases have no such function
  const timeline = Number.parseInt(String(name?.['timeline']), 16) || 0;
  return { at: `${host}:${port}`, isStandby, timeline, isCopied: row?.['copied'] === true };
}

/**
 * Returns the server to write to: of those that accept writes, the one promoted last. Throws `ledger-unusable` (retry)
 * if there is none, or if it is older than one that this process wrote to.
 */
export function chooseServer<T extends { readonly server: Server }>(
  reached: readonly T[],
  newest: number,
  warn: (message: string) => void,
): T {
  const writable = reached
    .filter(({ server }) => !server.isStandby)
    .toSorted((a, b) => b.server.timeline - a.server.timeline);
  const [first, ...others] = writable;
  if (first === undefined)
    throw unusable('no host of the ledger’s database accepts writes: every one that answers is a standby', {
      hint: 'promote a standby, for example with `pg_ctl promote`',
    });
  if (first.server.timeline < newest)
    throw unusable(
      `the ledger’s database at \`${first.server.at}\` is of timeline ${first.server.timeline}, ` +
        `but another was promoted since: timeline ${newest}`,
      { hint: `shut \`${first.server.at}\` down, and make it a standby of the other one (\`pg_rewind\`)` },
    );
  for (const { server } of others)
    warn(
      `two hosts of the ledger’s database accept writes: \`${first.server.at}\` is used; shut \`${server.at}\` down`,
    );
  return first;
}

function unusable(message: string, { hint }: { readonly hint: string }): CountersignError {
  return new CountersignError('ledger-unusable', message, { recover: 'retry', hint });
}
