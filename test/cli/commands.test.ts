import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadConfiguration } from '../../src/config/index.ts';
import { createKey, openLedger, readSigner, signNote } from '../../src/ledger/index.ts';
import type { Verdict } from '../../src/model/index.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { configMap, deployment, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { type CliResult, countersign } from '../kit/service.ts';

const directory = scratch();
const [dana, lee] = [sshPerson(directory, 'dana'), sshPerson(directory, 'lee')];
const PATH = 'clusters/production';
let fleet: Fleet;
let configuration = '';
let first = '';

before(async () => {
  fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  configuration = writeConfiguration(join(directory, 'config'), [
    environmentDocument({ url: fleet.url, namespaces: ['shop'] }),
    trustDocument([dana, lee]),
  ]);
  first = fleet.commit(dana, 'first', {
    [`${PATH}/ns.yaml`]: namespace('shop'),
    [`${PATH}/web.yaml`]: deployment('shop', 'web'),
  });
  fleet.push();
});

/** Exit 2, one message, the fix, and no stack. */
function undecided(result: CliResult, expected: RegExp): void {
  assert.equal(result.code, 2, result.stdout + result.stderr);
  assert.match(result.stderr, expected);
  assert.match(result.stderr, /^(fix: |\(use --help)/m);
  assert.doesNotMatch(result.stderr, /\n {4}at |defect/);
  assert.equal(result.stdout, '');
}

test('check, approve, check: no, then yes, with the exit codes of no and yes', async () => {
  fleet.git(undefined, 'switch', '--quiet', '-c', 'feature');
  fleet.commit(dana, 'settings', { [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { colour: 'red' }) });
  const no = await countersign(['check', '--repo', fleet.work, '--config', configuration]);
  assert.equal(no.code, 1, no.stderr);
  assert.match(
    no.stdout,
    /✗ approval-missing[\s\S]*fix: someone who did not make it must run `countersign approve[\s\S]*denied: 1 violation\n/,
  );
  fleet.become(lee);
  const approved = await countersign(['approve', 'feature', '--repo', fleet.work, '--reason', 'good', '--yes']);
  assert.equal(approved.code, 0, approved.stderr);
  assert.match(approved.stderr, /cm\.yaml/);
  const yes = await countersign(['check', '--repo', fleet.work, '--config', configuration, '--output', 'json']);
  assert.equal(yes.code, 0, yes.stdout);
  const verdict = JSON.parse(yes.stdout) as Verdict;
  assert.deepEqual(
    [verdict.outcome, verdict.from, verdict.approvals.map((a) => [a.principal, a.reason])],
    ['allowed', first, [['lee', 'good']]],
  );
  fleet.git(undefined, 'switch', '--quiet', 'main');
});

test('check names rule, file and line of what is wrong', async () => {
  const bad = fleet.commit(dana, 'bad', { [`${PATH}/web.yaml`]: deployment('shop', 'web', { privileged: true }) });
  const result = await countersign([
    'check',
    '--repo',
    fleet.work,
    '--config',
    configuration,
    '--base',
    first,
    '--head',
    bad,
  ]);
  assert.equal(result.code, 1);
  assert.match(result.stdout, /✗ privileged {2}critical, .*\n {4}clusters\/production\/web\.yaml:23:\d+\n/);
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
});

test('a commit cannot paint over what is said of it', async () => {
  const evil = fleet.commit(dana, 'x\u001b[2K\u202E all good', { evil: 'x' }, { sign: false });
  const results = await Promise.all([
    countersign(['provenance', `${first}..${evil}`, '--repo', fleet.work, '--config', configuration]),
    countersign(['check', '--repo', fleet.work, '--config', configuration, '--base', first, '--head', evil]),
  ]);
  for (const { stdout } of results) {
    assert.ok(stdout.includes('x<U+001B>[2K<U+202E> all good'), stdout);
    assert.ok(!stdout.includes('\u001b') && !stdout.includes('\u202e'));
  }
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
});

test('approve does not approve what would not be merged', async () => {
  fleet.git(undefined, 'switch', '--quiet', '-c', 'old', first);
  fleet.commit(dana, 'old', { a: 'x' });
  fleet.git(undefined, 'switch', '--quiet', 'main');
  fleet.commit(dana, 'newer', { b: 'x' });
  fleet.push();
  fleet.git(undefined, 'fetch', '--quiet', 'origin');
  undecided(await countersign(['approve', 'old', '--repo', fleet.work, '--yes']), /does not contain the tip of `main`/);
});

test('provenance gives one verdict per commit, as text and as lines of JSON', async () => {
  fleet.commit(dana, 'unsigned', { c: 'x' }, { sign: false });
  const text = await countersign(['provenance', 'HEAD', '--repo', fleet.work, '--config', configuration]);
  assert.equal(text.code, 1);
  assert.match(text.stdout, /verified {2}dana \(ssh\)[\s\S]*refused {3}unsigned[\s\S]*3 commits, 1 refused/);
  const lines = await countersign([
    'provenance',
    `${first}..HEAD`,
    '--repo',
    fleet.work,
    '--trust',
    join(configuration, '1.yaml'),
    '--output',
    'jsonl',
  ]);
  const verdicts = lines.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { outcome: string; code: string; committer: string });
  assert.deepEqual(
    verdicts.map((v) => v.code),
    ['verified', 'unsigned'],
  );
  const good = await countersign(['provenance', first, '--repo', fleet.work, '--config', configuration]);
  assert.equal(good.code, 0);
});

describe('what cannot be judged is one clear message with the fix, exit 2:', () => {
  const broken = join(directory, 'broken');
  before(() => {
    mkdirSync(broken);
    writeFileSync(join(broken, 'a.yaml'), 'kind: [Environment\n');
  });
  for (const [what, args, expected] of [
    ['malformed YAML', ['check', '--config', broken], /a\.yaml:1: `\[` is never closed/],
    ['no configuration', ['check', '--config', '/nowhere'], /cannot read the configuration at `\/nowhere`/],
    ['an unknown command', ['chekc'], /unknown command 'chekc'/],
    ['an unknown option', ['check', '--bse', 'x'], /unknown option '--bse'/],
    ['an output that is not one', ['check', '--output', 'xml'], /'xml' is invalid/],
    ['no ledger', ['ledger', 'verify', '--data', '/nowhere'], /there is no public key at/],
    ['no report', ['verify', '/nowhere/report.pdf', '--key', 'x'], /there is no file/],
  ] as const) {
    test(what, async () => {
      const result = await countersign(args, { cwd: directory });
      assert.equal(result.code, 2, result.stdout);
      assert.match(result.stderr, expected);
    });
  }
  test('a directory that is no repository', async () =>
    undecided(await countersign(['check', '--config', configuration, '--repo', '/']), /`\/` is not a Git repository/));
  test('a base that is not there', async () =>
    undecided(
      await countersign(['check', '--config', configuration, '--repo', fleet.work, '--base', 'nowhere']),
      /`nowhere` is not a commit here/,
    ));
  test('an environment that is not there', async () =>
    undecided(
      await countersign(['check', '--config', configuration, '--repo', fleet.work, '--environment', 'x']),
      /no environment `x`/,
    ));
  test('a key that cannot be used', async () => {
    const config = writeConfiguration(join(directory, 'badkey'), [
      environmentDocument({ url: fleet.url, namespaces: ['shop'] }),
      trustDocument([{ ...dana, publicKey: 'ssh-ed25519 AAAA' }], { required: 0 }),
    ]);
    undecided(
      await countersign(['check', '--config', config, '--repo', fleet.work, '--base', first]),
      /\.yaml:\d+: key 1 of `dana` in the TrustPolicy `team` cannot be used/,
    );
  });
  test('a repository that cannot be reached', async () => {
    const away = new Fleet(directory, 'away');
    away.remote('http://127.0.0.1:9/away.git');
    away.commit(dana, 'x', { a: 'x' });
    undecided(
      await countersign(['check', '--config', configuration, '--repo', away.work, '--base', '0'.repeat(40)]),
      /cannot fetch approvals from `origin`/,
    );
    away.become(lee);
    undecided(
      await countersign(['approve', 'HEAD', '--repo', away.work, '--yes']),
      /cannot fetch approvals from `origin`|does not answer|Could not resolve|unable to access/,
    );
  });
  test('a key to approve with that is missing', async () => {
    fleet.become({ ...lee, signingKey: '/nowhere/key' });
    undecided(
      await countersign(['approve', 'main', '--repo', fleet.work, '--yes']),
      /ssh-keygen could not sign with `\/nowhere\/key`/,
    );
  });
  test('a ledger key that is missing, and a checkpoint that is not trusted', async () => {
    const data = join(directory, 'ledger');
    const ledger = await openLedger(data, 'countersign.dev/test');
    await ledger.record({ type: 'service.started', version: '1', environments: [], configuration: 'c' });
    await ledger.close();
    assert.equal((await countersign(['ledger', 'verify', '--data', data])).code, 0);
    undecided(
      await countersign(['ledger', 'verify', '--data', data, '--key', '/nowhere.pub']),
      /there is no public key at `\/nowhere\.pub`/,
    );
    const forged = join(directory, 'forged');
    writeFileSync(
      forged,
      signNote(
        'countersign.dev/test\n2\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n',
        readSigner('countersign.dev/test', createKey()),
      ),
    );
    undecided(
      await countersign(['ledger', 'verify', '--data', data, '--checkpoint', forged]),
      /a checkpoint to verify against is not signed by a key of this ledger/,
    );
  });
});

test('every command has help with an example', async () => {
  const commands = [
    ...['check', 'provenance', 'approve', 'serve', 'report', 'verify', 'init'].map((c) => [c]),
    ...['list', 'verify', 'reject', 'revoke', 'import'].map((c) => ['approvals', c]),
    ...['lint', 'list', 'import'].map((c) => ['trust', c]),
    ...[
      'verify',
      'show',
      'prove',
      'export',
      'import',
      'archive',
      'audit',
      'rotate-key',
      'new-epoch',
      'forget',
      'schema',
    ].map((c) => ['ledger', c]),
  ];
  for (const command of commands) {
    const { code, stdout } = await countersign([...command, '--help']);
    assert.equal(code, 0);
    assert.match(stdout, /Examples?:\n {2}countersign /, command.join(' '));
    for (const line of stdout.split('\n')) assert.ok(line.length <= 110, line);
  }
});

test('init writes documents that check understands, and overwrites nothing', async () => {
  const work = new Fleet(directory, 'fresh');
  work.remote(work.bare);
  work.become(dana);
  const args = ['init', '--repo', work.work, '--namespace', 'shop'];
  assert.equal((await countersign(args)).code, 0);
  undecided(await countersign(args), /already exists/);
  work.commit(dana, 'first', { [`${PATH}/ns.yaml`]: namespace('shop') });
  const result = await countersign(['check', '--base', '0'.repeat(40), '--no-fetch'], { cwd: work.work });
  assert.equal(result.code, 0, result.stdout + result.stderr);
});

test('init renders a chart or a kustomization as one, and says that the address is missing', async () => {
  for (const [file, render] of [
    ['Chart.yaml', 'helm'],
    ['kustomization.yaml', 'kustomize'],
  ] as const) {
    const work = new Fleet(directory, `renders-${render}`);
    work.become(dana);
    work.commit(dana, 'first', { [`deploy/${file}`]: 'name: shop\n' });
    const { code, stdout } = await countersign(['init', '--repo', work.work, '--path', 'deploy']);
    assert.equal(code, 0);
    assert.match(stdout, /no remote `origin`: set `spec\.source\.url`/);
    const [environment] = loadConfiguration([join(work.work, 'countersign')]).environments;
    assert.equal(environment?.spec.render.with, render);
  }
});

test('an ancestor beyond the first commit is not to be fetched; one that a shallow clone lacks is', async () => {
  const work = new Fleet(directory, 'short');
  work.become(dana);
  work.commit(dana, 'first', { [`${PATH}/ns.yaml`]: namespace('shop') });
  const check = (at: string) =>
    countersign(['check', '--repo', at, '--config', configuration, '--base', 'HEAD~1', '--no-fetch']);
  undecided(await check(work.work), /`HEAD~1` is not a commit here[\s\S]*`HEAD` has no such ancestor/);
  work.commit(dana, 'second', { [`${PATH}/cm.yaml`]: configMap('shop', 'settings', { k: '1' }) });
  const shallow = join(directory, 'shallow');
  execFileSync('git', ['clone', '--quiet', '--depth=1', `file://${work.work}`, shallow]);
  undecided(await check(shallow), /the clone is shallow; fetch the rest: `git fetch --unshallow`/);
});

test('init with several namespaces shows the key for objects that set none, and leaves the choice open', async () => {
  const work = new Fleet(directory, 'several');
  work.become(dana);
  assert.equal((await countersign(['init', '--repo', work.work, '--namespace', 'shop', 'jobs'])).code, 0);
  const text = readFileSync(join(work.work, 'countersign/environment.yaml'), 'utf8');
  assert.match(text, /\n {4}namespaces: \[shop, jobs\]\n {4}# namespace: shop # for objects that do not set one\n/);
  const chosen = text.replace('# namespace: shop #', 'namespace: shop #');
  writeFileSync(join(work.work, 'countersign/environment.yaml'), chosen);
  const [environment] = loadConfiguration([join(work.work, 'countersign')]).environments;
  assert.equal(environment?.spec.target.namespace, 'shop');
});

test('an older Node says so in one line instead of a syntax error', () => {
  const bin = fileURLToPath(new URL('../../bin/countersign.mjs', import.meta.url));
  const old = join(directory, 'old.mjs');
  writeFileSync(old, readFileSync(bin, 'utf8').replace('process.versions.node', '"20.1.0"'));
  assert.throws(
    () => execFileSync(process.execPath, [old], { stdio: 'pipe', encoding: 'utf8' }),
    (thrown: { status: number; stderr: string }) =>
      thrown.status === 2 && thrown.stderr.split('\n').length === 2 && /needs Node\.js 24/.test(thrown.stderr),
  );
});
