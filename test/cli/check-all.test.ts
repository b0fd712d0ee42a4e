import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import type { Finding } from '../../src/findings/index.ts';
import type { Verdict } from '../../src/model/index.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { deployment, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// One run over all environments of a set gives the verdicts that one run for each gives.
const directory = scratch();
const dana = sshPerson(directory, 'dana');
const fleet = new Fleet(directory, 'fleet');
const NAMES = ['eu', 'us', 'asia'];
const shop = (name: string, privileged = false) => ({
  [`shops/${name}/ns.yaml`]: namespace(name),
  [`shops/${name}/web.yaml`]: deployment(name, 'web', { privileged }),
});
let configuration = '';
let first = '';

before(() => {
  fleet.remote(fleet.bare);
  const { spec } = environmentDocument({ url: fleet.url, namespaces: ['${name}'], path: 'shops/${name}' }) as {
    readonly spec: object;
  };
  const set = {
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'EnvironmentSet',
    metadata: { name: 'shops' },
    spec: {
      list: { elements: NAMES.map((name) => ({ name })) },
      template: { metadata: { name: 'shop-${name}' }, spec },
    },
  };
  configuration = writeConfiguration(join(directory, 'config'), [set, trustDocument([dana], { required: 0 })]);
  first = fleet.commit(dana, 'first', Object.fromEntries(NAMES.flatMap((name) => Object.entries(shop(name)))));
  fleet.push();
});

const check = (...args: readonly string[]) =>
  countersign(['check', '--repo', fleet.work, '--config', configuration, '--base', first, '--no-fetch', ...args]);
const verdictOf = (name: string, verdicts: readonly Verdict[]) => verdicts.find((v) => v.environment === name);

test('a change that is right everywhere is allowed everywhere', async () => {
  fleet.commit(dana, 'unrelated', { README: 'x' });
  const { code, stdout, stderr } = await check('--all-environments');
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /^allowed for 3 environments$/m);
});

test('what one environment would refuse denies the change, with the verdicts that each would give', async () => {
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
  fleet.commit(dana, 'bad', { ...shop('us', true), ...shop('asia', true) });
  const sarif = join(directory, 'out.sarif');
  const text = await check('--all-environments', '--report', `sarif=${sarif}`);
  assert.equal(text.code, 1, text.stderr);
  assert.match(text.stdout, /✗ privileged .*\n {4}shops\/us\/web\.yaml:\d+:\d+\n .* \(in shop-us\)/);
  assert.match(
    text.stdout,
    /✗ shop-us {2}denied: 1 violation\n✗ shop-asia {2}denied: 1 violation\ndenied for 2 of 3 environments\n$/,
  );
  assert.match(readFileSync(sarif, 'utf8'), /shops\/asia\/web\.yaml/);
  const all = await check('--all-environments', '--output', 'json');
  const { outcome, environments } = JSON.parse(all.stdout) as { outcome: string; environments: Verdict[] };
  assert.deepEqual([all.code, outcome], [1, 'denied']);
  for (const name of NAMES) {
    const one = await check('--environment', `shop-${name}`, '--output', 'json');
    const {
      findings: _,
      fixed: __,
      ...alone
    } = JSON.parse(one.stdout) as Verdict & { findings: unknown; fixed: unknown };
    const together = verdictOf(`shop-${name}`, environments);
    assert.equal(one.code, name === 'eu' ? 0 : 1);
    const content = ({ outcome, violations, warnings, commits, objects }: Verdict) => ({
      outcome,
      violations,
      warnings,
      commits: commits.map((c) => [c.commit, c.code]),
      objects,
    });
    assert.deepEqual(content(together as Verdict), content(alone));
  }
});

test('what is wrong with the commits is said once, with the environments', async () => {
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
  fleet.commit(dana, 'unsigned', { README: 'y' }, { sign: false });
  const { code, stdout } = await check('--all-environments', '--output', 'json');
  assert.equal(code, 1);
  const { findings, environments } = JSON.parse(stdout) as { findings: Finding[]; environments: Verdict[] };
  assert.equal(environments.filter((v) => v.outcome === 'denied').length, 3);
  const unsigned = findings.filter((f) => f.code === 'unsigned');
  assert.equal(unsigned.length, 1, stdout);
  assert.match(unsigned[0]?.message ?? '', /\(in shop-eu, shop-us, shop-asia\)$/);
});

test('all environments are those of this checkout, and one is not all', async () => {
  const both = await check('--all-environments', '--environment', 'shop-eu');
  assert.deepEqual(
    [both.code, /`--all-environments` is for all environments/.test(both.stderr)],
    [2, true],
    both.stderr,
  );
  const other = environmentDocument({
    name: 'other',
    url: 'https://git.example.test/other.git',
    namespaces: ['other'],
  });
  const config = writeConfiguration(join(directory, 'two'), [
    environmentDocument({ url: `${fleet.url}`, namespaces: ['eu'], path: 'shops/eu' }),
    other,
    trustDocument([dana], { required: 0 }),
  ]);
  fleet.git(undefined, 'reset', '--quiet', '--hard', first);
  fleet.commit(dana, 'fine', { README: 'z' });
  const args = ['--repo', fleet.work, '--config', config, '--base', first, '--no-fetch', '--all-environments'];
  const here = await countersign(['check', ...args]);
  assert.match(here.stdout, /^allowed for 1 environment$/m, here.stderr);
  fleet.git(undefined, 'remote', 'set-url', 'origin', 'https://git.example.test/third.git');
  const nowhere = await countersign(['check', ...args]);
  assert.equal(nowhere.code, 2);
  assert.match(nowhere.stderr, /environments of 2 repositories, and none of them is this checkout’s remote/);
});
