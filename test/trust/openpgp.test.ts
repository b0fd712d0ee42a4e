import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  config,
  createMessage,
  enums,
  generateKey,
  type PrivateKey,
  readKeys,
  readPrivateKey,
  readSignature,
  SignaturePacket,
  sign,
} from 'openpgp';
import { NativeRepository } from '../../src/git/index.ts';
import { type CommitVerdict, trustPolicySchema } from '../../src/model/index.ts';
import { openTrustStore } from '../../src/trust/index.ts';
import { openPgpConfig } from '../../src/trust/openpgp-key.ts';
import { readOpenPgpSignature, verifyOpenPgpSignature } from '../../src/trust/openpgp-signature.ts';
import { trustDocument } from '../kit/documents.ts';
import { endGpg, Fleet, openPgpPerson, type Person, run, sshPerson } from '../kit/fleet.ts';
import { packetBytes, payloadOf, signBytes, signedCommit } from '../kit/objects.ts';
import { scratch } from '../kit/scratch.ts';
import { verdictUnder } from '../kit/verdict.ts';

const directory = scratch();
const fleet = new Fleet(directory);
const repository = new NativeRepository(`${fleet.work}/.git`, { file: 'git', path: process.env['PATH'] ?? '' });
after(() => repository.close());
const base = fleet.commit(sshPerson(directory, 'seed'), 'first', { 'a.yaml': 'a: 1\n' });
const tree = run('git', ['rev-parse', `${base}^{tree}`], { cwd: fleet.work });
const DAY = 86_400;
const NOW = Math.floor(Date.now() / 1000);
const at = (seconds: number) => `${new Date(seconds * 1000).toISOString().replaceAll(/[-:]|\.\d+Z/g, '')}`;
let n = 0;

const homes: string[] = [];
after(() => homes.forEach(endGpg));

/** Someone whose key gpg made at a time, with what `gpg --quick-generate-key` is given. */
function person(
  name: string,
  made: number,
  options: { expires?: string; algorithm?: string; usage?: string } = {},
): Person {
  const home = join(directory, `${name}-${++n}`);
  homes.push(home);
  mkdirSync(home, { mode: 0o700 });
  const p: Person = {
    name: 'dana',
    email: 'dana@example.test',
    format: 'openpgp',
    publicKey: '',
    signingKey: 'dana@example.test',
    gnupgHome: home,
  };
  gpg(
    p,
    made,
    '--passphrase',
    '',
    '--quick-generate-key',
    'dana <dana@example.test>',
    options.algorithm ?? 'ed25519',
    options.usage ?? 'sign',
    options.expires ?? 'never',
  );
  return { ...p, publicKey: exported(p) };
}

function gpg(p: Person, when: number, ...args: string[]): string {
  return run(
    'gpg',
    ['--batch', '--quiet', '--yes', '--pinentry-mode', 'loopback', '--faked-system-time', `${at(when)}!`, ...args],
    {
      env: { GNUPGHOME: p.gnupgHome ?? '' },
    },
  );
}

const exported = (p: Person) =>
  run('gpg', ['--armor', '--export', 'dana@example.test'], { env: { GNUPGHOME: p.gnupgHome ?? '' } });
const signedAt = (p: Person, committed: number, when = committed, more: string[] = []) =>
  signedCommit(fleet, payloadOf(tree, [base], p, committed, `change ${++n}\n`), (b) =>
    signBytes(p, b, { gpg: ['--faked-system-time', `${at(when)}!`, ...more] }),
  );

async function verdictOn(
  commit: string,
  keys: readonly object[],
  seen = Date.now(),
  spec: object = {},
): Promise<CommitVerdict> {
  const document = trustDocument(
    [{ name: 'dana', email: 'dana@example.test', format: 'ssh', publicKey: 'x', signingKey: '' }],
    {
      required: 0,
    },
  ) as { spec: { principals: { keys: object[] }[] } };
  (document.spec.principals[0] as { keys: object[] }).keys = [...keys];
  return verdictUnder(
    await openTrustStore(trustPolicySchema.parse({ ...document, spec: { ...document.spec, ...spec } })),
    repository,
    commit,
    { at: seen },
  );
}

test('a key that ended counts for what was first seen before its end, whatever the commit claims', async () => {
  const p = person('ended', NOW - 300 * DAY, { expires: '100d' });
  const commit = signedAt(p, NOW - 250 * DAY);
  assert.equal((await verdictOn(commit, [{ openpgp: p.publicKey }], (NOW - 249 * DAY) * 1000)).outcome, 'verified');
  const late = await verdictOn(commit, [{ openpgp: p.publicKey }]);
  assert.equal(late.code, 'key-expired', 'backdated, or pushed late: both look the same');
  assert.equal(late.signer?.principal, 'dana', 'whose it would be is told');
});

test('a routine renewal does not break older commits: exports of one key are merged', async () => {
  const p = person('renewed', NOW - 300 * DAY, { expires: '100d' });
  const commit = signedAt(p, NOW - 250 * DAY);
  gpg(
    p,
    NOW - 100 * DAY,
    '--quick-set-expire',
    run('gpg', ['--list-keys', '--with-colons'], { env: { GNUPGHOME: p.gnupgHome ?? '' } }).match(
      /^fpr:+([0-9A-F]{40})/m,
    )?.[1] ?? '',
    '2y',
  );
  const renewed = exported(p);
  const seen = (NOW - 249 * DAY) * 1000;
  assert.equal(
    (await verdictOn(commit, [{ openpgp: p.publicKey }, { openpgp: renewed }], seen)).outcome,
    'verified',
    'listed apart',
  );
  assert.equal(
    (await verdictOn(commit, [{ openpgp: `${renewed}\n${p.publicKey}` }], seen)).outcome,
    'verified',
    'in one text',
  );
  assert.equal(
    (await verdictOn(commit, [{ openpgp: renewed }], seen)).outcome,
    'verified',
    'and when only the newest export is left',
  );
  const between = (NOW - 150 * DAY) * 1000;
  assert.equal(
    (await verdictOn(commit, [{ openpgp: p.publicKey }, { openpgp: renewed }], between)).code,
    'key-expired',
    'the gap stays a gap',
  );
  assert.equal(
    (await verdictOn(commit, [{ openpgp: p.publicKey }, { openpgp: renewed }])).outcome,
    'verified',
    'renewed, it counts today',
  );
});

test('a signature dated before the key was made, after it was seen, or far from the commit is refused', async () => {
  const p = person('times', NOW - 100 * DAY);
  const key = [{ openpgp: p.publicKey }];
  const future = signedAt(p, NOW - 60, NOW + 3600);
  assert.equal((await verdictOn(future, key)).code, 'signature-from-the-future');
  const apart = signedAt(p, NOW - 60, NOW - 10 * DAY);
  assert.equal((await verdictOn(apart, key)).code, 'times-apart');
  assert.equal(
    (await verdictOn(apart, key, Date.now(), { times: { spread: '20d' } })).outcome,
    'verified',
    'the policy says how far',
  );
});

test('a signature dated before its key is refused, though its cryptography holds', async () => {
  const made = await openPgpKey({ date: new Date((NOW - 10 * DAY) * 1000) });
  const early = await commitWith(made.key, { date: new Date((NOW - 10 * DAY + 5) * 1000), committed: NOW - 10 * DAY });
  assert.equal((await verdictOn(early, [{ openpgp: made.publicKey }])).outcome, 'verified');
  // The library will not make one, so the packet's time is set back before it is signed.
  const back = await commitWith(made.key, {
    date: new Date((NOW - 12 * DAY) * 1000),
    committed: NOW - 12 * DAY,
    type: enums.signature.binary,
  });
  assert.equal((await verdictOn(back, [{ openpgp: made.publicKey }])).code, 'backdated');
});

test('a signature with an end of its own counts until then', async () => {
  const p = person('own-end', NOW - 100 * DAY);
  const commit = signedAt(p, NOW - 60 * DAY, NOW - 60 * DAY, ['--default-sig-expire', '10d']);
  assert.equal((await verdictOn(commit, [{ openpgp: p.publicKey }], (NOW - 55 * DAY) * 1000)).outcome, 'verified');
  assert.equal((await verdictOn(commit, [{ openpgp: p.publicKey }])).code, 'signature-expired');
});

test('a signing subkey is told beside its primary; one that is revoked, encrypts only or is unknown signs nothing', async () => {
  const p = person('subkeys', NOW - 100 * DAY, { usage: 'cert' });
  const fingerprint =
    run('gpg', ['--list-keys', '--with-colons'], { env: { GNUPGHOME: p.gnupgHome ?? '' } }).match(
      /^fpr:+([0-9A-F]{40})/m,
    )?.[1] ?? '';
  const before = p.publicKey;
  gpg(p, NOW - 90 * DAY, '--passphrase', '', '--quick-add-key', fingerprint, 'ed25519', 'sign', 'never');
  const commit = signedAt(p, NOW - 60);
  const good = await verdictOn(commit, [{ openpgp: exported(p) }]);
  assert.equal(good.outcome, 'verified', good.reason);
  assert.equal(good.key, fingerprint);
  assert.notEqual(good.subkey, fingerprint);
  assert.equal(good.subkey?.length, 40);
  assert.equal((await verdictOn(commit, [{ openpgp: before }])).code, 'unknown-key', 'the export without it');
});

test('revoked in the key itself: retired ends it, compromised takes everything back but what the ledger saw before', async () => {
  const made = await openPgpKey({ date: new Date((NOW - 100 * DAY) * 1000) });
  const commit = await commitWith(made.key, { date: new Date((NOW - 50 * DAY) * 1000), committed: NOW - 50 * DAY });
  const revokedAt = new Date((NOW - 20 * DAY) * 1000);
  const revoked = async (flag: enums.reasonForRevocation) =>
    (await made.key.revoke({ flag }, revokedAt)).toPublic().armor();
  const seenBefore = (NOW - 49 * DAY) * 1000;
  const retired = await revoked(enums.reasonForRevocation.keyRetired);
  assert.equal((await verdictOn(commit, [{ openpgp: retired }], seenBefore)).outcome, 'verified');
  assert.equal((await verdictOn(commit, [{ openpgp: retired }])).code, 'key-revoked');
  for (const flag of [enums.reasonForRevocation.keyCompromised, enums.reasonForRevocation.noReason]) {
    const hard = await revoked(flag);
    assert.equal((await verdictOn(commit, [{ openpgp: hard }], seenBefore)).code, 'key-compromised');
    const since = {
      at: revokedAt.toISOString(),
      reason: 'compromised',
      compromisedSince: new Date((NOW - 30 * DAY) * 1000).toISOString(),
    };
    assert.equal(
      (await verdictOn(commit, [{ openpgp: hard, revoked: since }], seenBefore)).outcome,
      'verified',
      'seen before it was stolen',
    );
    assert.equal(
      (await verdictOn(commit, [{ openpgp: hard, revoked: since }])).code,
      'key-compromised',
      'not seen before',
    );
  }
  const separately = [{ openpgp: made.publicKey }, { openpgp: retired }];
  assert.equal((await verdictOn(commit, separately)).code, 'key-revoked', 'an old export cannot hide a revocation');
});

test('a revoked subkey signs nothing from then on', async () => {
  const made = await openPgpKey({ date: new Date((NOW - 100 * DAY) * 1000), subkeys: [{ sign: true }] });
  const [subkey] = made.key.subkeys;
  const commit = await commitWith(made.key, { date: new Date((NOW - 50 * DAY) * 1000), committed: NOW - 50 * DAY });
  assert.equal(
    (await verdictOn(commit, [{ openpgp: made.publicKey }])).subkey?.toLowerCase(),
    subkey?.getFingerprint(),
  );
  const primary = made.key.keyPacket as Parameters<NonNullable<typeof subkey>['revoke']>[0];
  if (subkey !== undefined)
    made.key.subkeys[0] = await subkey.revoke(
      primary,
      { flag: enums.reasonForRevocation.keySuperseded },
      new Date((NOW - 20 * DAY) * 1000),
    );
  const revoked = made.key.toPublic().armor();
  assert.equal((await verdictOn(commit, [{ openpgp: revoked }])).code, 'key-revoked');
  assert.equal((await verdictOn(commit, [{ openpgp: revoked }], (NOW - 49 * DAY) * 1000)).outcome, 'verified');
});

test('keys of the newer format (version 6) sign commits too', async () => {
  const made = await openPgpKey({ date: new Date((NOW - 10 * DAY) * 1000), config: { v6Keys: true } });
  const commit = await commitWith(made.key, { date: new Date((NOW - 60) * 1000), committed: NOW - 60 });
  const verdict = await verdictOn(commit, [{ openpgp: made.publicKey }]);
  assert.equal(verdict.outcome, 'verified', verdict.reason);
  assert.equal(verdict.key?.length, 64);
});

for (const [what, algorithm] of [
  ['RSA', 'rsa3072'],
  ['ECDSA', 'nistp256'],
] as const) {
  test(`${what} keys sign commits too`, async () => {
    const p = person(what, NOW - DAY, { algorithm });
    assert.equal((await verdictOn(signedAt(p, NOW - 60), [{ openpgp: p.publicKey }])).outcome, 'verified');
  });
}

test('a signature over SHA-1, a short RSA key and DSA are refused', async () => {
  const p = person('sha1', NOW - DAY, { algorithm: 'rsa3072' });
  const weak = await verdictOn(
    signedAt(p, NOW - 60, NOW - 60, ['--digest-algo', 'SHA1', '--allow-weak-digest-algos']),
    [{ openpgp: p.publicKey }],
  );
  assert.equal(weak.code, 'algorithm-too-weak', weak.reason);
  const short = person('short', NOW - DAY, { algorithm: 'rsa2048' });
  await assert.rejects(
    verdictOn(base, [{ openpgp: short.publicKey }]),
    /RSA key of 2048 bits is too weak; the policy requires 3072/,
  );
  assert.equal(
    (
      await verdictOn(signedAt(short, NOW - 60), [{ openpgp: short.publicKey }], Date.now(), {
        algorithms: { minimumRsaBits: 2048 },
      })
    ).outcome,
    'verified',
  );
  const dsa = person('dsa', NOW - DAY, { algorithm: 'dsa2048' });
  await assert.rejects(verdictOn(base, [{ openpgp: dsa.publicKey }]), /dsa are not allowed/);
});

test('two signature packets in one armor, and a byte behind one, are no signature', async () => {
  const p = person('two', NOW - DAY);
  const payload = payloadOf(tree, [base], p, NOW - 60);
  const armored = signBytes(p, Buffer.from(payload));
  const body = packetBytes(armored);
  const armor = (bytes: Buffer) =>
    `-----BEGIN PGP SIGNATURE-----\n\n${bytes.toString('base64')}\n-----END PGP SIGNATURE-----`;
  const commit = (signature: string) => signedCommit(fleet, payload, () => signature);
  const key = [{ openpgp: p.publicKey }];
  assert.equal((await verdictOn(commit(armor(body)), key)).outcome, 'verified', 'the control, without a checksum');
  assert.equal((await verdictOn(commit(armor(Buffer.concat([body, body]))), key)).code, 'bad-signature');
  assert.equal((await verdictOn(commit(armor(Buffer.concat([body, Buffer.from([0])]))), key)).code, 'bad-signature');
  assert.equal(
    (await verdictOn(commit(armored.replace('-----BEGIN', 'hidden text\n-----BEGIN')), key)).code,
    'signature-format-unknown',
  );
  assert.equal((await verdictOn(commit(`${armored}\nhidden text`), key)).code, 'bad-signature');
});

test('a text signature is not one over bytes', async () => {
  const p = person('text', NOW - DAY);
  const payload = payloadOf(tree, [base], p, NOW - 60);
  const commit = signedCommit(fleet, payload, (b) => signBytes(p, b, { gpg: ['--textmode'] }));
  assert.equal((await verdictOn(commit, [{ openpgp: p.publicKey }])).code, 'bad-signature');
});

test('a signature that says it is over text is none over bytes, even where its cryptography would hold', async () => {
  const made = await openPgpKey({ date: new Date((NOW - DAY) * 1000) });
  const commit = await commitWith(made.key, {
    date: new Date((NOW - 60) * 1000),
    committed: NOW - 60,
    type: enums.signature.text,
  });
  assert.equal((await verdictOn(commit, [{ openpgp: made.publicKey }])).code, 'bad-signature');
  const control = await commitWith(made.key, {
    date: new Date((NOW - 60) * 1000),
    committed: NOW - 60,
    type: enums.signature.binary,
  });
  assert.equal((await verdictOn(control, [{ openpgp: made.publicKey }])).outcome, 'verified');
});

test('a key id that is claimed and not proven counts for nothing: the true key is found among several with one id', async () => {
  const [p, q] = [person('true', NOW - DAY), person('false', NOW - DAY)];
  const store = await openTrustStore(
    trustPolicySchema.parse(
      trustDocument(
        [
          { ...p, format: 'openpgp' },
          { ...q, name: 'kim', email: 'kim@example.test' },
        ],
        { required: 0 },
      ),
    ),
  );
  const payload = payloadOf(tree, [base], p, NOW - 60);
  const commit = signedCommit(fleet, payload, (b) => signBytes(p, b));
  const [mine, other] = [...store.openpgp.keys()];
  const colliding = {
    ...store,
    openpgp: new Map([
      [mine ?? '', [...(store.openpgp.get(other ?? '') ?? []), ...(store.openpgp.get(mine ?? '') ?? [])]],
    ]),
  };
  assert.equal((await verdictUnder(colliding, repository, commit)).signer?.principal, 'dana');
  const masked = { ...store, openpgp: new Map([[mine ?? '', store.openpgp.get(other ?? '') ?? []]]) };
  assert.equal((await verdictUnder(masked, repository, commit)).code, 'bad-signature');
});

test('our own quick check and the library agree on every bit of a signature', async () => {
  const p = openPgpPerson(directory, 'agree');
  homes.push(p.gnupgHome ?? '');
  const bytes = Buffer.from('the signed bytes');
  const armored = signBytes(p, bytes);
  const [key] = await readKeys({ armoredKeys: p.publicKey });
  const body = packetBytes(armored);
  let [agreed, accepted] = [0, 0];
  for (let bit = 0; bit < body.length * 8; bit++) {
    const altered = Buffer.from(body);
    altered[bit >> 3] = (altered[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const packet = readOpenPgpSignature(
      `-----BEGIN PGP SIGNATURE-----\n\n${altered.toString('base64')}\n-----END PGP SIGNATURE-----`,
    );
    if (packet === undefined || key === undefined) continue;
    const ours = (await verifyOpenPgpSignature(packet, key.keyPacket, bytes, openPgpConfig(2048))) === undefined;
    const library = await readSignature({ binarySignature: altered })
      .then(
        (s) =>
          (s.packets[0] as typeof packet).verify(
            key.keyPacket,
            enums.signature.binary,
            { text: null, getBytes: () => bytes },
            null as unknown as Date,
            true,
            config,
          ),
        () => Promise.reject(),
      )
      .then(
        () => true,
        () => false,
      );
    assert.equal(ours, library, `bit ${bit}`);
    agreed++;
    if (ours) accepted++;
  }
  assert.ok(agreed > 300, `${agreed} altered signatures were looked at`);
  assert.ok(
    accepted < agreed / 2,
    `${accepted} of ${agreed} altered signatures still hold; only the unhashed area is free`,
  );
});

async function openPgpKey(options: {
  date: Date;
  subkeys?: { sign: boolean }[];
  config?: object;
}): Promise<{ key: PrivateKey; publicKey: string }> {
  const made = await generateKey({
    type: options.config === undefined ? 'ecc' : 'curve25519',
    userIDs: [{ name: 'dana', email: 'dana@example.test' }],
    subkeys: [],
    ...options,
  } as Parameters<typeof generateKey>[0]);
  return { key: await readPrivateKey({ armoredKey: String(made.privateKey) }), publicKey: String(made.publicKey) };
}

async function commitWith(
  key: PrivateKey,
  { date, committed, type }: { date: Date; committed: number; type?: enums.signature },
): Promise<string> {
  const payload = payloadOf(
    tree,
    [base],
    { name: 'dana', email: 'dana@example.test', format: 'openpgp', publicKey: '', signingKey: '' },
    committed,
    `change ${++n}\n`,
  );
  const message = await createMessage({ binary: Buffer.from(payload) });
  if (type !== undefined) {
    // Signed as the packet itself signs: the library's own front door looks at the key's age first.
    const packet = new SignaturePacket();
    packet.signatureType = type;
    (packet as unknown as { toSign: () => Uint8Array }).toSign = () => Buffer.from(payload);
    packet.publicKeyAlgorithm = (key.keyPacket as unknown as { algorithm: enums.publicKey }).algorithm;
    packet.hashAlgorithm = enums.hash.sha512;
    await (packet.sign as (...args: unknown[]) => Promise<void>).call(
      packet,
      key.keyPacket,
      message.packets[0],
      date,
      true,
      config,
    );
    const body = Buffer.from(packet.write());
    const wire = Buffer.concat([
      Buffer.from([0xc2, 0xff]),
      Buffer.from(Uint32Array.of(body.length).buffer).swap32(),
      body,
    ]);
    return signedCommit(
      fleet,
      payload,
      () => `-----BEGIN PGP SIGNATURE-----\n\n${wire.toString('base64')}\n-----END PGP SIGNATURE-----`,
    );
  }
  const armored = String(await sign({ message, signingKeys: key, detached: true, date }));
  return signedCommit(fleet, payload, () => armored.replaceAll('\r\n', '\n').trim());
}
