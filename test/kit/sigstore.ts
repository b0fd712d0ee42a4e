import { createHash, generateKeyPairSync, type KeyObject, sign, X509Certificate } from 'node:crypto';
import { initializeCA, initializeCTLog, initializeTLog } from '@sigstore/mock';

/**
 * A Sigstore instance of our own: Sigstore's mock authority, certificate log and transparency log, which really sign.
 */
export async function mockSigstore(clock: Date) {
  const ctlogKeys = keyPair();
  const ctlog = await initializeCTLog(ctlogKeys, clock);
  const ca = await initializeCA(keyPair(), ctlog, clock);
  const tlogKeys = keyPair();
  const tlog = await initializeTLog('https://rekor.example.test', tlogKeys, clock);
  const root = JSON.stringify({
    mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
    tlogs: [logOf(spki(tlogKeys), sha256(spki(tlogKeys)))],
    certificateAuthorities: [
      {
        subject: { commonName: 'sigstore', organization: 'sigstore.mock' },
        uri: 'https://fulcio.example.test',
        certChain: { certificates: [{ rawBytes: bytesOf(ca.rootCertificate).toString('base64') }] },
        validFor: { start: '2020-01-01T00:00:00Z' },
      },
    ],
    ctlogs: [logOf(spki(ctlogKeys), bytesOf(ctlog.logID))],
  });
  return { ca, tlog, root };
}

export type MockSigstore = Awaited<ReturnType<typeof mockSigstore>>;

/** A new key on P-256. */
export function keyPair() {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' });
}

export function spki(keys: { readonly publicKey: KeyObject }): Buffer {
  return keys.publicKey.export({ format: 'der', type: 'spki' });
}

export type StatementOptions = {
  readonly digest: string;
  readonly predicateType?: string;
  readonly predicate?: unknown;
  /** Who the certificate names; without it, a key signs. */
  readonly identity?: { readonly issuer: string; readonly subject: string };
  readonly key?: ReturnType<typeof keyPair>;
  readonly logged?: boolean;
  /** Changes what was signed after it was signed. */
  readonly tamper?: (payload: Buffer) => Buffer;
  readonly payloadType?: string;
  readonly statement?: object;
};

/** A Sigstore bundle with an in-toto statement about an image, as `cosign` and GitHub's attestations make it. */
export async function imageBundle(
  { ca, tlog }: Pick<MockSigstore, 'ca' | 'tlog'>,
  o: StatementOptions,
): Promise<string> {
  const keys = o.key ?? keyPair();
  const payload = Buffer.from(
    JSON.stringify(
      o.statement ?? {
        _type: 'https://in-toto.io/Statement/v1',
        subject: [{ name: 'registry.example.com/web', digest: { sha256: o.digest.replace('sha256:', '') } }],
        predicateType: o.predicateType ?? 'https://sigstore.dev/cosign/sign/v1',
        predicate: o.predicate ?? {},
      },
    ),
  );
  const payloadType = o.payloadType ?? 'application/vnd.in-toto+json';
  const signature = sign(
    'sha256',
    Buffer.concat([Buffer.from(`DSSEv1 ${payloadType.length} ${payloadType} ${payload.length} `), payload]),
    keys.privateKey,
  );
  const certificate =
    o.identity === undefined
      ? undefined
      : bytesOf(
          await ca.issueCertificate({
            publicKey: spki(keys) as unknown as ArrayBufferView<ArrayBuffer>,
            subjectAltName: o.identity.subject,
            extensions: [{ oid: '1.3.6.1.4.1.57264.1.8', value: o.identity.issuer }],
          }),
        );
  const verifier =
    certificate === undefined
      ? keys.publicKey.export({ format: 'pem', type: 'spki' })
      : new X509Certificate(certificate).toString();
  const body = {
    apiVersion: '0.0.1',
    kind: 'dsse',
    spec: {
      envelopeHash: { algorithm: 'sha256', value: sha256(payload).toString('hex') },
      payloadHash: { algorithm: 'sha256', value: sha256(payload).toString('hex') },
      signatures: [{ signature: signature.toString('base64'), verifier: Buffer.from(verifier).toString('base64') }],
    },
  };
  return JSON.stringify({
    mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json',
    verificationMaterial: {
      ...(certificate === undefined
        ? { publicKey: { hint: 'anything' } }
        : { certificate: { rawBytes: certificate.toString('base64') } }),
      tlogEntries: o.logged === false ? [] : [entryOf(await tlog.log(body), body)],
    },
    dsseEnvelope: {
      payload: (o.tamper?.(payload) ?? payload).toString('base64'),
      payloadType,
      signatures: [{ sig: signature.toString('base64') }],
    },
  });
}

type Logged = {
  readonly logID: string;
  readonly logIndex: number;
  readonly integratedTime: number;
  readonly body?: unknown;
  readonly verification: {
    readonly signedEntryTimestamp: string;
    readonly inclusionProof: {
      readonly logIndex: number;
      readonly rootHash: string;
      readonly treeSize: number;
      readonly checkpoint: string;
    };
  };
};

function entryOf(answer: object, body: object): object {
  const [entry] = Object.values(answer) as Logged[];
  if (entry === undefined) throw new Error('the log answered with nothing');
  const { inclusionProof: proof, signedEntryTimestamp } = entry.verification;
  const base64 = (hex: string) => Buffer.from(hex, 'hex').toString('base64');
  return {
    logIndex: String(entry.logIndex),
    logId: { keyId: base64(entry.logID) },
    kindVersion: { kind: 'dsse', version: '0.0.1' },
    integratedTime: String(entry.integratedTime),
    inclusionPromise: { signedEntryTimestamp },
    inclusionProof: {
      logIndex: String(proof.logIndex),
      rootHash: base64(proof.rootHash),
      treeSize: String(proof.treeSize),
      hashes: [],
      checkpoint: { envelope: proof.checkpoint },
    },
    canonicalizedBody:
      typeof entry.body === 'string' ? entry.body : Buffer.from(JSON.stringify(body)).toString('base64'),
  };
}

function logOf(key: Buffer, id: Buffer): object {
  return {
    baseUrl: 'https://rekor.example.test',
    hashAlgorithm: 'SHA2_256',
    publicKey: {
      rawBytes: key.toString('base64'),
      keyDetails: 'PKIX_ECDSA_P256_SHA_256',
      validFor: { start: '2020-01-01T00:00:00Z' },
    },
    logId: { keyId: id.toString('base64') },
  };
}

function bytesOf(view: ArrayBufferView): Buffer {
  return Buffer.from(view.buffer, view.byteOffset, view.byteLength);
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}
