import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseYaml } from '../../src/yaml/index.ts';
import { approveAs } from '../kit/approve.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { inQuickRun } from '../kit/machine.ts';
import { deployment, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PATH = 'clusters/production';
const directory = scratch();
const prefix = join(directory, 'npm');
const [dana, lee] = [sshPerson(directory, 'dana'), sshPerson(directory, 'lee')];
let fleet: Fleet;
let tarball = '';
const heads = { main: '', good: '', bad: '' };

before(() => {
  tarball = inQuickRun() === false ? pack() : '';
  fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  const config = [
    environmentDocument({ url: fleet.url, namespaces: ['shop'] }),
    trustDocument([dana, lee], { required: 0 }),
  ];
  heads.main = fleet.commit(dana, 'first', {
    [`${PATH}/ns.yaml`]: namespace('shop'),
    ...Object.fromEntries(config.map((document, i) => [`countersign/${i}.yaml`, JSON.stringify(document)])),
  });
  fleet.push();
  heads.good = fleet.commit(dana, 'good', { [`${PATH}/web.yaml`]: deployment('shop', 'web') });
  fleet.git(undefined, 'push', '--quiet', fleet.bare, 'HEAD:refs/heads/good');
  heads.bad = fleet.commit(dana, 'bad', { [`${PATH}/web.yaml`]: deployment('shop', 'web', { privileged: true }) });
  fleet.git(undefined, 'push', '--quiet', fleet.bare, 'HEAD:refs/heads/bad');
});

/**
 * The package as npm would publish it, made from a copy: a build beside the sources would be run by every other test.
 */
function pack(): string {
  const copy = join(directory, 'copy');
  mkdirSync(copy);
  for (const file of execFileSync('git', ['ls-files', '-co', '--exclude-standard', '-z'], {
    cwd: ROOT,
    encoding: 'utf8',
  }).split('\0')) {
    if (file === '' || !existsSync(join(ROOT, file))) continue;
    mkdirSync(dirname(join(copy, file)), { recursive: true });
    cpSync(join(ROOT, file), join(copy, file));
  }
  cpSync(join(ROOT, 'policies/dist'), join(copy, 'policies/dist'), { recursive: true });
  for (const link of ['node_modules', '.tools']) symlinkSync(join(ROOT, link), join(copy, link));
  execFileSync('npm', ['pack', '--silent'], {
    cwd: copy,
    env: { ...process.env, PATH: searchPath() },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return join(
    copy,
    `countersign-${(JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string }).version}.tgz`,
  );
}

function searchPath(): string {
  return `${join(prefix, 'bin')}:${dirname(process.execPath)}:${process.env['PATH'] ?? ''}`;
}

/** A clone as a runner has it: all of the history, the change's head checked out. */
function clone(head: string): string {
  const at = join(directory, 'clone');
  rmSync(at, { recursive: true, force: true });
  execFileSync('git', ['clone', '--quiet', '--no-local', fleet.bare, at]);
  execFileSync('git', ['checkout', '--quiet', '--detach', head], { cwd: at });
  return at;
}

/** Runs shell lines one after the other, as a runner does: the first that fails ends the job. */
function job(
  lines: readonly string[],
  cwd: string,
  env: Readonly<Record<string, string>>,
): { code: number; out: string } {
  let out = '';
  for (const line of lines) {
    const { CI: _, GITHUB_BASE_REF: __, ...mine } = process.env;
    const result = spawnSync('bash', ['--noprofile', '--norc', '-eo', 'pipefail', '-c', line], {
      cwd,
      encoding: 'utf8',
      env: {
        ...mine,
        PATH: searchPath(),
        npm_config_prefix: prefix,
        npm_config_prefer_offline: 'true',
        PACKAGE: tarball,
        ...env,
      },
    });
    out += result.stdout + result.stderr;
    if (result.status !== 0) return { code: result.status ?? 137, out };
  }
  return { code: 0, out };
}

const installed = new Set<string>();

// A line that installs is run once: all recipes install the same package in the same way.
function once(lines: readonly string[]): string[] {
  return lines.filter((line) => {
    if (!line.startsWith('npm install')) return true;
    const before = installed.size;
    return installed.add(line.replace('$PACKAGE', tarball)).size > before;
  });
}

const yaml = (file: string, i = 0) => parseYaml(readFileSync(join(ROOT, file), 'utf8'))[i]?.value as never;

type Step = {
  readonly name?: string;
  readonly uses?: string;
  readonly run?: string;
  readonly script?: string;
  readonly env?: Record<string, string>;
};

let actionInstalled = false; // once is enough

/** The action's steps with its inputs and what GitHub knows put in; an expression that is not known fails the test. */
function action(
  inputs: Readonly<Record<string, string>>,
  event: Readonly<Record<string, string>>,
  cwd: string,
): { code: number; out: string; summary: string } {
  const definition = yaml('action.yml') as { inputs: Record<string, { default: string }>; runs: { steps: Step[] } };
  const given = (name: string) => inputs[name] ?? definition.inputs[name]?.default ?? assert.fail(`no input ${name}`);
  const resolve = (text: string) =>
    text.replace(/\$\{\{ (.*?) \}\}/g, (_, expression: string) => {
      const input = /^inputs\.([\w-]+)(?: \|\| (.*))?$/.exec(expression) ?? assert.fail(expression);
      return given(input[1] as string) || (input[2] === undefined ? '' : (event[input[2]] ?? assert.fail(input[2])));
    });
  const temp = join(directory, 'runner');
  rmSync(temp, { recursive: true, force: true });
  mkdirSync(temp);
  const runner = {
    GITHUB_ACTION_PATH: ROOT,
    RUNNER_TEMP: temp,
    GITHUB_STEP_SUMMARY: join(temp, 'summary.md'),
    GITHUB_OUTPUT: join(temp, 'output'),
  };
  let [code, out] = [0, ''];
  for (const step of definition.runs.steps.filter(
    (s) => s.run !== undefined && !(s.name === 'install' && actionInstalled),
  )) {
    const env = Object.fromEntries(Object.entries(step.env ?? {}).map(([k, v]) => [k, resolve(v)]));
    ({ code, out } = job([step.run as string], cwd, {
      ...runner,
      ...(event['base'] === undefined ? {} : { GITHUB_BASE_REF: event['base'] }),
      ...env,
    }));
    if (code !== 0) break;
    actionInstalled = true;
  }
  return {
    code,
    out,
    summary: existsSync(runner.GITHUB_STEP_SUMMARY) ? readFileSync(runner.GITHUB_STEP_SUMMARY, 'utf8') : '',
  };
}

describe('recipes, run line by line as they are written', { skip: inQuickRun() }, () => {
  const pushed = "(github.event_name == 'push' && github.event.before) || ''";
  const head = 'github.event.pull_request.head.sha || github.sha';

  test('the GitHub Action on a pull request: annotations, summary, SARIF, and the exit code', () => {
    for (const [which, code] of [
      ['good', 0],
      ['bad', 1],
    ] as const) {
      const cwd = clone(heads[which]);
      const result = action({ package: tarball }, { [pushed]: '', [head]: heads[which], base: 'main' }, cwd);
      assert.equal(result.code, code, result.out);
      assert.match(result.summary, code === 0 ? /## Countersign: allowed/ : /## Countersign: denied, 1 violation/);
      if (code === 1)
        assert.match(result.out, /::error file=clusters\/production\/web\.yaml,line=\d+,col=\d+,title=privileged::/);
      assert.equal(
        (JSON.parse(readFileSync(join(cwd, 'countersign.sarif'), 'utf8')) as { version: string }).version,
        '2.1.0',
      );
    }
  });

  test('the GitHub Action on a push, and on plain files', () => {
    assert.equal(action({ package: tarball }, { [pushed]: heads.main, [head]: heads.bad }, clone(heads.bad)).code, 1);
    const files = action(
      { package: tarball, manifests: `${PATH}\n`, 'fail-on-warn': 'true' },
      { [pushed]: '', [head]: heads.bad },
      clone(heads.bad),
    );
    assert.equal(files.code, 1, files.out);
    assert.match(files.summary, /2 objects checked/);
  });

  test('the GitLab template', () => {
    const { countersign: template } = yaml('ci/gitlab.yml', 1) as { countersign: { script: string[] } };
    const defaults = (yaml('ci/gitlab.yml') as { spec: { inputs: Record<string, { default: string }> } }).spec.inputs;
    const lines = template.script.map((line) =>
      line.replace(/\$\[\[ inputs\.(\w+) \]\]/g, (_, name: string) =>
        name === 'package' ? tarball : (defaults[name]?.default ?? assert.fail(name)),
      ),
    );
    for (const [which, code] of [
      ['good', 0],
      ['bad', 1],
    ] as const) {
      const cwd = clone(heads[which]);
      const result = job(once(lines), cwd, {
        CI_COMMIT_SHA: heads[which],
        CI_MERGE_REQUEST_SOURCE_BRANCH_SHA: '',
        CI_MERGE_REQUEST_DIFF_BASE_SHA: heads.main,
      });
      assert.equal(result.code, code, result.out);
      const quality = JSON.parse(readFileSync(join(cwd, 'gl-code-quality-report.json'), 'utf8')) as {
        check_name: string;
      }[];
      assert.deepEqual(
        quality.map((q) => q.check_name),
        code === 0 ? [] : ['privileged'],
      );
      assert.match(readFileSync(join(cwd, 'countersign.junit.xml'), 'utf8'), /<testsuites>/);
    }
  });

  for (const [what, lines, env] of [
    [
      'Gitea',
      () =>
        (yaml('ci/gitea.yml') as { jobs: { check: { steps: Step[] } } }).jobs.check.steps.flatMap((s) => s.run ?? []),
      (h: string) => ({ GITHUB_BASE_REF: 'main', HEAD: h }),
    ],
    [
      'Jenkins',
      () =>
        [...readFileSync(join(ROOT, 'ci/Jenkinsfile'), 'utf8').matchAll(/^ *sh '(.*)'$/gm)].map((m) => m[1] as string),
      () => ({ CHANGE_TARGET: 'main', NPM_CONFIG_PREFIX: prefix }),
    ],
    [
      'Azure Pipelines',
      () => (yaml('ci/azure-pipelines.yml') as { steps: Step[] }).steps.flatMap((s) => s.script ?? []),
      (h: string) => ({ SYSTEM_PULLREQUEST_TARGETBRANCH: 'refs/heads/main', SYSTEM_PULLREQUEST_SOURCECOMMITID: h }),
    ],
  ] as const) {
    test(what, () => {
      assert.ok(lines().length >= 2);
      for (const [which, code] of [
        ['good', 0],
        ['bad', 1],
      ] as const) {
        const result = job(once(lines()), clone(heads[which]), env(heads[which]));
        assert.equal(result.code, code, result.out);
        if (code === 1) assert.match(result.out, /privileged/);
      }
    });
  }

  test('the pre-commit hook is given the files of the commit', () => {
    const [hook] = yaml('.pre-commit-hooks.yaml') as { entry: string }[];
    const cwd = clone(heads.bad);
    assert.equal(job([`${hook?.entry} ${PATH}/ns.yaml`], cwd, {}).code, 0);
    const result = job([`${hook?.entry} ${PATH}/ns.yaml ${PATH}/web.yaml`], cwd, {});
    assert.equal(result.code, 1, result.out);
    assert.match(result.out, /web\.yaml:\d+:\d+/);
  });
});

test('the pre-receive hook takes no push to a governed branch that the gate would refuse', async () => {
  const server = new Fleet(join(directory, 'server'));
  server.remote(server.bare);
  const config = writeConfiguration(join(directory, 'server-config'), [
    environmentDocument({ url: server.url, namespaces: ['shop'] }),
    trustDocument([dana, lee], { required: 1 }),
  ]);
  const hook = join(server.bare, 'hooks/pre-receive');
  mkdirSync(dirname(hook), { recursive: true });
  const script = readFileSync(join(ROOT, 'ci/pre-receive'), 'utf8');
  const bin = join(directory, 'bin');
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, 'countersign'), `#!/bin/sh\nexec "${process.execPath}" "${ROOT}bin/countersign.mjs" "$@"\n`, {
    mode: 0o755,
  });
  const install = (where: string) =>
    writeFileSync(
      hook,
      script.replace(
        'exec ',
        `PATH="${bin}:$PATH" COUNTERSIGN_CONFIG="${where}"\nexport PATH COUNTERSIGN_CONFIG\nexec `,
      ),
      { mode: 0o755 },
    );
  const push = (...refspec: string[]) =>
    spawnSync('git', ['push', '--quiet', server.bare, ...refspec], { cwd: server.work, encoding: 'utf8' });
  const first = server.commit(dana, 'first', { [`${PATH}/ns.yaml`]: namespace('shop') });
  server.push();
  install(config);

  const second = server.commit(dana, 'second', { [`${PATH}/web.yaml`]: deployment('shop', 'web') });
  const refused = push('HEAD:refs/heads/main');
  assert.notEqual(refused.status, 0);
  assert.match(refused.stderr, /remote: denied: 1 violation/);
  assert.equal(server.git(undefined, '--git-dir', server.bare, 'rev-parse', 'main'), first);
  assert.equal(push('HEAD:refs/heads/feature').status, 0, 'other branches are not its business');
  await approveAs(lee, server, first, second);
  const taken = push('HEAD:refs/heads/main');
  assert.equal(taken.status, 0, taken.stderr);
  assert.match(taken.stderr, /remote: .*approved by lee[\s\S]*remote: allowed/);

  server.commit(dana, 'privileged', { [`${PATH}/web.yaml`]: deployment('shop', 'web', { privileged: true }) });
  assert.match(push('HEAD:refs/heads/main').stderr, /✗ privileged/);
  assert.match(push(':refs/heads/main').stderr, /must not be deleted/);
  install(join(directory, 'no-such-configuration'));
  const undecided = push('HEAD:refs/heads/main');
  assert.notEqual(undecided.status, 0, 'what cannot be judged is not taken');
  assert.match(undecided.stderr, /no-such-configuration/);
  assert.equal(server.git(undefined, '--git-dir', server.bare, 'rev-parse', 'main'), second);
});

test('pre-receive refuses what is no update', () => {
  const run = (input: string) =>
    spawnSync(process.execPath, [join(ROOT, 'bin/countersign.mjs'), 'pre-receive', '--repo', fleet.bare], {
      input,
      encoding: 'utf8',
    });
  const result = run('not an update\n');
  assert.equal(result.status, 2);
  assert.match(result.stderr, /`not an update` is not an update of a ref/);
});
