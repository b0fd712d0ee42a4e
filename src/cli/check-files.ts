import { createReadStream, readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildBundle, type PolicyBundle, readBundle } from '../bundle/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import { type Finding, type Findings, printFindings, showFindingsText } from '../findings/index.ts';
import { ignoredNamespace, misplaced, placeObject, scopesOf, withoutNamespace } from '../gate/index.ts';
import { builtInScope, CountersignError, count, messageOf, type RenderedObject } from '../model/index.ts';
import {
  evaluateDocuments,
  evaluateObjects,
  inventoryOf,
  PolicyPool,
  type PolicyScope,
  ruleInfos,
} from '../policy/index.ts';
import { EXIT, type Io, Progress, paint } from '../terminal/index.ts';
import { findOnPath, provide } from '../tools/index.ts';
import { ambiguities, parseYaml, type YamlDocument, YamlError } from '../yaml/index.ts';
import type { CheckOptions } from './check-commands.ts';

import { reportsOf, writeReports } from './reports-of.ts';

const SHIPPED = fileURLToPath(new URL('../../policies/dist/bundle.tar.gz', import.meta.url));
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const MANIFEST = /\.(ya?ml|json)$/;
const MAX_FILE = 32 * 1024 * 1024; // a Terraform plan may have tens of thousands of resources
const MAX_OPEN = 6; // chunks read ahead of the rules
const CHUNK = 48; // files read before the rules are given work: both cores stay busy

/**
 * Implements `countersign check --manifests`: evaluates rules on plain files, for pipelines without Git and signatures.
 */
export async function checkFiles(options: CheckOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const reports = reportsOf(options.report);
  const bundles = await openPolicies(options.policy ?? [], options.data ?? [], settings, io);
  const pool = new PolicyPool(bundles);
  pool.warm();
  const scope: PolicyScope = {
    environment: options.environment ?? '',
    parameters: parametersOf(options.parameters),
    now: new Date(),
    ...(options.trace === true ? { trace: true } : {}),
  };
  const progress = new Progress(io, 'files');
  try {
    const files = (options.manifests ?? []).flatMap((path) => (path === '-' ? ['-'] : manifestFiles(path)));
    if (files.length === 0)
      throw new CountersignError(
        'usage',
        `there are no manifests in ${(options.manifests ?? []).map((m) => `\`${m}\``).join(', ')}`,
        {
          hint: 'files end in .yaml, .yml or .json; `-` reads what is piped in',
        },
      );
    const run = new Run(pool, scope, options.combine === true, bundles, options.namespace);
    for (let i = 0; i < files.length; i += CHUNK) {
      const texts: [string, string | CountersignError][] = [];
      for (const file of files.slice(i, i + CHUNK))
        texts.push([file, file === '-' ? await readInput() : readText(file)]);
      run.take(texts);
      progress.at(Math.min(i + CHUNK, files.length), files.length);
      await run.room();
    }
    const found = await run.finish();
    const form = options.output;
    progress.end();
    if (form === 'text' && run.unplaced > 0) io.err(unplacedNote(run.unplaced));
    for (const line of run.trace) io.err(`${paint(io, 'dim', 'trace:')} ${line}\n`);
    writeReports(reports, found);
    if (form === 'text') io.out(text(found, files.length, io));
    else io.out(printFindings(form, found));
    const warned = options.failOnWarn === true && found.findings.some((f) => f.level === 'warning');
    return found.outcome === 'denied' || warned ? EXIT.no : EXIT.yes;
  } finally {
    progress.end();
    await pool.close();
  }
}

function text(found: Findings, files: number, io: Io): string {
  const count = (level: Finding['level']) => found.findings.filter((f) => f.level === level).length;
  const plural = (n: number, word: string) => `${n} ${word}${n === 1 ? '' : 's'}`;
  const tail = [
    count('warning') > 0 ? plural(count('warning'), 'warning') : '',
    count('note') > 0 ? `${count('note')} exempted` : '',
  ]
    .filter((t) => t !== '')
    .map((t) => `, ${t}`)
    .join('');
  const body = showFindingsText(found, io, { all: true });
  const end =
    found.outcome === 'allowed'
      ? paint(io, 'green', 'allowed')
      : `${paint(io, 'red', 'denied')}: ${plural(count('error'), 'violation')}`;
  return (
    `${body}${body === '' ? '' : '\n'}${plural(found.objects, 'object')} ` +
    `in ${plural(files, 'file')}  ${end}${tail}\n`
  );
}

// Reads files, passes objects to the rules and keeps the findings; the objects themselves are released.
class Run {
  readonly trace: string[] = [];
  /** Objects that need a namespace, and set none. */
  unplaced = 0;
  readonly #pool: PolicyPool;
  readonly #scope: PolicyScope;
  readonly #combine: boolean;
  readonly #bundles: readonly PolicyBundle[];
  readonly #wantsInventory: boolean;
  readonly #namespace: string | undefined;
  readonly #findings: Finding[] = [];
  readonly #waiting = new Set<Promise<void>>();
  #open = 0;
  readonly #held: RenderedObject[] = [];
  readonly #contents: { path: string; contents: unknown }[] = [];
  #objects = 0;
  #failure: unknown;

  constructor(
    pool: PolicyPool,
    scope: PolicyScope,
    combine: boolean,
    bundles: readonly PolicyBundle[],
    namespace: string | undefined,
  ) {
    this.#wantsInventory = bundles.some((b) => b.manifest.templates.some((t) => t.inventory));
    this.#namespace = namespace;
    this.#pool = pool;
    this.#scope = scope;
    this.#combine = combine;
    this.#bundles = bundles;
  }

  take(texts: readonly (readonly [string, string | CountersignError])[]): void {
    const objects: RenderedObject[] = [];
    const documents: { value: unknown; file: string; positionOf: RenderedObject['positionOf'] }[] = [];
    for (const [file, content] of texts) {
      if (content instanceof CountersignError) {
        this.#unreadable(file, content.message, 1);
        continue;
      }
      try {
        const before = objects.length;
        for (const document of parseYaml(content)) this.#sort(file, document, document.value, [], objects, documents);
        // Ambiguous scalars do not matter in files that are not for the API server, such as workflows.
        if (objects.length > before && !file.endsWith('.json')) this.#doubts(file, content);
      } catch (thrown) {
        this.#unreadable(file, messageOf(thrown), thrown instanceof YamlError ? thrown.line : 1);
      }
    }
    this.#objects += objects.length + documents.length;
    for (const object of objects)
      if (isMapping(object.object.metadata))
        for (const v of misplaced(object)) this.#findings.push({ ...v, level: 'error' });
    if (this.#namespace === undefined) this.unplaced += objects.filter(isUnplaced).length;
    // A definition in a later file may say whether a kind needs a namespace.
    if (this.#namespace !== undefined || (this.#wantsInventory && !this.#combine)) this.#held.push(...objects);
    else if (this.#combine) this.#contents.push(...objects.map(asContents));
    else this.#ask(evaluateObjects(this.#pool, objects, this.#scope));
    if (this.#combine) this.#contents.push(...documents.map((d) => ({ path: d.file, contents: d.value })));
    else if (documents.length > 0) this.#ask(evaluateDocuments(this.#pool, documents, this.#scope));
  }

  /** Waits until the rules have caught up, so that read files do not pile up; results are collected meanwhile. */
  async room(): Promise<void> {
    await new Promise((r) => setImmediate(r));
    while (this.#open > MAX_OPEN) await Promise.race(this.#waiting);
  }

  async finish(): Promise<Findings> {
    const held = this.#placed();
    if (this.#combine) {
      this.#contents.push(...held.map(asContents));
      this.#ask(
        evaluateDocuments(
          this.#pool,
          [{ value: this.#contents, file: '(combined)', positionOf: () => ({ line: 1, column: 1 }), combined: true }],
          this.#scope,
        ),
      );
    } else if (this.#wantsInventory && held.length > 0) {
      const pool = new PolicyPool(this.#bundles, { inventory: inventoryOf(held) });
      this.#ask(evaluateObjects(pool, held, this.#scope).finally(() => pool.close()));
    } else if (held.length > 0) this.#ask(evaluateObjects(this.#pool, held, this.#scope));
    await Promise.all(this.#waiting);
    if (this.#failure !== undefined) throw this.#failure;
    const key = (f: Finding) =>
      `${f.source?.file ?? ''}\0${String(f.source?.line ?? 0).padStart(9, '0')}\0${f.rule ?? f.code}\0${f.message}`;
    const sorted = this.#findings
      .map((f) => [key(f), f] as const)
      .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
      .map(([, f]) => f);
    return {
      outcome: sorted.some((f) => f.level === 'error') ? 'denied' : 'allowed',
      findings: sorted,
      fixed: [],
      objects: this.#objects,
      rules: ruleInfos(this.#bundles),
    };
  }

  // As the gate does it, so that the rules see the same objects.
  #placed(): readonly RenderedObject[] {
    if (this.#namespace === undefined) return this.#held;
    const scopeOf = scopesOf(this.#held);
    return this.#held.map((object) => {
      if (!isMapping(object.object.metadata)) return object; // a file that is read, but not by a cluster
      const refused = withoutNamespace(object, scopeOf, '');
      const ignored = ignoredNamespace(object, scopeOf);
      const isRefused = refused?.code === 'scope-unknown'; // every other object has a namespace now
      if (isRefused) this.#findings.push({ ...refused, level: 'error' });
      if (ignored !== undefined) this.#findings.push({ ...ignored, level: 'warning' });
      return placeObject(object, this.#namespace, scopeOf);
    });
  }

  #ask(asked: ReturnType<typeof evaluateObjects>): void {
    this.#open++;
    const waiting: Promise<void> = asked
      .then(
        ({ violations, warnings, exempt, trace }) => {
          for (const [level, all] of [
            ['error', violations],
            ['warning', warnings],
            ['note', exempt],
          ] as const)
            for (const v of all) this.#findings.push({ ...v, level });
          this.trace.push(...trace);
        },
        (thrown: unknown) => {
          this.#failure ??= thrown;
        },
      )
      .finally(() => {
        this.#open--;
        this.#waiting.delete(waiting);
      });
    this.#waiting.add(waiting);
  }

  #sort(
    file: string,
    document: YamlDocument,
    value: unknown,
    at: (string | number)[],
    objects: RenderedObject[],
    documents: { value: unknown; file: string; positionOf: RenderedObject['positionOf'] }[],
  ): void {
    const lineOf = (path: readonly (string | number)[]) => document.lineOf([...at, ...path]);
    const positionOf = (path: readonly (string | number)[]) => document.positionOf([...at, ...path]);
    const { apiVersion, kind, metadata, items } = (typeof value === 'object' && value !== null ? value : {}) as Record<
      string,
      unknown
    >;
    if (typeof apiVersion !== 'string' || typeof kind !== 'string') {
      documents.push({ value, file, positionOf });
      return;
    }
    if (kind === 'List' && Array.isArray(items)) {
      for (const [i, item] of items.entries())
        this.#sort(file, document, item, [...at, 'items', i], objects, documents);
      return;
    }
    const { name, namespace } = (typeof metadata === 'object' && metadata !== null ? metadata : {}) as Record<
      string,
      unknown
    >;
    const ref = {
      apiVersion,
      kind,
      namespace: typeof namespace === 'string' ? namespace : '',
      name: typeof name === 'string' ? name : '',
    };
    objects.push({
      object: value as RenderedObject['object'],
      ref,
      source: { file, line: at.length === 0 ? document.line : lineOf([]) },
      lineOf,
      positionOf,
      digest: '',
    });
  }

  #unreadable(file: string, message: string, line: number): void {
    this.#findings.push({
      level: 'error',
      code: 'manifest-unreadable',
      message: `\`${file}\` cannot be read: ${message}`,
      source: { file, line },
    });
  }

  #doubts(file: string, content: string): void {
    for (const { line, column, message, hint } of ambiguities(content))
      this.#findings.push({
        level: 'warning',
        code: 'yaml-ambiguous',
        message,
        hint,
        source: { file, line, column },
      });
  }
}

function isUnplaced({ ref }: RenderedObject): boolean {
  return ref.namespace === '' && builtInScope(ref) === 'Namespaced';
}

function unplacedNote(unplaced: number): string {
  return (
    `note: ${count(unplaced, 'object')} ${unplaced === 1 ? 'names' : 'name'} no namespace; ` +
    'the gate needs `spec.target.namespace` for that, and `--namespace` checks the same here\n'
  );
}

function asContents({ source, object }: RenderedObject): { path: string; contents: unknown } {
  return { path: source.file, contents: object };
}

function manifestFiles(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    return readdirSync(path, { recursive: true, withFileTypes: true })
      .filter(
        (f) =>
          MANIFEST.test(f.name) &&
          (f.isFile() || (f.isSymbolicLink() && !leadsToDirectory(join(f.parentPath, f.name)))),
      )
      .map((f) => join(f.parentPath, f.name))
      .filter(
        (f) =>
          !relative(path, f)
            .split('/')
            .some((part) => part === '.git' || part === 'node_modules'),
      )
      .sort();
  } catch (cause) {
    throw new CountersignError('usage', `\`${path}\` cannot be read: ${messageOf(cause)}`, { cause });
  }
}

// Same as `kubectl apply -f`: a link to a file is that file, and a broken link is reported.
function leadsToDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function readText(file: string): string | CountersignError {
  try {
    if (statSync(file).size > MAX_FILE)
      return new CountersignError('usage', `it is larger than ${MAX_FILE / 1024 / 1024} MiB`);
    return new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(file));
  } catch (cause) {
    return new CountersignError('usage', messageOf(cause), { cause });
  }
}

async function readInput(): Promise<string | CountersignError> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of createReadStream('', { fd: 0, autoClose: false })) {
    size += (chunk as Buffer).length;
    if (size > MAX_FILE) return new CountersignError('usage', `it is larger than ${MAX_FILE / 1024 / 1024} MiB`);
    chunks.push(chunk as Buffer);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
  } catch (cause) {
    return new CountersignError('usage', messageOf(cause), { cause });
  }
}

/** Opens bundles: archives as they are, directories by compiling them, the shipped library if none is named. */
export async function openPolicies(
  paths: readonly string[],
  data: readonly string[],
  settings: ProcessSettings,
  io: Io,
): Promise<PolicyBundle[]> {
  const archives = paths.filter((p) => /\.(tar\.gz|tgz)$/.test(p));
  const roots = paths.filter((p) => !archives.includes(p));
  const read = async (file: string, name: string) => {
    let bytes: Buffer;
    try {
      bytes = readFileSync(file);
    } catch (cause) {
      throw new CountersignError(
        'policy-unusable',
        `the policy bundle \`${name}\` cannot be read: ${messageOf(cause)}`,
        {
          cause,
          hint: paths.length === 0 ? 'in a checkout of Countersign, run `npm run build:policies`' : 'correct --policy',
        },
      );
    }
    return readBundle(bytes, name);
  };
  const bundles = await Promise.all(archives.map((a) => read(a, a)));
  if (roots.length > 0) {
    const built = await buildBundle({ opa: await opaProgram(settings, io), roots, data });
    bundles.push(await readBundle(built.archive, roots.join(', ')));
  }
  return paths.length === 0 ? [await read(SHIPPED, 'shipped')] : bundles;
}

/** Returns the `opa` program: from the PATH, cached, or built. Throws `tool-missing`. */
export async function opaProgram(settings: ProcessSettings, io: Io): Promise<string> {
  return (
    findOnPath('opa', settings.path) ??
    provide('opa', {
      path: settings.path,
      kubebuilderAssets: undefined,
      cache: join(ROOT, '.tools'),
      root: ROOT,
      say: (line) => io.err(`${line}\n`),
    })
  );
}

/** Reads parameters of the rules from `name=value` (a value may be JSON) and from YAML files. */
export function parametersOf(given: readonly string[] | undefined): Record<string, unknown> {
  const parameters: Record<string, unknown> = {};
  for (const one of given ?? []) {
    const equals = one.indexOf('=');
    try {
      if (equals < 0) Object.assign(parameters, parseYaml(readFileSync(one, 'utf8'))[0]?.value ?? {});
      else parameters[one.slice(0, equals)] = parseYaml(one.slice(equals + 1))[0]?.value ?? null;
    } catch (cause) {
      throw new CountersignError('usage', `the parameter \`${one}\` cannot be read: ${messageOf(cause)}`, {
        cause,
        hint: 'give `name=value`, or a YAML file',
      });
    }
  }
  return parameters;
}

function isMapping(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
