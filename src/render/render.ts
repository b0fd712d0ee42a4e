import type { ViolationCode } from '../model/index.ts';
import {
  digestOf,
  HOOK_ANNOTATION,
  isReserved,
  isStamp,
  type KubernetesObject,
  messageOf,
  type ObjectRef,
  type OrderedValue,
  orderedValue,
  type Position,
  type RenderedObject,
  refKey,
  refText,
  type SourceLine,
  substitutedLength,
  type ValuePath,
  type Violation,
} from '../model/index.ts';
import { ambiguities, parseYaml, type YamlDocument, YamlError, type YamlPlaces, yamlPlaces } from '../yaml/index.ts';
import { ENCRYPTED } from './encrypted.ts';
import { KEPT_OF_ALL, KEPT_OF_FILE, Kept } from './kept.ts';
import {
  exceeded,
  FILE_LIMITS,
  measure,
  NO_SIZE,
  type RenderLimits,
  type RenderSize,
  sumOf,
  tooLarge,
} from './limits.ts';
import { substitute } from './substitute.ts';

/** One file of the tree; `mode` as in Git. */
export type SourceFile = { readonly path: string; readonly mode: string; readonly content: Uint8Array };

/** The objects, and the problems found in the files. */
export type Rendering = {
  readonly objects: readonly RenderedObject[];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
};

/** A `RenderedObject` in transit between processes: without the functions that find places in its file. */
type ReadObject = Omit<RenderedObject, 'lineOf' | 'positionOf'> & {
  /** The document's position in its file, and the object's path in the document (for an item of a List). */
  readonly document: number;
  readonly at: ValuePath;
};

/** Content of one file, in transit between processes. */
export type ReadFile = {
  readonly objects: readonly ReadObject[];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  readonly size: RenderSize;
};

/** Content of one file. The same bytes under the same path with the same substitutions always give the same result. */
export type RenderedFile = Rendering & { readonly size: RenderSize };

/** Texts that replace `${NAME}`; undefined if nothing is substituted. */
export type Declared = Readonly<Record<string, string>> | undefined;

const MAX_FILE = 8 * 1024 * 1024; // the API server accepts 3 MiB per request; a file may contain several objects
const LFS = /^version https:\/\/(git-lfs\.github\.com|hawser\.github\.com)\/spec\//;
const MANIFEST = /\.(ya?ml|json)$/;
const NOTHING: ReadFile = { objects: [], violations: [], warnings: [], size: NO_SIZE };

/** Reads plain manifests. Files with other names are ignored. */
export function render(files: readonly SourceFile[], declared?: Declared): Rendering {
  return gather(files.map((file) => renderFile(file, declared)));
}

/** Reads one file. */
export function renderFile(file: SourceFile, declared?: Declared): RenderedFile {
  return withPlaces(file, readFile(file, declared));
}

/** Tests whether a file is a manifest, by its name and mode. */
export function isManifest({ path, mode }: Pick<SourceFile, 'path' | 'mode'>): boolean {
  return MANIFEST.test(path) || !mode.startsWith('100');
}

/** Reads one file, in a form that can be sent to another process. */
function readFile(file: SourceFile, declared?: Declared): ReadFile {
  const refuse = (code: ViolationCode, message: string, hint?: string): ReadFile => ({
    ...NOTHING,
    violations: [{ code, message, source: { file: file.path, line: 1 }, ...(hint === undefined ? {} : { hint }) }],
  });
  if (file.mode === '120000' || file.mode === '160000')
    return refuse(
      'not-a-file',
      `\`${file.path}\` is a ${file.mode === '120000' ? 'link' : 'submodule'}, which is not supported`,
    );
  if (!MANIFEST.test(file.path)) return NOTHING;
  if (LFS.test(Buffer.from(file.content.subarray(0, 64)).toString('latin1')))
    return refuse(
      'lfs-pointer',
      `\`${file.path}\` is a Git LFS pointer: its content is not in the repository, so it was not signed`,
      'commit the manifest itself: `git lfs untrack`, then add it again',
    );
  if (file.content.length > MAX_FILE) return unreadable(file.path, `it is larger than ${MAX_FILE} bytes`);
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(file.content);
    return readDocuments(file.path, parseYaml(text), declared, text.length, doubts(file.path, text));
  } catch (thrown) {
    return unreadable(file.path, messageOf(thrown), thrown instanceof YamlError ? thrown.line : 1);
  }
}

/** Reads several files. Beyond the limits, further content is omitted; the sum of the sizes shows it. */
export function readFiles(files: readonly SourceFile[], limits: RenderLimits, declared: Declared): readonly ReadFile[] {
  let size = NO_SIZE;
  let [violations, warnings] = [0, 0];
  return files.map((file) => {
    if (exceeded(size, limits) !== undefined) return NOTHING;
    const read = readFile(file, declared);
    size = sumOf([size, read.size]);
    if (exceeded(size, limits) !== undefined) return { ...NOTHING, size: read.size };
    violations += read.violations.length;
    warnings += read.warnings.length;
    return {
      ...read,
      // the last one has the total
      violations: violations > KEPT_OF_ALL ? read.violations.slice(-1) : read.violations,
      warnings: warnings > KEPT_OF_ALL ? read.warnings.slice(-1) : read.warnings,
    };
  });
}

/** Adds functions that find places in the file. */
export function withPlaces({ content }: Pick<SourceFile, 'content'>, { objects, ...rest }: ReadFile): RenderedFile {
  let found: YamlPlaces | undefined; // used for few files, so the text is decoded on demand
  const places = () => {
    found ??= yamlPlaces(Buffer.from(content).toString('utf8'));
    return found;
  };
  return {
    ...rest,
    objects: objects.map(({ document, at, ...object }) => ({
      ...object,
      lineOf: (path) => places().within(document, [...at, ...path]).line,
      positionOf: (path) =>
        at.length + path.length === 0 ? places().start(document) : places().within(document, [...at, ...path]),
    })),
  };
}

/** A document produced by a program, and the repository file it comes from. */
export type MadeDocument = {
  readonly value: unknown;
  readonly source: SourceLine;
  /** If SOPS encrypted it: every document of that file. */
  readonly sealedWith?: readonly OrderedValue[] | undefined;
};

/**
 * Reads the objects a program produced from the repository's files. Stops when they exceed the limits together: then
 * the size shows it, and there are no objects.
 */
export function renderMade(
  documents: readonly MadeDocument[],
  declared?: Declared,
  limits: RenderLimits = FILE_LIMITS,
): RenderedFile {
  const objects: RenderedObject[] = [];
  const violations = new Kept(KEPT_OF_ALL);
  let size = NO_SIZE;
  for (const { value, source, sealedWith } of documents) {
    const position = { line: source.line, column: 1 };
    const document: Document = { index: 0, value, lineOf: () => source.line, positionOf: () => position, sealedWith };
    const read = readDocuments(source.file, [document], declared, 0, []);
    size = sumOf([size, read.size]);
    violations.addAll(read.violations);
    if (exceeded(size, limits) !== undefined)
      return { objects: [], violations: listOf(violations), warnings: [], size };
    for (const o of read.objects) objects.push({ ...o, lineOf: () => source.line, positionOf: () => position });
  }
  return { objects, violations: listOf(violations), warnings: [], size };
}

/**
 * Combines several files into one set of objects, in which each may occur once. Only the first violations and warnings
 * are kept, with their total.
 */
export function gather(files: readonly RenderedFile[]): Rendering {
  const objects: RenderedObject[] = [];
  const violations = new Kept(KEPT_OF_ALL);
  const warnings = new Kept(KEPT_OF_ALL);
  const places = new Map<string, string>();
  for (const file of files) {
    violations.addAll(file.violations);
    warnings.addAll(file.warnings);
    for (const found of file.objects) {
      const key = refKey(found.ref);
      const earlier = places.get(key);
      if (earlier !== undefined)
        violations.add(() => ({
          code: 'object-twice',
          message: `${refText(found.ref)} is also in \`${earlier}\``,
          object: found.ref,
          source: found.source,
          hint: 'keep one of them',
        }));
      places.set(key, `${found.source.file}:${found.source.line}`);
      objects.push(found);
    }
  }
  return { objects, violations: listOf(violations), warnings: warnings.list('too-many-warnings', 'there are') };
}

function listOf(violations: Kept): readonly Violation[] {
  return violations.list('too-many-violations', 'there are');
}

/** Warns of scalars that readers interpret differently; here the API server's interpretation counts. */
function doubts(path: string, text: string): readonly Violation[] {
  if (!/\.ya?ml$/.test(path)) return [];
  const warnings = new Kept(KEPT_OF_FILE);
  for (const { line, column, message, hint } of ambiguities(text))
    warnings.add(() => ({ code: 'yaml-ambiguous', message, hint, source: { file: path, line, column } }));
  return warnings.list('too-many-warnings', `\`${path}\` has`);
}

function unreadable(file: string, message: string, line = 1): ReadFile {
  const violation: Violation = {
    code: 'manifest-unreadable',
    message: `\`${file}\` cannot be read: ${message}`,
    source: { file, line },
  };
  return { ...NOTHING, violations: [violation] };
}

type Document = Pick<YamlDocument, 'index' | 'value' | 'lineOf' | 'positionOf'> & Pick<MadeDocument, 'sealedWith'>;

/** Findings collected while a file is read. */
type Found = { readonly objects: ReadObject[]; readonly violations: Kept };

// Substitution comes first, so that everything else refers to the text the cluster gets. The resulting size is computed
// before the text is built: a few bytes may refer to a declared text many times.
function readDocuments(
  file: string,
  documents: readonly Document[],
  declared: Declared,
  bytes: number,
  warnings: readonly Violation[],
): ReadFile {
  const found: Found = { objects: [], violations: new Kept(KEPT_OF_FILE) };
  let size: RenderSize = { ...NO_SIZE, size: bytes };
  let characters = 0;
  for (const document of documents) {
    const left = { values: FILE_LIMITS.values - size.values, size: FILE_LIMITS.size - characters };
    const measured = measure(document.value, left, (text) => substitutedLength(text, declared));
    characters += measured.size;
    size = { objects: 0, values: size.values + measured.values, size: Math.max(bytes, characters) };
    const over = exceeded(size, FILE_LIMITS);
    if (over !== undefined)
      return { ...NOTHING, violations: [tooLarge(`\`${file}\` holds`, over.text, over.limit, file)], size };
  }
  const texts = documents.map((document) => {
    if (declared === undefined) return document.value;
    return substitute(document.value, declared, (name, path) =>
      found.violations.add(() => undeclared(name, file, document.positionOf(path))),
    );
  });
  // Only files encrypted by SOPS are parsed a second time: as they are in the file, not after substitution.
  let known: readonly OrderedValue[] | undefined;
  const sealed = (): readonly OrderedValue[] => {
    known ??= documents.flatMap((d) => d.sealedWith ?? [orderedValue(d.value, d.positionOf)]);
    return known;
  };
  for (const [i, document] of documents.entries()) readDocument(file, document, texts[i], [], sealed, found);
  const { objects, violations } = found;
  return {
    objects,
    violations: violations.list('too-many-violations', `\`${file}\` has`),
    warnings,
    size: { ...size, objects: objects.length },
  };
}

function undeclared(name: string, file: string, at: Position): Violation {
  return {
    code: 'variable-undeclared',
    message: `\`\${${name}}\` is not declared in \`spec.render.substitute\``,
    source: { file, ...at },
    hint: `declare it, or write \`$\${${name}}\` for the literal text`,
  };
}

function readDocument(
  file: string,
  document: Document,
  written: unknown,
  at: ValuePath,
  sealed: () => readonly OrderedValue[],
  found: Found,
): undefined {
  const refuse = (message: string, path: ValuePath = [], hint?: string) =>
    void found.violations.add(() => ({
      code: 'not-an-object',
      message: `\`${file}\`: ${message}`,
      source: { file, line: document.lineOf([...at, ...path]) },
      ...(hint === undefined ? {} : { hint }),
    }));
  const value = withName(written);
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return refuse('the document is not a Kubernetes object');
  const { apiVersion, kind, metadata, items } = value as Record<string, unknown>;
  if (isKustomization(file, apiVersion, kind)) return refuse('a kustomization is not an object', [], KUSTOMIZE);
  if (typeof apiVersion !== 'string' || typeof kind !== 'string') return refuse('`apiVersion` and `kind` are required');
  if (kind === 'List' && Array.isArray(items)) {
    for (const [i, item] of items.entries()) readDocument(file, document, item, [...at, 'items', i], sealed, found);
    return;
  }
  const { name, namespace } = (typeof metadata === 'object' && metadata !== null ? metadata : {}) as Record<
    string,
    unknown
  >;
  if (typeof name !== 'string' || name === '')
    return refuse(
      '`metadata.name` is required',
      ['metadata'],
      Object.hasOwn(metadata ?? {}, 'generateName') ? GENERATED : undefined,
    );
  if (namespace !== undefined && namespace !== null && typeof namespace !== 'string')
    return refuse('`metadata.namespace` must be text', ['metadata', 'namespace']);
  if (forbiddenMark(metadata))
    return refuse('labels and annotations under `countersign.dev/` are reserved for Countersign', [
      'metadata',
      'annotations',
    ]);
  const ref: ObjectRef = { apiVersion, kind, namespace: namespace ?? '', name };
  if ([apiVersion, kind, ref.namespace, name].some((text) => ENCRYPTED.test(text)))
    return void found.violations.add(() => ({
      code: 'cannot-be-decrypted',
      message: `\`${file}\`: the document is encrypted outside \`data\` and \`stringData\` of a Secret`,
      source: { file, line: document.lineOf(at) },
      hint: "encrypt with `--encrypted-regex '^(data|stringData)$'`, and keep secret values in Secrets",
    }));
  const wrong = identityProblem(ref);
  if (wrong !== undefined) return refuse(wrong.message, wrong.path);
  const object = value as KubernetesObject;
  const source = { file, line: document.lineOf(at) };
  const encrypted = Object.hasOwn(object, 'sops') ? { sealedWith: sealed() } : {};
  found.objects.push({ object, ref, source, digest: digestOf(object), document: document.index, at, ...encrypted });
}

// A hook of Argo CD may leave its name to the API server. Here the name follows from the content, so that the object
// that is approved is the one that is made.
function withName(value: unknown): unknown {
  const { metadata, ...others } = (value ?? {}) as { metadata?: unknown };
  const { generateName, ...rest } = (metadata ?? {}) as Readonly<Record<string, unknown>>;
  const isHook = Object.values(HOOK_ANNOTATION).some((key) => Object.hasOwn(rest['annotations'] ?? {}, key));
  if (typeof generateName !== 'string' || rest['name'] !== undefined || !isHook) return value;
  return { ...others, metadata: { ...rest, name: `${generateName}${digestOf(value).slice(0, 8)}` } };
}

const GENERATED = 'a name that the API server generates is in no commit: replace `generateName` by `name`';
const KUSTOMIZE = 'set `spec.render: {with: kustomize}`, or `spec.source.path` to a directory without it';

// Kustomize accepts a file of this name without `apiVersion` and `kind`.
function isKustomization(file: string, apiVersion: unknown, kind: unknown): boolean {
  if (typeof apiVersion === 'string') return apiVersion.startsWith('kustomize.config.k8s.io/');
  return kind === undefined && /(^|\/)kustomization\.ya?ml$/.test(file);
}

// Kinds and names become parts of API server paths and keys of owned objects. The grammars are Kubernetes' own
// (apimachinery, IsDNS1123Subdomain, IsDNS1035Label, ValidatePathSegmentName). One text must not be two identities.
const API_VERSION = /^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\/)?[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/;
const KIND = /^[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;
const NAMESPACE = /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$/;
// a path segment; RBAC has names with spaces and letters of any language
const NAME = /^(?!\.{1,2}$)[^/%\p{Cc}\p{Cf}\p{Zl}\p{Zp}]{1,253}$/u;

function identityProblem({
  apiVersion,
  kind,
  namespace,
  name,
}: ObjectRef): { message: string; path: ValuePath } | undefined {
  if (!API_VERSION.test(apiVersion))
    return { message: '`apiVersion` must be `VERSION` or `GROUP/VERSION`', path: ['apiVersion'] };
  if (!KIND.test(kind)) return { message: '`kind` is not a valid kind of the Kubernetes API', path: ['kind'] };
  if (!NAMESPACE.test(namespace))
    return { message: '`metadata.namespace` is not a valid namespace name', path: ['metadata', 'namespace'] };
  if (!NAME.test(name))
    return { message: '`metadata.name` is not a valid name of the Kubernetes API', path: ['metadata', 'name'] };
  return undefined;
}

// A stamp, our label or a break-glass annotation in the repository would claim something only the gate and the ledger
// may state.
function forbiddenMark(metadata: unknown): boolean {
  const { annotations, labels } = (metadata ?? {}) as { annotations?: unknown; labels?: unknown };
  const keys = (value: unknown) => (typeof value === 'object' && value !== null ? Object.keys(value) : []);
  return keys(annotations).some(isReserved) || keys(labels).some(isStamp);
}
