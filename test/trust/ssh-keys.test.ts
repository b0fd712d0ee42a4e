import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { NativeRepository } from '../../src/git/index.ts';
import { type CommitVerdict, type TrustPolicy, trustPolicySchema } from '../../src/model/index.ts';
import { matchesPatternList, parseAllowedSigners } from '../../src/trust/allowed-signers.ts';
import { openTrustStore } from '../../src/trust/index.ts';
import { readSshCertificate } from '../../src/trust/ssh-certificate.ts';
import { parseSshKey } from '../../src/trust/ssh-key.ts';
import { readSshRevocations } from '../../src/trust/ssh-revocations.ts';
import { field, SshFormatError } from '../../src/trust/ssh-wire.ts';
import { parseSshSignature, verifySshSignature } from '../../src/trust/sshsig.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, type Person, run, sshPerson } from '../kit/fleet.ts';
import { payloadOf, signBytes, signedCommit } from '../kit/objects.ts';
import { scratch } from '../kit/scratch.ts';
import { sshsigArmor, sshsigMessage } from '../kit/sshsig.ts';
import { verdictUnder } from '../kit/verdict.ts';

const directory = scratch();
const fleet = new Fleet(directory);
const dana = sshPerson(directory, 'dana');
const repository = new NativeRepository(`${fleet.work}/.git`, { file: 'git', path: process.env['PATH'] ?? '' });
const base = fleet.commit(dana, 'first', { 'a.yaml': 'a: 1\n' });
const tree = run('git', ['rev-parse', `${base}^{tree}`], { cwd: fleet.work });
const NOW = Math.floor(Date.now() / 1000);

type Spec = Partial<TrustPolicy['spec']> & { key?: object };

function policyWith({ key, ...spec }: Spec, person: Person = dana): TrustPolicy {
  const document = trustDocument([person], { required: 0 }) as { spec: { principals: { keys: object[] }[] } };
  if (key !== undefined) (document.spec.principals[0] as { keys: object[] }).keys = [key];
  else if (spec.allowedSigners !== undefined || spec.certificateAuthorities !== undefined)
    (document.spec.principals[0] as { keys: object[] }).keys = [];
  return trustPolicySchema.parse({ ...document, spec: { ...document.spec, ...spec } });
}

async function verdictOn(commit: string, policy: TrustPolicy, at = Date.now()): Promise<CommitVerdict> {
  return verdictUnder(await openTrustStore(policy), repository, commit, { at });
}

let n = 0;
const commitBy = (sign: (payload: Buffer) => string) =>
  signedCommit(fleet, payloadOf(tree, [base], dana, NOW - 60, `change ${++n}\n`), sign);

// --- keys on hardware: signatures made as an authenticator makes them, and accepted by ssh-keygen itself ---

type Hardware = { readonly line: string; readonly sign: (payload: Buffer, flags?: number) => string };

function hardwareKey(type: 'ed25519' | 'ecdsa'): Hardware {
  const application = 'ssh:';
  const { publicKey, privateKey } =
    type === 'ed25519' ? generateKeyPairSync('ed25519') : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const jwk = publicKey.export({ format: 'jwk' }) as { x: string; y?: string };
  const name = type === 'ed25519' ? 'sk-ssh-ed25519@openssh.com' : 'sk-ecdsa-sha2-nistp256@openssh.com';
  const point =
    type === 'ed25519'
      ? Buffer.from(jwk.x, 'base64url')
      : Buffer.concat([Buffer.from([4]), Buffer.from(jwk.x, 'base64url'), Buffer.from(jwk.y ?? '', 'base64url')]);
  const blob = Buffer.concat([
    field(name),
    ...(type === 'ecdsa' ? [field('nistp256')] : []),
    field(point),
    field(application),
  ]);
  const armor = (payload: Buffer, flags = 0x01) => {
    const message = sshsigMessage(payload);
    const tail = Buffer.from([flags, 0, 0, 0, 7]);
    const signed = Buffer.concat([sha256(Buffer.from(application)), tail, sha256(message)]);
    const signature = Buffer.concat([field(name), field(rawSignature(type, signed, privateKey)), tail]);
    return sshsigArmor(blob, signature);
  };
  return { line: `${name} ${blob.toString('base64')}`, sign: armor };
}

function rawSignature(type: 'ed25519' | 'ecdsa', bytes: Buffer, key: KeyObject): Buffer {
  if (type === 'ed25519') return sign(null, bytes, key);
  const pair = sign('sha256', bytes, { key, dsaEncoding: 'ieee-p1363' });
  const mpint = (b: Buffer) => field((b[0] ?? 0) > 127 ? Buffer.concat([Buffer.alloc(1), b]) : b);
  return Buffer.concat([mpint(pair.subarray(0, 32)), mpint(pair.subarray(32))]);
}

function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest();
}

for (const type of ['ed25519', 'ecdsa'] as const) {
  test(`a hardware key (${type}): ssh-keygen and we accept the same signature, and we see the flags`, async () => {
    const key = hardwareKey(type);
    const payload = Buffer.from('the message');
    writeFileSync(join(directory, 'signers'), `dana@example.test ${key.line}\n`);
    writeFileSync(join(directory, 'hw.sig'), `${key.sign(payload)}\n`);
    const args = [
      '-Y',
      'verify',
      '-f',
      join(directory, 'signers'),
      '-I',
      'dana@example.test',
      '-n',
      'git',
      '-s',
      join(directory, 'hw.sig'),
    ];
    assert.match(run('ssh-keygen', args, { input: payload }), /Good "git" signature/);
    const touched = verifySshSignature(parseSshSignature(key.sign(payload)), payload, 'git');
    assert.deepEqual(touched?.flags, { touched: true, verified: false });
    assert.deepEqual(verifySshSignature(parseSshSignature(key.sign(payload, 0x05)), payload, 'git')?.flags, {
      touched: true,
      verified: true,
    });
    assert.equal(verifySshSignature(parseSshSignature(key.sign(payload)), Buffer.from('another'), 'git'), undefined);
    const lied = Buffer.from(key.sign(payload, 0x00).replaceAll(/-----.*-----|\n/g, ''), 'base64');
    lied[lied.length - 5] = 0x01; // claims a touch that was not signed
    const armored = `-----BEGIN SSH SIGNATURE-----\n${lied.toString('base64')}\n-----END SSH SIGNATURE-----`;
    assert.equal(verifySshSignature(parseSshSignature(armored), payload, 'git'), undefined);
  });
}

test('touch and PIN are asked for where the policy wants them, which ssh-keygen and git never do', async () => {
  const key = hardwareKey('ed25519');
  const untouched = commitBy((p) => key.sign(p, 0x00));
  const touched = commitBy((p) => key.sign(p, 0x01));
  const verified = commitBy((p) => key.sign(p, 0x05));
  const plain = commitBy((p) => signBytes(dana, p));
  assert.equal((await verdictOn(untouched, policyWith({ key: { ssh: key.line } }))).outcome, 'verified');
  assert.equal(
    (await verdictOn(untouched, policyWith({ key: { ssh: key.line, requireTouch: true } }))).code,
    'touch-required',
  );
  assert.equal(
    (await verdictOn(touched, policyWith({ key: { ssh: key.line, requireTouch: true } }))).outcome,
    'verified',
  );
  assert.equal(
    (await verdictOn(touched, policyWith({ key: { ssh: key.line, requirePin: true } }))).code,
    'pin-required',
  );
  const seen = await verdictOn(verified, policyWith({ key: { ssh: key.line, requirePin: true } }));
  assert.deepEqual([seen.outcome, seen.hardware], ['verified', { touched: true, verified: true }]);
  const everywhere = {
    minimumRsaBits: 3072,
    sshKeyTypes: ['ssh-ed25519' as const],
    requireTouch: true,
    requirePin: false,
  };
  assert.equal((await verdictOn(plain, policyWith({ algorithms: everywhere }))).code, 'touch-required');
  assert.match(
    (await verdictOn(plain, policyWith({ algorithms: { ...everywhere, requireTouch: false, requirePin: true } })))
      .reason,
    /not on hardware/,
  );
});

test('a signature by a browser for a hardware key counts when it signed this challenge, and only then', () => {
  const application = 'example.test';
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const jwk = publicKey.export({ format: 'jwk' }) as { x: string; y: string };
  const name = 'sk-ecdsa-sha2-nistp256@openssh.com';
  const blob = Buffer.concat([
    field(name),
    field('nistp256'),
    field(Buffer.concat([Buffer.from([4]), Buffer.from(jwk.x, 'base64url'), Buffer.from(jwk.y, 'base64url')])),
    field(application),
  ]);
  const payload = Buffer.from('the message');
  const make = (challenge: (m: Buffer) => string, flags = 0x01) => {
    const message = sshsigMessage(payload);
    const client = Buffer.from(
      `{"type":"webauthn.get","challenge":"${challenge(message)}","origin":"https://example.test","crossOrigin":false}`,
    );
    const tail = Buffer.from([flags, 0, 0, 0, 1]);
    const raw = rawSignature(
      'ecdsa',
      Buffer.concat([sha256(Buffer.from(application)), tail, sha256(client)]),
      privateKey,
    );
    const signature = Buffer.concat([
      field('webauthn-sk-ecdsa-sha2-nistp256@openssh.com'),
      field(raw),
      tail,
      field('https://example.test'),
      field(client),
      field(''),
    ]);
    return sshsigArmor(blob, signature);
  };
  const good = make((m) => m.toString('base64url'));
  writeFileSync(join(directory, 'signers'), `dana@example.test ${name} ${blob.toString('base64')}\n`);
  writeFileSync(join(directory, 'wa.sig'), `${good}\n`);
  const args = [
    '-Y',
    'verify',
    '-f',
    join(directory, 'signers'),
    '-I',
    'dana@example.test',
    '-n',
    'git',
    '-s',
    join(directory, 'wa.sig'),
  ];
  assert.match(run('ssh-keygen', args, { input: payload }), /Good "git" signature/);
  assert.deepEqual(verifySshSignature(parseSshSignature(good), payload, 'git')?.flags, {
    touched: true,
    verified: false,
  });
  assert.throws(
    () => verifySshSignature(parseSshSignature(make(() => 'AAAA')), payload, 'git'),
    /signed something different/,
  );
  const another = make((m) => Buffer.alloc(m.length, 1).toString('base64url'));
  assert.throws(() => verifySshSignature(parseSshSignature(another), payload, 'git'), /signed something different/);
  assert.throws(
    () => verifySshSignature(parseSshSignature(make((m) => m.toString('base64url'), 0x81)), payload, 'git'),
    /contradict/,
  );
});

// --- certificates, made by ssh-keygen ---

const ca = sshPerson(directory, 'ca');
const otherCa = sshPerson(directory, 'other-ca');

function certify(
  name: string,
  options: {
    principals?: string;
    validity?: string;
    more?: string[];
    authority?: Person;
    serial?: number;
    type?: 'ed25519' | 'ecdsa';
  } = {},
): Person {
  const person = sshPerson(directory, `${name}-${++n}`, options.type ?? 'ed25519');
  const args = [
    '-q',
    '-s',
    (options.authority ?? ca).signingKey,
    '-I',
    `id-${name}`,
    '-z',
    String(options.serial ?? 7),
    ...(options.more ?? []),
  ];
  if (options.principals !== '') args.push('-n', options.principals ?? 'dana@example.test');
  if (options.validity !== undefined) args.push('-V', options.validity);
  run('ssh-keygen', [...args, `${person.signingKey}.pub`]);
  return { ...person, signingKey: `${person.signingKey}-cert.pub` };
}

const trusted = (more: Spec = {}) =>
  policyWith({
    certificateAuthorities: [{ name: 'office', ssh: ca.publicKey, principals: '*@example.test' }],
    ...more,
  });
const certified = (person: Person) => commitBy((p) => signBytes(person, p));

for (const type of ['ed25519', 'ecdsa'] as const) {
  test(`a commit signed with a certificate (${type}) is its principal’s`, async () => {
    const verdict = await verdictOn(certified(certify('good', { type })), trusted());
    assert.equal(verdict.outcome, 'verified', verdict.reason);
    assert.equal(verdict.signer?.principal, 'dana');
    assert.equal(verdict.certificate?.keyId, 'id-good');
    assert.equal(verdict.certificate?.name, 'dana@example.test');
  });
}

for (const [what, make, policy, code] of [
  ['by an authority that nobody trusts', () => certify('x', { authority: otherCa }), trusted, 'unknown-authority'],
  [
    'for a name that the authority may not give',
    () => certify('x', { principals: 'dana@example.com' }),
    trusted,
    'certificate-for-nobody',
  ],
  [
    'for a name that is no principal’s',
    () => certify('x', { principals: 'eve@example.test' }),
    trusted,
    'certificate-for-nobody',
  ],
  ['for nobody by name, so for anybody', () => certify('x', { principals: '' }), trusted, 'bad-signature'],
  ['for hosts', () => certify('x', { more: ['-h'] }), trusted, 'bad-signature'],
  ['that has ended', () => certify('x', { validity: '20200101:20200201' }), trusted, 'certificate-expired'],
  ['that has not begun', () => certify('x', { validity: '20990101:20990201' }), trusted, 'certificate-expired'],
  [
    'with a critical option that a signature cannot meet',
    () => certify('x', { more: ['-O', 'force-command=ls'] }),
    trusted,
    'bad-signature',
  ],
  [
    'that demands a PIN, by a key that has none',
    () => certify('x', { more: ['-O', 'verify-required'] }),
    trusted,
    'pin-required',
  ],
  [
    'of a type the policy does not take',
    () => certify('x', { type: 'ecdsa' }),
    () =>
      trusted({
        algorithms: { minimumRsaBits: 3072, sshKeyTypes: ['ssh-ed25519'], requireTouch: false, requirePin: false },
      }),
    'algorithm-too-weak',
  ],
] as const) {
  test(`a certificate ${what} is refused`, async () =>
    assert.equal((await verdictOn(certified(make()), policy())).code, code));
}

test('a certificate counts at the time the commit was first seen, not now', async () => {
  const commit = certified(certify('short', { validity: `${stamp(-7200)}:${stamp(-3600)}` }));
  // the commit says a minute ago
  assert.equal((await verdictOn(commit, trusted(), (NOW - 5000) * 1000)).code, 'commit-from-the-future');
  assert.equal((await verdictOn(commit, trusted())).code, 'certificate-expired');
  const old = signedCommit(fleet, payloadOf(tree, [base], dana, NOW - 6000, 'old\n'), (p) =>
    signBytes(certify('short', { validity: `${stamp(-7200)}:${stamp(-3600)}` }), p),
  );
  assert.equal((await verdictOn(old, trusted(), (NOW - 5000) * 1000)).outcome, 'verified');
});

test('names of two people in one certificate attribute the commit to neither', async () => {
  const kim = sshPerson(directory, 'kim');
  const document = trustDocument([dana, kim], { required: 0 }) as { spec: object };
  const policy = trustPolicySchema.parse({
    ...document,
    spec: { ...document.spec, certificateAuthorities: [{ name: 'office', ssh: ca.publicKey, principals: '*' }] },
  });
  assert.equal(
    (await verdictOn(certified(certify('two', { principals: 'dana@example.test,kim@example.test' })), policy)).code,
    'certificate-for-nobody',
  );
});

test('an authority that ended or was found out vouches for nothing any more', async () => {
  const commit = certified(certify('late'));
  const office = { name: 'office', ssh: ca.publicKey, principals: '*@example.test' };
  const under = (more: object) =>
    verdictOn(commit, policyWith({ certificateAuthorities: [{ ...office, ...more }] } as Spec));
  assert.equal((await under({})).outcome, 'verified');
  assert.equal((await under({ validBefore: '2020-01-01T00:00:00Z' })).code, 'key-expired');
  assert.equal(
    (await under({ revoked: { at: '2020-01-01T00:00:00Z', reason: 'compromised' } })).code,
    'key-compromised',
  );
});

test('a certificate with one changed byte is no certificate', () => {
  const blob = Buffer.from(readFileSync(certify('bytes').signingKey, 'utf8').split(' ')[1] ?? '', 'base64');
  assert.equal(readSshCertificate(blob).keyId, 'id-bytes');
  for (let at = 0; at < blob.length; at += 3) {
    const altered = Buffer.from(blob);
    altered[at] = (altered[at] ?? 0) ^ 1;
    assert.throws(() => readSshCertificate(altered), SshFormatError, `byte ${at}`);
  }
});

// --- revocation lists, made by ssh-keygen ---

function krl(lines: string[], options: { authority?: Person; keys?: Person[] } = {}): Buffer {
  const file = join(directory, `krl-${++n}`);
  writeFileSync(`${file}.spec`, `${lines.join('\n')}\n`);
  const args = [
    '-q',
    '-k',
    '-f',
    file,
    ...(options.authority === undefined ? [] : ['-s', `${options.authority.signingKey}.pub`]),
    `${file}.spec`,
  ];
  run('ssh-keygen', args);
  return readFileSync(file);
}

test('a revocation list revokes by key and by fingerprint', async () => {
  const commit = commitBy((p) => signBytes(dana, p));
  const other = sshPerson(directory, `other-${++n}`);
  const listing = (bytes: Buffer) => verdictOn(commit, policyWith({ sshRevocations: bytes.toString('base64') }));
  assert.equal((await listing(krl([`key: ${other.publicKey}`]))).outcome, 'verified');
  assert.equal((await listing(krl([`key: ${dana.publicKey}`]))).code, 'key-revoked');
  assert.equal((await listing(krl([`sha1: ${dana.publicKey}`]))).code, 'key-revoked');
  assert.equal((await listing(krl([`sha256: ${dana.publicKey}`]))).code, 'key-revoked');
  assert.equal((await listing(krl([`hash: ${parseSshKey(dana.publicKey).fingerprint}`]))).code, 'key-revoked');
  const lines = policyWith({ sshRevocations: `# gone\n${dana.publicKey}\n` });
  assert.equal((await verdictOn(commit, lines)).code, 'key-revoked');
});

test('a revocation list revokes certificates by serial, range, key id and authority', async () => {
  const commit = certified(certify('krl', { serial: 4711 }));
  const listing = (lines: string[], authority?: Person) =>
    verdictOn(
      commit,
      trusted({ sshRevocations: krl(lines, authority === undefined ? {} : { authority }).toString('base64') }),
    );
  assert.equal((await listing(['serial: 4712'], ca)).outcome, 'verified');
  assert.equal((await listing(['serial: 4711'], ca)).code, 'key-revoked');
  assert.equal((await listing(['serial: 4700-4720'], ca)).code, 'key-revoked');
  assert.equal((await listing(['serial: 4711', 'serial: 4713', 'serial: 4715'], ca)).code, 'key-revoked');
  assert.equal((await listing(['serial: 4711'], otherCa)).outcome, 'verified', 'of another authority');
  assert.equal((await listing(['id: id-krl'], ca)).code, 'key-revoked');
  assert.equal((await listing(['id: id-other'], ca)).outcome, 'verified');
  assert.equal((await listing([`key: ${ca.publicKey}`])).code, 'key-revoked');
});

test('a revocation list that is cut, unknown or no list at all is refused whole', async () => {
  const bytes = krl([`key: ${dana.publicKey}`]);
  assert.throws(() => readSshRevocations(bytes.subarray(0, bytes.length - 3)), SshFormatError);
  const unknown = Buffer.concat([bytes, Buffer.from([9]), field('x')]);
  assert.throws(() => readSshRevocations(unknown), /section of type 9/);
  assert.throws(
    () =>
      readSshRevocations(
        Buffer.concat([
          bytes,
          Buffer.from([255]),
          field(Buffer.concat([field('later@example.test'), Buffer.from([1]), field('')])),
        ]),
      ),
    /critical extension/,
  );
  await assert.rejects(openTrustStore(policyWith({ sshRevocations: 'not a key\n' })), { code: 'key-unusable' });
});

// --- allowed_signers ---

test('allowed signers are read as ssh-keygen reads them', async () => {
  const commit = commitBy((p) => signBytes(dana, p));
  const under = (line: string) => verdictOn(commit, policyWith({ allowedSigners: `# team\n\n${line}\n` }));
  const key = dana.publicKey;
  assert.equal((await under(`dana@example.test ${key}`)).signer?.principal, 'dana');
  assert.equal((await under(`*@example.test,!eve@example.test ${key}`)).signer?.principal, 'dana');
  assert.equal((await under(`dana@example.test namespaces="file,git" ${key}`)).outcome, 'verified');
  assert.equal((await under(`dana@example.test namespaces="file" ${key}`)).code, 'signature-for-other-use');
  assert.equal((await under(`dana@example.test valid-before="20200101Z" ${key}`)).code, 'key-expired');
  assert.equal((await under(`dana@example.test valid-after="20990101Z" ${key}`)).code, 'key-not-yet-valid');
  assert.equal(
    (await under(`dana@example.test valid-after="20200101Z",valid-before="20990101000000Z" ${key}`)).outcome,
    'verified',
  );
  assert.equal(
    (await under(`dana@example.test cert-authority ${key}`)).code,
    'unknown-key',
    'an authority signs nothing itself',
  );
});

test('a line for an authority counts for certificates', async () => {
  const commit = certified(certify('line'));
  const under = (line: string) => verdictOn(commit, policyWith({ allowedSigners: line }));
  assert.equal((await under(`*@example.test cert-authority ${ca.publicKey}`)).signer?.principal, 'dana');
  assert.equal((await under(`*@example.test,!dana@* cert-authority ${ca.publicKey}`)).code, 'certificate-for-nobody');
  assert.equal(
    (await under(`*@example.test cert-authority,namespaces="file" ${ca.publicKey}`)).code,
    'certificate-for-nobody',
  );
});

test('a line that leads to nobody, or to several, is refused: git would attribute the commit to the pattern', async () => {
  await assert.rejects(
    openTrustStore(policyWith({ allowedSigners: `eve@example.test ${dana.publicKey}` })),
    /matches no principal/,
  );
  const kim = sshPerson(directory, `kim-${++n}`);
  const document = trustDocument([dana, kim], { required: 0 }) as { spec: { principals: { keys: object[] }[] } };
  for (const principal of document.spec.principals) principal.keys = [];
  const policy = trustPolicySchema.parse({
    ...document,
    spec: { ...document.spec, allowedSigners: `* ${dana.publicKey}` },
  });
  await assert.rejects(openTrustStore(policy), /line 1 .*matches `dana` and `kim.*any of them/);
});

for (const [what, line] of [
  ['without a key', 'dana@example.test'],
  ['with an option that does not exist', 'dana@example.test no-touch="x" KEY'],
  ['with an option twice', 'dana@example.test namespaces="a",namespaces="b" KEY'],
  ['with an open quotation mark', 'dana@example.test namespaces="git KEY'],
  ['with a day that does not exist', 'dana@example.test valid-before="20260230Z" KEY'],
  ['that ends before it begins', 'dana@example.test valid-after="20260202Z",valid-before="20260201Z" KEY'],
  ['with a broken key', 'dana@example.test ssh-ed25519 AAAA'],
] as const) {
  test(`an allowed signers line ${what} is refused with its number`, () =>
    assert.throws(
      () => parseAllowedSigners(`# one\n${line.replace('KEY', dana.publicKey)}\n`),
      (e: Error) => e instanceof SshFormatError && e.message.startsWith('line 2: '),
    ));
}

test('times without a zone are local and marked so', () => {
  const [signer] = parseAllowedSigners(`dana valid-before="202601311530" ${dana.publicKey}`);
  assert.equal(signer?.validBefore, new Date(2026, 0, 31, 15, 30).getTime());
  assert.equal(signer?.localTime, true);
});

for (const [name, list, expected] of [
  ['a@b', 'a@b', true],
  ['a@b', '*', true],
  ['a@b', '*@c,a@?', true],
  ['a@b', '*,!a@*', false],
  ['a@b', '!c@*', false],
  ['A@b', 'a@b', false],
] as const) {
  test(`\`${name}\` against \`${list}\`: ${expected}`, () => assert.equal(matchesPatternList(name, list), expected));
}

function stamp(offset: number): string {
  const d = new Date((NOW + offset) * 1000);
  const two = (v: number) => String(v).padStart(2, '0');
  return `${d.getFullYear()}${two(d.getMonth() + 1)}${two(d.getDate())}${two(d.getHours())}${two(d.getMinutes())}${two(d.getSeconds())}`;
}

test('an RSA key is as long as the policy asks, for people and for authorities', async () => {
  const short = sshPerson(directory, `short-${++n}`, 'rsa', 2048);
  await assert.rejects(
    openTrustStore(policyWith({ key: { ssh: short.publicKey } })),
    /2048 bits is too weak; the policy requires 3072/,
  );
  const authority = { name: 'office', ssh: short.publicKey, principals: '*' };
  await assert.rejects(
    openTrustStore(policyWith({ certificateAuthorities: [authority] })),
    /2048 bits is too weak; the policy requires 3072/,
  );
  const algorithms = {
    minimumRsaBits: 2048,
    sshKeyTypes: ['ssh-rsa' as const],
    requireTouch: false,
    requirePin: false,
  };
  const commit = commitBy((p) => signBytes(short, p));
  assert.equal(
    (await verdictOn(commit, policyWith({ key: { ssh: short.publicKey }, algorithms }))).outcome,
    'verified',
  );
  await assert.rejects(openTrustStore(policyWith({ algorithms })), /not allow keys of type `ssh-ed25519`/);
});

test('the repository is closed', () => repository.close());
