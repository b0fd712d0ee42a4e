import { availableParallelism } from 'node:os';
import type { CommitFacts, SignatureFact, TrustPolicy, ViolationCode } from '../model/index.ts';
import { examineCommit, type ReadCommit } from './examine-commit.ts';
import { SignatureThreads } from './signature-threads.ts';
import type { TrustStore } from './trust-store.ts';

/** A commit as read from a repository: parsed, or refused with a code. */
export type HistoryItem =
  | ({ readonly kind: 'commit' } & ReadCommit)
  | { readonly kind: 'malformed'; readonly id: string; readonly code: ViolationCode; readonly reason: string };

/** Facts about one commit of a history. */
export type Examined =
  | { readonly kind: 'facts'; readonly facts: CommitFacts }
  | { readonly kind: 'malformed'; readonly id: string; readonly code: ViolationCode; readonly reason: string };

/** A history as read from a repository, in batches, parents before children. */
export type HistorySource = {
  readonly ids: (from: string, to: string) => AsyncIterable<readonly string[]>;
  readonly read: (ids: readonly string[]) => Promise<readonly HistoryItem[]>;
};

const MAX_THREADS = 4; // each takes about 60 MiB; one thread reads and splits for all, which keeps about four busy
const INLINE = 1500; // commits that one thread finishes before others would have started
const MAX_KEPT = 100_000; // facts kept for the next check, some hundred bytes each

/**
 * Facts from the previous check, so that the next one only examines new commits. They hold as long as the keys do:
 * under a different TrustPolicy digest, everything is examined again.
 */
export class KnownHistory {
  #digest = '';
  #last: { readonly from: string; readonly to: string; readonly examined: readonly Examined[] } | undefined;

  /** Returns the facts from the same start, if the keys are the same. */
  last(store: TrustStore, from: string): { readonly to: string; readonly examined: readonly Examined[] } | undefined {
    return this.#digest === store.digest && this.#last?.from === from ? this.#last : undefined;
  }

  keep(store: TrustStore, range: { readonly from: string; readonly to: string }, examined: readonly Examined[]): void {
    this.#digest = store.digest;
    this.#last = examined.length > MAX_KEPT ? undefined : { ...range, examined };
  }
}

/**
 * Examines every commit of `from..to`, parents before children, with memory independent of their number. Long histories
 * are spread over `threads` besides this one (default: one per additional core, at most four).
 */
export async function* examineHistory(
  source: HistorySource,
  range: { readonly from: string; readonly to: string },
  store: TrustStore,
  options: { readonly threads?: number } = {},
): AsyncGenerator<Examined> {
  const threads = options.threads ?? Math.min(MAX_THREADS, availableParallelism() - 1);
  let pool: SignatureThreads | undefined;
  const ahead: Promise<readonly Examined[]>[] = [];
  let done = 0;
  try {
    for await (const ids of source.ids(range.from, range.to)) {
      if (done >= INLINE && threads > 0) pool ??= new SignatureThreads(store.policy, threads);
      const batch = examineBatch(source, ids, store, pool);
      batch.catch(() => {}); // reported when awaited; until then it must not count as an unhandled rejection
      ahead.push(batch);
      done += ids.length;
      if (ahead.length > (pool === undefined ? 1 : threads + 1))
        yield* await (ahead.shift() as Promise<readonly Examined[]>);
    }
    for (const batch of ahead.splice(0)) yield* await batch;
  } finally {
    await Promise.allSettled(ahead);
    await pool?.close();
  }
}

/** Examines some commits again, with other keys. */
export async function examineCommits(
  source: HistorySource,
  ids: readonly string[],
  store: TrustStore,
): Promise<readonly Examined[]> {
  const all: Examined[] = [];
  for (let i = 0; i < ids.length; i += 512)
    all.push(...(await examineBatch(source, ids.slice(i, i + 512), store, undefined)));
  return all;
}

async function examineBatch(
  source: HistorySource,
  ids: readonly string[],
  store: TrustStore,
  pool: SignatureThreads | undefined,
): Promise<readonly Examined[]> {
  const items = await source.read(ids);
  const elsewhere = pool === undefined ? undefined : await pool.examine(items.flatMap(signedPartsOf));
  let next = 0;
  const examine = elsewhere === undefined ? undefined : async () => elsewhere[next++] as SignatureFact;
  const examined: Examined[] = [];
  for (const item of items)
    examined.push(
      item.kind === 'malformed' ? item : { kind: 'facts', facts: await examineCommit(item, store, examine) },
    );
  return examined;
}

// Same order as in `examineCommit`: first the tags a merge carries, then the commit itself.
function signedPartsOf(item: HistoryItem): { payload: Uint8Array; signature: string | undefined }[] {
  if (item.kind === 'malformed') return [];
  return [...item.mergeTags, item.commit].map(({ payload, signature }) => ({ payload, signature }));
}

/** Data a thread is started with. */
export type ThreadData = { readonly policy: TrustPolicy };
