import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { assess, type Gate, withoutAddresses } from '../../src/gate/index.ts';
import { evidenceRef, type Ledger, openSigner, signNote } from '../../src/ledger/index.ts';
import {
  type CommitVerdict,
  NO_REVISION,
  sha256,
  stated,
  type TrustPolicy,
  type Verdict,
} from '../../src/model/index.ts';
import { recheckSigned } from '../../src/publish/signed-objects.ts';
import type { ReportDocument } from '../../src/report/index.ts';
import { approveAs } from '../kit/approve.ts';
import { Fleet, openPgpPerson, sshPerson } from '../kit/fleet.ts';
import { gateOf } from '../kit/judge.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { recorderAt } from '../kit/recorder.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

const directory = scratch();
const data = join(directory, 'data');
const dana = sshPerson(directory, 'dana');
const lee = sshPerson(directory, 'lee');
const kim = openPgpPerson(directory, 'kim');
const people = [dana, lee, kim];
const fleet = new Fleet(directory, 'fleet');
let verdicts: Verdict[] = [];
let lines: string[] = [];
let side = '';

const settings = (k: string) => ({ 'clusters/production/cm.yaml': configMap('shop', 'settings', { k }) });

/** Judges what is on the branch, and records that it was applied. */
async function run(gate: Gate, ledger: Ledger, from: string, to: string): Promise<Verdict> {
  const { verdict, recorded } = await assess(gate, from, to);
  assert.deepEqual(verdict.violations, []);
  const nothing = evidenceRef({});
  const environment = 'production';
  const intent = await ledger.record(
    {
      type: 'apply.intent',
      environment,
      revision: to,
      previous: from,
      verdict: recorded?.index ?? -1,
      purpose: 'apply',
      evidence: nothing.ref,
    },
    [nothing],
  );
  await ledger.record(
    {
      ...{
        type: 'apply.result',
        environment,
        intent: intent.index,
        revision: to,
        outcome: 'applied',
        applied: 1,
        pruned: 0,
      },
      evidence: nothing.ref,
    },
    [nothing],
  );
  return verdict;
}

const report = (out: string, ...more: string[]) =>
  countersign([
    'report',
    '--data',
    data,
    '--out',
    join(directory, out),
    '--to',
    '2100-01-01',
    '--seed',
    'of the auditor',
    ...more,
  ]);
const verify = (out: string, ...more: string[]) =>
  countersign(['verify', join(directory, out, 'report.pdf'), '--key', join(data, 'ledger.pub'), ...more]);
const again = (lie: (verdict: Verdict) => Verdict, kept = lines) =>
  recheckSigned(
    kept,
    verdicts.map((v) => ({ verdict: lie(v), time: v.consulted.at ?? '' })),
  );

before(async () => {
  fleet.remote(fleet.bare);
  const { ledger, recorder } = await recorderAt(data);
  const gate: Gate = { ...(await gateOf(fleet, people)), recorder };
  const { environment, trust } = gate;
  const state = evidenceRef({
    environments: [stated(environment, trust.policy, (url) => url)],
    changes: [],
    trustPolicies: [withoutAddresses(trust.policy, recorder)],
  });
  await ledger.record({ type: 'config.stated', configuration: 'c', evidence: state.ref }, [state]);
  const first = fleet.commit(dana, 'first', { 'clusters/production/ns.yaml': namespace('shop'), ...settings('0') });
  await approveAs(lee, fleet, NO_REVISION, first);
  fleet.push();
  verdicts = [await run(gate, ledger, NO_REVISION, first)];
  // Two steps: who made the second approved the first.
  const second = fleet.commit(kim, 'second', settings('1'));
  await approveAs(dana, fleet, first, second);
  fleet.commit(dana, 'between', settings('1.5'));
  const third = fleet.commit(dana, 'third', settings('2'));
  await approveAs(kim, fleet, second, third);
  fleet.push();
  verdicts.push(await run(gate, ledger, first, third));
  // A merge, whose other side is part of the change.
  fleet.git(undefined, 'switch', '--quiet', '-c', 'side');
  side = fleet.commit(kim, 'side', { 'clusters/production/other.yaml': configMap('shop', 'other', { k: '1' }) });
  fleet.git(undefined, 'switch', '--quiet', 'main');
  fleet.commit(dana, 'main', settings('3'));
  fleet.git(dana, 'merge', '--quiet', '--no-ff', '--no-commit', 'side');
  const merge = fleet.commit(dana, 'merge', {});
  await approveAs(lee, fleet, third, merge);
  fleet.push();
  verdicts.push(await run(gate, ledger, third, merge));
  await ledger.close();
  const made = await report('whole', '--repo', fleet.work);
  assert.equal(made.code, 0, made.stderr);
  lines = readFileSync(join(directory, 'whole', 'signed.jsonl'), 'utf8')
    .trimEnd()
    .split('\n');
});

test('signatures of sampled changes are verified from the bytes in the report, SSH and OpenPGP, with nothing but the report', async () => {
  const verified = await verify('whole');
  assert.equal(verified.code, 0, verified.stdout);
  assert.match(verified.stdout, /✓ signatures of 7 commits and 4 approvals of 3 changes of the sample/);
  assert.doesNotMatch(verified.stdout, /not checked/);
  const { steps, unchecked } = JSON.parse((await verify('whole', '--output', 'json')).stdout) as {
    steps: unknown[];
    unchecked: string[];
  };
  assert.ok(steps.length > 15);
  assert.deepEqual(unchecked, []);
  const model = JSON.parse(readFileSync(join(directory, 'whole', 'report.json'), 'utf8')) as ReportDocument;
  assert.deepEqual(
    model.changes.map((c) => [c.attributes.B, c.attributes.C, c.attributes.D, c.attributes.E]),
    [1, 2, 3].map(() => ['pass', 'pass', 'pass', 'pass']),
    'who made one step may approve another',
  );
  assert.deepEqual(model.exceptions, []);
});

test('what is not in any repository any more is named as not checked, and nothing else changes', async () => {
  assert.equal((await report('alone')).code, 0);
  const modelOf = (name: string) => readFileSync(join(directory, name, 'report.json'), 'utf8');
  assert.ok(modelOf('alone') === modelOf('whole'), 'the same ledger, the same model');
  const verified = await verify('alone');
  assert.equal(verified.code, 0, verified.stdout);
  assert.match(verified.stdout, /✓ signatures of 0 commits and 0 approvals of 3 changes/);
  assert.equal(verified.stdout.match(/\? not checked: .* is missing/g)?.length, 11);
  const { unchecked } = await again(
    (v) => v,
    lines.filter((line) => !line.includes('"trustPolicy"')),
  );
  assert.equal(unchecked.length, 3);
  assert.match(unchecked[0] ?? '', /the TrustPolicy that judged it is missing/);
});

const commits = (change: (c: CommitVerdict) => CommitVerdict) => (v: Verdict) => ({
  ...v,
  commits: v.commits.map(change),
});
const approvals = (change: (a: Verdict['approvals'][number]) => Verdict['approvals'][number]) => (v: Verdict) => ({
  ...v,
  approvals: v.approvals.map(change),
});
const signer = (principal: string) => ({ principal, kind: 'person', key: 'k' }) as const;
const LIES: readonly (readonly [string, (v: Verdict) => Verdict, RegExp])[] = [
  [
    'another signer',
    commits((c) => ({ ...c, signer: signer('lee') })),
    /is signed by `\w+`, but the verdict names `lee`/,
  ],
  ['another key', commits((c) => ({ ...c, key: 'SHA256:other' })), /is signed by/],
  ['other bytes', commits((c) => ({ ...c, payload: sha256('other') })), /the signed bytes of the commit \w+ differ/],
  ['another tree', (v) => ({ ...v, tree: 'a'.repeat(40) }), /its tree is \w+, but a different tree was judged/],
  ['another start', (v) => ({ ...v, from: 'b'.repeat(40) }), /its commits do not lead to bbbbbbbbbbbb/],
  [
    'a commit left out',
    (v) => (v.commits.length < 2 ? v : { ...v, commits: v.commits.slice(1) }),
    /its commits do not lead to|is for a different commit/,
  ],
  [
    'a commit between others left out',
    (v) => ({ ...v, commits: v.commits.filter((c) => c.subject !== 'between') }),
    /it omits \w{12}, the parent of one of its commits/,
  ],
  [
    'a commit seen before its key counted',
    commits((c) => ({ ...c, seen: '2001-01-01T00:00:00.000Z' })),
    /is not signed as recorded/,
  ],
  ['another approver', approvals((a) => ({ ...a, principal: 'kim' })), /is by someone else, or not an approval/],
  [
    'an approval of another tree',
    approvals((a) => ({ ...a, tree: 'c'.repeat(40) })),
    /is for a different commit or tree/,
  ],
  [
    'an approval from another start',
    approvals((a) => ({ ...a, from: 'd'.repeat(40) })),
    /is for a different commit or tree/,
  ],
  [
    'a maker who approves',
    (v) => ({ ...v, commits: v.commits.map((c) => ({ ...c, signer: v.approvals[0] ?? signer('') }) as CommitVerdict) }),
    /is by someone who signed a commit that it approves/,
  ],
];
for (const [name, lie, says] of LIES)
  test(`a verdict that lies is found: ${name}`, async () => {
    const { wrong } = await again(lie);
    assert.ok(
      wrong.some((text) => says.test(text)),
      wrong.join('\n'),
    );
  });

test('a verdict that does not lie is found right, also where the maker of one step approved another', async () => {
  assert.deepEqual(await again((v) => v), { commits: 7, approvals: 4, wrong: [], unchecked: [] });
});

test('of a merge whose other side is not in the verdict, it is said that this was not looked at; from nothing, nothing may be left out', async () => {
  const without = (v: Verdict) => ({ ...v, commits: v.commits.filter((c) => c.commit !== side) });
  const { wrong, unchecked } = await again(without);
  assert.deepEqual(wrong, []);
  assert.deepEqual(
    unchecked.map((text) => text.slice(14)),
    [`whether what it merges (${side.slice(0, 12)}) is older than its start`],
  );
  const fromNothing = await again((v) => ({ ...v, from: NO_REVISION }));
  assert.equal(fromNothing.wrong.filter((text) => text.includes('do not lead to 000000000000')).length, 2);
});

test('a line that is not what its hash says is refused, by both checkers, whoever signed the manifest', async () => {
  const whole = join(directory, 'whole');
  const sound = readFileSync(join(whole, 'signed.jsonl'), 'utf8');
  const manifest = readFileSync(join(whole, 'manifest.txt'), 'utf8');
  const alone = () =>
    spawnSync(process.execPath, [join(whole, 'verify.mjs'), '--key', join(data, 'ledger.pub')], { encoding: 'utf8' });
  assert.equal(alone().status, 0, alone().stdout);
  const name = readFileSync(join(data, 'ledger.pub'), 'utf8').split('+')[0] ?? '';
  for (const kind of ['commit', 'envelope', 'trustPolicy']) {
    const altered = sound
      .split('\n')
      .map((line) => {
        if (!line.includes(`"${kind}"`)) return line;
        const value = JSON.parse(line) as Record<string, unknown>;
        if (kind === 'commit')
          value['object'] = Buffer.from(`${Buffer.from(String(value['object']), 'base64')} `).toString('base64');
        else if (kind === 'envelope') value['text'] = `${value['text']} `;
        else (value['policy'] as { metadata: { name: string } }).metadata.name = 'other';
        return JSON.stringify(value);
      })
      .join('\n');
    const text = manifest.slice(0, manifest.lastIndexOf('\n\n') + 1).replace(sha256(sound), sha256(altered));
    writeFileSync(join(whole, 'signed.jsonl'), altered);
    writeFileSync(join(whole, 'manifest.txt'), signNote(text, openSigner(data, name, undefined)));
    const verified = await verify('whole');
    assert.equal(verified.code, 1, verified.stdout);
    assert.match(verified.stdout, /✗ it cannot be rebuilt: .*(not match its hash|does not hash to its id)/);
    assert.match(alone().stdout, /WRONG a line of signed.jsonl does not match its hash/);
  }
  writeFileSync(join(whole, 'signed.jsonl'), sound);
  writeFileSync(join(whole, 'manifest.txt'), manifest);
});

test('who may sign and approve by the configuration is in the report, and so is every change of that; the first statement is none', async () => {
  const { ledger, recorder } = await recorderAt(data);
  const { environment, trust } = await gateOf(fleet, people);
  const policy: TrustPolicy = {
    ...trust.policy,
    spec: {
      ...trust.policy.spec,
      principals: trust.policy.spec.principals.filter((p) => p.name !== 'lee'),
      groups: trust.policy.spec.groups.map((g) => ({ ...g, members: g.members.filter((m) => m !== 'lee') })),
    },
  };
  const state = evidenceRef({
    environments: [stated(environment, policy, (url) => url)],
    changes: [],
    trustPolicies: [withoutAddresses(policy, recorder)],
  });
  for (let day = 0; day < 2; day++)
    await ledger.record({ type: 'config.stated', configuration: 'd', evidence: state.ref }, [state]);
  await ledger.close();
  assert.equal((await report('later', '--repo', fleet.work)).code, 0);
  const model = JSON.parse(readFileSync(join(directory, 'later', 'report.json'), 'utf8')) as ReportDocument;
  assert.deepEqual(
    model.accessChanges.map((c) => [c.environment, c.change, c.joined, c.left, c.otherwise]),
    [['production', '', [], ['lee'], ['rules of approval'].slice(1)]],
  );
  assert.deepEqual(
    model.access.map((a) => [a.principal, a.roles]),
    [
      ['dana', ['approver', 'developers', 'signer']],
      ['kim', ['approver', 'developers', 'signer']],
      ['lee', ['approver', 'developers']],
    ],
  );
  const [begun, ended] = [model.ledger.begins, model.accessChanges[0]?.time ?? ''];
  assert.ok(ended > begun);
  assert.deepEqual(
    model.access.map((a) => [a.principal, a.listedFrom >= begun && a.listedFrom < ended, a.listedUntil]),
    [
      ['dana', true, ''],
      ['kim', true, ''],
      ['lee', true, ended],
    ],
  );
  const pages = spawnSync('pdftotext', ['-layout', join(directory, 'later', 'report.pdf'), '-'], {
    encoding: 'utf8',
  }).stdout;
  assert.match(
    pages,
    /Change fail rate: deployments that were undone, or followed by a rollback or an emergency within 24 h/,
  );
  assert.match(pages, /the ledger has nothing from before/);
});

test('a name that the ledger was made to forget does not come back by way of a commit', async () => {
  assert.equal(
    (await countersign(['ledger', 'forget', 'kim@example.test', '--reason', 'HR-1', '--data', data])).code,
    0,
  );
  assert.equal((await report('forgotten', '--repo', fleet.work)).code, 0);
  const signed = readFileSync(join(directory, 'forgotten', 'signed.jsonl'), 'utf8');
  assert.equal(signed.match(/"commit"/g)?.length, 5);
  for (const line of signed.trimEnd().split('\n')) {
    const { object = '', text = '' } = JSON.parse(line) as { object?: string; text?: string };
    assert.doesNotMatch(`${Buffer.from(object, 'base64')}${text}${line}`, /kim@example\.test/);
  }
  // The TrustPolicy has lost an address, so that nobody can tell any more that it is the one the verdict names.
  const verified = await verify('forgotten');
  assert.equal(verified.code, 0, verified.stdout);
  assert.match(verified.stdout, /\? not checked: \w+: the TrustPolicy that judged it is missing/);
  const whole = await countersign(['verify', join(directory, 'forgotten'), '--key', join(data, 'ledger.pub')]);
  assert.equal(whole.code, 0, 'a directory is verified as well');
});

test('a report is held against checkpoints that somebody kept: the log only grew, or it did not', async () => {
  const kept = (name: string) => readFileSync(join(directory, name, 'checkpoint'), 'utf8');
  const put = (text: string) => {
    const file = join(directory, 'kept');
    writeFileSync(file, text);
    return file;
  };
  // Of before the last entries, and the very one.
  for (const name of ['whole', 'forgotten']) {
    const grown = await verify('forgotten', '--seen', put(kept(name)));
    assert.equal(grown.code, 0, grown.stdout);
    assert.match(grown.stdout, /✓ the log only grew since the checkpoint at \d+/);
  }
  const [origin = '', size = '', root = ''] = kept('whole').split('\n');
  const signer = openSigner(data, origin, undefined);
  const other = Buffer.from(root, 'base64').reverse().toString('base64');
  const forked = await verify('forgotten', '--seen', put(signNote(`${origin}\n${size}\n${other}\n`, signer)));
  assert.equal(forked.code, 1);
  assert.match(forked.stdout, new RegExp(`✗ the log only grew since the checkpoint at ${size}`));
  const ahead = await verify('forgotten', '--seen', put(signNote(`${origin}\n100000\n${root}\n`, signer)));
  assert.match(ahead.stdout, /✗ the log only grew since the checkpoint at 100000/);
  const unsigned = await verify('forgotten', '--seen', put(kept('whole').replace(root, other)));
  assert.match(unsigned.stdout, /✗ the checkpoint that was seen before is signed by this key/);
  const gone = await verify('forgotten', '--seen', join(directory, 'nowhere'));
  assert.equal(gone.code, 2);
  assert.match(gone.stderr, /there is no file/);
  // From before the period of the report: said not to be checked.
  assert.equal((await report('recent', '--from', '2099-01-01')).code, 0);
  const before = await verify('recent', '--seen', put(kept('whole')));
  assert.equal(before.code, 0, before.stdout);
  assert.match(
    before.stdout,
    /\? not checked: whether the log only grew since the checkpoint at \d+: the report’s entries begin at \d+/,
  );
});

test('a report says that the ledger begins later than its period, and that it is a draft while its period goes on', async () => {
  const early = await countersign([
    'report',
    '--data',
    data,
    '--out',
    join(directory, 'early'),
    '--from',
    '2001-01-01',
    '--to',
    '2002-01-01',
  ]);
  assert.equal(early.code, 0, early.stderr);
  assert.match(early.stdout, /^the ledger begins at 2\d{3}-.*: earlier events are unknown$/m);
  assert.doesNotMatch(early.stdout, /a draft/);
  assert.match((await report('open')).stdout, /a draft: the period had not ended at the newest entry/);
});
