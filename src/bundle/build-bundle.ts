import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gunzipSync, gzipSync } from 'node:zlib';
import { createTar, parseTar } from 'nanotar';
import { CountersignError, count, messageOf } from '../model/index.ts';
import { REFUSED } from '../rego/index.ts';
import { parseYaml, YamlError } from '../yaml/index.ts';
import {
  type Found,
  isConstraint,
  isExpansion,
  isTemplate,
  type Problem,
  readConstraint,
  readExpansion,
  readTemplate,
  type TemplateSource,
} from './gatekeeper.ts';
import { type BundleManifest, type Entry, entryOf, type RuleInfo } from './policy-bundle.ts';
import { readBundle } from './read-bundle.ts';

const run = promisify(execFile);

// Builtins and language features that compiled rules may use here, in the format of `opa build --capabilities`.
const CAPABILITIES = fileURLToPath(new URL('../../policies/capabilities.json', import.meta.url));

export type BuildOptions = {
  /** The `opa` program. */
  readonly opa: string;
  /** Files or directories with Rego, ConstraintTemplates, constraints and `data.json` or `data.yaml`. */
  readonly roots: readonly string[];
  /** Files or directories of data with any name; a directory's path is the path of its data. */
  readonly data?: readonly string[];
  /** Reads all Rego as version 0. Without it, only files that do not parse as version 1 are read as version 0. */
  readonly v0?: boolean;
};

/** A bundle as an archive, with everything it was built from. */
export type Built = { readonly archive: Uint8Array; readonly manifest: BundleManifest; readonly digest: string };

type RegoFile = { readonly file: string; readonly text: string; readonly version: 0 | 1 };

const MAX_FILE = 8 * 1024 * 1024;
const BUILD_MS = 120_000;

/**
 * Compiles rules into a bundle. The same sources give the same bytes. Throws `policy-unusable` with every problem: Rego
 * that does not compile, an unsupported builtin, a constraint without a template, a parameter its schema does not have.
 */
export async function buildBundle(options: BuildOptions): Promise<Built> {
  const problems: Problem[] = [];
  const files = options.roots.flatMap((root) => filesUnder(root, problems));
  const rego = files
    .filter((f) => f.path.endsWith('.rego') && !f.path.endsWith('_test.rego'))
    .map((f): RegoFile => ({ file: f.name, text: f.text(), version: options.v0 === true ? 0 : 1 }));
  const found = files.filter((f) => /\.(ya?ml)$/.test(f.path)).flatMap((f) => manifestsIn(f.name, f.text(), problems));
  const templates = new Map<string, TemplateSource>();
  for (const one of found.filter((f) => isTemplate(f.value))) {
    const template = readTemplate(one, problems);
    if (template === undefined) continue;
    if (templates.has(template.kind))
      problems.push({ place: one.place, text: `the template \`${template.kind}\` is defined twice` });
    templates.set(template.kind, template);
  }
  const constraints = found
    .filter((f) => isConstraint(f.value))
    .flatMap((f) => readConstraint(f, templates, problems) ?? []);
  const expansions = found.filter((f) => isExpansion(f.value)).flatMap((f) => readExpansion(f, problems) ?? []);
  const data = dataOf(files, options.data ?? [], problems);
  refuse(problems);
  if (rego.length === 0 && templates.size === 0)
    throw new CountersignError(
      'policy-unusable',
      `there is no Rego and no ConstraintTemplate in ${options.roots.map((r) => `\`${r}\``).join(', ')}`,
      {
        hint: 'name the directory that holds your `.rego` files or templates',
      },
    );
  const directory = mkdtempSync(join(tmpdir(), 'countersign-build-'));
  try {
    return await compile(directory, rego, [...templates.values()], { constraints, expansions, data }, options);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

type Rest = {
  readonly constraints: BundleManifest['constraints'];
  readonly expansions: BundleManifest['expansions'];
  readonly data: Record<string, unknown>;
};

async function compile(
  directory: string,
  given: readonly RegoFile[],
  templates: readonly TemplateSource[],
  rest: Rest,
  options: BuildOptions,
): Promise<Built> {
  const rego = options.v0 === true ? given : await withVersions(options.opa, directory, given);
  const staged = join(directory, 'bundle');
  const versions: Record<string, number> = {};
  const stage = (file: string, text: string, version: number) => {
    mkdirSync(dirname(join(staged, file)), { recursive: true });
    writeFileSync(join(staged, file), text);
    if (version !== 1) versions[`/${file.split(sep).join('/')}`] = version;
  };
  for (const one of rego) stage(one.file, one.text, one.version);
  for (const template of templates)
    for (const m of template.modules) stage(join('templates', m.file), m.text, template.version === 'v1' ? 1 : 0);
  writeFileSync(join(staged, 'data.json'), JSON.stringify(rest.data));
  writeFileSync(
    join(staged, '.manifest'),
    JSON.stringify({ roots: [''], rego_version: 1, file_rego_versions: versions }),
  );
  const entries = rego
    .flatMap(({ text }) => entriesIn(text))
    .filter((e, i, all) => all.findIndex((o) => o.entrypoint === e.entrypoint) === i);
  const points = templates.map((t) => ({
    kind: t.kind,
    entrypoint: `${t.package.replaceAll('.', '/')}/violation`,
    inventory: t.inventory,
  }));
  if (entries.length + points.length === 0)
    throw new CountersignError(
      'policy-unusable',
      'no rule follows a convention: there is no `deny`, `violation` or `warn`',
      {
        hint:
          'name the rules like Conftest (`deny contains msg if …` ' +
          'in `package main`), or use `package countersign.object`',
      },
    );
  const out = join(directory, 'bundle.tar.gz');
  const target = [...entries, ...points].map((e) => e.entrypoint).sort();
  const make = (entrypoints: readonly string[]) =>
    opa(
      options.opa,
      [
        ...['build', '-b', '.', '-t', 'wasm', '--wasm-include-print', '--capabilities', CAPABILITIES],
        ...entrypoints.flatMap((e) => ['-e', e]),
        ...['-o', out],
      ],
      staged,
    );
  const together = togetherOf(entries);
  if (together !== undefined) stage(TOGETHER_FILE, together, 1);
  // Rules that inspect all packages would also see the combined module, so they are evaluated one by one.
  const isTogether =
    together !== undefined &&
    (await make([...target, TOGETHER]).then(
      () => true,
      () => false,
    ));
  if (together !== undefined && !isTogether) rmSync(join(staged, TOGETHER_FILE));
  if (!isTogether) await make(target);
  const version = /Version: (\S+)/.exec((await run(options.opa, ['version'])).stdout)?.[1] ?? '';
  const rules = rego.length === 0 ? [] : await rulesIn(options.opa, staged, entries);
  const manifest: BundleManifest = {
    v: 1,
    opa: version,
    entries,
    ...(isTogether ? { together: TOGETHER } : {}),
    rules,
    templates: points,
    constraints: rest.constraints,
    expansions: rest.expansions,
  };
  const archive = repack(readFileSync(out), manifest);
  const bundle = await readBundle(archive, 'the new bundle');
  return { archive, manifest, digest: bundle.digest };
}

// Files that do not parse as version 1 are read as version 0, so that old and new rules can be mixed.
async function withVersions(opaFile: string, directory: string, files: readonly RegoFile[]): Promise<RegoFile[]> {
  const at = join(directory, 'parse');
  const parses = async (file: RegoFile, flag: string) => {
    const path = join(at, file.file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, file.text);
    return run(opaFile, ['parse', flag, path], { timeout: BUILD_MS, maxBuffer: 64 * 1024 * 1024 }).then(
      () => true,
      () => false,
    );
  };
  const all = join(directory, 'all');
  for (const file of files) {
    mkdirSync(dirname(join(all, file.file)), { recursive: true });
    writeFileSync(join(all, file.file), file.text);
  }
  if (files.length === 0) return [];
  const fine = await run(opaFile, ['inspect', '--v1-compatible', all], {
    timeout: BUILD_MS,
    maxBuffer: 64 * 1024 * 1024,
  }).then(
    () => true,
    () => false,
  );
  if (fine) return [...files];
  const judged: RegoFile[] = [];
  for (const file of files)
    judged.push(
      (await parses(file, '--v1-compatible')) || !(await parses(file, '--v0-compatible'))
        ? file
        : { ...file, version: 0 },
    );
  return judged;
}

// Runs in the directory of the staged files, so that places in errors and in the module match the sources.
async function opa(file: string, args: readonly string[], cwd: string): Promise<string> {
  try {
    return (await run(file, args, { cwd, timeout: BUILD_MS, maxBuffer: 64 * 1024 * 1024 })).stdout;
  } catch (cause) {
    const { stdout = '', stderr = '', code } = cause as { stdout?: string; stderr?: string; code?: unknown };
    if (code === 'ENOENT')
      throw new CountersignError('tool-missing', `there is no program \`${file}\``, {
        cause,
        hint: 'install opa 1.x, or build the bundle elsewhere',
      });
    const lines = `${stdout}\n${stderr}`
      .split('\n')
      .map((l) =>
        l
          .replace(/^error: (load error: )?(\d+ errors? occurred: ?)?/, '')
          .replace(/^\d+ errors? occurred:$/, '')
          .trim(),
      )
      .filter((l) => l !== '')
      .map((l) =>
        l.replace(/undefined function ([\w.]+)/, (said, name: string) =>
          Object.hasOwn(REFUSED, name) ? `the builtin \`${name}\` is refused: ${REFUSED[name]}` : said,
        ),
      );
    throw new CountersignError(
      'policy-unusable',
      `the rules do not compile:\n${lines.map((l) => `  ${l}`).join('\n')}`,
      {
        cause,
        hint: 'correct the lines above; `countersign help policy.md` lists the builtins',
      },
    );
  }
}

const HEAD =
  /^[ \t]*(?:default[ \t]+)?((?:deny|violation|warn|exception)(?:_[A-Za-z0-9_]+)?)(?=[ \t]*(?:contains\b|\[|:=|=|if\b|\{))/gm;

function entriesIn(text: string): Entry[] {
  const code = text.replace(/^[ \t]*#.*$/gm, '');
  const name = /^[ \t]*package[ \t]+([\w.]+)/m.exec(code)?.[1];
  if (name === undefined) return [];
  return [...code.matchAll(HEAD)]
    .map((m) => entryOf(`${name.replaceAll('.', '/')}/${m[1]}`))
    .filter((e) => e !== undefined);
}

const TOGETHER = 'countersign/together/conftest';
const TOGETHER_FILE = join('countersign.together', 'conftest.rego');

// Returns a module that queries all Conftest entries; undefined unless there are several.
function togetherOf(entries: readonly Entry[]): string | undefined {
  const asked = entries.filter((e) => e.convention === 'conftest').map((e) => e.entrypoint);
  if (asked.length < 2) return undefined;
  const rule = (e: string) =>
    `conftest[${JSON.stringify(e)}] := data${e
      .split('/')
      .map((part) => `[${JSON.stringify(part)}]`)
      .join('')}`;
  return `package countersign.together\n\n${asked.sort().map(rule).join('\n')}\n`;
}

type Annotated = {
  readonly annotations?: readonly {
    readonly annotations: {
      readonly title?: string;
      readonly description?: string;
      readonly scope?: string;
      readonly related_resources?: readonly { readonly ref: string }[];
      readonly custom?: Record<string, unknown>;
    };
    readonly location?: { readonly file: string; readonly row: number };
    readonly path?: readonly { readonly value: unknown }[];
  }[];
};

async function rulesIn(file: string, staged: string, entries: readonly Entry[]): Promise<RuleInfo[]> {
  const said = JSON.parse(await opa(file, ['inspect', '-a', '-f', 'json', '.'], staged)) as Annotated;
  const known = new Set(entries.map((e) => e.entrypoint));
  const rules = (said.annotations ?? []).flatMap(({ annotations: a, location, path }): RuleInfo[] => {
    const parts = (path ?? []).map((p) => String(p.value)).slice(1);
    if (a.scope === 'package' || a.scope === 'subpackages' || !known.has(parts.join('/'))) return [];
    const custom = a.custom ?? {};
    const list = (v: unknown) => (Array.isArray(v) ? v.map(String) : undefined);
    const word = (v: unknown) => (typeof v === 'string' ? v : undefined);
    const shown = location === undefined ? '' : `${location.file.split(sep).join('/')}:${location.row}`;
    const info = {
      title: a.title,
      description: a.description,
      severity: word(custom['severity']),
      controls: list(custom['controls']),
      remediation: word(custom['remediation']),
      links: a.related_resources?.map((r) => r.ref),
    };
    return [
      {
        id: word(custom['rule']) ?? parts.join('/'),
        ...(Object.fromEntries(Object.entries(info).filter(([, v]) => v !== undefined)) as Partial<RuleInfo>),
        place: shown,
      },
    ];
  });
  return rules.filter((r, i) => rules.findIndex((o) => o.id === r.id) === i).sort((a, b) => (a.id < b.id ? -1 : 1));
}

// Repacks the archive with our manifest and without times, so that the same sources give the same bytes.
function repack(archive: Uint8Array, manifest: BundleManifest): Uint8Array {
  const kept = parseTar(new Uint8Array(gunzipSync(archive))).map((f) => ({
    name: f.name.replace(/^\.?\//, ''),
    data: f.data ?? new Uint8Array(),
  }));
  const files = [
    ...kept.filter((f) => ['policy.wasm', 'data.json'].includes(f.name)),
    { name: 'countersign.json', data: Buffer.from(`${JSON.stringify(manifest, null, 1)}\n`) },
  ];
  const opaManifest = kept.find((f) => f.name === '.manifest');
  const all = [...(opaManifest === undefined ? [] : [opaManifest]), ...files].sort((a, b) =>
    a.name < b.name ? -1 : 1,
  );
  return gzipSync(
    createTar(all.map((f) => ({ ...f, attrs: { mtime: 0, uid: 0, gid: 0, user: '', group: '', mode: '644' } }))),
    {
      level: 9,
    },
  );
}

type SourceFile = { readonly path: string; readonly name: string; readonly text: () => string };

function filesUnder(root: string, problems: Problem[]): SourceFile[] {
  const read = (path: string) => () => {
    if (statSync(path).size > MAX_FILE) {
      problems.push({ place: path, text: `it is larger than ${MAX_FILE / 1024 / 1024} MiB` });
      return '';
    }
    return readFileSync(path, 'utf8');
  };
  try {
    if (!statSync(root).isDirectory()) return [{ path: root, name: basename(root), text: read(root) }];
    return readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((f) => f.isFile())
      .map((f) => join(f.parentPath, f.name))
      .filter(
        (path) =>
          !relative(root, path)
            .split(sep)
            .some((part) => part.startsWith('.') || part === 'node_modules' || part === 'examples'),
      )
      .sort()
      .map((path) => ({ path, name: join(basename(root), relative(root, path)), text: read(path) }));
  } catch (cause) {
    throw new CountersignError('policy-unusable', `\`${root}\` cannot be read: ${messageOf(cause)}`, { cause });
  }
}

// YAML that is not a Gatekeeper policy (examples, values) is ignored.
function manifestsIn(name: string, text: string, problems: Problem[]): Found[] {
  if (!text.includes('gatekeeper.sh')) return [];
  try {
    return parseYaml(text).flatMap((document) => {
      const value = document.value as Record<string, unknown>;
      return typeof value === 'object' && value !== null && !Array.isArray(value)
        ? [{ value, place: `${name}:${document.line}` }]
        : [];
    });
  } catch (thrown) {
    problems.push({ place: `${name}:${thrown instanceof YamlError ? thrown.line : 1}`, text: messageOf(thrown) });
    return [];
  }
}

function dataOf(files: readonly SourceFile[], extra: readonly string[], problems: Problem[]): Record<string, unknown> {
  const data: Record<string, unknown> = {};
  const put = (path: readonly string[], name: string, text: string) => {
    try {
      const value = name.endsWith('.json') ? (JSON.parse(text) as unknown) : (parseYaml(text)[0]?.value ?? {});
      if (typeof value !== 'object' || value === null || Array.isArray(value))
        throw new Error('the data at the top must be a mapping');
      merge(data, path, value as Record<string, unknown>);
    } catch (thrown) {
      problems.push({ place: name, text: messageOf(thrown) });
    }
  };
  for (const file of files.filter((f) => /^data\.(json|ya?ml)$/.test(basename(f.path))))
    put(dirname(file.name).split(sep).slice(1), file.name, file.text());
  for (const root of extra)
    for (const file of filesUnder(root, problems).filter((f) => /\.(json|ya?ml)$/.test(f.path)))
      put(dirname(file.name) === '.' ? [] : dirname(file.name).split(sep).slice(1), file.name, file.text());
  return data;
}

function merge(into: Record<string, unknown>, path: readonly string[], value: Record<string, unknown>): void {
  const target = path.reduce<Record<string, unknown>>((o, key) => {
    o[key] ??= {};
    return o[key] as Record<string, unknown>;
  }, into);
  for (const [key, v] of Object.entries(value)) {
    const have = target[key];
    if (isMapping(have) && isMapping(v)) merge(target, [key], v);
    else if (have !== undefined) throw new Error(`two files define \`${[...path, key].join('.')}\``);
    else target[key] = v;
  }
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function refuse(problems: readonly Problem[]): void {
  if (problems.length === 0) return;
  throw new CountersignError(
    'policy-unusable',
    `the policies have ${count(problems.length, 'problem')}:\n` +
      `${problems.map((p) => `  ${p.place}: ${p.text}`).join('\n')}`,
    {
      hint: 'correct the lines above; `countersign help policy.md` lists the supported input',
    },
  );
}
