import type { ViolationCode } from '../model/index.ts';
import {
  digestOf,
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
  USER_ANNOTATION,
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
import { substitute, substitutedLength } from './substitute.ts';

/** One file of the tree; `mode` as Git writes it. */
export type SourceFile = { readonly path: string; readonly mode: string; readonly content: Uint8Array };

/** The objects, and what in the files cannot be an object. */
export type Rendering = {
  readonly objects: readonly RenderedObject[];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
};

/**
 * An object as one process can hand it to another: a `RenderedObject` without the functions that find places in its
 * file.
 */
export type ReadObject = Omit<RenderedObject, 'lineOf' | 'positionOf'> & {
  /** The document's position in its file, and the object's place in the document (an item of a List). */
  readonly document: number;
  readonly at: ValuePath;
};

/** What one file holds, as one process can hand it to another. */
export type ReadFile = {
  readonly objects: readonly ReadObject[];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  readonly size: RenderSize;
};

/** What one file holds; the same bytes under the same path, with the same texts to substitute, always give the same. */
export type RenderedFile = Rendering & { readonly size: RenderSize };

/** Texts to put in the place of `${NAME}`; undefined where nothing is substituted. */
export type Declared = Readonly<Record<string, string>> | undefined;

const MAX_FILE = 8 * 1024 * 1024; // the API server takes 3 MiB a request; a file may hold several objects
const LFS = /^version https:\/\/(git-lfs\.github\.com|hawser\.github\.com)\/spec\//;
const MANIFEST = /\.(ya?ml|json)$/;
const NOTHING: ReadFile = { objects: [], violations: [], warnings: [], size: NO_SIZE };

/** Reads plain manifests; files of other names are no manifests and are left alone. */
export function render(files: readonly SourceFile[], declared?: Declared): Rendering {
  return gather(files.map((file) => renderFile(file, declared)));
}

/** Reads one file. */
export function renderFile(file: SourceFile, declared?: Declared): RenderedFile {
  return withPlaces(file, readFile(file, declared));
}

/** Whether a file is a manifest by its name and mode, and has to be read. */
export function isManifest({ path, mode }: Pick<SourceFile, 'path' | 'mode'>): boolean {
  return MANIFEST.test(path) || !mode.startsWith('100');
}

/** Reads one file, in a form that another process can be handed. */
function readFile(file: SourceFile, declared?: Declared): ReadFile {
  const refuse = (code: ViolationCode, message: string, hint?: string): ReadFile => ({
    ...NOTHING,
    violations: [{ code, message, source: { file: file.path, line: 1 }, ...(hint === undefined ? {} : { hint }) }],
  });
  if (file.mode === '120000' || file.mode === '160000')
    return refuse(
      'not-a-file',
      `\`${file.path}\` is a ${file.mode === '120000' ? 'link' : 'submodule'}, which is not followed`,
    );
  if (!MANIFEST.test(file.path)) return NOTHING;
  if (LFS.test(Buffer.from(file.content.subarray(0, 64)).toString('latin1')))
    return refuse(
      'lfs-pointer',
      `\`${file.path}\` is a pointer of Git LFS, whose content is not in the repository and was not signed`,
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

/**
 * Reads several files. Once they exceed the limits together, what more they hold is left out: the sum of their sizes
 * tells.
 */
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
      // the last says how many there were
      violations: violations > KEPT_OF_ALL ? read.violations.slice(-1) : read.violations,
      warnings: warnings > KEPT_OF_ALL ? read.warnings.slice(-1) : read.warnings,
    };
  });
}

/** Adds to what was read of a file the functions that find places in it. */
export function withPlaces({ content }: Pick<SourceFile, 'content'>, { objects, ...rest }: ReadFile): RenderedFile {
  let found: YamlPlaces | undefined; // asked for few files, and the text is made when it is
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

/** One document that a program made, and the file of the repository that it comes from. */
export type MadeDocument = {
  readonly value: unknown;
  readonly source: SourceLine;
  /** Of one that SOPS encrypted: every document of that file. */
  readonly sealedWith?: readonly OrderedValue[] | undefined;
};

/**
 * Reads the objects that a program made of the repository's files. Stops once they exceed the limits together: the size
 * tells, and then there are no objects.
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
 * Several files as one set of objects, in which each may stand once; of very many violations and warnings, the first
 * and their count.
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

/** Scalars that two readers could take differently; what is meant here is what the API server means. */
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

/** What is found in a file as it is read. */
type Found = { readonly objects: ReadObject[]; readonly violations: Kept };

// Substitution comes first, so that everything else is about the text that the cluster is given. How large that text
// becomes is measured before it is built: a few bytes may name a declared text many times.
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
  // Only files that SOPS encrypted are spelled out a second time; as they stand, not as substitution left them.
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
    hint: `declare it, or write \`$\${${name}}\` for the text itself`,
  };
}

function readDocument(
  file: string,
  document: Document,
  value: unknown,
  at: ValuePath,
  sealed: () => readonly OrderedValue[],
  found: Found,
): undefined {
  const refuse = (message: string, path: ValuePath = []) =>
    void found.violations.add(() => ({
      code: 'not-an-object',
      message: `\`${file}\`: ${message}`,
      source: { file, line: document.lineOf([...at, ...path]) },
    }));
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return refuse('the document is not a Kubernetes object');
  const { apiVersion, kind, metadata, items } = value as Record<string, unknown>;
  if (typeof apiVersion !== 'string' || typeof kind !== 'string') return refuse('`apiVersion` and `kind` are needed');
  if (kind === 'List' && Array.isArray(items)) {
    for (const [i, item] of items.entries()) readDocument(file, document, item, [...at, 'items', i], sealed, found);
    return;
  }
  if (apiVersion.startsWith('kustomize.config.k8s.io/'))
    return refuse('Kustomize files are not rendered; the directory must hold plain manifests');
  const { name, namespace } = (typeof metadata === 'object' && metadata !== null ? metadata : {}) as Record<
    string,
    unknown
  >;
  if (typeof name !== 'string' || name === '') return refuse('`metadata.name` is needed', ['metadata']);
  if (namespace !== undefined && typeof namespace !== 'string')
    return refuse('`metadata.namespace` must be text', ['metadata', 'namespace']);
  if (forbiddenMark(metadata))
    return refuse('labels and annotations under `countersign.dev/` are written by Countersign alone', [
      'metadata',
      'annotations',
    ]);
  const ref: ObjectRef = { apiVersion, kind, namespace: namespace ?? '', name };
  if ([apiVersion, kind, ref.namespace, name].some((text) => ENCRYPTED.test(text)))
    return void found.violations.add(() => ({
      code: 'cannot-be-decrypted',
      message: `\`${file}\`: the document is encrypted where only \`data\` and \`stringData\` of a Secret may be`,
      source: { file, line: document.lineOf(at) },
      hint: "encrypt with `--encrypted-regex '^(data|stringData)$'`, and keep what is secret in Secrets",
    }));
  const wrong = identityProblem(ref);
  if (wrong !== undefined) return refuse(wrong.message, wrong.path);
  const object = value as KubernetesObject;
  const source = { file, line: document.lineOf(at) };
  const encrypted = Object.hasOwn(object, 'sops') ? { sealedWith: sealed() } : {};
  found.objects.push({ object, ref, source, digest: digestOf(object), document: document.index, at, ...encrypted });
}

// Kinds and names become parts of addresses of the API server and keys of what is owned. The grammars are Kubernetes'
// own (apimachinery, IsDNS1123Subdomain, IsDNS1035Label, ValidatePathSegmentName); one text must not be two identities.
const API_VERSION = /^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\/)?[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/;
const KIND = /^[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;
const NAMESPACE = /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$/;
// a segment of a path; RBAC has names with spaces and letters of any language
const NAME = /^(?!\.{1,2}$)[^/%\p{Cc}\p{Cf}\p{Zl}\p{Zp}]{1,253}$/u;

function identityProblem({
  apiVersion,
  kind,
  namespace,
  name,
}: ObjectRef): { message: string; path: ValuePath } | undefined {
  if (!API_VERSION.test(apiVersion))
    return { message: '`apiVersion` is not `VERSION` or `GROUP/VERSION`', path: ['apiVersion'] };
  if (!KIND.test(kind)) return { message: '`kind` is not a kind of the Kubernetes API', path: ['kind'] };
  if (!NAMESPACE.test(namespace))
    return { message: '`metadata.namespace` is not a name of a namespace', path: ['metadata', 'namespace'] };
  if (!NAME.test(name))
    return { message: '`metadata.name` is not a name of the Kubernetes API', path: ['metadata', 'name'] };
  return undefined;
}

// A stamp, our label or a break-glass annotation from the repository would claim what only the gate and the ledger can
// say.
function forbiddenMark(metadata: unknown): boolean {
  const { annotations, labels } = (metadata ?? {}) as { annotations?: unknown; labels?: unknown };
  const keys = (value: unknown) => (typeof value === 'object' && value !== null ? Object.keys(value) : []);
  const annotated = keys(annotations).filter((key) => key !== USER_ANNOTATION.allow);
  return [...annotated, ...keys(labels)].some(isStamp);
}
