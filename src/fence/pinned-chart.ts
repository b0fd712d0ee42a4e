import { posix } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { parseTar } from 'nanotar';
import { CountersignError, messageOf, parseChartAddress } from '../model/index.ts';
import { parseYaml } from '../yaml/index.ts';

/** A chart pin in the repository: where the chart is stored, and the digest of its bytes. */
export type ChartPin = {
  /**
   * `oci://HOST/NAME`, with the digest of the manifest; or `https://…/NAME-VERSION.tgz`, with the digest of the file.
   */
  readonly url: string;
  /** `sha256:…` */
  readonly digest: string;
};

/** Fetches a chart's archive and compares its digest. Throws `render-failed`. */
export type PullChart = (pin: ChartPin) => Promise<Uint8Array>;

/** Content of a chart archive: the chart's name, and its files by path. */
export type ChartArchive = { readonly name: string; readonly files: ReadonlyMap<string, Uint8Array> };

const MAX_UNPACKED = 64 * 1024 * 1024;
const MAX_FILES = 5000;
const KEYS = new Set(['url', 'digest']);

/** Reads a pin. Returns a message if it is invalid. */
export function readPin(text: string): ChartPin | string {
  let value: unknown;
  try {
    const documents = parseYaml(text);
    if (documents.length !== 1) return `expected one document, found ${documents.length}`;
    value = documents[0]?.value;
  } catch (thrown) {
    return messageOf(thrown);
  }
  const { url, digest } = (value ?? {}) as Partial<Record<keyof ChartPin, unknown>>;
  const other = Object.keys((value ?? {}) as object).find((key) => !KEYS.has(key));
  if (other !== undefined) return `\`${other}\` is not a known key`;
  if (typeof url !== 'string' || parseChartAddress(url).kind === 'refused')
    return '`url` is required, as `oci://HOST/NAME` or `https://HOST/NAME-1.2.3.tgz`';
  if (typeof digest !== 'string' || !/^sha256:[0-9a-f]{64}$/.test(digest))
    return '`digest` is required, as `sha256:` and 64 digits';
  return { url, digest };
}

/** Returns the host of a pin, with its port. */
export function hostOf(pin: ChartPin): string {
  return pin.url.replace(/^[a-z]+:\/\//, '').split('/')[0] ?? '';
}

/** Unpacks a chart's archive. Throws `render-failed` for anything but regular files below one directory. */
export function unpackChart(archive: Uint8Array, pin: ChartPin): ChartArchive {
  const refuse = (why: string, cause?: unknown) =>
    new CountersignError('render-failed', `the chart \`${pin.url}\` cannot be used: ${why}`, {
      cause,
      hint: 'make it with `helm package`',
    });
  let entries: readonly {
    readonly name: string;
    readonly type?: string | undefined;
    readonly data?: Uint8Array | undefined;
  }[];
  try {
    // A copy: the reader takes the whole memory behind a Buffer, which may be shared.
    entries = parseTar(new Uint8Array(gunzipSync(archive, { maxOutputLength: MAX_UNPACKED })));
  } catch (cause) {
    throw refuse('it is not a gzipped tar archive of at most 64 MiB', cause);
  }
  if (entries.length > MAX_FILES) throw refuse(`it has more than ${MAX_FILES} files`);
  const files = new Map<string, Uint8Array>();
  let name: string | undefined;
  for (const entry of entries) {
    if (entry.type === 'directory') continue;
    const path = entry.name.replace(/^\.\//, '');
    const [top = '', ...below] = path.split('/');
    const isPlain =
      path === posix.normalize(path) && !path.startsWith('/') && !path.startsWith('..') && below.length > 0;
    if (!isPlain || (entry.type !== 'file' && entry.type !== undefined))
      throw refuse(`it contains \`${entry.name.slice(0, 100)}\`, which is not a regular file`);
    name ??= top;
    if (top !== name) throw refuse('it has more than one directory');
    files.set(below.join('/'), entry.data ?? new Uint8Array());
  }
  if (name === undefined || !files.has('Chart.yaml')) throw refuse('it has no `Chart.yaml`');
  return { name, files };
}
