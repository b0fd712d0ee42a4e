import { CountersignError } from '../model/index.ts';
import { type PullOptions, pullImage, type Refuse } from '../registry/index.ts';

const SIGNATURE_TYPE = 'application/vnd.countersign.bundle.signature.v1';

/**
 * Pulls a bundle from a registry by the digest of its manifest (OCI distribution 1.1): the first layer that is a
 * gzipped tar, and a signature layer if there is one. Every byte is hashed again. Throws `policy-unusable`, with
 * `retry` if the registry is unreachable.
 */
export async function pullBundle(
  reference: string,
  options: PullOptions,
): Promise<{ readonly archive: Uint8Array; readonly signature: string | undefined }> {
  const refuse: Refuse = (why, more = {}) =>
    new CountersignError('policy-unusable', `the policy bundle \`${reference}\` cannot be pulled: ${why}`, {
      cause: more.cause,
      hint: more.hint ?? 'compare the reference with the output of `oras resolve`',
      ...(more.retry === true ? { recover: 'retry' as const } : {}),
    });
  const { layers, layer } = await pullImage(reference, options, refuse);
  const bundle =
    layers.find((l) => /tar\+gzip|\.tar\.gz|rego\.v1\.tar/.test(l.mediaType ?? '')) ??
    layers.find((l) => l.mediaType !== SIGNATURE_TYPE);
  if (bundle?.digest === undefined) throw refuse('its manifest has no layer with a bundle');
  const archive = await layer(bundle);
  const signature = layers.find((l) => l.mediaType === SIGNATURE_TYPE);
  return { archive, signature: signature === undefined ? undefined : (await layer(signature)).toString('utf8') };
}
