import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { type StaticPlan, staticPolicies, staticProbe, staticProblems } from '../cluster/index.ts';
import { CONTROL_PLANE } from '../machinery/index.ts';
import { CountersignError, messageOf, sha256 } from '../model/index.ts';
import { openConfiguration } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import { parseYaml, printYaml } from '../yaml/index.ts';
import type { ManifestsOptions } from './serve-commands.ts';

const MARK = 'countersign.json'; // says that the directory is ours
const POLICIES = 'policies';

/**
 * Implements `countersign manifests --static`: policies as files that the API server reads itself, which no one removes
 * through it. With `--check` nothing is written: exit code 0 if the directory is as it would be written now, else 1.
 */
export function staticManifests(options: ManifestsOptions & { readonly static: string }, io: Io): number {
  const directory = options.static;
  const at = options.staticPath ?? resolve(directory);
  if (!isAbsolute(at))
    throw new CountersignError('usage', `\`${at}\` is not an absolute path, and the API server accepts no other`, {
      hint: 'give --static-path the directory as the API server sees it',
    });
  const files = filesOf(planOf(options), at);
  if (options.check) return check(directory, files, io);
  refuseOthers(directory);
  // The API server also reads files that others put beside ours.
  const problems = problemsOf(new Map([...readPolicies(directory), ...policiesIn(files)]));
  if (problems.length > 0)
    throw new CountersignError('usage', `the API server would not read these files: ${problems.join('; ')}`, {
      hint: `mend or remove what is in \`${join(directory, POLICIES)}\``,
    });
  if (existsSync(directory) && readdirSync(directory).length > 0) replace(directory, files);
  else create(directory, files);
  for (const name of files.keys()) io.out(`${paint(io, 'green', 'wrote')} ${join(directory, name)}\n`);
  io.out(
    `\non each host, one after the other: put this directory at ${at}, then start kube-apiserver 1.37 or newer with\n` +
      `  --admission-control-config-file=${join(at, 'admission.yaml')}\n`,
  );
  return EXIT.yes;
}

type Files = ReadonlyMap<string, string>;

function planOf(options: ManifestsOptions): StaticPlan {
  const all = openConfiguration(options).environments;
  const wanted = options.environment;
  const environments = all.filter((e) => wanted === undefined || wanted.includes(e.metadata.name));
  const missing = wanted?.find((name) => !all.some((e) => e.metadata.name === name));
  if (missing !== undefined || environments.length === 0)
    throw new CountersignError('usage', `there is no environment \`${missing ?? ''}\``, {
      hint: 'name the environments of this cluster with --environment, or leave it out',
    });
  // A selector of no namespaces is one that the API server does not read.
  const needed = options.fence ? ['enforce'] : ['enforce', 'warn', 'audit'];
  if (!environments.some((e) => needed.includes(e.spec.admission.mode)))
    throw new CountersignError('usage', `no environment has an admission mode of ${needed.join(', ')}`, {
      hint: options.fence ? 'leave out --fence until one enforces' : 'set `spec.admission.mode`',
    });
  const groups = environments.flatMap((e) => e.spec.admission.breakGlass.groups);
  if (groups.length === 0)
    throw new CountersignError(
      'usage',
      'no environment has break-glass groups, so no one could open what this closes',
      {
        hint: 'set `spec.admission.breakGlass.groups`',
      },
    );
  return {
    name: options.webhookName,
    environments,
    controlPlane: CONTROL_PLANE,
    ours: options.applier ?? [`system:serviceaccount:${options.namespace}:countersign`],
    isFenced: options.fence,
  };
}

// By path, in the order in which they are written: the probe last, because it says that the others are there.
function filesOf(plan: StaticPlan, at: string): Files {
  const textOf = (objects: readonly object[]) => objects.map(printYaml).join('---\n');
  const policies = staticPolicies(plan).map(({ name, objects }) => [`${POLICIES}/${name}`, textOf(objects)] as const);
  const digest = `sha256:${sha256(policies.map(([, text]) => text).join('\0'))}`;
  const probe = staticProbe(plan, digest);
  const configuration = {
    apiVersion: 'apiserver.config.k8s.io/v1',
    kind: 'AdmissionConfiguration',
    plugins: [
      {
        name: 'ValidatingAdmissionPolicy',
        configuration: {
          apiVersion: 'apiserver.config.k8s.io/v1',
          kind: 'ValidatingAdmissionPolicyConfiguration',
          staticManifestsDir: join(at, POLICIES),
        },
      },
    ],
  };
  return new Map([
    [MARK, `${JSON.stringify({ writtenBy: 'countersign manifests --static', digest }, null, 2)}\n`],
    ['admission.yaml', printYaml(configuration)],
    ...policies,
    [`${POLICIES}/${probe.name}`, textOf(probe.objects)],
  ]);
}

function refuseOthers(directory: string): void {
  const entries = existsSync(directory) ? readdirSync(directory) : [];
  if (entries.length > 0 && !entries.includes(MARK))
    throw new CountersignError('usage', `\`${directory}\` has files that Countersign did not write`, {
      hint: 'give a directory that is empty or that is not there',
    });
}

// The directory appears as a whole: a kube-apiserver that starts on half of it exits.
function create(directory: string, files: Files): void {
  const fresh = `${resolve(directory)}.${process.pid}.new`;
  for (const [name, text] of files) {
    mkdirSync(dirname(join(fresh, name)), { recursive: true });
    writeFileSync(join(fresh, name), text);
  }
  rmSync(directory, { recursive: true, force: true }); // it is empty
  renameSync(fresh, directory);
}

// File by file, each complete and none twice: a running kube-apiserver reads them again at any moment. Until all are
// there, no probe (the last file) says so: it would be read with a list of files from before.
function replace(directory: string, files: Files): void {
  const policies = join(directory, POLICIES);
  mkdirSync(policies, { recursive: true });
  rmSync(join(directory, [...files.keys()].at(-1) as string), { force: true });
  for (const name of readdirSync(policies))
    if (/^[1-3]0-(own|names|fence)\.yaml$/.test(name) && !files.has(`${POLICIES}/${name}`))
      rmSync(join(policies, name));
  for (const [name, text] of files) {
    const fresh = join(directory, `${MARK}.${process.pid}.new`);
    writeFileSync(fresh, text);
    renameSync(fresh, join(directory, name));
  }
}

function check(directory: string, files: Files, io: Io): number {
  if (!existsSync(join(directory, MARK)))
    throw new CountersignError('usage', `\`${directory}\` was not written by Countersign`, {
      hint: 'run the command without --check first',
    });
  const found = readPolicies(directory);
  const problems = [...problemsOf(found), ...differencesIn(directory, files)];
  for (const name of found.keys())
    if (!files.has(`${POLICIES}/${name}`)) problems.push(`\`${name}\`: it is not one of ours`);
  for (const problem of problems) io.out(`${paint(io, 'red', '✗')} ${plain(problem)}\n`);
  if (problems.length === 0) io.out(`${paint(io, 'green', '✓')} ${directory} is as it would be written now\n`);
  return problems.length === 0 ? EXIT.yes : EXIT.no;
}

function differencesIn(directory: string, files: Files): string[] {
  return [...files].flatMap(([name, text]) => {
    const file = join(directory, name);
    if (!existsSync(file)) return [`\`${name}\`: it is missing`];
    return readFileSync(file, 'utf8') === text ? [] : [`\`${name}\`: it differs from what would be written now`];
  });
}

function policiesIn(files: Files): Files {
  return new Map(
    [...files]
      .filter(([name]) => name.startsWith(`${POLICIES}/`))
      .map(([name, text]) => [name.slice(POLICIES.length + 1), text]),
  );
}

function readPolicies(directory: string): Map<string, string> {
  const policies = join(directory, POLICIES);
  if (!existsSync(policies)) return new Map();
  const entries = readdirSync(policies, { withFileTypes: true });
  // a directory is read as a file that is empty, which is a problem
  return new Map(entries.map((e) => [e.name, e.isDirectory() ? '' : readFileSync(join(policies, e.name), 'utf8')]));
}

function problemsOf(texts: Files): readonly string[] {
  const unreadable: string[] = [];
  const files = new Map<string, readonly unknown[]>();
  for (const [name, text] of texts) {
    try {
      files.set(
        name,
        parseYaml(text).map(({ value }) => value),
      );
    } catch (thrown) {
      unreadable.push(`\`${name}\`: ${messageOf(thrown)}`);
    }
  }
  return [...unreadable, ...staticProblems(files)];
}
