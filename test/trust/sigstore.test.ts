import assert from 'node:assert/strict';
import { createHash, sign, X509Certificate } from 'node:crypto';
import { after, test } from 'node:test';
import {
  Attribute,
  CertificateChoices,
  CertificateSet,
  CMSVersion,
  ContentInfo,
  DigestAlgorithmIdentifier,
  DigestAlgorithmIdentifiers,
  EncapsulatedContentInfo,
  IssuerAndSerialNumber,
  id_data,
  id_signedData,
  SignatureAlgorithmIdentifier,
  SignedData,
  SignerIdentifier,
  SignerInfo,
  SignerInfos,
} from '@peculiar/asn1-cms';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import { Certificate } from '@peculiar/asn1-x509';
import { NativeRepository } from '../../src/git/index.ts';
import { type CommitVerdict, canonicalJson, trustPolicySchema } from '../../src/model/index.ts';
import { openTrustStore } from '../../src/trust/index.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, run, sshPerson } from '../kit/fleet.ts';
import { payloadOf, signedCommit } from '../kit/objects.ts';
import { scratch } from '../kit/scratch.ts';
import { keyPair, mockSigstore, spki } from '../kit/sigstore.ts';
import { verdictUnder } from '../kit/verdict.ts';

// A Sigstore of our own: Sigstore's mock authority, certificate log and transparency log, which really sign; and
// signatures put together as gitsign does it in its offline mode.
const directory = scratch();
const fleet = new Fleet(directory);
const dana = sshPerson(directory, 'dana');
const repository = new NativeRepository(`${fleet.work}/.git`, { file: 'git', path: process.env['PATH'] ?? '' });
after(() => repository.close());
const base = fleet.commit(dana, 'first', { a: '1' });
const tree = run('git', ['rev-parse', `${base}^{tree}`], { cwd: fleet.work });
const NOW = Math.floor(Date.now() / 1000);
const clock = new Date((NOW + 5) * 1000); // the mock's root begins when it is made, and the log must not be earlier
const ISSUER = 'https://accounts.example.test';
const SUBJECT = 'https://example.test/dana';
const { ca, tlog, root: ROOT } = await mockSigstore(clock);
const stranger = await mockSigstore(clock);

type Options = {
  content?: Buffer;
  ca?: typeof ca;
  tlog?: typeof tlog;
  issuer?: string;
  subject?: string;
  withoutEntry?: boolean;
  withoutBody?: boolean;
  withoutCertificate?: boolean;
  entryOf?: Buffer;
  twice?: boolean;
  enclosed?: boolean;
  raw?: (der: Buffer) => Buffer;
};

/** A CMS signature with its log entry, as gitsign writes it into a commit. */
async function gitsign(payload: Buffer, options: Options = {}): Promise<string> {
  const keys = keyPair();
  const issued = await (options.ca ?? ca).issueCertificate({
    publicKey: spki(keys) as unknown as ArrayBufferView<ArrayBuffer>,
    subjectAltName: options.subject ?? SUBJECT,
    extensions: [{ oid: '1.3.6.1.4.1.57264.1.8', value: options.issuer ?? ISSUER }],
  });
  const der = Buffer.from(issued.buffer, issued.byteOffset, issued.byteLength);
  const certificate = AsnConvert.parse(der, Certificate);
  const digest = AsnConvert.serialize(new OctetString(sha256(options.content ?? payload)));
  const attributes = [
    new Attribute({
      attrType: '1.2.840.113549.1.9.3',
      attrValues: [Uint8Array.from(Buffer.from('06092a864886f70d010701', 'hex')).buffer],
    }),
    new Attribute({ attrType: '1.2.840.113549.1.9.4', attrValues: [digest] }),
  ];
  const signer = new SignerInfo({
    version: CMSVersion.v1,
    sid: new SignerIdentifier({
      issuerAndSerialNumber: new IssuerAndSerialNumber({
        issuer: certificate.tbsCertificate.issuer,
        serialNumber: certificate.tbsCertificate.serialNumber,
      }),
    }),
    digestAlgorithm: new DigestAlgorithmIdentifier({ algorithm: '2.16.840.1.101.3.4.2.1' }),
    signatureAlgorithm: new SignatureAlgorithmIdentifier({ algorithm: '1.2.840.10045.4.3.2' }),
    signedAttrs: attributes,
    signature: new OctetString(Buffer.alloc(70)),
  });
  const content = Buffer.concat(attributes.map((a) => Buffer.from(AsnConvert.serialize(a))));
  const artifact = Buffer.concat([Buffer.from([0x31, content.length]), content]);
  const signature = sign('sha256', artifact, keys.privateKey);
  signer.signature = new OctetString(signature);
  const pem = new X509Certificate(der).toString();
  const body = {
    apiVersion: '0.0.1',
    kind: 'hashedrekord',
    spec: {
      data: { hash: { algorithm: 'sha256', value: sha256(options.entryOf ?? artifact).toString('hex') } },
      signature: { content: signature.toString('base64'), publicKey: { content: Buffer.from(pem).toString('base64') } },
    },
  };
  if (options.withoutEntry !== true) {
    const entry = encodeEntry(
      await (options.tlog ?? tlog).log(body),
      options.withoutBody === true ? undefined : Buffer.from(canonicalJson(body)),
    );
    signer.unsignedAttrs = [
      new Attribute({ attrType: '1.3.6.1.4.1.57264.3.1', attrValues: [AsnConvert.serialize(new OctetString(entry))] }),
    ];
  }
  const signed = new SignedData({
    version: CMSVersion.v1,
    digestAlgorithms: new DigestAlgorithmIdentifiers([signer.digestAlgorithm]),
    encapContentInfo: new EncapsulatedContentInfo({ eContentType: id_data }),
    certificates: new CertificateSet(
      options.withoutCertificate === true ? [] : [new CertificateChoices({ certificate })],
    ),
    signerInfos: new SignerInfos(options.twice === true ? [signer, signer] : [signer]),
  });
  const cms = Buffer.from(
    AsnConvert.serialize(new ContentInfo({ contentType: id_signedData, content: AsnConvert.serialize(signed) })),
  );
  const bytes = options.raw?.(cms) ?? cms;
  return `-----BEGIN SIGNED MESSAGE-----\n${(bytes.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END SIGNED MESSAGE-----`;
}

let n = 0;
async function verdictOn(
  options: Options = {},
  spec: { identity?: object; sigstore?: object | undefined; seen?: number; committed?: number } = {},
): Promise<CommitVerdict> {
  const payload = payloadOf(tree, [base], dana, spec.committed ?? NOW - 20, `change ${++n}\n`);
  const armored = await gitsign(Buffer.from(payload), options);
  const document = trustDocument([dana], { required: 0 }) as { spec: { principals: object[]; sigstore?: object } };
  document.spec.principals[0] = {
    ...document.spec.principals[0],
    keys: [],
    identities: [{ issuer: ISSUER, subject: SUBJECT, ...spec.identity }],
  };
  const trusted = 'sigstore' in spec ? spec.sigstore : { trustedRoot: ROOT };
  if (trusted !== undefined) document.spec.sigstore = trusted;
  const store = await openTrustStore(trustPolicySchema.parse(document));
  return verdictUnder(
    store,
    repository,
    signedCommit(fleet, payload, () => armored),
    { at: (spec.seen ?? NOW) * 1000 },
  );
}

test('a commit signed with gitsign in its offline mode is its principal’s', async () => {
  const verdict = await verdictOn();
  assert.equal(verdict.outcome, 'verified', verdict.reason);
  assert.deepEqual([verdict.format, verdict.signer?.principal, verdict.key], ['x509', 'dana', `${ISSUER} ${SUBJECT}`]);
  assert.equal(verdict.signedAt, Math.floor(clock.getTime() / 1000), 'the time is the log’s');
});

test('the entry’s body may be left out: it is made again from what was signed', async () => {
  const verdict = await verdictOn({ withoutBody: true });
  assert.equal(verdict.outcome, 'verified', verdict.reason);
});

for (const [what, options, message] of [
  ['over another commit', { content: Buffer.from('another') }, /does not match the content/],
  ['without a log entry', { withoutEntry: true }, /offline mode/],
  ['without a certificate', { withoutCertificate: true }, /contain the one certificate/],
  ['with two signatures', { twice: true }, /exactly one signature/],
  ['by an authority that is not in the trusted root', { ca: stranger.ca }, /certificate|authority|trust/i],
  ['logged where nobody trusts the log', { tlog: stranger.tlog }, /log|inclusion|timestamp/i],
  ['with the log entry of another signature', { entryOf: Buffer.from('other') }, /./],
  ['with bytes behind it', { raw: (der: Buffer) => Buffer.concat([der, Buffer.from([0])]) }, /bytes after/],
] as const) {
  test(`a signature ${what} is refused`, async () => {
    const verdict = await verdictOn(options);
    assert.equal(verdict.code, 'bad-signature', verdict.reason);
    assert.match(verdict.reason, message);
  });
}

test('an identity counts whole: another issuer or subject is nobody', async () => {
  assert.equal((await verdictOn({ subject: 'https://example.test/dana2' })).code, 'unknown-key');
  assert.equal((await verdictOn({ issuer: 'https://accounts.example.com' })).code, 'unknown-key');
});

test('an identity has its time, and can be taken back', async () => {
  assert.equal((await verdictOn({}, { identity: { validBefore: '2020-01-01T00:00:00Z' } })).code, 'key-expired');
  assert.equal(
    (await verdictOn({}, { identity: { revoked: { at: '2020-01-01T00:00:00Z', reason: 'compromised' } } })).code,
    'key-compromised',
  );
});

test('a commit that says it was made long before the log saw its signature is refused', async () => {
  assert.equal((await verdictOn({}, { committed: NOW - 10 * 86_400 })).code, 'times-apart');
});

test('without `sigstore` in the policy such signatures are refused, and a root that cannot be read is told', async () => {
  const verdict = await verdictOn({}, { sigstore: undefined });
  assert.equal(verdict.code, 'signature-format-unknown');
  assert.match(verdict.hint ?? '', /`sigstore`/);
  for (const trustedRoot of ['{}', 'no json', '{"tlogs":[]}'])
    await assert.rejects(verdictOn({}, { sigstore: { trustedRoot } }), { code: 'key-unusable' });
});

function encodeEntry(answer: object, body: Buffer | undefined): Buffer {
  const [entry] = Object.values(answer) as {
    logID: string;
    logIndex: number;
    integratedTime: number;
    verification: {
      signedEntryTimestamp: string;
      inclusionProof: { logIndex: number; rootHash: string; treeSize: number; checkpoint: string };
    };
  }[];
  if (entry === undefined) throw new Error('the log answered with nothing');
  const { inclusionProof: proof, signedEntryTimestamp } = entry.verification;
  return Buffer.concat([
    int(1, entry.logIndex),
    len(2, len(1, Buffer.from(entry.logID, 'hex'))),
    len(3, Buffer.concat([len(1, Buffer.from('hashedrekord')), len(2, Buffer.from('0.0.1'))])),
    int(4, entry.integratedTime),
    len(5, len(1, Buffer.from(signedEntryTimestamp, 'base64'))),
    len(
      6,
      Buffer.concat([
        int(1, proof.logIndex),
        len(2, Buffer.from(proof.rootHash, 'hex')),
        int(3, proof.treeSize),
        len(5, len(1, Buffer.from(proof.checkpoint))),
      ]),
    ),
    ...(body === undefined ? [] : [len(7, body)]),
  ]);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest % 128) | 0x80);
    rest = Math.floor(rest / 128);
  }
  return Buffer.from([...bytes, rest]);
}
function int(field: number, value: number): Buffer {
  return Buffer.concat([varint(field << 3), varint(value)]);
}
function len(field: number, value: Buffer): Buffer {
  return Buffer.concat([varint((field << 3) | 2), varint(value.length), value]);
}
function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}
