import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Recheck, recheckVerdict } from '../gate/index.ts';
import {
  type GitProgram,
  openRepository,
  type Repository,
  readCommits,
  sourceRepository,
  verifyObjectId,
} from '../git/index.ts';
import type { LedgerReader } from '../ledger/index.ts';
import {
  CountersignError,
  canonicalJson,
  digestOf,
  type StatedConfiguration,
  sha256,
  type TrustPolicy,
  type Verdict,
} from '../model/index.ts';
import type { RecordedVerdict, SignedChange } from '../report/index.ts';
import { type HistoryItem, openTrustStore, type TrustStore } from '../trust/index.ts';

const MAX_BYTES = 64 * 1024 * 1024; // a first change may be a history of a hundred thousand commits

/**
 * Returns lines for `signed.jsonl`: the TrustPolicies, commit objects and envelopes that verdicts rest on. Each is
 * found by its hash, which the ledger names, so any source gives the same bytes. Missing ones are omitted.
 */
export async function signedObjects(
  reader: LedgerReader,
  changes: readonly SignedChange[],
  directories: readonly string[],
  git: GitProgram | undefined,
): Promise<string[]> {
  const repositories = directories.map((directory) => openRepository(directory, git));
  const lines = new Map<string, string>();
  let room = MAX_BYTES;
  const add = (key: string, line: object | undefined) => {
    if (line === undefined) return;
    const text = canonicalJson(line);
    room -= text.length;
    if (room > 0) lines.set(key, text);
  };
  try {
    const policies = recordedPolicies(reader);
    for (const { entry, ref } of changes) {
      const recorded = reader.entry(entry);
      if (recorded?.entry.type !== 'change.judged') continue;
      const verdict = reader.evidence(recorded.entry.evidence) as Verdict;
      for (const digest of [verdict.consulted.trustDigest, verdict.trustAfter ?? ''])
        if (!lines.has(digest) && policies.has(digest))
          add(digest, { trustPolicy: digest, policy: policies.get(digest) });
      for (const { commit, author, committer } of verdict.commits)
        if (!lines.has(commit) && !isErased(author) && !isErased(committer))
          add(commit, await commitFrom(repositories, commit));
      for (const { envelope, tree } of verdict.approvals)
        if (!lines.has(envelope)) add(envelope, await envelopeFrom(repositories, ref, tree, envelope));
    }
  } finally {
    for (const repository of repositories) repository.close();
  }
  return [...lines.values()];
}

/** Returns the Git directories that a service fetched. */
export function fetchedRepositories(data: string): string[] {
  const directory = join(data, 'git');
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .sort()
    .map((name) => join(directory, name));
}

// A name the ledger has erased must not reappear in a commit that contains it.
function isErased(name: string): boolean {
  return name.startsWith('subject:');
}

// TrustPolicies by digest, if unchanged: after an address was erased, a document no longer matches.
function recordedPolicies(reader: LedgerReader): ReadonlyMap<string, TrustPolicy> {
  const found = new Map<string, TrustPolicy>();
  const seen = new Set<string>();
  for (const { entry } of reader.search({ types: ['trust.changed', 'config.stated'] })) {
    if ((entry.type !== 'trust.changed' && entry.type !== 'config.stated') || seen.has(entry.evidence.sha256)) continue;
    seen.add(entry.evidence.sha256);
    const evidence = reader.evidence(entry.evidence);
    const policies =
      entry.type === 'trust.changed'
        ? [evidence as TrustPolicy]
        : ((evidence as StatedConfiguration).trustPolicies ?? []);
    for (const policy of policies) found.set(digestOf(policy), policy);
  }
  return found;
}

async function commitFrom(repositories: readonly Repository[], commit: string): Promise<object | undefined> {
  for (const repository of repositories) {
    const object = await repository.read(commit).catch(() => undefined);
    if (object?.type === 'commit') return { commit, object: Buffer.from(object.bytes).toString('base64') };
  }
  return undefined;
}

async function envelopeFrom(
  repositories: readonly Repository[],
  ref: string,
  tree: string,
  envelope: string,
): Promise<object | undefined> {
  for (const repository of repositories) {
    const stored = await sourceRepository(repository)
      .approvals(ref, (filed) => filed === tree)
      .catch(() => []);
    const text = stored.find((s) => sha256(s.text) === envelope)?.text;
    if (text !== undefined) return { envelope, text };
  }
  return undefined;
}

type Line = {
  readonly commit?: string;
  readonly object?: string;
  readonly envelope?: string;
  readonly text?: string;
  readonly trustPolicy?: string;
  readonly policy?: TrustPolicy;
};

/**
 * Checks again the objects that verdicts rest on, using only the lines of `signed.jsonl`. Throws `report-unverifiable`
 * if a line does not match its hash.
 */
export async function recheckSigned(lines: readonly string[], verdicts: readonly RecordedVerdict[]): Promise<Recheck> {
  const objects = new Map<string, Uint8Array>();
  const envelopes = new Map<string, string>();
  const policies = new Map<string, TrustPolicy>();
  for (const [i, text] of lines.entries()) {
    const { commit, object, envelope, text: said, trustPolicy, policy } = JSON.parse(text) as Line;
    const wrong = new CountersignError('report-unverifiable', `line ${i + 1} of signed.jsonl does not match its hash`);
    if (commit !== undefined && object !== undefined) objects.set(commit, Buffer.from(object, 'base64'));
    else if (envelope !== undefined && said !== undefined && sha256(said) === envelope) envelopes.set(envelope, said);
    else if (trustPolicy !== undefined && digestOf(policy) === trustPolicy)
      policies.set(trustPolicy, policy as TrustPolicy);
    else throw wrong;
  }
  const read = async (id: string) => {
    const object = { type: 'commit', bytes: objects.get(id) as Uint8Array } as const;
    verifyObjectId(id, object);
    return object;
  };
  const items = await readCommits({ read }, [...objects.keys()]);
  const commits = new Map<string, HistoryItem>([...objects.keys()].map((id, i) => [id, items[i] as HistoryItem]));
  const stores = new Map<string, Promise<TrustStore>>();
  const open = (digest: string, policy: TrustPolicy) => {
    const store = stores.get(digest) ?? openTrustStore(policy);
    stores.set(digest, store);
    return store;
  };
  const material = {
    commit: (id: string) => commits.get(id),
    envelope: (digest: string) => envelopes.get(digest),
    policy: async (digest: string) => {
      const policy = policies.get(digest);
      return policy === undefined ? undefined : open(digest, policy);
    },
  };
  const all: Recheck[] = [];
  for (const { verdict, time } of verdicts)
    all.push(await recheckVerdict(verdict, Date.parse(verdict.consulted.at ?? time), material));
  return {
    commits: all.reduce((n, one) => n + one.commits, 0),
    approvals: all.reduce((n, one) => n + one.approvals, 0),
    wrong: all.flatMap((one) => one.wrong),
    unchecked: all.flatMap((one) => one.unchecked),
  };
}
