import {
  defaultNamespace,
  digestOf,
  durationMs,
  type Environment,
  inParallel,
  type KindScope,
  type Rendered,
  type RenderedObject,
  sha256,
  sizeInBytes,
  type TreeEntry,
  type Violation,
} from '../model/index.ts';
import {
  exceeded,
  gather,
  isManifest,
  KEPT_OF_ALL,
  Kept,
  NO_SIZE,
  type ProcessLimits,
  type RenderedFile,
  type Rendering,
  type RenderSize,
  renderMade,
  type SourceFile,
  sumOf,
  tooLarge,
} from '../render/index.ts';
import type { Gate, KnownFile } from './gate.ts';
import {
  declaredScopes,
  ignoredNamespace,
  type KindRef,
  kindText,
  placeObject,
  type ScopeOf,
  scopesOf,
  unknownKinds,
} from './place-objects.ts';
import { isNeverWritten, misplaced, neverWritten } from './placement.ts';
import type { ServedScope } from './ports.ts';

const FILES_AT_ONCE = 8; // requested from git in advance; each may be as large as the largest allowed object
const FILES_TOGETHER = 64; // parsed together, up to this many bytes
const BYTES_TOGETHER = 2 * 1024 * 1024;

/** The parts of a gate used for rendering. */
export type RenderParts = Pick<
  Gate,
  'environment' | 'repository' | 'rendered' | 'make' | 'read' | 'servedScope' | 'turns'
>;

/**
 * The objects where the cluster will have them. `content` is a digest over the input files; `served` has what the
 * cluster said of kinds, by `Kind.group`.
 */
export type RenderedTree = Rendering & {
  readonly content: string;
  readonly scopeOf: ScopeOf;
  readonly served: ReadonlyMap<string, KindScope>;
};

/**
 * Renders the environment's directory of a tree, and puts objects that name no namespace into the environment's. Output
 * above the environment's limits is a violation, and then there are no objects.
 */
export async function renderTree(gate: RenderParts, tree: string): Promise<RenderedTree> {
  const { source, render } = gate.environment.spec;
  const read = render.with === 'plain' ? await renderFiles(gate, tree) : await renderMadeBy(gate, tree);
  const rendering = await placed(gate, read);
  if (rendering.objects.length > 0 || rendering.violations.length > 0) return rendering;
  return {
    ...rendering,
    violations: [
      {
        code: 'nothing-rendered',
        message: `\`${source.path}\` contains no manifests: this would remove everything`,
        hint:
          'fix `spec.source.path`; if you do mean to delete everything, ' +
          'add the commit trailer `Countersign-Allow: empty`',
      },
    ],
  };
}

// The result so far, as it is written; violations and warnings may still be added.
type Read = {
  readonly objects: readonly RenderedObject[];
  readonly violations: Kept;
  readonly warnings: Kept;
  readonly content: string;
};

// An object that sets no namespace and one that does may be the same object, so `gather` comes after the placing.
async function placed({ environment, servedScope, turns }: RenderParts, read: Read): Promise<RenderedTree> {
  const { path } = environment.spec.source;
  const { violations, warnings, content } = read;
  const known = declaredScopes(scopesOf(read.objects), environment);
  const served = await servedScopes(unknownKinds(read.objects, known), servedScope);
  const scopeOf: ScopeOf = (ref) => known(ref) ?? served.get(kindText(ref));
  const namespace = defaultNamespace(environment);
  const all = await turns.map(read.objects, (o) => placeObject(o, namespace, scopeOf));
  const objects = all.filter((o) => !isNeverWritten(o));
  const unwritten = await turns.map(all, neverWritten);
  const ignored = await turns.map(read.objects, (o) => ignoredNamespace(o, scopeOf));
  const gathered = gather([{ ...NO_MANIFEST, objects }]);
  await turns.breathe();
  violations.addAll(gathered.violations);
  for (const problems of await turns.map(all, misplaced)) violations.addAll(problems);
  warnings.addAll([...ignored, ...unwritten].filter((v) => v !== undefined));
  return {
    objects: gathered.objects,
    violations: violations.list('too-many-violations', `\`${path}\` has`),
    warnings: warnings.list('too-many-warnings', `\`${path}\` has`),
    content,
    scopeOf,
    served,
  };
}

async function servedScopes(
  kinds: readonly KindRef[],
  servedScope: ServedScope | undefined,
): Promise<ReadonlyMap<string, KindScope>> {
  const served = new Map<string, KindScope>();
  if (servedScope === undefined) return served;
  await inParallel(kinds, async (kind) => {
    const scope = await servedScope(kind);
    if (scope !== undefined) served.set(kindText(kind), scope);
  });
  return served;
}

async function renderMadeBy({ environment, repository, make }: RenderParts, tree: string): Promise<Read> {
  const { documents, violations, content } = await make(environment, repository, tree);
  const made = renderMade(documents, environment.spec.render.substitute, limitsOf(environment));
  const tooMuch = overLimit(environment, made.size);
  const read = { objects: made.objects, violations: new Kept(KEPT_OF_ALL), warnings: new Kept(KEPT_OF_ALL), content };
  read.violations.addAll(violations);
  read.violations.addAll(tooMuch === undefined ? made.violations : [tooMuch]);
  if (tooMuch !== undefined) return { ...read, objects: [] };
  return { ...read, content: digestOf([content, made.objects.map((o) => o.digest)]) };
}

async function renderFiles(parts: RenderParts, tree: string): Promise<Read> {
  const { environment, repository, rendered } = parts;
  const { spec } = environment;
  const entries = await repository.files(tree, spec.source.path);
  rendered?.hold(entries.length * 3); // the revision being judged, the previous one, and room for a third
  const substitutes = digestOf(spec.render.substitute ?? {});
  const keyOf = ({ mode, blob, path }: TreeEntry) => `${mode} ${blob} ${path} ${substitutes}`;
  const files: (TreeEntry & KnownFile)[] = [];
  const limits = limitsOf(environment);
  const deadline = performance.now() + limits.ms;
  const violations = new Kept(KEPT_OF_ALL);
  const warnings = new Kept(KEPT_OF_ALL);
  let size = NO_SIZE;
  for (let batch = await nextBatch(parts, entries, keyOf); batch.length > 0; ) {
    // The next files are read from Git while these are parsed.
    const [done, next] = await Promise.all([
      knownFiles(parts, batch, { ...limits, ms: Math.max(1, deadline - performance.now()) }),
      nextBatch(parts, entries.slice(files.length + batch.length), keyOf),
    ]);
    size = sumOf([size, ...done.map((f) => f.rendered.size)]);
    const tooMuch =
      overLimit(environment, size) ??
      done.flatMap((f) => f.rendered.violations).find((v) => v.code === 'render-too-large');
    // None of these files are cached: some may not have been read because of a limit.
    if (tooMuch !== undefined) return refusedAs(tooMuch);
    for (const [i, file] of done.entries()) {
      const { entry } = batch[i] as Pending;
      violations.addAll(file.rendered.violations);
      warnings.addAll(file.rendered.warnings);
      // Files that together have very many violations are read again each time: caching them would keep all of those.
      if (!violations.isOver && !warnings.isOver) rendered?.set(keyOf(entry), file);
      files.push({ ...entry, sha256: file.sha256, rendered: { ...file.rendered, violations: [], warnings: [] } });
    }
    batch = next;
    await parts.turns.breathe();
  }
  return {
    objects: files.flatMap((f) => f.rendered.objects),
    violations,
    warnings,
    content: digestOf(files.map((f) => [f.path, f.mode, f.sha256])),
  };
}

function refusedAs(tooMuch: Violation): Read {
  const violations = new Kept(KEPT_OF_ALL);
  violations.addAll([tooMuch]);
  return { objects: [], violations, warnings: new Kept(KEPT_OF_ALL), content: '' };
}

/** A file of the tree, cached from an earlier check or with its bytes. */
type Pending = { readonly entry: TreeEntry } & (
  | { readonly known: KnownFile }
  | { readonly known: undefined; readonly content: Uint8Array }
);

// Returns the next files to parse together: few enough that they neither fill memory nor delay others.
async function nextBatch(
  { repository, rendered, turns }: RenderParts,
  entries: readonly TreeEntry[],
  keyOf: (entry: TreeEntry) => string,
): Promise<Pending[]> {
  const batch: Pending[] = [];
  let bytes = 0;
  while (batch.length < Math.min(entries.length, FILES_TOGETHER) && bytes < BYTES_TOGETHER) {
    const few = entries.slice(batch.length, batch.length + FILES_AT_ONCE);
    const pending = await Promise.all(
      few.map(async (entry): Promise<Pending> => {
        await turns.breathe();
        const known = rendered?.get(keyOf(entry));
        if (known !== undefined) return { entry, known };
        return {
          entry,
          known,
          content: entry.mode === '160000' ? new Uint8Array() : await repository.blob(entry.blob),
        };
      }),
    );
    for (const one of pending) bytes += one.known === undefined ? one.content.length : 0;
    batch.push(...pending);
  }
  return batch;
}

// Files that are not manifests only contribute their digest.
async function knownFiles(
  { environment, read, turns }: RenderParts,
  batch: readonly Pending[],
  limits: ProcessLimits,
): Promise<KnownFile[]> {
  const { substitute } = environment.spec.render;
  const manifests = batch.flatMap((p): SourceFile[] =>
    p.known === undefined && isManifest(p.entry)
      ? [{ path: p.entry.path, mode: p.entry.mode, content: p.content }]
      : [],
  );
  const rendered = manifests.length === 0 ? [] : [...(await read(manifests, limits, substitute))];
  return turns.map(batch, (pending) => {
    if (pending.known !== undefined) return pending.known;
    const { entry, content } = pending;
    return { sha256: sha256(content), rendered: isManifest(entry) ? (rendered.shift() as RenderedFile) : NO_MANIFEST };
  });
}

const NO_MANIFEST: RenderedFile = { objects: [], violations: [], warnings: [], size: NO_SIZE };

function overLimit(environment: Environment, size: RenderSize): Violation | undefined {
  const over = exceeded(size, limitsOf(environment));
  const { path } = environment.spec.source;
  return over === undefined ? undefined : tooLarge(`the rendered size of \`${path}\` is`, over.text, over.limit, path);
}

/** Returns the rendering limits of an environment, in bytes and milliseconds. */
export function limitsOf({ spec }: Pick<Environment, 'spec'>): ProcessLimits {
  const { objects, values, size, memory, time } = spec.render.limits;
  return { objects, values, size: sizeInBytes(size), memory: sizeInBytes(memory), ms: durationMs(time) };
}

/** Returns which part of its repository an environment renders, how, and where objects go that name no namespace. */
export function renderedBy(environment: Environment): Rendered {
  const { spec } = environment;
  const { limits: _, ...render } = spec.render;
  const namespace = defaultNamespace(environment);
  const place = namespace === undefined ? {} : { namespace };
  if (render.with !== 'helm') return { path: spec.source.path, render, ...place };
  const { registries: __, ...chart } = render;
  return { path: spec.source.path, render: chart, ...place };
}

/** Returns an environment that renders as it did at the time of a verdict, with today's limits. */
export function renderingAs(environment: Environment, rendered: Rendered | undefined): Environment {
  if (rendered === undefined) return environment;
  const { spec } = environment;
  const registries = spec.render.with === 'helm' ? spec.render.registries : [];
  const { limits } = spec.render;
  const render =
    rendered.render.with === 'helm' ? { ...rendered.render, registries, limits } : { ...rendered.render, limits };
  const target = { ...spec.target, namespace: namespaceThen(rendered, spec.target) };
  return { ...environment, spec: { ...spec, source: { ...spec.source, path: rendered.path }, render, target } };
}

// Verdicts of older versions have no namespace, because objects without one were refused. Helm had one for its release.
function namespaceThen(
  { namespace, render }: Rendered,
  { namespaces }: Environment['spec']['target'],
): string | undefined {
  if (namespace !== undefined || render.with !== 'helm') return namespace;
  const { namespace: release } = render as typeof render & { readonly namespace?: string };
  return release ?? namespaces[0];
}
