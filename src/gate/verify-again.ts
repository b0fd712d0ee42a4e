import {
  count,
  isNoRevision,
  type StatedConfiguration,
  sha256,
  type TrustPolicy,
  type Verdict,
} from '../model/index.ts';
import { type HistoryItem, openTrustStore, type TrustStore } from '../trust/index.ts';
import type { Gate } from './gate.ts';
import type { LedgerView } from './ports.ts';
import { followLine, makersBetween, refuseApproval, refuseCommit } from './recheck.ts';

type Parts = Pick<Gate, 'environment' | 'repository' | 'trust' | 'openPolicy' | 'turns'>;

const TOGETHER = 128; // commits read at a time
const MAX_STATEMENTS = 200; // recorded configurations searched for TrustPolicies, newest first

/**
 * Verifies again what an allowed verdict on the ledger rests on, before anything is applied because of it. Its commits
 * must lead from its start to its tip, with the recorded signatures. Its approvals must exist, by people who made none
 * of it. Returns the first failure, or undefined.
 *
 * The keys are those of the TrustPolicy that judged it. If that is unavailable (an address in it was erased), any
 * TrustPolicy that was in force will do: a person who left must not invalidate the last good revision.
 */
export async function verifyAgain(
  parts: Parts,
  ledger: LedgerView,
  verdict: Verdict,
  at: number,
): Promise<string | undefined> {
  const { repository } = parts;
  const items = await commitsOf(verdict, parts);
  const material = { commit: (id: string) => items.get(id) };
  if ((await repository.tree(verdict.to)) !== verdict.tree) return 'its tree differs from the one that was judged';
  // A rollback brings no commits: approvals alone allow it.
  const line =
    verdict.rollback === true
      ? undefined
      : ((await otherCommits(parts, verdict)) ?? followLine(verdict, material).wrong[0]);
  if (line !== undefined) return line;
  const envelopes = await storedEnvelopes(parts, verdict);
  // Checks that have not passed yet, with the reason so far.
  const open = new Map<string, { readonly check: (store: TrustStore) => Promise<string | undefined>; why: string }>();
  for (const said of verdict.commits)
    open.set(said.commit, {
      check: (store) =>
        refuseCommit(
          said,
          items.get(said.commit) ?? { kind: 'malformed', id: said.commit, code: 'malformed', reason: 'x' },
          store,
        ),
      why: `there is no TrustPolicy to verify the commit ${said.commit.slice(0, 12)} with`,
    });
  for (const said of verdict.approvals) {
    const text = envelopes.get(said.envelope);
    const name = `the approval ${said.envelope.slice(0, 12)} by \`${said.principal}\``;
    if (text === undefined) return `${name} is not in the repository`;
    if (said.match === 'exact' && makersBetween(verdict, said, material).has(said.principal))
      return `${name} is by someone who signed a commit that it approves`;
    open.set(said.envelope, {
      check: async (store) => {
        const refusal = await refuseApproval(said, text, store, at);
        return refusal === undefined ? undefined : `${name} ${refusal}`;
      },
      why: `there is no TrustPolicy to verify ${name} with`,
    });
  }
  const approvers = new Set(verdict.approvals.map((a) => a.principal)).size;
  let least = Number.POSITIVE_INFINITY;
  for await (const store of candidates(parts, ledger, verdict)) {
    for (const [key, one] of open) {
      await parts.turns.breathe();
      const refusal = await one.check(store);
      if (refusal === undefined) open.delete(key);
      else one.why = refusal;
    }
    // Today's rules may require more than those that judged it.
    least = Math.min(least, leastApprovals(store, verdict));
    if (open.size === 0 && approvers >= least) break;
  }
  const [wrong] = open.values();
  if (wrong !== undefined) return wrong.why;
  if (approvers < least && (await repository.diff(verdict.from, verdict.to)).length > 0)
    return `it has ${count(approvers, 'approval')}, but every rule requires at least ${least}`;
  return undefined;
}

async function commitsOf(
  { commits }: Verdict,
  { repository, turns }: Parts,
): Promise<ReadonlyMap<string, HistoryItem>> {
  const items = new Map<string, HistoryItem>();
  for (let i = 0; i < commits.length; i += TOGETHER) {
    const ids = commits.slice(i, i + TOGETHER).map((c) => c.commit);
    for (const [j, item] of (await repository.commits(ids)).entries()) items.set(ids[j] as string, item);
    await turns.breathe();
  }
  return items;
}

async function otherCommits({ repository }: Parts, { from, to, commits }: Verdict): Promise<string | undefined> {
  const said = new Set(commits.map((c) => c.commit));
  let count = 0;
  for await (const ids of repository.commitIds(from, to))
    for (const id of ids) {
      count++;
      if (!said.has(id)) return `the commit ${id.slice(0, 12)} leads to it, but was not judged`;
    }
  return count === said.size ? undefined : `${said.size} commits were judged, but ${count} lead to it`;
}

// Each by its name: other files next to them, which anyone may push, are not read.
async function storedEnvelopes(
  { environment, repository }: Parts,
  verdict: Verdict,
): Promise<ReadonlyMap<string, string>> {
  const ref = `refs/heads/${environment.spec.source.branch}`;
  const found = new Map<string, string>();
  for (const { from, tree, envelope } of verdict.approvals) {
    const text = await repository.envelope(ref, { from, tree, envelope });
    if (text !== undefined && sha256(text) === envelope) found.set(envelope, text);
  }
  return found;
}

// The one that judged it comes first; usually no other is opened.
async function* candidates(parts: Parts, ledger: LedgerView, verdict: Verdict): AsyncGenerator<TrustStore> {
  const { trustDigest } = verdict.consulted;
  const later: TrustStore[] = [];
  for await (const store of known(parts, ledger, verdict))
    if (store.digest === trustDigest || store.digest === verdict.trustAfter) yield store;
    else later.push(store);
  yield* later;
}

async function* known(
  { environment, repository, trust, openPolicy }: Parts,
  ledger: LedgerView,
  { from, to }: Verdict,
): AsyncGenerator<TrustStore> {
  yield trust;
  const { trustPath } = environment.spec;
  for (const commit of trustPath === undefined ? [] : [from, to].filter((c) => !isNoRevision(c))) {
    const file = await repository.file(commit, trustPath as string).catch(() => undefined);
    const store =
      file === undefined ? undefined : await openPolicy(file.text, trustPath as string).catch(() => undefined);
    if (store !== undefined) yield store;
  }
  for (const policy of recordedPolicies(ledger, environment.metadata.name)) {
    const store = await openTrustStore(policy).catch(() => undefined); // a key that is too weak by now does not count
    if (store !== undefined) yield store;
  }
}

function* recordedPolicies(ledger: LedgerView, environment: string): Generator<TrustPolicy> {
  const seen = new Set<string>();
  let changed = ledger.latest(['trust.changed'], environment);
  for (let i = 0; i < MAX_STATEMENTS && changed !== undefined; i++) {
    if (!seen.has(changed.entry.evidence.sha256)) yield ledger.evidence(changed.entry.evidence) as TrustPolicy;
    seen.add(changed.entry.evidence.sha256);
    changed = ledger.latest(['trust.changed'], environment, changed.index);
  }
  let stated = ledger.latest(['config.stated'], '');
  for (let i = 0; i < MAX_STATEMENTS && stated !== undefined; i++) {
    if (!seen.has(stated.entry.evidence.sha256))
      yield* (ledger.evidence(stated.entry.evidence) as StatedConfiguration).trustPolicies ?? [];
    seen.add(stated.entry.evidence.sha256);
    stated = ledger.latest(['config.stated'], '', stated.index);
  }
}

// The paths of rules are not checked: no rule requires less than the minimum. Going back takes one more than going
// forward.
function leastApprovals({ policy }: TrustStore, { rollback }: Verdict): number {
  const least = Math.min(...policy.spec.rules.map((rule) => rule.approvals.required));
  return (Number.isFinite(least) ? least : 0) + (rollback === true ? 1 : 0);
}
