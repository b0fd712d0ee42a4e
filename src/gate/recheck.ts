import { type Approval, type Commit, type CommitVerdict, isNoRevision, type Verdict } from '../model/index.ts';
import { examineCommits, type HistoryItem, judgeCommit, readApproval, type TrustStore } from '../trust/index.ts';

/** Signed objects delivered with a verdict. The implementation has hashed every byte again. */
export type SignedMaterial = {
  /** Returns a commit by its id; undefined if missing. */
  readonly commit: (id: string) => HistoryItem | undefined;
  /** Returns an approval's envelope by its SHA-256. */
  readonly envelope: (sha256: string) => string | undefined;
  /** Returns a TrustPolicy by its digest. */
  readonly policy: (digest: string) => Promise<TrustStore | undefined>;
};

/** Number of valid signatures, the invalid ones, and those that could not be checked. */
export type Recheck = {
  readonly commits: number;
  readonly approvals: number;
  readonly wrong: readonly string[];
  readonly unchecked: readonly string[];
};

/**
 * Checks again everything signed that an allowed verdict rests on, from the bytes. The commits must lead from its start
 * to its tip and tree. Each must have the stated signature under the TrustPolicy that judged it. Each approval must be
 * by the stated person, for this very content, and by no one who signed any of it. `at`: when it was judged,
 * milliseconds since 1970.
 *
 * The paths of rules, the number of approvals they require, and approvals of equivalent changes depend on the
 * repository's files, and are not checked.
 */
export async function recheckVerdict(verdict: Verdict, at: number, material: SignedMaterial): Promise<Recheck> {
  const wrong: string[] = [];
  const unchecked: string[] = [];
  const tip = verdict.to.slice(0, 12);
  const stores = await Promise.all(
    [verdict.consulted.trustDigest, ...(verdict.trustAfter === undefined ? [] : [verdict.trustAfter])].map(
      material.policy,
    ),
  );
  const [store, ...later] = stores;
  if (store === undefined)
    return { commits: 0, approvals: 0, wrong, unchecked: [`${tip}: the TrustPolicy that judged it is missing`] };
  const known = later.filter((s) => s !== undefined);
  let commits = 0;
  for (const said of verdict.commits) {
    const item = material.commit(said.commit);
    if (item === undefined) {
      unchecked.push(`${tip}: the commit ${said.commit.slice(0, 12)} is missing`);
      continue;
    }
    const refusals = await Promise.all([store, ...known].map((s) => refuseCommit(said, item, s)));
    if (refusals.includes(undefined)) commits += 1;
    // If the TrustPolicy changed more than once along the way, the verdict does not name the versions in between.
    else if (known.length > 0)
      unchecked.push(`${tip}: ${refusals[0]}, under the TrustPolicies before and after the change`);
    else wrong.push(`${tip}: ${refusals[0]}`);
  }
  const line = followLine(verdict, material);
  wrong.push(...line.wrong.map((text) => `${tip}: ${text}`));
  unchecked.push(...line.unchecked.map((text) => `${tip}: ${text}`));
  let approvals = 0;
  for (const said of verdict.approvals) {
    const text = material.envelope(said.envelope);
    const name = `the approval ${said.envelope.slice(0, 12)} by \`${said.principal}\``;
    if (text === undefined) {
      unchecked.push(`${tip}: ${name} is missing`);
      continue;
    }
    const refusals = await Promise.all([store, ...known].map((s) => refuseApproval(said, text, s, at)));
    const isOfMaker = said.match === 'exact' && makersBetween(verdict, said, material).has(said.principal);
    if (!refusals.includes(undefined)) wrong.push(`${tip}: ${name} ${refusals[0]}`);
    else if (isOfMaker) wrong.push(`${tip}: ${name} is by someone who signed a commit that it approves`);
    else approvals += 1;
    if (said.match === 'equivalent')
      unchecked.push(`${tip}: whether ${name}, given for ${said.commit.slice(0, 12)}, is for the same change`);
  }
  return { commits, approvals, wrong, unchecked };
}

/** Compares the verdict on a commit with the commit's bytes, at the time of the verdict; paths are not checked. */
export async function refuseCommit(
  said: CommitVerdict,
  item: HistoryItem,
  store: TrustStore,
): Promise<string | undefined> {
  const name = `the commit ${said.commit.slice(0, 12)}`;
  const [examined] = await examineCommits({ ids: NOWHERE, read: async () => [item] }, [said.commit], store);
  if (examined?.kind !== 'facts') return `${name} cannot be parsed`;
  const { facts } = examined;
  if (facts.payload !== said.payload) return `the signed bytes of ${name} differ`;
  // Under `history: merged` a person's merge vouches for it.
  if (said.code === 'merged' && facts.signature.kind === 'none') return undefined;
  const judged = await judgeCommit(facts, store, {
    environment: '',
    branch: '',
    paths: undefined,
    moment: { at: Date.parse(said.seen), basis: said.basis },
    notBefore: undefined,
  });
  if (judged.outcome === 'refused') return `${name} is not signed as recorded: ${judged.reason}`;
  if (judged.signer?.principal === said.signer?.principal && judged.key === said.key) return undefined;
  return (
    `${name} is signed by \`${judged.signer?.principal}\`, ` +
    `but the verdict names \`${said.signer?.principal ?? 'no one'}\``
  );
}

async function* NOWHERE(): AsyncGenerator<readonly string[]> {}

/** Returns why an envelope is not the approval in the verdict; undefined if it is. */
export async function refuseApproval(
  said: Approval,
  text: string,
  store: TrustStore,
  at: number,
): Promise<string | undefined> {
  const read = await readApproval(text, store, at);
  if (read.kind === 'refused') return `is invalid: ${read.reason}`;
  if (read.decision !== 'approve' || read.approval.principal !== said.principal || read.approval.key !== said.key)
    return 'is by someone else, or not an approval';
  const { fromID, headID, targetID } = read.binding;
  return fromID === said.from && headID === said.commit && targetID === said.tree
    ? undefined
    : 'is for a different commit or tree';
}

/** Returns everyone who signed a commit covered by an approval, which may cover only a part of the change. */
export function makersBetween(
  verdict: Verdict,
  { from, commit: head }: Approval,
  { commit }: Pick<SignedMaterial, 'commit'>,
): ReadonlySet<string> {
  const said = new Map(verdict.commits.map((c) => [c.commit, c]));
  const reach = (start: string): ReadonlySet<string> => {
    const reached = new Set<string>();
    const stack = [start];
    for (let id = stack.pop(); id !== undefined; id = stack.pop()) {
      const item = said.has(id) && !reached.has(id) ? commit(id) : undefined;
      if (item === undefined) continue;
      reached.add(id);
      if (item.kind === 'commit') stack.push(...item.commit.parents);
    }
    return reached;
  };
  const before = reach(from);
  return new Set(
    [...reach(head)].filter((id) => !before.has(id)).flatMap((id) => said.get(id)?.signer?.principal ?? []),
  );
}

/**
 * Follows parents from the tip to the start, only through commits of the verdict; the tip must have the judged tree.
 * Other parents of a merge may be older than the start; that part of the history is not checked.
 */
export function followLine(
  verdict: Verdict,
  { commit }: Pick<SignedMaterial, 'commit'>,
): Pick<Recheck, 'wrong' | 'unchecked'> {
  const ids = new Set(verdict.commits.map((c) => c.commit));
  const facts = (id: string): Commit | undefined => {
    const item = commit(id);
    return item?.kind === 'commit' ? item.commit : undefined;
  };
  const refused = (text: string) => ({ wrong: [text], unchecked: [] });
  const tip = facts(verdict.to);
  if (tip !== undefined && tip.tree !== verdict.tree)
    return refused(`its tree is ${tip.tree.slice(0, 12)}, but a different tree was judged`);
  const known = [...ids].map(facts);
  if (verdict.rollback === true || ids.size === 0 || known.includes(undefined)) return { wrong: [], unchecked: [] };
  if (!ids.has(verdict.to)) return refused('its commits do not lead to it');
  const outside = new Set(known.flatMap((c) => c?.parents ?? []).filter((p) => !ids.has(p)));
  const start = isNoRevision(verdict.from) ? outside.size === 0 : outside.delete(verdict.from);
  if (!start) return refused(`its commits do not lead to ${verdict.from.slice(0, 12)}`);
  const others = [...outside].map((id) => id.slice(0, 12));
  if (others.length === 0) return { wrong: [], unchecked: [] };
  if (known.every((c) => (c?.parents.length ?? 0) < 2))
    return refused(`it omits ${others[0]}, the parent of one of its commits`);
  const shown = `${others.slice(0, 3).join(', ')}${others.length > 3 ? ` and ${others.length - 3} more` : ''}`;
  return { wrong: [], unchecked: [`whether what it merges (${shown}) is older than its start`] };
}
