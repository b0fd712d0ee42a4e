import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { topics } from '../../src/cli/help.ts';
import { showWait } from '../../src/cli/show-wait.ts';
import { openLedger } from '../../src/ledger/index.ts';
import { commitId, recordChange } from '../kit/report-ledger.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// Small things that people met in their first hour: each message says what is wrong, where, and what to do next.
const directory = scratch();
const data = join(directory, 'data');
let denied = 0;

before(async () => {
  const ledger = await openLedger(data, 'countersign.dev/test');
  await ledger.record({ type: 'service.started', version: '1', environments: ['production'], configuration: 'c' });
  await recordChange(ledger, commitId(1));
  const judged = await recordChange(ledger, commitId(2), {
    from: commitId(1),
    outcome: 'denied',
    violations: [
      {
        code: 'policy',
        rule: 'privileged',
        message: 'Deployment shop/web: the container `web` is privileged',
        hint: 'remove `privileged`',
        source: { file: 'clusters/production/web.yaml', line: 23 },
      },
    ],
  });
  denied = judged.index;
  await ledger.close();
});

test('`ledger show` of a denied verdict prints each reason with its place and fix, and the next command', async () => {
  const { stdout } = await countersign(['ledger', 'show', String(denied), '--data', data]);
  assert.match(stdout, /privileged {2}clusters\/production\/web\.yaml:23/);
  assert.match(stdout, /fix: remove `privileged`/);
  assert.match(stdout, /next: .*countersign check --base/);
});

test('`status` without a service shows the last verdict, and where its reasons are', async () => {
  const { stdout, stderr, code } = await countersign(['status', '--data', data]);
  assert.equal(code, 1, stderr);
  assert.match(stderr, /no service runs on this data directory/);
  assert.match(stdout, /denied/);
  assert.match(stdout, /the container `web` is privileged/);
  assert.ok(stdout.includes(`countersign ledger show ${denied}`), stdout);
});

test('an object that is not found is said to be not found, and nothing more', async () => {
  const { stdout, code } = await countersign(['explain', 'deploy/weeb', '--data', data]);
  assert.equal(code, 1);
  assert.match(stdout, /^not found: the ledger has no object deploy\/weeb/);
  assert.doesNotMatch(stdout, /created|brought|past the gate/);
});

test('a Pod is looked up in one namespace, which has to be named', async () => {
  const { stderr, code } = await countersign(['explain', 'po/web-1', '--data', data]);
  assert.equal(code, 2);
  assert.match(stderr, /looked up in the cluster, in one namespace[\s\S]*-n/);
});

test('`init` outside of a repository, or with a name that later commands refuse, writes nothing', async () => {
  const plain = join(directory, 'plain');
  mkdirSync(plain);
  const outside = await countersign(['init'], { cwd: plain });
  assert.match(outside.stderr, /is not a Git repository/);
  execFileSync('git', ['init', '--quiet', plain]);
  const named = await countersign(['init', '--environment', 'Prod_X'], { cwd: plain });
  assert.match(named.stderr, /`Prod_X` cannot be the name that --environment gives/);
  const spaced = await countersign(['init', '--namespace', 'shop', 'My Shop'], { cwd: plain });
  assert.match(spaced.stderr, /`My Shop` cannot be the name that --namespace gives/);
  assert.deepEqual([outside.code, named.code, spaced.code], [2, 2, 2]);
  assert.throws(() => readFileSync(join(plain, 'countersign/trust.yaml')));
});

for (const flags of [['--policy', 'x'], ['--data', 'x'], ['--parameters', 'a=b'], ['--combine']])
  test(`\`check ${flags[0]}\` without --manifests is an error, not ignored`, async () => {
    const { stderr, code } = await countersign(['check', ...flags], { cwd: directory });
    assert.equal(code, 2);
    assert.match(stderr, new RegExp(`\`${flags[0]}\` is only for plain files[\\s\\S]*--manifests`));
  });

const trustWith = (line: string) =>
  `apiVersion: countersign.dev/v1alpha1\nkind: TrustPolicy\nmetadata:\n  name: team\nspec:\n  principals: []\n${line}\n`;

for (const [what, text, message] of [
  ['an unclosed bracket', trustWith('  groups: [a, b\n  rules: []'), /trust\.yaml:7: `\[` is never closed/],
  ['a wrong key', trustWith('  grups: []\n  rules: []'), /trust\.yaml:7: spec[\s\S]*grups/],
  ['a wrong enum', trustWith('  history: sometimes\n  rules: []'), /trust\.yaml:7: spec\.history: /],
] as const)
  test(`${what} names file, line and where every key is listed`, async () => {
    const file = join(directory, 'trust.yaml');
    writeFileSync(file, text);
    const { stdout } = await countersign(['trust', 'lint', '--config', file]);
    assert.match(stdout, message);
    assert.match(stdout, /fix: `countersign help configuration`/);
    assert.doesNotMatch(stdout, /U\+000A/);
  });

test('every page that a message names is printed by `help`, and is in the package', async () => {
  assert.ok(topics().includes('configuration') && topics().includes('operations'));
  assert.match((await countersign(['help', 'configuration'])).stdout, /^(<!--.*-->\n+)?# Configuration/);
  assert.match((await countersign(['help', 'policy.md'])).stdout, /^# Policy/);
  assert.match((await countersign(['help', 'ledger', 'show'])).stdout, /^Usage: countersign ledger show/);
  const unknown = await countersign(['help', 'nothing']);
  assert.equal(unknown.code, 2);
  assert.match(unknown.stderr, /topics are .*configuration/);
  const { files } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    files: string[];
  };
  assert.ok(files.includes('docs/*.md'));
});

test('a wait says what it waits for, once for each state, and nothing once it is over', async () => {
  const said: string[] = [];
  const states = ['production is applying: writing', 'production is applying: writing', 'production is applied: at 1'];
  const { promise, resolve } = Promise.withResolvers<string>();
  const asked = showWait({ err: (text) => said.push(text) }, 'production: fetching', promise, async () => {
    const state = states.shift();
    if (states.length === 0) resolve('done');
    return state;
  });
  assert.equal(await asked, 'done');
  assert.deepEqual(said.slice(0, 2), ['waiting: production: fetching\n', 'waiting: production is applying: writing\n']);
  assert.equal(new Set(said).size, said.length);
});

test('a flag of `report` before its subcommand is refused, not ignored', async () => {
  const { stderr, code } = await countersign(['report', '--data', '/nowhere', 'list']);
  assert.equal(code, 2);
  assert.match(stderr, /`--data` is before `list`[\s\S]*countersign report list … --data …/);
});

test('a kind that is a name of every JavaScript object is not found, like any other', async () => {
  for (const kind of ['toString', 'constructor', '__proto__'])
    assert.match((await countersign(['explain', `${kind}/x`, '-n', 'shop', '--data', data])).stdout, /^not found: /);
});
