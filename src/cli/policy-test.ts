import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { buildBundle, type Example, type PolicyBundle, readBundle, readExamples } from '../bundle/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import { CountersignError, type KubernetesObject, messageOf, type RenderedObject } from '../model/index.ts';
import { evaluateChange, evaluateObjects, type Found, inventoryOf, PolicyPool } from '../policy/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import { parseYaml } from '../yaml/index.ts';
import { opaProgram } from './check-files.ts';
import type { PolicyTestOptions } from './policy-commands.ts';

type Result = { readonly name: string; readonly passed: boolean; readonly why?: string };

/**
 * Implements `countersign policy test`: runs Rego unit tests through opa, then Gatekeeper `Suite` files and example
 * folders on the Wasm build used in production. Exit code 0 if all passed, 1 if one did not, 2 if they could not be
 * run.
 */
export async function policyTest(
  roots: readonly string[],
  options: PolicyTestOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const named = options.run === undefined ? '' : ` with \`${options.run}\` in their name`;
  const once = async () => {
    const results = [
      ...(await regoTests(roots, options, settings, io)),
      ...(await suites(roots, options, settings, io)),
      ...(await exampleTests(roots, options, settings, io)),
    ];
    if (results.length === 0)
      throw new CountersignError('usage', `there are no tests${named} in ${roots.map((r) => `\`${r}\``).join(', ')}`, {
        hint: 'write `*_test.rego`, Gatekeeper `Suite` files, or examples/RULE/{fail,pass}.yaml',
      });
    const failed = results.filter((r) => !r.passed);
    if (options.output === 'json')
      io.out(
        `${JSON.stringify({ passed: results.length - failed.length, failed: failed.length, results }, null, 2)}\n`,
      );
    else {
      for (const r of failed) io.out(`  ${paint(io, 'red', '✗')} ${plain(r.name)}\n    ${plain(r.why ?? '')}\n`);
      io.out(
        `${results.length - failed.length} passed, ` +
          `${failed.length === 0 ? '0' : paint(io, 'red', String(failed.length))} failed\n`,
      );
    }
    return failed.length === 0 ? EXIT.yes : EXIT.no;
  };
  if (!options.watch) return once();
  return watched(roots, once, io);
}

async function watched(roots: readonly string[], once: () => Promise<number>, io: Io): Promise<number> {
  let code: number = EXIT.yes;
  let wake = () => {};
  const watchers = roots.map((root) => watch(root, { recursive: true }, () => wake()));
  const stop = new Promise<void>((done) => io.signal.addEventListener('abort', () => done(), { once: true }));
  try {
    while (!io.signal.aborted) {
      const changed = new Promise<void>((done) => {
        wake = done;
      });
      code = await once().catch((thrown: unknown) => {
        io.err(`${paint(io, 'red', 'error:')} ${messageOf(thrown)}\n`);
        return EXIT.undecided;
      });
      io.err(`${paint(io, 'dim', 'waiting for changes')}\n`);
      await Promise.race([changed, stop]);
      await new Promise((r) => setTimeout(r, 100)); // editors write a file in several steps
    }
    return code;
  } finally {
    for (const watcher of watchers) watcher.close();
  }
}

function filesUnder(root: string): string[] {
  if (!existsSync(root)) throw new CountersignError('usage', `there is no \`${root}\``);
  if (!statSync(root).isDirectory()) return [root];
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((f) => f.isFile())
    .map((f) => join(f.parentPath, f.name))
    .sort();
}

async function regoTests(
  roots: readonly string[],
  options: PolicyTestOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<Result[]> {
  if (!roots.some((root) => filesUnder(root).some((f) => f.endsWith('_test.rego')))) return [];
  const directory = mkdtempSync(join(tmpdir(), 'countersign-test-'));
  try {
    // Tests may read the examples as `data.examples`.
    const examples = roots.flatMap(readExamples);
    const data = join(directory, 'examples.json');
    writeFileSync(data, JSON.stringify({ examples: Object.fromEntries(examples.map((e) => [e.name, e])) }));
    const files = roots.flatMap((root) =>
      filesUnder(root).filter((f) => f.endsWith('.rego') || /(^|\/)data\.(json|ya?ml)$/.test(f)),
    );
    const args = [
      'test',
      '--format',
      'json',
      ...(options.run === undefined ? [] : ['--run', options.run]),
      ...files,
      ...(options.data ?? []),
      data,
    ];
    const { stdout, stderr } = await run(await opaProgram(settings, io), args);
    if (stdout.trim() === 'null') return []; // none has `--run` in its name
    const parsed = json(stdout) as
      | { package: string; name: string; fail?: boolean; error?: unknown; skip?: boolean; output?: string }[]
      | undefined;
    if (!Array.isArray(parsed))
      throw new CountersignError(
        'policy-unusable',
        `opa could not run the tests: ${(stderr || stdout).trim().split('\n').slice(0, 5).join('; ')}`,
      );
    if (options.coverage) await showCoverage([...files, ...(options.data ?? []), data], settings, io);
    return parsed.map((t) => ({
      name: `${t.package}.${t.name}`,
      passed: t.fail !== true && t.error === undefined,
      ...(t.fail === true || t.error !== undefined
        ? {
            why: [
              t.error === undefined ? 'it is not true' : JSON.stringify(t.error),
              t.output === undefined ? '' : Buffer.from(t.output, 'base64').toString('utf8'),
            ]
              .join(' ')
              .trim(),
          }
        : {}),
    }));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function showCoverage(files: readonly string[], settings: ProcessSettings, io: Io): Promise<void> {
  const { stdout } = await run(await opaProgram(settings, io), ['test', '--coverage', '--format', 'json', ...files]);
  const report = json(stdout) as
    | {
        coverage?: number;
        files?: Record<string, { not_covered?: { start: { row: number }; end: { row: number } }[] }>;
      }
    | undefined;
  io.err(`coverage ${report?.coverage?.toFixed(1) ?? '?'} %\n`);
  for (const [file, { not_covered }] of Object.entries(report?.files ?? {}))
    for (const range of not_covered ?? []) io.err(`  ${file}:${range.start.row}-${range.end.row} was never reached\n`);
}

function json(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function run(file: string, args: readonly string[]): Promise<{ stdout: string; stderr: string }> {
  return new Promise((done, failed) => {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on('data', (d: Buffer) => out.push(d));
    child.stderr.on('data', (d: Buffer) => err.push(d));
    child.on('error', failed);
    child.on('close', () =>
      done({ stdout: Buffer.concat(out).toString('utf8'), stderr: Buffer.concat(err).toString('utf8') }),
    );
  });
}

async function bundleOf(
  roots: readonly string[],
  options: PolicyTestOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<PolicyBundle> {
  const built = await buildBundle({ opa: await opaProgram(settings, io), roots, data: options.data ?? [] });
  return readBundle(built.archive, roots.join(', '));
}

async function exampleTests(
  roots: readonly string[],
  options: PolicyTestOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<Result[]> {
  const all = roots.flatMap(readExamples).flatMap((example) =>
    (['fail', 'pass'] as const).flatMap((kind) =>
      example[kind].map((subject, i) => ({
        name: `examples/${example.name}/${kind}.yaml #${i + 1}`,
        example,
        kind,
        subject,
      })),
    ),
  );
  const wanted = all.filter((e) => options.run === undefined || e.name.includes(options.run));
  if (wanted.length === 0) return [];
  const pool = new PolicyPool([await bundleOf(roots, options, settings, io)]);
  try {
    const results: Result[] = [];
    for (const { name, example, kind, subject } of wanted)
      results.push({ name, ...(await oneExample(pool, example, kind, subject)) });
    return results;
  } finally {
    await pool.close();
  }
}

async function oneExample(
  pool: PolicyPool,
  example: Example,
  kind: 'fail' | 'pass',
  subject: unknown,
): Promise<Pick<Result, 'passed' | 'why'>> {
  const images = { digest: '', of: new Map(Object.entries(example.images)) };
  const scope = { environment: 'example', parameters: example.parameters, now: new Date(), images };
  const isChange = typeof subject === 'object' && subject !== null && !('kind' in subject);
  const found = isChange
    ? await evaluateChange(pool, subject as Parameters<typeof evaluateChange>[1], scope)
    : await evaluateObjects(pool, [renderedOf(subject as KubernetesObject)], scope);
  const rules = rulesOf(found);
  const passed =
    rules.includes(example.rule) === (kind === 'fail') && ![...found.violations].some((v) => v.code !== 'policy');
  return {
    passed,
    ...(passed
      ? {}
      : {
          why:
            `${kind === 'fail' ? `\`${example.rule}\` found nothing` : `\`${example.rule}\` found something`}; ` +
            `findings: ${rules.join(', ') || 'none'}`,
        }),
  };
}

function rulesOf(found: Found): string[] {
  return [...new Set([...found.violations, ...found.warnings].map((v) => v.rule ?? v.code))];
}

function renderedOf(object: KubernetesObject): RenderedObject {
  const { apiVersion, kind, metadata } = object;
  return {
    object,
    ref: { apiVersion, kind, namespace: metadata?.namespace ?? '', name: metadata?.name ?? '' },
    source: { file: '(example)', line: 1 },
    lineOf: () => 1,
    positionOf: () => ({ line: 1, column: 1 }),
    digest: '',
  };
}

type Suite = {
  readonly kind?: string;
  readonly apiVersion?: string;
  readonly skip?: boolean;
  readonly tests?: readonly SuiteTest[];
};
type SuiteTest = {
  readonly name?: string;
  readonly skip?: boolean;
  readonly template?: string;
  readonly constraint?: string;
  readonly expansion?: string;
  readonly cases?: readonly SuiteCase[];
};
type SuiteCase = {
  readonly name?: string;
  readonly skip?: boolean;
  readonly object?: string;
  readonly inventory?: readonly string[];
  readonly assertions?: readonly { readonly violations?: unknown; readonly message?: string }[];
};

// Reads the format of Gatekeeper's `gator verify`
// (https://open-policy-agent.github.io/gatekeeper/website/docs/gator#the-gator-verify-subcommand).
async function suites(
  roots: readonly string[],
  options: PolicyTestOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<Result[]> {
  const results: Result[] = [];
  for (const file of roots.flatMap(filesUnder).filter((f) => /\.ya?ml$/.test(f))) {
    const text = readFileSync(file, 'utf8');
    if (!/^kind:\s*Suite\s*$/m.test(text)) continue;
    const suite = parseYaml(text)[0]?.value as Suite;
    if (!String(suite.apiVersion).startsWith('test.gatekeeper.sh/') || suite.skip === true) continue;
    for (const test of suite.tests ?? [])
      if (test.skip !== true) results.push(...(await suiteTest(file, test, options, settings, io)));
  }
  return results;
}

async function suiteTest(
  file: string,
  test: SuiteTest,
  options: PolicyTestOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<Result[]> {
  const here = (path: string) => resolve(dirname(file), path);
  const cases = (test.cases ?? []).filter(
    (c) => c.skip !== true && (options.run === undefined || `${test.name}/${c.name}`.includes(options.run)),
  );
  if (cases.length === 0) return [];
  const named = (c: SuiteCase) => `${file} ${test.name ?? ''}/${c.name ?? ''}`;
  let bundle: PolicyBundle;
  try {
    bundle = await bundleOf(
      [test.template, test.constraint, test.expansion].filter((p) => p !== undefined).map(here),
      options,
      settings,
      io,
    );
  } catch (thrown) {
    return cases.map((c) => ({ name: named(c), passed: false, why: messageOf(thrown) }));
  }
  const results: Result[] = [];
  for (const one of cases) {
    try {
      const [object] = objectsIn(here(one.object ?? ''));
      if (object === undefined) throw new Error(`there is no object in \`${one.object}\``);
      const inventory = (one.inventory ?? []).flatMap((path) => objectsIn(here(path)));
      const pool = new PolicyPool([bundle], { threads: 1, inventory: inventoryOf(inventory.map(renderedOf)) });
      const found = await evaluateObjects(pool, [renderedOf(object)], {
        environment: '',
        parameters: {},
        now: new Date(),
      }).finally(() => pool.close());
      const why = (one.assertions ?? []).map((a) => unmet(a, found)).find((w) => w !== undefined);
      results.push({ name: named(one), passed: why === undefined, ...(why === undefined ? {} : { why }) });
    } catch (thrown) {
      results.push({ name: named(one), passed: false, why: messageOf(thrown) });
    }
  }
  return results;
}

// An AdmissionReview is judged by its object, or by its old object for a deletion.
function objectsIn(path: string): KubernetesObject[] {
  return parseYaml(readFileSync(path, 'utf8')).flatMap((document) => {
    const value = document.value as KubernetesObject & {
      request?: { object?: KubernetesObject; oldObject?: KubernetesObject };
    };
    if (value.kind !== 'AdmissionReview') return [value];
    const object = value.request?.object ?? value.request?.oldObject;
    return object === undefined ? [] : [object];
  });
}

function unmet(
  assertion: { readonly violations?: unknown; readonly message?: string },
  found: Found,
): string | undefined {
  const messages = [...found.violations, ...found.warnings].map((v) => v.message);
  const counted =
    assertion.message === undefined
      ? messages
      : messages.filter(
          (m) => m.includes(assertion.message as string) || new RegExp(assertion.message as string).test(m),
        );
  const wanted = assertion.violations ?? 'yes';
  const heard = `heard: ${messages.join('; ') || 'nothing'}`;
  if (wanted === 'yes' || wanted === true)
    return counted.length > 0
      ? undefined
      : `expected a violation${assertion.message === undefined ? '' : ` like \`${assertion.message}\``}; ${heard}`;
  if (wanted === 'no' || wanted === false) return counted.length === 0 ? undefined : `expected none; ${heard}`;
  return counted.length === wanted ? undefined : `expected ${String(wanted)} violations; ${heard}`;
}
