import type { ViolationCode } from '../model/index.ts';
import { durationMs, type Moment, type SignatureFact } from '../model/index.ts';
import { type KeyRevocation, signingKeyAt } from './openpgp-key.ts';
import type { KeyTerms, TrustStore } from './trust-store.ts';

type Good = Extract<SignatureFact, { kind: 'good' }>;

/** Why a valid signature does not count at a moment. */
export type Refusal = { readonly code: ViolationCode; readonly reason: string; readonly hint?: string };

/**
 * Tests whether a signature counts at the moment it was first seen. Its own claims (`claimedAt`, and the OpenPGP
 * signature time; milliseconds) can only restrict: they must not be after that moment, nor before the key became valid.
 */
export async function judgeSignature(
  fact: Good,
  store: TrustStore,
  moment: Moment,
  claimedAt: number,
): Promise<Refusal | undefined> {
  return (
    judgeHardware(fact, store) ??
    judgeTerms(fact, store, moment.at, claimedAt) ??
    judgeCertificate(fact, store, moment.at) ??
    judgeClaims(fact, store, moment.at, claimedAt) ??
    (await judgeOpenPgp(fact, store, moment.at))
  );
}

function judgeHardware(fact: Good, store: TrustStore): Refusal | undefined {
  const terms = store.terms(fact.key);
  const { algorithms } = store.policy.spec;
  const touch = algorithms.requireTouch || terms.some((t) => t.requireTouch);
  const pin = algorithms.requirePin || terms.some((t) => t.requirePin);
  if (touch && fact.hardware?.touched !== true)
    return {
      code: 'touch-required',
      reason:
        fact.hardware === undefined
          ? 'the key is not on hardware, so touch cannot be checked'
          : 'the hardware key was not touched for it',
      hint: 'sign with a key made by `ssh-keygen -t ed25519-sk`, without `no-touch-required`',
    };
  if (pin && fact.hardware?.verified !== true)
    return {
      code: 'pin-required',
      reason:
        fact.hardware === undefined
          ? 'the key is not on hardware, so a PIN cannot be checked'
          : 'the hardware key did not ask for a PIN or fingerprint',
      hint: 'sign with a key made by `ssh-keygen -t ed25519-sk -O verify-required`',
    };
  return undefined;
}

// A key may be listed with several validity periods; one that matches is enough.
function judgeTerms(fact: Good, store: TrustStore, at: number, claimedAt: number): Refusal | undefined {
  if (fact.certificate !== undefined) return undefined;
  let refusal: Refusal | undefined;
  for (const terms of store.terms(fact.key)) {
    refusal = refusedBy(terms, `the key of \`${terms.principal}\``, at, claimedAt);
    if (refusal === undefined) return undefined;
  }
  return refusal;
}

function refusedBy(terms: KeyTerms, what: string, at: number, claimedAt: number): Refusal | undefined {
  const day = (time: number) => new Date(time).toISOString();
  const { revoked } = terms;
  if (
    revoked?.reason === 'compromised' &&
    !(revoked.compromisedSince !== undefined && at < Date.parse(revoked.compromisedSince))
  )
    return { code: 'key-compromised', reason: `${what} is compromised`, hint: 'sign it again with a different key' };
  if (revoked !== undefined && revoked.reason !== 'compromised' && at >= Date.parse(revoked.at))
    return {
      code: 'key-revoked',
      reason: `${what} was ${revoked.reason} at ${revoked.at}`,
      hint: 'sign it again with a key that is valid today',
    };
  if (at < terms.validAfter || claimedAt < terms.validAfter)
    return {
      code: 'key-not-yet-valid',
      reason: `${what} is valid from ${day(terms.validAfter)} on`,
      hint: 'set `spec.source.baseline` for older history',
    };
  if (at >= terms.validBefore)
    return {
      code: 'key-expired',
      reason: `${what} has not been valid since ${day(terms.validBefore)}`,
      hint: 'sign with a key that is valid today; set `spec.source.baseline` for older history',
    };
  return undefined;
}

function judgeCertificate(fact: Good, store: TrustStore, at: number): Refusal | undefined {
  const { certificate } = fact;
  if (certificate === undefined) return undefined;
  if (at < certificate.validAfter || at >= certificate.validBefore)
    return {
      code: 'certificate-expired',
      reason:
        'its certificate is valid from ' +
        `${new Date(certificate.validAfter).toISOString()}` +
        `${Number.isFinite(certificate.validBefore) ? ` to ${new Date(certificate.validBefore).toISOString()}` : ''}`,
      hint: 'push sooner after signing, or sign again with a new certificate',
    };
  let refusal: Refusal | undefined;
  for (const authority of [...store.authorities.values()]
    .flat()
    .filter((a) => a.key.fingerprint === certificate.authority)) {
    refusal = refusedBy(authority.terms, `the certificate authority \`${authority.name}\``, at, at);
    if (refusal === undefined) return undefined;
  }
  return refusal;
}

function judgeClaims(fact: Good, store: TrustStore, at: number, claimedAt: number): Refusal | undefined {
  if (fact.signedAt === undefined) return undefined;
  const { skew, spread } = store.policy.spec.times;
  if (fact.signedAt > at + durationMs(skew))
    return {
      code: 'signature-from-the-future',
      reason: `its signature’s time is more than ${skew} in the future`,
      hint: 'correct the clock of the machine that made it',
    };
  if (fact.endsAt !== undefined && at >= fact.endsAt)
    return {
      code: 'signature-expired',
      reason: `the signature expired at ${new Date(fact.endsAt).toISOString()}`,
      hint: 'sign it again',
    };
  if (Math.abs(fact.signedAt - claimedAt) > durationMs(spread))
    return {
      code: 'times-apart',
      reason:
        `its signature is dated ${new Date(fact.signedAt).toISOString()}, ` +
        `the commit ${new Date(claimedAt).toISOString()}: one of them is false`,
      hint: 'sign when you commit: `git commit --amend --no-edit -S` sets both',
    };
  return undefined;
}

const checked = new WeakMap<TrustStore, Map<string, Refusal | undefined>>();

async function judgeOpenPgp(fact: Good, store: TrustStore, at: number): Promise<Refusal | undefined> {
  const owner = fact.format === 'openpgp' ? store.openpgpByFingerprint.get(fact.key) : undefined;
  if (owner === undefined) return undefined;
  const made = owner.key
    .getKeys()
    .find((k) => (fact.subkey === undefined ? k === owner.key : k.getKeyID().toHex() === fact.subkey.id));
  if ((fact.signedAt ?? 0) < (made?.getCreationTime().getTime() ?? 0))
    return {
      code: 'backdated',
      reason: 'its signature is dated before the key was created',
      hint: 'sign it again with a correct clock',
    };
  const since = store
    .terms(fact.key)
    .map((t) => t.revoked?.compromisedSince)
    .find((s) => s !== undefined);
  const revocations = [
    ...owner.revocations,
    ...(fact.subkey === undefined ? [] : (owner.subkeyRevocations.get(fact.subkey.id) ?? [])),
  ];
  const revoked = revocations.map((r) => refusedByRevocation(r, at, since)).find((r) => r !== undefined);
  if (revoked !== undefined) return revoked;
  const id = (made ?? owner.key).getKeyID();
  // One check can first see thousands of commits: each key is checked once per moment.
  const known = checked.get(store) ?? new Map<string, Refusal | undefined>();
  checked.set(store, known);
  const question = `${fact.key} ${id.toHex()} ${at}`;
  if (!known.has(question)) {
    if (known.size > 10_000) known.clear();
    const refusal = await signingKeyAt(owner, id, at, store.policy.spec.algorithms.minimumRsaBits);
    known.set(
      question,
      refusal === undefined ? undefined : { ...refusal, hint: 'renew the key, or update it in the TrustPolicy' },
    );
  }
  return known.get(question);
}

function refusedByRevocation(revocation: KeyRevocation, at: number, since: string | undefined): Refusal | undefined {
  const when = new Date(revocation.at).toISOString();
  if (!revocation.hard)
    return at < revocation.at
      ? undefined
      : {
          code: 'key-revoked',
          reason: `the OpenPGP key was retired at ${when}`,
          hint: 'sign it again with a key that is valid today',
        };
  if (since !== undefined && at < Date.parse(since)) return undefined;
  return {
    code: 'key-compromised',
    reason: `the OpenPGP key was revoked at ${when} as compromised or without a reason`,
    hint: 'sign it again with a different key; `revoked.compromisedSince` keeps commits the ledger saw before',
  };
}
