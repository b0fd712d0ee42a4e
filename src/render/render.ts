import {
  digestOf,
  isStamp,
  type KubernetesObject,
  messageOf,
  type ObjectRef,
  type RenderedObject,
  refKey,
  refText,
  type SourceLine,
  USER_ANNOTATION,
  type ValuePath,
  type Violation,
} from '../model/index.ts';
import { ambiguities, parseYaml, type YamlDocument, YamlError } from '../yaml/index.ts';

/** One file of the tree; `mode` as Git writes it. */
export type SourceFile = { readonly path: string; readonly mode: string; readonly content: Uint8Array };

/** The objects, and what in the files cannot be an object. */
export type Rendering = {
  readonly objects: readonly RenderedObject[];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
};

const MAX_FILE = 8 * 1024 * 1024; // the API server takes 3 MiB a request; a file may hold several objects
const LFS = /^version https:\/\/(git-lfs\.github\.com|hawser\.github\.com)\/spec\//;
const MANIFEST = /\.(ya?ml|json)$/;

/** What one file holds; the same bytes under the same path always give the same. */
export type RenderedFile = {
  readonly objects: readonly RenderedObject[];
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
};

const NOTHING: RenderedFile = { objects: [], violations: [], warnings: [] };

/** Reads plain manifests; files of other names are no manifests and are left alone. */
export function render(files: readonly SourceFile[]): Rendering {
  return gather(files.map(renderFile));
}

/** Reads one file. */
export function renderFile(file: SourceFile): RenderedFile {
  const refuse = (code: string, message: string, hint?: string): RenderedFile => ({
    ...NOTHING,
    violations: [{ code, message, source: { file: file.path, line: 1 }, ...(hint === undefined ? {} : { hint }) }],
  });
  if (file.mode === '120000' || file.mode === '160000')
    return refuse('not-a-file', `\`${file.path}\` is a ${file.mode === '120000' ? 'link' : 'submodule'}, which is not followed`);
  if (!MANIFEST.test(file.path)) return NOTHING;
  if (LFS.test(Buffer.from(file.content.subarray(0, 64)).toString('latin1')))
    return refuse(
      'lfs-pointer',
      `\`${file.path}\` is a pointer of Git LFS, whose content is not in the repository and was not signed`,
      'commit the manifest itself: `git lfs untrack`, then add it again',
    );
  const found = readFile(file);
  return {
    objects: found.filter((f): f is RenderedObject => !('code' in f)),
    violations: found.filter((f): f is Violation => 'code' in f),
    warnings: doubts(file),
  };
}

/** What a program made of the repository's files: each document with the file it comes from. */
export function renderMade(documents: readonly { readonly value: unknown; readonly source: SourceLine }[]): RenderedFile {
  const found = documents.flatMap(({ value, source }) => {
    const position = { line: source.line, column: 1 };
    return readDocument(
      source.file,
      { value, line: source.line, lineOf: () => source.line, positionOf: () => position } as YamlDocument,
      value,
      [],
    );
  });
  return {
    objects: found.filter((f): f is RenderedObject => !('code' in f)),
    violations: found.filter((f): f is Violation => 'code' in f),
    warnings: [],
  };
}

/** Several files as one set of objects, in which each may stand once. */
export function gather(files: readonly RenderedFile[]): Rendering {
  const objects: RenderedObject[] = [];
  const violations: Violation[] = [];
  const places = new Map<string, string>();
  for (const file of files) {
    violations.push(...file.violations);
    for (const found of file.objects) {
      const key = refKey(found.ref);
      const earlier = places.get(key);
      if (earlier !== undefined)
        violations.push({
          code: 'object-twice',
          message: `${refText(found.ref)} is also in \`${earlier}\``,
          object: found.ref,
          source: found.source,
          hint: 'keep one of them',
        });
      places.set(key, `${found.source.file}:${found.source.line}`);
      objects.push(found);
    }
  }
  return { objects, violations, warnings: files.flatMap((f) => f.warnings) };
}

/** Scalars that two readers could take differently; what is meant here is what the API server means. */
function doubts(file: Pick<SourceFile, 'path' | 'content'>): Violation[] {
  if (!/\.ya?ml$/.test(file.path) || file.content.length > MAX_FILE) return [];
  return ambiguities(Buffer.from(file.content).toString('utf8')).map(({ line, column, message, hint }) => ({
    code: 'yaml-ambiguous',
    message,
    hint,
    source: { file: file.path, line, column },
  }));
}

function readFile(file: SourceFile): (RenderedObject | Violation)[] {
  const unreadable = (message: string, line: number): Violation => ({
    code: 'manifest-unreadable',
    message: `\`${file.path}\` cannot be read: ${message}`,
    source: { file: file.path, line },
  });
  if (file.content.length > MAX_FILE) return [unreadable(`it is larger than ${MAX_FILE} bytes`, 1)];
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(file.content);
    return parseYaml(text).flatMap((document) => readDocument(file.path, document, document.value, []));
  } catch (thrown) {
    return [unreadable(messageOf(thrown), thrown instanceof YamlError ? thrown.line : 1)];
  }
}

function readDocument(file: string, document: YamlDocument, value: unknown, at: ValuePath): (RenderedObject | Violation)[] {
  const source = { file, line: document.lineOf(at) };
  const refuse = (message: string, line = source.line): Violation[] => [
    { code: 'not-an-object', message: `\`${file}\`: ${message}`, source: { file, line } },
  ];
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refuse('the document is not a Kubernetes object');
  const { apiVersion, kind, metadata, items } = value as Record<string, unknown>;
  if (typeof apiVersion !== 'string' || typeof kind !== 'string') return refuse('`apiVersion` and `kind` are needed');
  if (kind === 'List' && Array.isArray(items)) return items.flatMap((item, i) => readDocument(file, document, item, [...at, 'items', i]));
  if (apiVersion.startsWith('kustomize.config.k8s.io/'))
    return refuse('Kustomize files are not rendered; the directory must hold plain manifests');
  const { name, namespace } = (typeof metadata === 'object' && metadata !== null ? metadata : {}) as Record<string, unknown>;
  if (typeof name !== 'string' || name === '') return refuse('`metadata.name` is needed', document.lineOf([...at, 'metadata']));
  if (namespace !== undefined && typeof namespace !== 'string')
    return refuse('`metadata.namespace` must be text', document.lineOf([...at, 'metadata', 'namespace']));
  if (forbiddenMark(metadata))
    return refuse(
      'labels and annotations under `countersign.dev/` are written by Countersign alone',
      document.lineOf([...at, 'metadata', 'annotations']),
    );
  const ref: ObjectRef = { apiVersion, kind, namespace: namespace ?? '', name };
  const object = value as KubernetesObject;
  return [
    {
      object,
      ref,
      source,
      lineOf: (path) => document.lineOf([...at, ...path]),
      positionOf: (path) => document.positionOf([...at, ...path]),
      digest: digestOf(object),
    },
  ];
}

// A stamp, our label or a break-glass annotation from the repository would claim what only the gate and the ledger can say.
function forbiddenMark(metadata: unknown): boolean {
  const { annotations, labels } = (metadata ?? {}) as { annotations?: unknown; labels?: unknown };
  const keys = (value: unknown) => (typeof value === 'object' && value !== null ? Object.keys(value) : []);
  const annotated = keys(annotations).filter((key) => key !== USER_ANNOTATION.allow);
  return [...annotated, ...keys(labels)].some(isStamp);
}
