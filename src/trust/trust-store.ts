import type { SignaturePacket } from 'openpgp';
import { CountersignError, digestOf, messageOf, type Signer, type TrustPolicy } from '../model/index.ts';
import { matchesPatternList, parseAllowedSigners } from './allowed-signers.ts';
import type { ImageVerifier } from './image-evidence.ts';
import { type OpenPgpKey, readOpenPgpKeys } from './openpgp-key.ts';
import type { SigstoreVerifier } from './sigstore.ts';
import { parseSshKey, type SshKey } from './ssh-key.ts';
import { readSshRevocations, type SshRevocations } from './ssh-revocations.ts';

type Revoked = NonNullable<TrustPolicy['spec']['principals'][number]['keys'][number]['revoked']>;

/** When a trusted key counts, and on which conditions. Times in milliseconds since 1970. */
export type KeyTerms = {
  readonly principal: string;
  readonly validAfter: number;
  readonly validBefore: number;
  readonly revoked: Revoked | undefined;
  readonly requireTouch: boolean;
  readonly requirePin: boolean;
  /** OpenSSH namespaces the key is limited to, as a pattern list; undefined for any. */
  readonly namespaces: string | undefined;
};

/** An authority whose SSH certificates count for the names its patterns match. */
type TrustedAuthority = {
  readonly name: string;
  readonly key: SshKey;
  readonly patterns: string;
  readonly terms: KeyTerms;
};

/** Candidate key for an OpenPGP signature, by the id the signature claims. */
type OpenPgpCandidate = {
  readonly owner: OpenPgpKey;
  readonly packet: Parameters<SignaturePacket['verify']>[0];
  readonly subkey: { readonly fingerprint: string; readonly id: string } | undefined;
};

/** A TrustPolicy with its keys read: owners of keys, members of groups, and the terms of each key. */
export type TrustStore = {
  readonly policy: TrustPolicy;
  /** SHA-256 of the policy, keys included. */
  readonly digest: string;
  /** SSH keys by their wire bytes in base64. */
  readonly ssh: ReadonlyMap<string, SshKey>;
  /** By key id in hex; ids can be made to collide, so there may be several. */
  readonly openpgp: ReadonlyMap<string, readonly OpenPgpCandidate[]>;
  readonly openpgpByFingerprint: ReadonlyMap<string, OpenPgpKey>;
  /** By the authority key's wire bytes in base64. */
  readonly authorities: ReadonlyMap<string, readonly TrustedAuthority[]>;
  /** Returns the terms of a key by fingerprint; several if it is listed with several validity periods. */
  readonly terms: (fingerprint: string) => readonly KeyTerms[];
  readonly sshRevocations: SshRevocations;
  /** Set only if the policy allows gitsign signatures; loaded on demand. */
  readonly sigstore: SigstoreVerifier | undefined;
  /** Set only if the policy names signers of images; loaded on demand. */
  readonly images: ImageVerifier | undefined;
  readonly kindOf: (principal: string) => Signer['kind'];
  /** Returns the principals meant by names of principals and groups. */
  readonly members: (names: readonly string[]) => ReadonlySet<string>;
  /** The principal that writes commits under an address. */
  readonly byEmail: ReadonlyMap<string, string>;
  /** The person behind a forge account, by `host/number`. */
  readonly byAccount: ReadonlyMap<string, string>;
  readonly importers: ReadonlyMap<string, ReadonlySet<string>>;
  readonly blocked: ReadonlyMap<string, string>;
};

/**
 * Reads every key of the policy. Throws `key-unusable`, naming the principal, for unreadable and weak keys, keys with
 * two owners, allowed signers that match no principal or several, and an unreadable revocation list. `places` says
 * where the keys of each principal are written, for messages.
 */
export async function openTrustStore(
  policy: TrustPolicy,
  places: readonly (readonly string[])[] = [],
): Promise<TrustStore> {
  const keys = new KeyRing(policy);
  for (const [i, principal] of policy.spec.principals.entries())
    for (const [j, key] of principal.keys.entries()) {
      const place = places[i]?.[j];
      const where = `key ${j + 1} of \`${principal.name}\``;
      await keys.add(principal.name, key, place === undefined ? where : `${place}: ${where}`);
    }
  for (const authority of policy.spec.certificateAuthorities) keys.addAuthority(authority);
  const byEmail = new Map(
    policy.spec.principals.flatMap((p) => p.emails.map((e) => [e.toLowerCase(), p.name] as const)),
  );
  for (const principal of policy.spec.principals)
    for (const identity of principal.identities) keys.addIdentity(principal.name, identity);
  keys.addAllowedSigners(policy.spec.allowedSigners ?? '', policy.spec.principals);
  const groups = new Map(policy.spec.groups.map((g) => [g.name, g.members]));
  const kinds = new Map(policy.spec.principals.map((p) => [p.name, p.kind]));
  return {
    policy,
    digest: digestOf(policy),
    ssh: keys.ssh,
    openpgp: keys.openpgp,
    openpgpByFingerprint: keys.openpgpByFingerprint,
    authorities: keys.authorities,
    terms: (fingerprint) => keys.terms.get(fingerprint) ?? [],
    sshRevocations: keys.readRevocations(policy.spec.sshRevocations),
    sigstore: await keys.openSigstore(),
    images: await keys.openImages(),
    kindOf: (principal) => kinds.get(principal) ?? 'platform',
    members: (names) => new Set(names.flatMap((n) => groups.get(n) ?? [n])),
    byEmail,
    byAccount: new Map(
      policy.spec.principals.flatMap((p) => p.forgeAccounts.map((a) => [`${a.forge}/${a.id}`, p.name] as const)),
    ),
    importers: new Map(policy.spec.principals.map((p) => [p.name, new Set(p.imports)])),
    blocked: new Map(policy.spec.blocked.map((b) => [b.payload, b.reason])),
  };
}

type KeySource = TrustPolicy['spec']['principals'][number]['keys'][number];

class KeyRing {
  readonly ssh = new Map<string, SshKey>();
  readonly openpgp = new Map<string, OpenPgpCandidate[]>();
  readonly openpgpByFingerprint = new Map<string, OpenPgpKey>();
  readonly authorities = new Map<string, TrustedAuthority[]>();
  readonly terms = new Map<string, KeyTerms[]>();
  readonly #policy: TrustPolicy;
  readonly #armored = new Map<string, string>();

  constructor(policy: TrustPolicy) {
    this.#policy = policy;
  }

  async add(principal: string, source: KeySource, where: string): Promise<void> {
    const terms: KeyTerms = {
      principal,
      validAfter: timeOr(source.validAfter, Number.NEGATIVE_INFINITY),
      validBefore: timeOr(source.validBefore, Number.POSITIVE_INFINITY),
      revoked: source.revoked,
      requireTouch: source.requireTouch ?? false,
      requirePin: source.requirePin ?? false,
      namespaces: undefined,
    };
    try {
      if (source.ssh !== undefined) return this.#addSsh(parseSshKey(source.ssh), terms, where);
      const armored = source.openpgp ?? '';
      for (const key of await readOpenPgpKeys(armored, this.#policy.spec.algorithms.minimumRsaBits))
        await this.#addOpenPgp(key, armored, terms, where);
    } catch (thrown) {
      throw this.#unusable(where, thrown, 'give an OpenSSH public key line or an armored OpenPGP public key');
    }
  }

  addAuthority(authority: TrustPolicy['spec']['certificateAuthorities'][number]): void {
    const terms: KeyTerms = {
      principal: authority.name,
      validAfter: timeOr(authority.validAfter, Number.NEGATIVE_INFINITY),
      validBefore: timeOr(authority.validBefore, Number.POSITIVE_INFINITY),
      revoked: authority.revoked,
      requireTouch: false,
      requirePin: false,
      namespaces: undefined,
    };
    try {
      this.#addAuthority(parseSshKey(authority.ssh), authority.name, authority.principals, terms);
    } catch (thrown) {
      throw this.#unusable(
        `the certificate authority \`${authority.name}\``,
        thrown,
        'give an OpenSSH public key line',
      );
    }
  }

  // OpenSSH attributes a signature to any pattern that matches, even `*`. Here each key must lead to one principal.
  addAllowedSigners(text: string, principals: TrustPolicy['spec']['principals']): void {
    try {
      for (const signer of parseAllowedSigners(text)) {
        const where = `line ${signer.line} of the allowed signers`;
        const terms = {
          validAfter: signer.validAfter ?? Number.NEGATIVE_INFINITY,
          validBefore: signer.validBefore ?? Number.POSITIVE_INFINITY,
          revoked: undefined,
          requireTouch: false,
          requirePin: false,
          namespaces: signer.namespaces,
        };
        if (signer.certAuthority) {
          this.#addAuthority(signer.key, where, signer.principals, { ...terms, principal: where });
          continue;
        }
        const owners = principals.filter((p) =>
          [p.name, ...p.emails].some((id) => matchesPatternList(id, signer.principals)),
        );
        if (owners.length !== 1) {
          const names = owners.map((p) => `\`${p.name}\``).join(' and ');
          const matched = owners.length === 0 ? 'no principal' : `${names}: a signature could be by any of them`;
          throw new Error(`line ${signer.line} (\`${signer.principals.slice(0, 60)}\`) matches ${matched}`);
        }
        this.#addSsh(signer.key, { ...terms, principal: owners[0]?.name ?? '' }, where);
      }
    } catch (thrown) {
      throw this.#unusable(
        'the list of allowed signers',
        thrown,
        'name each person with their `emails`, and one line per person and key',
      );
    }
  }

  addIdentity(principal: string, identity: TrustPolicy['spec']['principals'][number]['identities'][number]): void {
    const terms: KeyTerms = {
      principal,
      validAfter: timeOr(identity.validAfter, Number.NEGATIVE_INFINITY),
      validBefore: timeOr(identity.validBefore, Number.POSITIVE_INFINITY),
      revoked: identity.revoked,
      requireTouch: false,
      requirePin: false,
      namespaces: undefined,
    };
    this.#addTerms(
      identityKey(identity.issuer, identity.subject),
      terms,
      `the identity \`${identity.subject}\` of \`${principal}\``,
    );
  }

  // Code for certificates and logs is rarely needed, so it is loaded only if a policy asks for it.
  async openSigstore(): Promise<SigstoreVerifier | undefined> {
    const { sigstore } = this.#policy.spec;
    if (sigstore === undefined) return undefined;
    try {
      return (await import('./sigstore.ts')).openSigstore(sigstore.trustedRoot ?? '', sigstore);
    } catch (thrown) {
      throw this.#unusable(
        'the Sigstore trusted root',
        thrown,
        'use the file `trusted_root.json` that the Sigstore instance publishes',
      );
    }
  }

  async openImages(): Promise<ImageVerifier | undefined> {
    const { images, sigstore, algorithms } = this.#policy.spec;
    if (images === undefined) return undefined;
    try {
      return (await import('./image-evidence.ts')).openImageVerifier(
        images.signers,
        sigstore,
        algorithms.minimumRsaBits,
      );
    } catch (thrown) {
      throw this.#unusable(
        'the signers of images',
        thrown,
        'give public keys in PEM, as `cosign public-key` prints them; identities and logs need `spec.sigstore`',
      );
    }
  }

  readRevocations(text: string | undefined): SshRevocations {
    if (text === undefined) return () => undefined;
    const bytes = Buffer.from(text, 'base64');
    const binary = bytes.subarray(0, 6).toString('latin1') === 'SSHKRL';
    try {
      return readSshRevocations(binary ? bytes : Buffer.from(text));
    } catch (thrown) {
      throw this.#unusable(
        'the list of revoked SSH keys',
        thrown,
        'make it with `ssh-keygen -k`, or list public keys, one per line',
      );
    }
  }

  #addSsh(key: SshKey, terms: KeyTerms, where: string): void {
    const { minimumRsaBits, sshKeyTypes } = this.#policy.spec.algorithms;
    if (key.type === 'ssh-rsa' && key.bits < minimumRsaBits)
      throw new Error(`an RSA key of ${key.bits} bits is too weak; the policy requires ${minimumRsaBits}`);
    if (!(sshKeyTypes as readonly string[]).includes(key.type))
      throw new Error(`the policy does not allow keys of type \`${key.type}\``);
    this.ssh.set(key.blob, key);
    this.#addTerms(key.fingerprint, terms, where);
  }

  async #addOpenPgp(key: OpenPgpKey, armored: string, terms: KeyTerms, where: string): Promise<void> {
    refuseWeak(key, this.#policy.spec.algorithms.minimumRsaBits);
    const earlier = this.#armored.get(key.fingerprint);
    // Separate exports of one key are one key: they are read again together, so that their histories are merged.
    if (earlier !== undefined && earlier !== armored) {
      const both = `${earlier}\n${armored}`;
      const merged = (await readOpenPgpKeys(both, this.#policy.spec.algorithms.minimumRsaBits)).find(
        (k) => k.fingerprint === key.fingerprint,
      );
      this.#armored.set(key.fingerprint, both);
      this.#index(merged ?? key);
    } else {
      this.#armored.set(key.fingerprint, armored);
      this.#index(key);
    }
    this.#addTerms(key.fingerprint, terms, where);
  }

  #index(owner: OpenPgpKey): void {
    this.openpgpByFingerprint.set(owner.fingerprint, owner);
    for (const part of owner.key.getKeys()) {
      const id = part.getKeyID().toHex();
      const others = (this.openpgp.get(id) ?? []).filter((c) => c.owner.fingerprint !== owner.fingerprint);
      const subkey = part === owner.key ? undefined : { fingerprint: part.getFingerprint().toUpperCase(), id };
      this.openpgp.set(id, [...others, { owner, packet: part.keyPacket, subkey }]);
    }
  }

  #addAuthority(key: SshKey, name: string, patterns: string, terms: KeyTerms): void {
    const { minimumRsaBits } = this.#policy.spec.algorithms;
    if (key.type === 'ssh-rsa' && key.bits < minimumRsaBits)
      throw new Error(`an RSA key of ${key.bits} bits is too weak; the policy requires ${minimumRsaBits}`);
    this.authorities.set(key.blob, [...(this.authorities.get(key.blob) ?? []), { name, key, patterns, terms }]);
  }

  #addTerms(fingerprint: string, terms: KeyTerms, where: string): void {
    const present = this.terms.get(fingerprint) ?? [];
    const other = present.find((t) => t.principal !== terms.principal);
    if (other !== undefined)
      throw new CountersignError(
        'key-unusable',
        `${where} in the TrustPolicy \`${this.#policy.metadata.name}\` also belongs to \`${other.principal}\``,
        {
          hint: 'one key identifies one principal: remove it from one of them',
        },
      );
    this.terms.set(fingerprint, [...present, terms]);
  }

  #unusable(where: string, thrown: unknown, hint: string): CountersignError {
    if (thrown instanceof CountersignError) return thrown;
    return new CountersignError(
      'key-unusable',
      `${where} in the TrustPolicy \`${this.#policy.metadata.name}\` cannot be used: ${messageOf(thrown)}`,
      {
        cause: thrown,
        hint,
      },
    );
  }
}

/** Returns the key under which a certificate identity has its terms. */
export function identityKey(issuer: string, subject: string): string {
  return `${issuer} ${subject}`;
}

function refuseWeak({ key }: OpenPgpKey, minimumRsaBits: number): void {
  const { algorithm, bits, curve } = key.getAlgorithmInfo();
  if (/^rsa/.test(algorithm) && (bits ?? 0) < minimumRsaBits)
    throw new Error(`an RSA key of ${bits ?? 0} bits is too weak; the policy requires ${minimumRsaBits}`);
  if (/^(dsa|elgamal)/.test(algorithm) || curve === 'secp256k1')
    throw new Error(`keys of type ${curve ?? algorithm} are not allowed`);
}

function timeOr(text: string | undefined, otherwise: number): number {
  return text === undefined ? otherwise : Date.parse(text);
}
