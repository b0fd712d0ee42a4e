import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { tool } from '../../scripts/tools.ts';
import { buildBundle, readBundle } from '../../src/bundle/index.ts';
import { readTrustPolicy, readWaiver } from '../../src/config/index.ts';
import { readAuditEvent } from '../../src/gate/account-for.ts';
import { parseCommit, parseTag, parseTree } from '../../src/git/index.ts';
import { scanCanonical } from '../../src/ledger/canonical-scan.ts';
import {
  checkReceipt,
  createKey,
  leafHash,
  openCheckpoint,
  parseVerifiers,
  readSigner,
  signCheckpoint,
  verifierText,
} from '../../src/ledger/index.ts';
import { admissionDigest, CountersignError, trustPolicySchema } from '../../src/model/index.ts';
import { Undefined } from '../../src/rego/builtin.ts';
import { loadBuiltins } from '../../src/rego/builtins.ts';
import { fromJson, type Value } from '../../src/rego/index.ts';
import { sprintf } from '../../src/rego/sprintf.ts';
import { parse, print } from '../../src/rego/value.ts';
import { parseAllowedSigners } from '../../src/trust/allowed-signers.ts';
import { examineSignature } from '../../src/trust/examine-signature.ts';
import { openImageVerifier } from '../../src/trust/image-evidence.ts';
import { importKeys, openTrustStore, readApproval, type TrustStore } from '../../src/trust/index.ts';
import { readOpenPgpKeys } from '../../src/trust/openpgp-key.ts';
import { readOpenPgpSignature } from '../../src/trust/openpgp-signature.ts';
import { readProtobuf } from '../../src/trust/protobuf.ts';
import { openSigstore } from '../../src/trust/sigstore.ts';
import { readSshCertificate } from '../../src/trust/ssh-certificate.ts';
import { parseSshKey } from '../../src/trust/ssh-key.ts';
import { readSshRevocations } from '../../src/trust/ssh-revocations.ts';
import { SshFormatError } from '../../src/trust/ssh-wire.ts';
import { parseSshSignature } from '../../src/trust/sshsig.ts';
import { makeCertificates } from '../../src/webhook/index.ts';
import { readReview } from '../../src/webhook/read-review.ts';
import { ambiguities, parseYaml, YamlError } from '../../src/yaml/index.ts';
import { trustDocument } from './documents.ts';
import { endGpg, openPgpPerson, run, sshPerson } from './fleet.ts';
import { imageBundle, mockSigstore } from './sigstore.ts';

/** A parser of somebody else's bytes: seeds to begin with, and how it may end. Any other end is a defect. */
export type FuzzTarget = {
  readonly name: string;
  readonly seeds: readonly Buffer[];
  readonly read: (bytes: Buffer) => unknown;
  /** Errors that say no; what is not thrown is a value. */
  readonly refuses: (thrown: unknown) => boolean;
};

/** Every parser of the trust and git rooms, with real seeds made in the directory. */
export async function fuzzTargets(directory: string): Promise<FuzzTarget[]> {
  const [dana, ca] = [sshPerson(directory, 'fuzz'), sshPerson(directory, 'fuzz-ca')];
  const lee = openPgpPerson(directory, 'fuzz-lee');
  const store = await openTrustStore(trustPolicySchema.parse(trustDocument([dana, lee], { required: 0 })));
  const at = (name: string, content = '') => {
    writeFileSync(join(directory, name), content);
    return join(directory, name);
  };
  run('ssh-keygen', [
    '-q',
    '-s',
    ca.signingKey,
    '-I',
    'id',
    '-n',
    'dana',
    '-O',
    'verify-required',
    `${dana.signingKey}.pub`,
  ]);
  const certificate = Buffer.from(readFileSync(`${dana.signingKey}-cert.pub`, 'utf8').split(' ')[1] ?? '', 'base64');
  run('ssh-keygen', ['-q', '-Y', 'sign', '-n', 'git', '-f', dana.signingKey, at('fuzz-message', 'message')]);
  const sshSignature = readFileSync(join(directory, 'fuzz-message.sig'));
  const gpgEnv = { GNUPGHOME: lee.gnupgHome ?? '' };
  const pgpSignature = Buffer.from(
    run('gpg', ['--batch', '--armor', '--detach-sign', '--output', '-', join(directory, 'fuzz-message')], {
      env: gpgEnv,
    }),
  );
  endGpg(lee.gnupgHome ?? '');
  at('fuzz-spec', `serial: 3\nserial: 5-9\nid: x\n`);
  run('ssh-keygen', [
    '-q',
    '-k',
    '-f',
    join(directory, 'fuzz-krl'),
    '-s',
    `${ca.signingKey}.pub`,
    join(directory, 'fuzz-spec'),
  ]);
  run('ssh-keygen', ['-q', '-k', '-u', '-f', join(directory, 'fuzz-krl'), `${dana.signingKey}.pub`]);
  const who = 'A <a@example.test> 1700000000 +0000';
  const commit = Buffer.from(
    `tree ${'1'.repeat(40)}\nparent ${'2'.repeat(40)}\nauthor ${who}\ncommitter ${who}\ngpgsig ${sshSignature.toString().trim().replaceAll('\n', '\n ')}\nmergetag object ${'2'.repeat(40)}\n type commit\n tag v1\n tagger ${who}\n \n x\n\nmessage\n`,
  );
  const tag = Buffer.from(
    `object ${'2'.repeat(40)}\ntype commit\ntag v1\ntagger ${who}\n\nrelease\n${sshSignature.toString()}`,
  );
  const tree = Buffer.concat([
    Buffer.from('100644 a.yaml\0'),
    Buffer.alloc(20, 1),
    Buffer.from('40000 dir\0'),
    Buffer.alloc(20, 2),
  ]);
  const envelope = Buffer.from(
    JSON.stringify({
      payloadType: 'application/vnd.in-toto+json',
      payload: Buffer.from('{"_type":"x"}').toString('base64'),
      signatures: [{ keyid: 'k', sig: sshSignature.toString('base64') }],
    }),
  );
  const listing = Buffer.from(JSON.stringify([{ id: 1, key: dana.publicKey, usage_type: 'signing' }]));
  const signers = Buffer.from(
    `# x\ndana@example.test,*@b namespaces="git",valid-after="20260101Z" ${dana.publicKey}\nx cert-authority ${ca.publicKey}\n`,
  );
  const mock = await mockSigstore(new Date());
  const withSigstore: TrustStore = { ...store, sigstore: openSigstore(mock.root, { certificateLogs: 0 }) };
  const byCi = { issuer: 'https://issuer.example.test', subject: 'https://example.test/ci' };
  const verifyImage = openImageVerifier(
    [{ name: 'ci', identity: byCi, log: true }],
    { trustedRoot: mock.root, certificateLogs: 1 },
    3072,
  );
  const never = () => false;
  const isSshError = (thrown: unknown) => thrown instanceof SshFormatError;
  const isPlainError = (thrown: unknown) =>
    thrown instanceof Error && !(thrown instanceof TypeError || thrown instanceof RangeError);
  const text = (bytes: Buffer) => bytes.toString('utf8');
  return [
    { name: 'commit', seeds: [commit], read: (b) => parseCommit('a'.repeat(40), b), refuses: never },
    { name: 'tag', seeds: [tag], read: (b) => parseTag(b, 40), refuses: never },
    {
      name: 'tree',
      seeds: [tree],
      read: (b) => parseTree('a'.repeat(40), b),
      refuses: (t) => t instanceof CountersignError,
    },
    { name: 'SSH signature', seeds: [sshSignature], read: (b) => parseSshSignature(text(b)), refuses: isSshError },
    { name: 'SSH key', seeds: [Buffer.from(dana.publicKey)], read: (b) => parseSshKey(text(b)), refuses: isSshError },
    { name: 'SSH certificate', seeds: [certificate], read: readSshCertificate, refuses: isSshError },
    {
      name: 'revocation list',
      seeds: [readFileSync(join(directory, 'fuzz-krl')), Buffer.from(dana.publicKey)],
      read: readSshRevocations,
      refuses: isSshError,
    },
    { name: 'allowed signers', seeds: [signers], read: (b) => parseAllowedSigners(text(b)), refuses: isSshError },
    { name: 'OpenPGP signature', seeds: [pgpSignature], read: (b) => readOpenPgpSignature(text(b)), refuses: never },
    {
      name: 'OpenPGP keys',
      seeds: [Buffer.from(lee.publicKey)],
      read: (b) => readOpenPgpKeys(text(b), 3072),
      refuses: isPlainError,
    },
    {
      name: 'any signature',
      seeds: [sshSignature, pgpSignature],
      read: (b) => examineSignature(store, Buffer.from('message'), text(b)),
      refuses: never,
    },
    {
      name: 'gitsign signature',
      seeds: [await cmsSignature()],
      read: (b) => examineSignature(withSigstore, Buffer.from('message'), text(b)),
      refuses: never,
    },
    {
      name: 'image bundle',
      seeds: [Buffer.from(await imageBundle(mock, { digest: 'a'.repeat(64), identity: byCi }))],
      read: (b) => verifyImage(text(b)),
      refuses: (t) => t instanceof Error,
    },
    {
      name: 'protobuf',
      seeds: [Buffer.from('0a030a01611003', 'hex')],
      read: readProtobuf,
      refuses: (t) => t instanceof RangeError,
    },
    { name: 'approval', seeds: [envelope], read: (b) => readApproval(text(b), store, Date.now()), refuses: never },
    {
      name: 'imported keys',
      seeds: [signers, listing, Buffer.from(lee.publicKey), Buffer.from(dana.publicKey)],
      read: importKeys,
      refuses: isPlainError,
    },
    {
      name: 'TrustPolicy',
      seeds: [Buffer.from(JSON.stringify(trustDocument([dana])))],
      read: (b) => readTrustPolicy(text(b), 'trust.yaml'),
      refuses: (t) => t instanceof CountersignError,
    },
    {
      name: 'AdmissionReview',
      seeds: [ADMISSION_REVIEW],
      read: (b) => {
        const { request } = readReview(JSON.parse(text(b))) ?? {};
        return request?.object === undefined ? request : admissionDigest(request.object, request.operation);
      },
      refuses: (t) => t instanceof SyntaxError || t instanceof RangeError,
    },
    ...ledgerTargets(),
    ...(await policyTargets(at)),
  ];
}

const ADMISSION_REVIEW = Buffer.from(
  JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'u',
      operation: 'UPDATE',
      namespace: 'shop',
      name: 'web',
      subResource: 'scale',
      dryRun: false,
      kind: { group: 'autoscaling', version: 'v1', kind: 'Scale' },
      resource: { group: 'apps', version: 'v1', resource: 'deployments' },
      userInfo: { username: 'dev', groups: ['developers'] },
      options: { fieldManager: 'kubectl' },
      object: {
        apiVersion: 'autoscaling/v1',
        kind: 'Scale',
        metadata: { name: 'web', uid: 'a-b' },
        spec: { replicas: 3 },
      },
      oldObject: { metadata: { name: 'web' } },
    },
  }),
);

/** Every parser of the yaml, rego and bundle rooms. */
/** Notes, keys, receipts and events that come to the ledger from elsewhere. */
function ledgerTargets(): FuzzTarget[] {
  const never = () => false;
  const signer = readSigner('fuzz.test/l', createKey());
  const key = parseVerifiers(verifierText(signer));
  const entry = Buffer.from('{"time":"2026-01-01T00:00:00.000Z","type":"service.stopped","v":1}');
  const note = signCheckpoint(1, leafHash(entry), signer);
  const receipt = `c2sp.org/tlog-proof@v1\nindex 0\n\n${note}`;
  const event = {
    auditID: 'a',
    stage: 'ResponseComplete',
    verb: 'create',
    requestURI: '/api/v1/namespaces/shop/configmaps',
    user: { username: 'dev', groups: ['developers'] },
    objectRef: { resource: 'configmaps', namespace: 'shop', name: 'x', apiVersion: 'v1' },
    responseStatus: { code: 201 },
    requestReceivedTimestamp: '2026-01-01T00:00:00.000000Z',
    stageTimestamp: '2026-01-01T00:00:00.001000Z',
  };
  const isOurs = (thrown: unknown) => thrown instanceof CountersignError;
  return [
    {
      name: 'checkpoint',
      seeds: [Buffer.from(note)],
      read: (b) => openCheckpoint(b.toString('utf8'), key),
      refuses: never,
    },
    {
      name: 'verifier key',
      seeds: [Buffer.from(verifierText(signer))],
      read: (b) => parseVerifiers(b.toString('utf8')),
      refuses: isOurs,
    },
    {
      name: 'receipt',
      seeds: [Buffer.from(receipt)],
      read: (b) => checkReceipt(b.toString('utf8'), entry, key),
      refuses: never,
    },
    {
      name: 'canonical JSON',
      seeds: [entry],
      read: (b) => scanCanonical(b.toString('utf8'), ['type']),
      refuses: never,
    },
    {
      name: 'audit event',
      seeds: [Buffer.from(JSON.stringify(event))],
      read: (b) => readAuditEvent(JSON.parse(b.toString('utf8'))),
      refuses: (thrown) => thrown instanceof TypeError || thrown instanceof SyntaxError,
    },
  ];
}

async function policyTargets(at: (name: string, content: string) => string): Promise<FuzzTarget[]> {
  const text = (bytes: Buffer) => bytes.toString('utf8');
  const isUndefined = (thrown: unknown) => thrown instanceof Undefined;
  const isError = (thrown: unknown) => thrown instanceof CountersignError;
  const builtins = await loadBuiltins(['graphql.parse_query', 'graphql.parse_schema', 'graphql.parse_and_verify']);
  const call = (name: string, ...args: Value[]) => (builtins[name] ?? assert.fail(name))(args, { now: 0n });
  const root =
    'package countersign.object\ndeny contains sprintf("%v", [input.object.kind]) if input.object.kind == "Never"';
  const { archive } = await buildBundle({ opa: await tool('opa'), roots: [at('r.rego', root)] });
  const waiver =
    'apiVersion: countersign.dev/v1alpha1\nkind: Waiver\nmetadata: {name: w}\nspec: {rule: r, environments: [p], subjects: [{name: a}], reason: old driver, ticket: T-1, issuedAt: 2026-01-01T00:00:00Z, until: "2026-02-01"}\n';
  return [
    {
      name: 'YAML',
      seeds: [Buffer.from('a: &x [1, 0o14, yes, "q"]\nb: {<<: {c: d}}\ne: *x\n---\n? k\n: y\n')],
      read: (b) => [parseYaml(text(b)).map((d) => d.lineOf(['a', 0])), ambiguities(text(b))],
      refuses: (t) => t instanceof YamlError,
    },
    {
      name: 'Rego value',
      seeds: [Buffer.from('{"a": {1, 2.50, "x"}, 1: [set(), null, true, {"b": -1e5}]}')],
      read: (b) => print(parse(text(b))),
      refuses: (t) => t instanceof SyntaxError,
    },
    {
      name: 'sprintf',
      seeds: [Buffer.from('%v %[2]*.[1]*f|%-+ #05d|%q %x %T %%')],
      read: (b) => sprintf(text(b), [1, 'x', [true, null], fromJson({ a: 2.5 })]),
      refuses: isUndefined,
    },
    {
      name: 'text template',
      seeds: [
        Buffer.from('{{range $i, $x := .xs}}{{if gt $x 1}}{{printf "%d" $x}}{{else}}-{{end}}{{end}} {{.a.b | len}}'),
      ],
      read: (b) => call('strings.render_template', text(b), fromJson({ xs: [1, 2], a: { b: 'x' } })),
      refuses: isUndefined,
    },
    {
      name: 'RE2 pattern',
      seeds: [Buffer.from('^(?P<n>[a-z]+|\\pL{2,5}?)(?i:x)\\b$')],
      read: (b) => call('regex.replace', 'some text', text(b), '$1'),
      refuses: isUndefined,
    },
    {
      name: 'time layout',
      seeds: [Buffer.from('Mon Jan _2 15:04:05.000 -0700 2006')],
      read: (b) => call('time.format', [1577934245, 'UTC', text(b)]),
      refuses: isUndefined,
    },
    {
      name: 'GraphQL',
      seeds: [
        Buffer.from(
          'query Q($x: [Int!] = [1]) { a: b(x: $x, y: {k: "v"}) @d { ...F ... on T { id } } } fragment F on T { id }',
        ),
      ],
      read: (b) => call('graphql.parse_query', text(b)),
      refuses: isUndefined,
    },
    {
      name: 'GraphQL schema',
      seeds: [
        Buffer.from(
          'type Query implements I & J @d { a(x: Int = 1): [T!] } interface I { a: T } union U = A | B enum E { A } extend type Z { q: Int }',
        ),
      ],
      read: (b) => [call('graphql.parse_schema', text(b)), call('graphql.parse_and_verify', '{ a }', text(b))],
      refuses: isUndefined,
    },
    { name: 'policy bundle', seeds: [Buffer.from(archive)], read: (b) => readBundle(b, 'fuzz'), refuses: isError },
    { name: 'waiver', seeds: [Buffer.from(waiver)], read: (b) => readWaiver(text(b), 'w.yaml'), refuses: isError },
  ];
}

// CMS as openssl makes it: a certificate, signed attributes, and no log entry.
async function cmsSignature(): Promise<Buffer> {
  const directory = mkdtempSync(join(tmpdir(), 'countersign-cms-'));
  try {
    const { cert, key } = await makeCertificates(directory, 'localhost', new Date());
    writeFileSync(join(directory, 'message'), 'message');
    writeFileSync(join(directory, 'cert.pem'), cert);
    writeFileSync(join(directory, 'key.pem'), key);
    const args = [
      '-sign',
      '-binary',
      '-md',
      'sha256',
      '-outform',
      'DER',
      '-in',
      'message',
      '-signer',
      'cert.pem',
      '-inkey',
      'key.pem',
      '-out',
      'cms.der',
    ];
    run('openssl', ['cms', ...args], { cwd: directory });
    const lines =
      readFileSync(join(directory, 'cms.der'))
        .toString('base64')
        .match(/.{1,64}/g) ?? [];
    return Buffer.from(`-----BEGIN SIGNED MESSAGE-----\n${lines.join('\n')}\n-----END SIGNED MESSAGE-----`);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Reads one input; throws when it ends in any way but a value or a refusal, or takes too long. */
export async function tryInput(target: FuzzTarget, bytes: Buffer, limitMs: number): Promise<'value' | 'refused'> {
  const started = performance.now();
  let end: 'value' | 'refused' = 'value';
  try {
    await target.read(bytes);
  } catch (thrown) {
    if (!target.refuses(thrown))
      throw new Error(`${target.name}: ${String(thrown)} for ${bytes.subarray(0, 200).toString('base64')}`, {
        cause: thrown,
      });
    end = 'refused';
  }
  const took = performance.now() - started;
  if (took > limitMs)
    throw new Error(
      `${target.name}: ${took.toFixed(0)} ms for ${bytes.length} bytes (${bytes.subarray(0, 60).toString('base64')})`,
    );
  return end;
}

/** A changed copy of a seed: bits flipped, pieces cut, doubled, moved or made huge. `random` gives 0 to 1. */
export function mutate(seed: Buffer, random: () => number): Buffer {
  let bytes = Buffer.from(seed);
  for (let i = 0; i < 1 + Math.floor(random() * 4); i++) {
    const at = Math.floor(random() * bytes.length);
    const to = at + Math.floor(random() * Math.min(64, bytes.length - at));
    const piece = bytes.subarray(at, to);
    const kind = Math.floor(random() * 7);
    if (kind === 0) bytes[at] = Math.floor(random() * 256);
    else if (kind === 1) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)]);
    else if (kind === 2) bytes = Buffer.concat([bytes.subarray(0, to), piece, bytes.subarray(to)]);
    else if (kind === 3) bytes = bytes.subarray(0, at);
    else if (kind === 4)
      bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from([0xff, 0xff, 0xff, 0xff]), bytes.subarray(at + 4)]);
    else if (kind === 5)
      bytes = Buffer.concat([
        bytes.subarray(0, at),
        Buffer.from(['\n', ' ', '\0', '"', ',', '-----BEGIN'][Math.floor(random() * 6)] ?? ''),
        bytes.subarray(at),
      ]);
    else
      bytes = Buffer.concat([
        bytes.subarray(0, at),
        Buffer.concat(Array.from({ length: 1 + Math.floor(random() * 200) }, () => piece)),
        bytes.subarray(to),
      ]);
    if (bytes.length === 0) bytes = Buffer.from([0]);
  }
  return Buffer.from(bytes);
}

/** Ten megabytes of different kinds of nonsense, some of it beginning like the real thing. */
export function garbage(seed: Buffer, size = 10_000_000): Buffer[] {
  const fill = (piece: Buffer) => Buffer.alloc(size, piece);
  const behind = (piece: string) => Buffer.concat([seed, fill(Buffer.from(piece))]);
  return [
    fill(Buffer.from([0])),
    fill(Buffer.from([0xff])),
    fill(Buffer.from('\n')),
    fill(Buffer.from(' x')),
    fill(seed),
    behind('a'),
    behind('-----BEGIN PGP SIGNATURE-----\n'),
    behind('((((('),
    behind(' a="b\\",'),
  ];
}

/** Resident memory of this process in MiB. */
export function residentMiB(): number {
  return (
    Number(
      /VmRSS:\s+(\d+)/.exec(execFileSync('cat', [`/proc/${process.pid}/status`], { encoding: 'utf8' }))?.[1] ?? 0,
    ) / 1024
  );
}
