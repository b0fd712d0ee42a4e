import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assess, type Gate, type LedgerView, recall } from '../../src/gate/index.ts';
import { NO_REVISION, refText, trustPolicySchema, type Verdict } from '../../src/model/index.ts';
import { openTrustStore } from '../../src/trust/index.ts';
import { approveAs } from '../kit/approve.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, type Person, run, sshPerson } from '../kit/fleet.ts';
import { gateOf } from '../kit/judge.ts';
import { configMap } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

// A verdict on the ledger is applied again after a restart, a drift or a failure. It proves what was recorded, and not
// that it was so.
const directory = scratch();
const [dana, lee, mallory] = ['dana', 'lee', 'mallory'].map((name) => sshPerson(directory, name)) as [
  Person,
  Person,
  Person,
];
const PATH = 'clusters/production';
const fleet = new Fleet(directory);
fleet.remote(fleet.bare);
const first = fleet.commit(dana, 'first', { [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { colour: 'blue' }) });
await approveAs(lee, fleet, NO_REVISION, first);
const second = fleet.commit(dana, 'second', {
  [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { colour: 'green' }),
});
await approveAs(lee, fleet, first, second);
const unsigned = fleet.commit(
  mallory,
  'unsigned',
  { [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { colour: 'EVIL' }) },
  { sign: false },
);
fleet.push();
const gate: Gate = await gateOf(fleet, [dana, lee], { trust: trustDocument([dana, lee]) });
const good: Verdict = (await assess(gate, first, second)).verdict;
assert.equal(good.outcome, 'allowed');
const policy = (people: readonly Person[]) => trustPolicySchema.parse(trustDocument(people));

/** A ledger whose entry 1 is this verdict, with the TrustPolicies that were stated on it. */
function ledgerWith(verdict: Verdict, entry = {}, stated: readonly object[] = []): LedgerView {
  const { environment, from, to, tree } = verdict;
  const judged = {
    type: 'change.judged',
    outcome: 'allowed',
    environment,
    from,
    to,
    tree,
    time: new Date().toISOString(),
    evidence: 'verdict',
  };
  const statement = { index: 0, entry: { type: 'config.stated', evidence: { sha256: 'stated' } } };
  return {
    entry: () => ({ index: 1, entry: { ...judged, ...entry } }),
    latest: ([type]: readonly string[], _: string, before = 9) =>
      type === 'config.stated' && before > 0 ? statement : undefined,
    all: () => [],
    evidence: (ref: unknown) => (ref === 'verdict' ? verdict : { trustPolicies: stated }),
  } as unknown as LedgerView;
}

const refused = (verdict: Verdict, why: RegExp, entry = {}, of = gate) =>
  assert.rejects(
    recall(of, ledgerWith(verdict, entry), 1),
    (thrown: { code?: string; recover?: string; message: string }) => {
      assert.deepEqual([thrown.code, thrown.recover], ['ledger-inconsistent', 'wait']);
      assert.match(thrown.message, why);
      return true;
    },
  );
const treeOf = (commit: string) => fleet.git(undefined, 'rev-parse', `${commit}^{tree}`);

test('what was judged and approved is applied again', async () => {
  const revision = await recall(gate, ledgerWith(good), 1);
  assert.deepEqual([revision.revision, revision.objects.length], [second, 1]);
});

test('objects are where the verdict had them: what the cluster said of their kind then counts', async () => {
  const widget = 'apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n';
  const own = new Fleet(directory, 'widget');
  own.remote(own.bare);
  const commit = own.commit(dana, 'widget', { [`${PATH}/w.yaml`]: widget });
  own.push();
  const asked = await gateOf(own, [dana], { trust: trustDocument([dana], { required: 0 }) });
  const { verdict } = await assess({ ...asked, servedScope: async () => 'Namespaced' }, NO_REVISION, commit);
  assert.equal(verdict.outcome, 'allowed');
  const today = { ...asked, servedScope: async () => 'Cluster' as const };
  const revision = await recall(today, ledgerWith(verdict), 1);
  assert.deepEqual(
    revision.objects.map((o) => refText(o.ref)),
    ['Widget shop/w'],
  );
});

test('an unsigned commit is not applied because an entry allows it', async () => {
  const forged = (more: Partial<Verdict>): Verdict => ({
    ...good,
    from: second,
    to: unsigned,
    tree: treeOf(unsigned),
    content: undefined as unknown as string,
    commits: [],
    approvals: [],
    ...more,
  });
  await refused(forged({}), /the commit .* leads to it, but was not judged/);
  const said = { ...(good.commits[0] as Verdict['commits'][number]), commit: unsigned };
  await refused(forged({ commits: [said] }), /the signed bytes of .* differ/);
  const item = (await gate.repository.commits([unsigned]))[0];
  assert.ok(item?.kind === 'commit');
  const { verdict } = await assess(gate, second, unsigned);
  const payload = verdict.commits[0]?.payload ?? '';
  await refused(forged({ commits: [{ ...said, payload }] }), /is not signed as recorded: it is not signed/);
  await refused(
    forged({
      commits: [{ ...said, payload, outcome: 'verified', code: 'merged' }],
      trustAfter: good.consulted.trustDigest,
    }),
    /approvals/,
  );
  await refused(forged({ rollback: true }), /it has 0 approvals, but every rule requires at least 2/);
  await refused({ ...good, tree: treeOf(unsigned) }, /its tree differs from the one that was judged/);
});

test('an entry and its evidence are of one verdict', async () => {
  await refused(good, /its evidence is of a different verdict/, { to: unsigned });
  await refused(good, /its evidence is of a different verdict/, { tree: treeOf(unsigned) });
  await refused({ ...good, outcome: 'denied' }, /its evidence is of a different verdict/);
});

test('approvals are looked at again: they are there, by whom they say, for this change, and not by its maker', async () => {
  const [approval] = good.approvals;
  assert.ok(approval !== undefined);
  await refused({ ...good, approvals: [] }, /it has 0 approvals, but every rule requires at least 1/);
  await refused(
    { ...good, approvals: [{ ...approval, envelope: 'f'.repeat(64) }] },
    /the approval ffffffffffff by `lee` is not in the repository/,
  );
  await refused(
    { ...good, approvals: [{ ...approval, principal: 'dana' }] },
    /is by someone who signed a commit that it approves/,
  );
  await refused({ ...good, approvals: [{ ...approval, from: NO_REVISION }] }, /is not in the repository/);
  await refused({ ...good, approvals: [{ ...approval, commit: first }] }, /is for a different commit or tree/);
});

test('whoever left does not take the last good revision along: a TrustPolicy that was in force will do', async () => {
  const now = { ...gate, trust: await openTrustStore(policy([lee, mallory])) };
  await refused(good, /is not signed as recorded/, {}, now);
  const stated = [policy([mallory, lee]), policy([dana, lee])];
  assert.equal((await recall(now, ledgerWith(good, {}, stated), 1)).revision, second);
});

test('a policy that never was in force does not do', async () => {
  const strangers = { ...gate, trust: await openTrustStore(policy([mallory])) };
  await refused(good, /is not signed as recorded/, {}, strangers);
});

test('rules that ask for more by now do not take the last good revision away', async () => {
  const asking = (required: number) => {
    const document = policy([dana, lee, mallory]);
    return {
      ...document,
      spec: {
        ...document.spec,
        rules: document.spec.rules.map((r) => ({ ...r, approvals: { ...r.approvals, required } })),
      },
    };
  };
  const stricter = { ...gate, trust: await openTrustStore(asking(2)) };
  await refused(good, /it has 1 approval, but every rule requires at least 2/, {}, stricter);
  assert.equal((await recall(stricter, ledgerWith(good, {}, [asking(1)]), 1)).revision, second);
});

test('a branch that was renamed, and any number of files beside an approval, do not take it away either', async () => {
  const { environment } = gate;
  const source = { ...environment.spec.source, branch: 'releases/trunk' };
  const renamed = { ...gate, environment: { ...environment, spec: { ...environment.spec, source } } };
  assert.equal((await recall(renamed, ledgerWith(good), 1)).revision, second);
  const approvals = 'refs/countersign/approvals';
  const git = (input: string, ...args: string[]) => run('git', args, { cwd: fleet.bare, input });
  const directories = ['v1', 'refs', 'heads', 'main', `${first}-${good.tree}`];
  const blob = git('x', 'hash-object', '-w', '--stdin');
  const at = (depth: number) => git('', 'ls-tree', `${approvals}:${directories.slice(0, depth).join('/')}`);
  const junk = Array.from({ length: 10_001 }, (_, i) => `100644 blob ${blob}\tjunk${i}`).join('\n');
  let tree = git(`${at(5)}\n${junk}\n`, 'mktree');
  for (let depth = 4; depth >= 0; depth--) {
    const name = directories[depth] ?? '';
    const others = at(depth)
      .split('\n')
      .filter((line) => line !== '' && !line.endsWith(`\t${name}`));
    tree = git(`${[...others, `040000 tree ${tree}\t${name}`].join('\n')}\n`, 'mktree');
  }
  const mine = ['-c', 'user.name=m', '-c', 'user.email=m@example.test'];
  git('', 'update-ref', approvals, git('junk', ...mine, 'commit-tree', tree, '-p', approvals));
  const again = await gateOf(fleet, [dana, lee], { trust: trustDocument([dana, lee]) });
  assert.equal((await recall(again, ledgerWith(good), 1)).revision, second);
});
