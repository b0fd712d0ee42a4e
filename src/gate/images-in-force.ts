import {
  digestOf,
  type Environment,
  type ImageData,
  type ImageEvidence,
  messageOf,
  type Violation,
} from '../model/index.ts';
import type { ImageVerifier, TrustStore } from '../trust/index.ts';
import type { SourceRepository } from './ports.ts';

type Parts = { readonly environment: Environment; readonly repository: Pick<SourceRepository, 'files' | 'blob'> };

const MAX_FILES = 5000;
const MAX_FILE = 1024 * 1024; // a provenance has about ten kilobytes, a bill of materials a few hundred
const KNOWN = /\.(sigstore\.json|sigstore|jsonl)$/;

/**
 * Reads statements about images from a tree's Sigstore bundles, under `spec.policies.images`, if their signatures count
 * under the TrustPolicy. Returns warnings about the others. Reads nothing if the policy names no signers of images.
 */
export async function readImages(
  { environment, repository }: Parts,
  tree: string,
  store: TrustStore,
): Promise<{ readonly images: ImageData; readonly refused: readonly Violation[] }> {
  const of = new Map<string, ImageEvidence[]>();
  const refused: Violation[] = [];
  if (store.images === undefined) return { images: { digest: '', of }, refused };
  const found = (await repository.files(tree, environment.spec.policies.images)).filter(
    (f) => f.mode.startsWith('100') && KNOWN.test(f.path),
  );
  const refuse = (file: string, line: number, reason: string) =>
    refused.push({
      code: 'image-evidence-unusable',
      message: `the statement about an image in \`${file}\` does not count: ${reason}`,
      hint:
        'make it with `cosign` (--bundle) or `gh attestation download`, ' +
        'and name its signer in the TrustPolicy (`spec.images.signers`)',
      source: { file, line },
    });
  for (const { path } of found.slice(MAX_FILES)) refuse(path, 1, `there are more than ${MAX_FILES} files`);
  for (const { path, blob } of found.slice(0, MAX_FILES))
    for (const [i, read] of (await readFile(repository, blob, store, store.images)).entries()) {
      if ('reason' in read) refuse(path, i + 1, read.reason);
      else for (const digest of read.digests) of.set(digest, [...(of.get(digest) ?? []), read.evidence]);
    }
  return { images: { digest: digestOf([...of].sort(([a], [b]) => (a < b ? -1 : 1))), of }, refused };
}

type Read = ReturnType<ImageVerifier> | { readonly reason: string };

// A file that is still there at the next check is not verified again.
const read = new WeakMap<TrustStore, Map<string, readonly Read[]>>();

async function readFile(
  repository: Parts['repository'],
  blob: string,
  store: TrustStore,
  verify: ImageVerifier,
): Promise<readonly Read[]> {
  const known = read.get(store) ?? new Map<string, readonly Read[]>();
  read.set(store, known);
  const before = known.get(blob);
  if (before !== undefined) return before;
  const bytes = await repository.blob(blob);
  const made =
    bytes.length > MAX_FILE
      ? [{ reason: `it is larger than ${MAX_FILE / 1024 / 1024} MiB` }]
      : readBundles(bytes, verify);
  if (known.size >= MAX_FILES) known.clear();
  known.set(blob, made);
  return made;
}

// Reads one bundle, or one per line.
function readBundles(bytes: Uint8Array, verify: ImageVerifier): readonly Read[] {
  const text = Buffer.from(bytes).toString('utf8').trim();
  const lines = text.split('\n');
  const isEachWhole =
    lines.length > 1 &&
    lines.every((line) => line.trim() === '' || (line.startsWith('{') && line.trimEnd().endsWith('}')));
  return (isEachWhole ? lines.filter((line) => line.trim() !== '') : [text]).map((one): Read => {
    try {
      return verify(one);
    } catch (thrown) {
      return { reason: messageOf(thrown) };
    }
  });
}
