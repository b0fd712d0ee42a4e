import { createPublicKey, type KeyObject } from 'node:crypto';
import { type Bundle, bundleFromJSON, isBundleWithDsseEnvelope } from '@sigstore/bundle';
import { TrustedRoot } from '@sigstore/protobuf-specs';
import { toSignedEntity, toTrustMaterial, Verifier } from '@sigstore/verify';
import { type ImageEvidence, type TrustPolicy, wildcardMatches } from '../model/index.ts';
import { namedBy } from './sigstore.ts';

/**
 * Verifies a Sigstore bundle (JSON) and returns the digests (`sha256:…`) of the images its statement is about, with its
 * content. Nothing is fetched. Throws an Error with the reason if the bundle is invalid.
 */
export type ImageVerifier = (bundle: string) => {
  readonly digests: readonly string[];
  readonly evidence: ImageEvidence;
};

type Signers = NonNullable<TrustPolicy['spec']['images']>['signers'];
type Signer = Signers[number];

/** in-toto statement, versions 0.1 and 1 (github.com/in-toto/attestation, spec/v1/statement.md). */
type Statement = {
  readonly _type?: unknown;
  readonly subject?: readonly { readonly name?: unknown; readonly digest?: { readonly sha256?: unknown } }[];
  readonly predicateType?: unknown;
  readonly predicate?: unknown;
};

const STATEMENT = /^https:\/\/in-toto\.io\/Statement\/v(0\.1|1)$/;
const MAX_SUBJECTS = 1000;

/** Returns a verifier for the signers of a TrustPolicy. Throws an Error if a key or the trusted root cannot be read. */
export function openImageVerifier(
  signers: Signers,
  sigstore: TrustPolicy['spec']['sigstore'],
  minimumRsaBits: number,
): ImageVerifier {
  const needing = signers.find((s) => s.identity !== undefined || s.log);
  if (sigstore === undefined && needing !== undefined)
    throw new Error(
      `\`${needing.name}\` needs certificate authorities or a log: add \`spec.sigstore\`, or \`log: false\` to a key`,
    );
  const root = TrustedRoot.fromJSON(sigstore === undefined ? {} : JSON.parse(sigstore.trustedRoot ?? ''));
  const certified = new Verifier(toTrustMaterial(root), {
    tlogThreshold: 1,
    timestampThreshold: 1,
    ctlogThreshold: sigstore?.certificateLogs ?? 1,
  });
  const keyed = signers.flatMap((signer) => {
    if (signer.key === undefined) return [];
    const key = readKey(signer.key, minimumRsaBits);
    const material = { ...toTrustMaterial(root), publicKey: () => ({ publicKey: key, validFor: () => true }) };
    const threshold = signer.log ? 1 : 0;
    return [
      {
        signer,
        verifier: new Verifier(material, {
          tlogThreshold: threshold,
          timestampThreshold: threshold,
          ctlogThreshold: 0,
        }),
      },
    ];
  });
  return (text) => {
    const bundle = bundleFromJSON(JSON.parse(text));
    const statement = readStatement(bundle);
    const { content, tlogEntries } = bundle.verificationMaterial;
    const signer =
      content.$case === 'publicKey'
        ? byKey(bundle, keyed)
        : byIdentity(namedBy(certified.verify(toSignedEntity(bundle))), signers);
    const logged = signer.key !== undefined && !signer.log ? 0 : Number(tlogEntries[0]?.integratedTime ?? 0);
    const { subject, predicateType, predicate } = statement;
    return {
      digests: subject.map((s) => `sha256:${s.digest.sha256}`),
      evidence: {
        signer: signer.name,
        name: subject[0]?.name ?? '',
        predicateType,
        predicate: predicate ?? null,
        ...(logged === 0 ? {} : { loggedAt: new Date(logged * 1000).toISOString() }),
      },
    };
  };
}

function readKey(pem: string, minimumRsaBits: number): KeyObject {
  const key = createPublicKey(pem);
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (type === 'ec' && details?.namedCurve === 'secp256k1') throw new Error('keys on that curve are not supported');
  if (type !== 'ec' && type !== 'ed25519' && !(type === 'rsa' && (details?.modulusLength ?? 0) >= minimumRsaBits))
    throw new Error(`keys of type ${type} are not supported, or not of this size`);
  return key;
}

// The key hint in a bundle is untrusted, so each key is tried.
function byKey(bundle: Bundle, keyed: readonly { readonly signer: Signer; readonly verifier: Verifier }[]): Signer {
  for (const { signer, verifier } of keyed) {
    // Without a log, log data in the bundle is ignored.
    const asked = signer.log
      ? bundle
      : { ...bundle, verificationMaterial: { ...bundle.verificationMaterial, tlogEntries: [] } };
    try {
      verifier.verify(toSignedEntity(asked as Bundle));
      return signer;
    } catch {
      // another key may have made it
    }
  }
  throw new Error('no key of the TrustPolicy made it, or its transparency log entry is missing or wrong');
}

function byIdentity({ issuer, subject }: ReturnType<typeof namedBy>, signers: readonly Signer[]): Signer {
  const found = signers.find((s) => s.identity?.issuer === issuer && wildcardMatches(s.identity.subject, subject));
  if (found === undefined)
    throw new Error(
      `the TrustPolicy does not name \`${subject.slice(0, 200)}\` (${issuer.slice(0, 200)}) as a signer of images`,
    );
  return found;
}

type Read = {
  readonly subject: readonly { readonly name: string; readonly digest: { readonly sha256: string } }[];
  readonly predicateType: string;
  readonly predicate: unknown;
};

function readStatement(bundle: Bundle): Read {
  if (!isBundleWithDsseEnvelope(bundle))
    throw new Error('it signs only a digest; a statement (in-toto, in a DSSE envelope) is required');
  const { payload, payloadType, signatures } = bundle.content.dsseEnvelope;
  if (payloadType !== 'application/vnd.in-toto+json')
    throw new Error(`it signs \`${payloadType.slice(0, 100)}\`, not an in-toto statement`);
  if (signatures.length !== 1) throw new Error('it does not have exactly one signature');
  const { _type, subject, predicateType, predicate } = JSON.parse(payload.toString('utf8')) as Statement;
  if (typeof _type !== 'string' || !STATEMENT.test(_type))
    throw new Error('it is not an in-toto statement of version 0.1 or 1');
  if (typeof predicateType !== 'string' || predicateType === '') throw new Error('its statement has no predicate type');
  if (!Array.isArray(subject) || subject.length === 0 || subject.length > MAX_SUBJECTS)
    throw new Error('its statement has no subject');
  const subjects = subject.flatMap(({ name, digest }: NonNullable<Statement['subject']>[number]) => {
    const value = digest?.sha256;
    return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)
      ? [{ name: typeof name === 'string' ? name : '', digest: { sha256: value } }]
      : [];
  });
  if (subjects.length === 0) throw new Error('its statement names no image by a SHA-256');
  return { subject: subjects, predicateType, predicate };
}
