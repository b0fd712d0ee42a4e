import type { Environment } from '../model/index.ts';
import type { TrustStore } from '../trust/index.ts';
import type { LedgerView, OpenPolicy, SourceRepository } from './ports.ts';

/** The TrustPolicy in force at a commit, and how to find later versions on the line. */
export type TrustInForce = {
  readonly store: TrustStore;
  readonly line:
    | {
        readonly path: string;
        readonly begun: boolean;
        readonly at: (commit: string) => Promise<TrustStore | undefined>;
      }
    | undefined;
};

type Parts = {
  readonly environment: Environment;
  readonly repository: SourceRepository;
  readonly trust: TrustStore;
  readonly openPolicy: OpenPolicy;
  readonly ledger: LedgerView | undefined;
};

/**
 * Returns the configuration's policy or, with `spec.trustPath`, the one in the repository at `from`. With a ledger, it
 * must be a version that was recorded when its change was allowed. Until then the configuration's policy judges, and
 * its roots approve the first version too. Without a ledger the file at `from` is trusted, because `from` is the branch
 * as it is.
 */
export async function trustInForce(
  { environment, repository, trust, openPolicy, ledger }: Parts,
  from: string,
  started: boolean,
): Promise<TrustInForce> {
  const path = environment.spec.trustPath;
  if (path === undefined) return { store: trust, line: undefined };
  const opened = new Map<string, Promise<TrustStore>>(); // by blob: the file rarely changes along a line
  const at = async (commit: string) => {
    const file = await repository.file(commit, path);
    if (file === undefined) return undefined;
    const store = opened.get(file.id) ?? openPolicy(file.text, path);
    opened.set(file.id, store);
    return store;
  };
  const present = started ? await at(from) : undefined;
  if (present === undefined || !isRecorded(ledger, environment.metadata.name, present, trust))
    return { store: trust, line: { path, begun: false, at } };
  return { store: present, line: { path, begun: true, at } };
}

function isRecorded(
  ledger: LedgerView | undefined,
  environment: string,
  store: TrustStore,
  configured: TrustStore,
): boolean {
  return (
    ledger === undefined ||
    store.digest === configured.digest ||
    ledger.all('trust.changed', environment).some(({ entry }) => entry.after === store.digest)
  );
}
