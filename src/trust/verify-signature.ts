import { createMessage, enums, readSignature, type Signature, verify } from 'openpgp';
import type { SignatureFormat, Signer } from '../model/index.ts';
import { parseSshSignature, SshFormatError, verifySshSignature } from './sshsig.ts';
import type { KeyOwner, TrustStore } from './trust-store.ts';

/** Whose signature it is, or why it is nobody's. */
export type SignatureVerdict =
  | { readonly kind: 'good'; readonly format: SignatureFormat; readonly signer: Signer }
  | {
      readonly kind: 'bad';
      readonly code: string;
      readonly reason: string;
      readonly hint?: string;
      readonly format?: SignatureFormat;
      readonly key?: string;
    };

const SKEW_MS = 5 * 60_000; // clocks of honest machines differ by this much
const MAX_ARMOR = 64 * 1024;

/** Verifies a detached armored signature over the bytes, as seen at `at` (milliseconds). Never throws for what the armor holds. */
export async function verifySignature(store: TrustStore, bytes: Uint8Array, armored: string, at: number): Promise<SignatureVerdict> {
  if (armored.startsWith('-----BEGIN SSH SIGNATURE-----')) return verifySsh(store, bytes, armored, at);
  if (armored.startsWith('-----BEGIN PGP SIGNATURE-----')) return verifyOpenPgp(store, bytes, armored, at);
  return {
    kind: 'bad',
    code: 'signature-format-unknown',
    reason: 'the signature is neither OpenPGP nor SSH',
    hint: 'sign with `git config gpg.format ssh`, or with OpenPGP',
  };
}

function verifySsh(store: TrustStore, bytes: Uint8Array, armored: string, at: number): SignatureVerdict {
  try {
    const signature = parseSshSignature(armored);
    const trusted = store.ssh.get(signature.publicKey.toString('base64'));
    if (trusted === undefined)
      return {
        kind: 'bad',
        format: 'ssh',
        code: 'unknown-key',
        reason: 'it is signed with an SSH key that no principal owns',
        hint: 'add the key to a principal of the TrustPolicy, by an approved change',
      };
    const key = trusted.key.fingerprint;
    if (!verifySshSignature(signature, trusted.key, bytes, 'git'))
      return {
        kind: 'bad',
        format: 'ssh',
        key,
        code: 'bad-signature',
        reason: 'the signature does not match the content',
        hint: 'sign it again: `git commit --amend --no-edit -S`',
      };
    return judgeTime(trusted.owner, key, 'ssh', at);
  } catch (thrown) {
    if (!(thrown instanceof SshFormatError)) throw thrown;
    return { kind: 'bad', format: 'ssh', code: 'bad-signature', reason: `the SSH signature cannot be read: ${thrown.message}` };
  }
}

async function verifyOpenPgp(store: TrustStore, bytes: Uint8Array, armored: string, at: number): Promise<SignatureVerdict> {
  const bad = (code: string, reason: string, key?: string, hint?: string): SignatureVerdict => ({
    kind: 'bad',
    format: 'openpgp',
    code,
    reason,
    ...(key === undefined ? {} : { key }),
    ...(hint === undefined ? {} : { hint }),
  });
  const signature = await readOneSignature(armored);
  if (signature === undefined) return bad('bad-signature', 'it does not hold exactly one detached OpenPGP signature');
  const issuers = signature.getSigningKeyIDs();
  const candidates = store.openpgp.filter(({ key }) => key.getKeys().some((k) => issuers.some((id) => k.getKeyID().equals(id))));
  if (candidates.length === 0)
    return bad(
      'unknown-key',
      `it is signed with the OpenPGP key ${issuers.map((id) => id.toHex().toUpperCase()).join(', ')} that no principal owns`,
      undefined,
      'add the key to a principal of the TrustPolicy, by an approved change',
    );
  // A key id is a claim. Only the key whose cryptography passes is believed; all of the others stay unheard.
  let reason = '';
  for (const { key, owner } of candidates) {
    const fingerprint = key.getFingerprint().toUpperCase();
    const result = await verify({
      message: await createMessage({ binary: bytes }),
      signature,
      verificationKeys: key,
      date: new Date(at + SKEW_MS),
      format: 'binary',
    });
    const first = result.signatures[0];
    if (first === undefined || result.signatures.length !== 1) continue;
    const outcome = await first.verified.then(
      () => undefined,
      (thrown: Error) => thrown.message,
    );
    if (outcome === undefined) return judgeTime(owner, fingerprint, 'openpgp', at);
    reason = outcome;
  }
  const fingerprint = candidates[0]?.key.getFingerprint().toUpperCase();
  if (/expired|revoked|creation time|not yet valid|in the future/i.test(reason))
    return bad('key-not-valid', reason, fingerprint, 'renew the key, or update it in the TrustPolicy with its whole history');
  return bad('bad-signature', 'the signature does not match the content', fingerprint, 'sign it again: `git commit --amend --no-edit -S`');
}

// Exactly one binary signature packet in one armor block: anything else has been used to show one and check another.
async function readOneSignature(armored: string): Promise<Signature | undefined> {
  if (armored.length > MAX_ARMOR || armored.split('-----BEGIN').length !== 2 || !armored.trimEnd().endsWith('-----END PGP SIGNATURE-----'))
    return undefined;
  try {
    const signature = await readSignature({ armoredSignature: armored });
    const packets = signature.packets;
    return packets.length === 1 && packets[0]?.signatureType === enums.signature.binary ? signature : undefined;
  } catch {
    return undefined;
  }
}

function judgeTime(owner: KeyOwner, key: string, format: SignatureFormat, at: number): SignatureVerdict {
  if (at < owner.validAfter)
    return {
      kind: 'bad',
      format,
      key,
      code: 'key-not-valid',
      reason: `the key of \`${owner.principal}\` counts from ${new Date(owner.validAfter).toISOString()} on`,
    };
  if (at >= owner.validBefore)
    return {
      kind: 'bad',
      format,
      key,
      code: 'key-not-valid',
      reason: `the key of \`${owner.principal}\` has not counted since ${new Date(owner.validBefore).toISOString()}`,
      hint: 'sign with a key that counts today; set `spec.source.baseline` for older history',
    };
  return { kind: 'good', format, signer: { principal: owner.principal, kind: owner.kind, key } };
}
