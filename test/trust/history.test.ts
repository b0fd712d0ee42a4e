import assert from 'node:assert/strict';
import { join } from 'node:path';
import { beforeEach, test } from 'node:test';
import { assess, type Gate } from '../../src/gate/index.ts';
import { NO_REVISION, type Verdict } from '../../src/model/index.ts';
import { approveAs } from '../kit/approve.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, type Person, run, sshPerson } from '../kit/fleet.ts';
import { importReview } from '../kit/forge-review.ts';
import { codes, gateOf, judge } from '../kit/judge.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { payloadOf, signBytes, signedCommit } from '../kit/objects.ts';
import { recorderAt } from '../kit/recorder.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const [dana, lee, kim, robin] = ['dana', 'lee', 'kim', 'robin'].map((name) => sshPerson(directory, name)) as [
  Person,
  Person,
  Person,
  Person,
];
const forgeKey: Person = { ...sshPerson(directory, 'forge'), email: 'noreply@forge.example.test' };
const PATH = 'clusters/production';
let fleet: Fleet;
let first = '';
let n = 0;

beforeEach(() => {
  fleet = new Fleet(directory, `fleet-${++n}`);
  fleet.remote(fleet.bare);
  first = fleet.commit(dana, 'first', {
    [`${PATH}/ns.yaml`]: namespace('shop'),
    [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '1', b: '1', c: '1', d: '1', e: '1', f: '1', g: '1', h: '1' }),
  });
  fleet.push();
});

/** People, and a forge's own key that may sign too. */
function withPlatform(options: { required?: number; history?: string; kind?: string } = {}): object {
  const document = trustDocument([dana, lee, kim, forgeKey], { required: options.required ?? 0 }) as {
    spec: { principals: { name: string; kind?: string }[]; groups: { members: string[] }[]; history?: string };
  };
  const platform = document.spec.principals.find((p) => p.name === 'forge') as { kind?: string };
  platform.kind = options.kind ?? 'platform';
  if (options.history !== undefined) document.spec.history = options.history;
  return document;
}

const file = (value: object) => ({
  [`${PATH}/cm.yaml`]: configMap('shop', 'cm', {
    a: '1',
    b: '1',
    c: '1',
    d: '1',
    e: '1',
    f: '1',
    g: '1',
    h: '1',
    ...value,
  }),
});

/** Two sides of a merge that touch the same file at far ends, so that Git merges them by itself. */
function sides(options: { sign?: boolean } = {}): { main: string; side: string } {
  fleet.git(undefined, 'switch', '--quiet', '-c', 'side');
  const side = fleet.commit(lee, 'side', file({ h: '2' }), options);
  fleet.git(undefined, 'switch', '--quiet', 'main');
  const main = fleet.commit(dana, 'main', file({ a: '2' }));
  return { main, side };
}

function merge(signer: Person, more: Readonly<Record<string, string>> = {}): string {
  fleet.git(signer, 'merge', '--quiet', '--no-ff', '--no-commit', 'side');
  return fleet.commit(signer, 'merge', more);
}

const verdictOn = async (commit: string, trust: object, from = first): Promise<Verdict> => {
  fleet.push('--force', `${commit}:refs/heads/main`);
  return judge(fleet, [dana, lee, kim], commit, { trust, from });
};

test('a forge’s merge counts as the forge’s, never as a person’s, and adds nothing', async () => {
  sides();
  const commit = merge(forgeKey);
  const verdict = await verdictOn(commit, withPlatform());
  assert.deepEqual(codes(verdict), []);
  assert.equal(verdict.commits.at(-1)?.signer?.kind, 'platform');
});

test('an evil merge by a forge’s key is found: content that neither parent has', async () => {
  sides();
  const verdict = await verdictOn(
    merge(forgeKey, { [`${PATH}/extra.yaml`]: configMap('shop', 'extra', { x: '1' }) }),
    withPlatform(),
  );
  assert.deepEqual(codes(verdict), ['evil-merge']);
  assert.match(verdict.violations[0]?.message ?? '', /extra\.yaml/);
});

test('an evil merge that only drops one side’s change is found too', async () => {
  const { main, side } = sides();
  const dropped = fleet.git(undefined, 'rev-parse', `${main}^{tree}`);
  const time = Math.floor(Date.now() / 1000);
  const commit = signedCommit(fleet, payloadOf(dropped, [main, side], forgeKey, time), (b) => signBytes(forgeKey, b));
  assert.deepEqual(codes(await verdictOn(commit, withPlatform())), ['evil-merge']);
});

test('a merge of conflicting sides is nobody’s automatic merge', async () => {
  fleet.git(undefined, 'switch', '--quiet', '-c', 'side');
  const side = fleet.commit(lee, 'side', file({ a: '3' }));
  fleet.git(undefined, 'switch', '--quiet', 'main');
  const main = fleet.commit(dana, 'main', file({ a: '2' }));
  const tree = fleet.git(undefined, 'rev-parse', `${side}^{tree}`);
  const commit = signedCommit(fleet, payloadOf(tree, [main, side], forgeKey, Math.floor(Date.now() / 1000)), (b) =>
    signBytes(forgeKey, b),
  );
  assert.deepEqual(codes(await verdictOn(commit, withPlatform())), ['evil-merge']);
});

test('what a person’s merge adds is theirs, and is pointed out', async () => {
  sides();
  const verdict = await verdictOn(
    merge(kim, { [`${PATH}/extra.yaml`]: configMap('shop', 'extra', { x: '1' }) }),
    withPlatform(),
  );
  assert.deepEqual(codes(verdict), []);
  assert.deepEqual(
    verdict.warnings.map((w) => w.code).filter((c) => c === 'merge-adds'),
    ['merge-adds'],
  );
  assert.match(verdict.warnings.find((w) => w.code === 'merge-adds')?.message ?? '', /extra\.yaml.*`kim` answers/);
});

test('a squash by a forge’s key needs one person more: whoever made it could be the one who approves', async () => {
  const commit = fleet.commit(forgeKey, 'squashed', file({ a: '9' }), {
    author: { ...lee, email: 'lee@home.example.test' },
  });
  fleet.push();
  assert.deepEqual(codes(await verdictOn(commit, withPlatform())), ['approval-missing']);
  await approveAs(lee, fleet, first, commit);
  assert.deepEqual(codes(await verdictOn(commit, withPlatform())), []);
  assert.deepEqual(
    codes(await verdictOn(commit, withPlatform({ required: 1 }))),
    ['approval-missing'],
    'lee alone, who wrote it under another address',
  );
  await approveAs(kim, fleet, first, commit);
  assert.deepEqual(codes(await verdictOn(commit, withPlatform({ required: 1 }))), []);
});

test('an imported request says who opened a squash: then nobody more is needed, and they are not heard', async () => {
  const importer: Person = { ...sshPerson(directory, `importer-${n}`), name: 'importer' };
  const document = withPlatform({ required: 1 }) as {
    spec: { principals: { name: string; forgeAccounts?: object[] }[] };
  };
  document.spec.principals.push({
    name: 'importer',
    kind: 'bot',
    imports: ['forge.example.test'],
    keys: [{ ssh: importer.publicKey }],
  } as never);
  document.spec.principals.forEach((p, i) => {
    if (p.name !== 'importer') p.forgeAccounts = [{ forge: 'forge.example.test', id: String(i + 1) }];
  });
  const commit = fleet.commit(forgeKey, 'squashed', file({ a: '9' }));
  fleet.push();
  await importReview(importer, fleet, first, commit, { reviewer: '3', openedBy: '2' });
  await approveAs(lee, fleet, first, commit);
  assert.deepEqual(codes(await verdictOn(commit, document)), ['self-approval'], 'lee opened it');
  await approveAs(kim, fleet, first, commit);
  assert.deepEqual(codes(await verdictOn(commit, document)), []);
});

test('a bot signs what it makes itself; it is nobody’s approval', async () => {
  const commit = fleet.commit(forgeKey, 'update', file({ a: '9' }));
  fleet.push();
  assert.deepEqual(codes(await verdictOn(commit, withPlatform({ kind: 'bot' }))), []);
});

test('an unsigned commit is refused, unless the policy takes it from a person’s approved merge', async () => {
  sides({ sign: false });
  const commit = merge(kim);
  fleet.push('--force', `${commit}:refs/heads/main`);
  assert.deepEqual(codes(await verdictOn(commit, withPlatform({ required: 1 }))), ['approval-missing', 'unsigned']);
  const merged = withPlatform({ required: 1, history: 'merged' });
  assert.deepEqual(codes(await verdictOn(commit, merged)), ['approval-missing'], 'the merge still needs its approval');
  await approveAs(dana, fleet, first, commit);
  assert.ok(codes(await verdictOn(commit, merged)).includes('self-approval'), 'by none of those in it');
  await approveAs(lee, fleet, first, commit);
  assert.ok(codes(await verdictOn(commit, merged)).includes('self-approval'), 'nor by the author, signed or not');
});

test('an approved merge of unsigned commits is taken under `history: merged`, labelled as what it is', async () => {
  sides({ sign: false });
  const commit = merge(kim);
  fleet.push('--force', `${commit}:refs/heads/main`);
  await approveAs(robin, fleet, first, commit);
  const document = trustDocument([dana, lee, kim, robin], { required: 1 }) as { spec: { history?: string } };
  document.spec.history = 'merged';
  const verdict = await judge(fleet, [], commit, { trust: document, from: first });
  assert.deepEqual(codes(verdict), []);
  assert.deepEqual(verdict.commits.map((c) => c.code).sort(), ['merged', 'verified', 'verified']);
  const byForge = withPlatform({ required: 1, history: 'merged' });
  fleet.git(undefined, 'reset', '--quiet', '--hard', 'HEAD~1');
  const forged = merge(forgeKey);
  await approveAs(kim, fleet, first, forged);
  assert.ok(codes(await verdictOn(forged, byForge)).includes('unsigned'), 'a forge answers for nobody');
});

// The side branch of a merge whose one commit has a signature that does not count.
function badSide(kind: 'false' | 'unknown' | 'revoked'): { document: object; expected: string } {
  const mallory = sshPerson(directory, `mallory-${n}`);
  const document = trustDocument([dana, lee, kim, robin], { required: 1 }) as {
    spec: { history?: string; principals: { name: string; keys: object[] }[] };
  };
  document.spec.history = 'merged';
  fleet.git(undefined, 'switch', '--quiet', '-c', 'side');
  if (kind === 'false') {
    const tree = fleet.git(undefined, 'rev-parse', `${first}^{tree}`);
    const time = Number(fleet.git(undefined, 'log', '-1', '--format=%ct', first));
    const payload = payloadOf(tree, [first], lee, time);
    const forged = signedCommit(fleet, payload, (bytes) => signBytes(lee, Buffer.concat([bytes, Buffer.from(' ')])));
    fleet.git(undefined, 'reset', '--quiet', '--hard', forged);
  } else
    fleet.commit(kind === 'unknown' ? { ...mallory, name: 'lee', email: lee.email } : lee, 'side', file({ h: '2' }));
  if (kind === 'revoked') {
    const { keys } = document.spec.principals.find((p) => p.name === 'lee') ?? { keys: [] };
    keys[0] = { ssh: lee.publicKey, revoked: { at: '2020-01-01T00:00:00Z', reason: 'compromised' } };
  }
  fleet.git(undefined, 'switch', '--quiet', 'main');
  fleet.commit(dana, 'main', file({ a: '2' }));
  return { document, expected: { false: 'bad-signature', unknown: 'unknown-key', revoked: 'key-compromised' }[kind] };
}

for (const kind of ['false', 'unknown', 'revoked'] as const)
  test(`a ${kind} signature is refused under \`history: merged\`, in a merge that a person approved`, async () => {
    const { document, expected } = badSide(kind);
    const commit = merge(kim);
    fleet.push('--force', `${commit}:refs/heads/main`);
    await approveAs(robin, fleet, first, commit);
    const verdict = await judge(fleet, [], commit, { trust: document, from: first });
    assert.deepEqual(codes(verdict), [expected]);
  });

test('an unsigned commit on the line itself is never taken', async () => {
  const commit = fleet.commit(dana, 'plain', file({ a: '5' }), { sign: false });
  fleet.push();
  await approveAs(kim, fleet, first, commit);
  assert.ok(codes(await verdictOn(commit, withPlatform({ required: 1, history: 'merged' }))).includes('unsigned'));
});

// --- going back ---

test('a rollback is refused without approvals that say so, and needs one more than going forward', async () => {
  const second = fleet.commit(dana, 'second', file({ a: '2' }));
  fleet.push();
  const trust = trustDocument([dana, lee, kim], { required: 1 });
  const back = () => judge(fleet, [], first, { trust, from: second });
  assert.deepEqual(codes(await back()), ['not-a-descendant']);
  assert.match((await back()).violations[0]?.hint ?? '', /--rollback/);
  await approveAs(lee, fleet, second, first);
  assert.ok(codes(await back()).includes('not-a-descendant'), 'an ordinary approval is not one to go back');
  await approveAs(lee, fleet, second, first, { rollback: true });
  assert.ok(codes(await back()).includes('not-a-descendant'), 'one person alone');
  await approveAs(kim, fleet, second, first, { rollback: true });
  const verdict = await back();
  assert.deepEqual(codes(verdict), []);
  assert.equal(verdict.rollback, true);
  await approveAs(lee, fleet, first, second, { rollback: true });
  assert.ok(
    codes(await judge(fleet, [], second, { trust, from: first })).length > 0,
    'and one to go back lets nothing forward',
  );
});

test('a rewritten branch: what is new on it is judged like everything else', async () => {
  const second = fleet.commit(dana, 'second', file({ a: '2' }));
  fleet.push();
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
  const other = fleet.commit(dana, 'other', file({ a: '3' }), { sign: false });
  fleet.push('--force', 'main');
  const trust = trustDocument([dana, lee, kim], { required: 0 });
  await approveAs(lee, fleet, second, other, { rollback: true });
  assert.deepEqual(codes(await judge(fleet, [], other, { trust, from: second })), ['not-a-descendant', 'unsigned']);
});

// --- the TrustPolicy in the repository ---

const TRUST = 'countersign/trust.yaml';
const policy = (people: readonly Person[], more: object = {}) => {
  const document = trustDocument(people, { required: 0 }) as { spec: object };
  return { ...document, spec: { ...document.spec, roots: { members: ['lee', 'kim'], threshold: 1 }, ...more } };
};
const text = (document: object) => JSON.stringify(document, null, 1);

async function gateWithTrustPath(
  document: object,
  data?: string,
): Promise<{
  gate: Gate;
  recorder: Awaited<ReturnType<typeof recorderAt>>['recorder'] | undefined;
  close: () => Promise<void> | undefined;
}> {
  const base = await gateOf(fleet, [], { trust: document });
  const { ledger, recorder } =
    data === undefined ? { ledger: undefined, recorder: undefined } : await recorderAt(join(directory, data));
  const environment = { ...base.environment, spec: { ...base.environment.spec, trustPath: TRUST } };
  return { gate: { ...base, environment, recorder }, recorder, close: () => ledger?.close() };
}

test('a TrustPolicy in the repository is changed only by commits that its roots approved, and each version is on the ledger', async () => {
  const configured = policy([dana, lee, kim]);
  const { gate, recorder, close } = await gateWithTrustPath(configured, 'trust-ledger');
  const added = fleet.commit(dana, 'policy', { [TRUST]: text(configured) });
  fleet.push();
  assert.deepEqual(
    codes((await assess(gate, first, added)).verdict),
    [],
    'the same policy, moved into the repository, changes nothing',
  );
  const next = policy([dana, lee, kim, robin]);
  const changed = fleet.commit(dana, 'robin joins', { [TRUST]: text(next) });
  fleet.push();
  assert.deepEqual(codes((await assess(gate, added, changed)).verdict), ['trust-not-approved']);
  await approveAs(dana, fleet, added, changed);
  assert.deepEqual(codes((await assess(gate, added, changed)).verdict), ['trust-not-approved'], 'dana is no root');
  await approveAs(lee, fleet, added, changed);
  const allowed = await assess(gate, added, changed);
  assert.deepEqual(codes(allowed.verdict), []);
  const entries = recorder?.all('trust.changed', 'production') ?? [];
  assert.equal(entries.length, 1);
  assert.equal(entries[0]?.entry.after, allowed.verdict.trustAfter);
  assert.equal(entries[0]?.entry.verdict, allowed.recorded?.index);
  const byRobin = fleet.commit(robin, 'by robin', file({ a: '7' }));
  fleet.push();
  assert.deepEqual(codes((await assess(gate, changed, byRobin)).verdict), [], 'from then on robin signs');
  assert.deepEqual(codes((await assess(gate, added, byRobin)).verdict), [], 'also when both come in one look');
  await close();
});

test('who approves with a key that the change itself brings in is not heard', async () => {
  const configured = policy([dana, lee, kim]);
  const { gate, close } = await gateWithTrustPath(configured, 'trust-takeover');
  const thief: Person = { ...sshPerson(directory, `thief-${n}`), name: 'lee' };
  const stolen = JSON.parse(text(configured)) as { spec: { principals: { name: string; keys: object[] }[] } };
  (stolen.spec.principals.find((p) => p.name === 'lee') as { keys: object[] }).keys = [{ ssh: thief.publicKey }];
  const changed = fleet.commit(dana, 'new key for lee', { [TRUST]: text(stolen) });
  fleet.push();
  await approveAs(thief, fleet, first, changed);
  assert.deepEqual(codes((await assess(gate, first, changed)).verdict), ['trust-not-approved']);
  await close();
});

test('someone who is removed signs nothing behind that, in the same look', async () => {
  const configured = policy([dana, lee, kim, robin]);
  const { gate, close } = await gateWithTrustPath(configured, 'trust-removed');
  const changed = fleet.commit(dana, 'robin leaves', { [TRUST]: text(policy([dana, lee, kim])) });
  fleet.push();
  await approveAs(lee, fleet, first, changed);
  const byRobin = fleet.commit(robin, 'one more', file({ a: '7' }));
  fleet.push();
  assert.deepEqual(codes((await assess(gate, first, byRobin)).verdict), ['unknown-key']);
  await close();
});

test('a policy that was never approved is not believed, though it stands at the applied commit', async () => {
  const configured = policy([dana, lee, kim]);
  const { gate, close } = await gateWithTrustPath(configured, 'trust-planted');
  const planted = fleet.commit(dana, 'planted before the gate looked there', {
    [TRUST]: text(policy([dana, lee, kim, robin])),
  });
  fleet.push();
  const byRobin = fleet.commit(robin, 'by robin', file({ a: '7' }));
  fleet.push();
  const verdict = codes((await assess(gate, planted, byRobin)).verdict);
  assert.ok(verdict.includes('unknown-key') && verdict.includes('trust-not-approved'), verdict.join());
  await close();
});

for (const [what, content, code] of [
  ['removed', undefined, 'trust-removed'],
  ['broken', 'kind: TrustPolicy\n', 'trust-unusable'],
  [
    'made to lose its revocations',
    text(policy([dana, lee, kim], { sshRevocationsFile: 'gone.krl' })),
    'trust-unusable',
  ],
  [
    'made to point at files',
    text({
      ...trustDocument([dana]),
      spec: {
        principals: [{ name: 'dana', keys: [{ openpgpFile: 'x.asc' }] }],
        rules: [{ name: 'r', signers: ['dana'], approvals: { required: 0 } }],
      },
    }),
    'trust-unusable',
  ],
] as const) {
  test(`a policy that is ${what} is refused`, async () => {
    const configured = policy([dana, lee, kim]);
    const { gate, close } = await gateWithTrustPath(configured, `trust-${what.replaceAll(' ', '-')}`);
    const added = fleet.commit(dana, 'policy', { [TRUST]: text(configured) });
    fleet.push();
    assert.deepEqual(codes((await assess(gate, first, added)).verdict), []);
    const bad = fleet.commit(dana, what, { [TRUST]: content });
    fleet.push();
    await approveAs(lee, fleet, added, bad);
    assert.deepEqual(codes((await assess(gate, added, bad)).verdict), [code]);
    await close();
  });
}

test('a review that a forge states counts for a change of files, and never for one of the TrustPolicy', async () => {
  const importer: Person = { ...sshPerson(directory, `importer-${n}`), name: 'importer' };
  const configured = policy([dana, lee, kim]) as unknown as {
    spec: { principals: { name: string; forgeAccounts?: object[] }[]; rules: { approvals: object }[] };
  };
  configured.spec.principals.forEach((p, i) => {
    p.forgeAccounts = [{ forge: 'forge.example.test', id: String(i + 1) }];
  });
  configured.spec.principals.push({
    name: 'importer',
    kind: 'bot',
    imports: ['forge.example.test'],
    keys: [{ ssh: importer.publicKey }],
  } as never);
  const { gate } = await gateWithTrustPath(configured);
  const added = fleet.commit(dana, 'policy', { [TRUST]: text(configured) });
  const changed = fleet.commit(dana, 'robin joins', { [TRUST]: text({ ...configured, metadata: { name: 'other' } }) });
  fleet.push();
  await importReview(importer, fleet, added, changed, { reviewer: '2' });
  const { verdict } = await assess(gate, added, changed);
  assert.ok(
    verdict.approvals.some((a) => a.principal === 'lee' && a.importer === 'importer'),
    'the review is heard',
  );
  assert.deepEqual(codes(verdict), ['trust-not-approved']);
});

test('an approval on an older base never counts for a change of the TrustPolicy', async () => {
  const configured = policy([dana, lee, kim]) as unknown as {
    spec: { rules: { approvals: { equivalent?: boolean } }[] };
  };
  for (const rule of configured.spec.rules) rule.approvals.equivalent = true;
  const { gate } = await gateWithTrustPath(configured);
  const added = fleet.commit(dana, 'policy', { [TRUST]: text(configured) });
  const next = { [TRUST]: text({ ...configured, metadata: { name: 'other' } }) };
  const early = fleet.commit(dana, 'robin joins', next);
  await approveAs(lee, fleet, added, early);
  fleet.git(undefined, 'reset', '--quiet', '--hard', added);
  const moved = fleet.commit(dana, 'moved on', file({ a: '8' }));
  const changed = fleet.commit(dana, 'robin joins', next);
  fleet.push('--force', 'main');
  const { verdict } = await assess(gate, moved, changed);
  assert.deepEqual(codes(verdict), ['trust-not-approved']);
});

test('without roots nobody can change it', async () => {
  const configured = trustDocument([dana, lee, kim], { required: 0 });
  const { gate, close } = await gateWithTrustPath(configured, 'trust-rootless');
  const changed = fleet.commit(dana, 'policy', { [TRUST]: text(policy([dana, lee, kim])) });
  fleet.push();
  await approveAs(lee, fleet, first, changed);
  assert.deepEqual(codes((await assess(gate, first, changed)).verdict), ['trust-roots-missing']);
  await close();
});

test('the pre-merge check reads the policy where the branch is', async () => {
  const configured = policy([dana, lee, kim]);
  const { gate } = await gateWithTrustPath(configured);
  const added = fleet.commit(dana, 'policy', { [TRUST]: text(policy([dana, lee, kim, robin])) });
  fleet.push();
  const byRobin = fleet.commit(robin, 'by robin', file({ a: '7' }));
  fleet.push();
  assert.deepEqual(codes((await assess(gate, added, byRobin)).verdict), []);
  assert.deepEqual(codes((await assess(gate, first, added)).verdict), ['trust-not-approved']);
  assert.deepEqual(codes((await assess(gate, NO_REVISION, byRobin)).verdict), ['trust-not-approved']);
  assert.equal(run('git', ['rev-parse', 'HEAD'], { cwd: fleet.work }), byRobin);
});
