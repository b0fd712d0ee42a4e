import { enums, type SignaturePacket } from 'openpgp';
import type { ViolationCode } from '../model/index.ts';
import { messageOf, type SignatureFact } from '../model/index.ts';
import { matchesPatternList } from './allowed-signers.ts';
import { openPgpConfig } from './openpgp-key.ts';
import { readOpenPgpSignature, verifyOpenPgpSignature } from './openpgp-signature.ts';
import { SshFormatError } from './ssh-wire.ts';
import { parseSshSignature, type VerifiedSshSignature, verifySshSignature } from './sshsig.ts';
import { identityKey, type TrustStore } from './trust-store.ts';

type Bad = Extract<SignatureFact, { kind: 'bad' }>;

const NAMESPACE = 'git';
const AGAIN = 'sign it again: `git commit --amend --no-edit -S`';
const ADD_KEY = 'add the key to a principal of the TrustPolicy, by an approved change';

/**
 * Checks an armored detached signature over the bytes and returns whose key made it, and how. Independent of the clock.
 * Never throws for any content of the armor.
 */
export async function examineSignature(
  store: TrustStore,
  bytes: Uint8Array,
  armored: string | undefined,
): Promise<SignatureFact> {
  if (armored === undefined) return { kind: 'none' };
  if (armored.startsWith('-----BEGIN SSH SIGNATURE-----')) return examineSsh(store, bytes, armored);
  if (armored.startsWith('-----BEGIN PGP SIGNATURE-----')) return examineOpenPgp(store, bytes, armored);
  if (armored.startsWith('-----BEGIN SIGNED MESSAGE-----')) return examineSigstore(store, bytes, armored);
  return {
    kind: 'bad',
    code: 'signature-format-unknown',
    reason: 'the signature is not an OpenPGP, SSH or gitsign signature',
    hint: 'sign with `git config gpg.format ssh`, or with OpenPGP',
  };
}

function examineSsh(store: TrustStore, bytes: Uint8Array, armored: string): SignatureFact {
  const bad = badOf('ssh');
  try {
    const parsed = parseSshSignature(armored);
    const signature = verifySshSignature(parsed, bytes, NAMESPACE, (blob) => store.ssh.get(blob));
    if (signature === undefined && parsed.namespace !== NAMESPACE)
      return bad(
        'signature-for-other-use',
        `the SSH signature was made for \`${parsed.namespace.slice(0, 40)}\`, not for \`${NAMESPACE}\``,
        AGAIN,
      );
    if (signature === undefined) return bad('bad-signature', 'the signature does not match the content', AGAIN);
    return signature.certificate === undefined
      ? ownKey(store, signature)
      : certified(store, signature, signature.certificate);
  } catch (thrown) {
    if (!(thrown instanceof SshFormatError)) throw thrown;
    return bad('bad-signature', `the SSH signature cannot be read: ${thrown.message}`, AGAIN);
  }
}

function ownKey(store: TrustStore, signature: VerifiedSshSignature): SignatureFact {
  const key = signature.key.fingerprint;
  const [terms] = store.terms(key);
  const bad = badOf('ssh');
  if (terms === undefined)
    return bad('unknown-key', `it is signed with the SSH key ${key}, which no principal owns`, ADD_KEY, key);
  const revoked = store.sshRevocations(signature.key);
  if (revoked !== undefined)
    return bad('key-revoked', `the key of \`${terms.principal}\` is revoked: ${revoked}`, AGAIN, key);
  if (store.terms(key).every((t) => t.namespaces !== undefined && !matchesPatternList(NAMESPACE, t.namespaces)))
    return bad(
      'signature-for-other-use',
      `the key of \`${terms.principal}\` is not allowed for the namespace \`${NAMESPACE}\``,
      'sign with a key that is allowed for `git`, or add it to the line’s `namespaces`',
      key,
    );
  return good(signature, terms.principal);
}

// OpenSSH accepts any pattern that matches a name of the certificate. Here that name must also identify one principal.
function certified(
  store: TrustStore,
  signature: VerifiedSshSignature,
  certificate: NonNullable<VerifiedSshSignature['certificate']>,
): SignatureFact {
  const key = signature.key.fingerprint;
  const bad = badOf('ssh');
  const authorities = store.authorities.get(certificate.authority.blob) ?? [];
  if (authorities.length === 0)
    return bad(
      'unknown-authority',
      `its certificate is from the authority ${certificate.authority.fingerprint}, which the policy does not name`,
      'add it to `certificateAuthorities`',
      key,
    );
  const revoked = store.sshRevocations(signature.key, certificate);
  if (revoked !== undefined)
    return bad(
      'key-revoked',
      `the certificate \`${certificate.keyId.slice(0, 60)}\` is revoked: ${revoked}`,
      AGAIN,
      key,
    );
  const weak = tooWeak(store, signature);
  if (weak !== undefined)
    return bad('algorithm-too-weak', weak, 'get a certificate for a stronger key, for example ed25519', key);
  const people = new Map<string, { name: string; authority: string }>();
  for (const authority of authorities) {
    if (authority.terms.namespaces !== undefined && !matchesPatternList(NAMESPACE, authority.terms.namespaces))
      continue;
    for (const name of certificate.principals) {
      const principal = matchesPatternList(name, authority.patterns) ? principalCalled(store, name) : undefined;
      if (principal !== undefined) people.set(principal, { name, authority: authority.key.fingerprint });
    }
  }
  const [found, ...others] = people;
  if (found === undefined || others.length > 0)
    return bad(
      'certificate-for-nobody',
      `the names in its certificate (${certificate.principals
        .slice(0, 3)
        .map((p) => `\`${p.slice(0, 60)}\``)
        .join(', ')}) belong to ` +
        (found === undefined ? 'no principal, or this authority may not certify them' : 'several principals'),
      'a name in a certificate must be a principal’s name or one of its `emails`',
      key,
    );
  if (certificate.verifyRequired && signature.flags?.verified !== true)
    return bad(
      'pin-required',
      'its certificate requires a PIN or fingerprint, but none was given',
      'sign with a hardware key made with `-O verify-required`',
      key,
    );
  return {
    ...good(signature, found[0]),
    certificate: {
      ...found[1],
      keyId: certificate.keyId,
      serial: String(certificate.serial),
      validAfter: certificate.validAfter,
      validBefore: certificate.validBefore,
    },
  };
}

function principalCalled(store: TrustStore, name: string): string | undefined {
  return store.byEmail.get(name.toLowerCase()) ?? store.policy.spec.principals.find((p) => p.name === name)?.name;
}

function tooWeak(store: TrustStore, { key }: VerifiedSshSignature): string | undefined {
  const { minimumRsaBits, sshKeyTypes } = store.policy.spec.algorithms;
  if (key.type === 'ssh-rsa' && key.bits < minimumRsaBits)
    return `an RSA key of ${key.bits} bits is too weak; the policy requires ${minimumRsaBits}`;
  return (sshKeyTypes as readonly string[]).includes(key.type)
    ? undefined
    : `the policy does not allow keys of type \`${key.type}\``;
}

function good(signature: VerifiedSshSignature, principal: string): Extract<SignatureFact, { kind: 'good' }> {
  return {
    kind: 'good',
    format: 'ssh',
    principal,
    key: signature.key.fingerprint,
    algorithm: `${signature.algorithm} ${signature.hash}`,
    ...(signature.flags === undefined ? {} : { hardware: signature.flags }),
  };
}

async function examineOpenPgp(store: TrustStore, bytes: Uint8Array, armored: string): Promise<SignatureFact> {
  const bad = badOf('openpgp');
  const packet = readOpenPgpSignature(armored);
  if (packet === undefined)
    return bad('bad-signature', 'it is not exactly one detached OpenPGP signature of binary data', AGAIN);
  const id = packet.issuerKeyID.toHex();
  const candidates = store.openpgp.get(id) ?? [];
  const limits = openPgpConfig(store.policy.spec.algorithms.minimumRsaBits);
  let weak = false;
  // A key id is only a claim. The owner is the key whose cryptography passes; all other candidates are ignored.
  for (const { owner, packet: key, subkey } of candidates) {
    const failure = await verifyOpenPgpSignature(packet, key, bytes, limits);
    weak ||= failure !== undefined && /^Insecure/.test(failure);
    const [terms] = store.terms(owner.fingerprint);
    if (failure !== undefined || terms === undefined) continue;
    const ends = packet.getExpirationTime();
    return {
      kind: 'good',
      format: 'openpgp',
      principal: terms.principal,
      key: owner.fingerprint,
      ...(subkey === undefined ? {} : { subkey }),
      algorithm: algorithmOf(packet),
      signedAt: packet.created?.getTime() ?? 0,
      ...(ends instanceof Date ? { endsAt: ends.getTime() } : {}),
    };
  }
  const [first] = candidates;
  if (first === undefined)
    return bad(
      'unknown-key',
      `it is signed with the OpenPGP key ${id.toUpperCase()}, which no principal owns`,
      ADD_KEY,
    );
  const { fingerprint } = first.owner;
  if (weak)
    return bad(
      'algorithm-too-weak',
      `the signature uses ${algorithmOf(packet)}, which can be forged`,
      'sign with SHA-256 or better',
      fingerprint,
    );
  return bad('bad-signature', 'the signature does not match the content', AGAIN, fingerprint);
}

function algorithmOf(packet: SignaturePacket): string {
  const name = (values: object, value: number | null) =>
    Object.entries(values).find(([, v]) => v === value)?.[0] ?? String(value);
  return `${name(enums.publicKey, packet.publicKeyAlgorithm)} ${name(enums.hash, packet.hashAlgorithm)}`;
}

// An identity is compared as a whole: one issuer and one subject, never a pattern.
function examineSigstore(store: TrustStore, bytes: Uint8Array, armored: string): SignatureFact {
  const bad = badOf('x509');
  if (store.sigstore === undefined)
    return bad(
      'signature-format-unknown',
      'it is signed with gitsign (X.509), which the policy does not allow',
      'add `sigstore` to the TrustPolicy, or sign with an SSH or OpenPGP key',
    );
  try {
    const signer = store.sigstore(bytes, armored);
    const key = identityKey(signer.issuer, signer.subject);
    const [terms] = store.terms(key);
    if (terms === undefined)
      return bad(
        'unknown-key',
        `it is signed by \`${signer.subject.slice(0, 100)}\` of ` +
          `\`${signer.issuer.slice(0, 100)}\`, who is not a principal`,
        'add it to the `identities` of a principal',
        key,
      );
    return {
      kind: 'good',
      format: 'x509',
      principal: terms.principal,
      key,
      algorithm: `x509 ${signer.fingerprint}`,
      signedAt: signer.loggedAt,
    };
  } catch (thrown) {
    // the libraries may throw anything, depending on the bytes
    return bad('bad-signature', `the gitsign signature is invalid: ${messageOf(thrown)}`, AGAIN);
  }
}

function badOf(format: 'ssh' | 'openpgp' | 'x509') {
  return (code: ViolationCode, reason: string, hint?: string, key?: string): Bad => ({
    kind: 'bad',
    format,
    code,
    reason,
    ...(hint === undefined ? {} : { hint }),
    ...(key === undefined ? {} : { key }),
  });
}
