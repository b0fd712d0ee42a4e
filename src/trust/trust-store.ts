import { type Key, readKey } from 'openpgp';
import { CountersignError, digestOf, messageOf, type Signer, type TrustPolicy } from '../model/index.ts';
import { parseSshKey, type SshKey } from './sshsig.ts';

/** A trusted key's owner and the time it counts in; milliseconds since 1970. */
export type KeyOwner = {
  readonly principal: string;
  readonly kind: Signer['kind'];
  readonly validAfter: number;
  readonly validBefore: number;
};

/** A TrustPolicy with its keys read: who owns a key, who is meant by a name, and which rules speak for a path. */
export type TrustStore = {
  readonly policy: TrustPolicy;
  /** SHA-256 of the policy, keys included. */
  readonly digest: string;
  readonly ssh: ReadonlyMap<string, { readonly key: SshKey; readonly owner: KeyOwner }>;
  readonly openpgp: readonly { readonly key: Key; readonly owner: KeyOwner }[];
  /** The principals meant by names of principals and groups. */
  readonly members: (names: readonly string[]) => ReadonlySet<string>;
  /** The principal that writes commits under an address. */
  readonly byEmail: ReadonlyMap<string, string>;
};

/** Reads every key of the policy. Throws `key-unusable` that names the principal, for unreadable, weak and twice-owned keys. */
export async function openTrustStore(policy: TrustPolicy): Promise<TrustStore> {
  const ssh = new Map<string, { key: SshKey; owner: KeyOwner }>();
  const openpgp: { key: Key; owner: KeyOwner }[] = [];
  const owners = new Map<string, string>();
  for (const principal of policy.spec.principals) {
    for (const [i, key] of principal.keys.entries()) {
      const owner: KeyOwner = {
        principal: principal.name,
        kind: principal.kind,
        validAfter: key.validAfter === undefined ? Number.NEGATIVE_INFINITY : Date.parse(key.validAfter),
        validBefore: key.validBefore === undefined ? Number.POSITIVE_INFINITY : Date.parse(key.validBefore),
      };
      const where = `key ${i + 1} of \`${principal.name}\` in the TrustPolicy \`${policy.metadata.name}\``;
      const id = await addKey(key, owner, where, ssh, openpgp);
      const earlier = owners.get(id);
      if (earlier !== undefined && earlier !== principal.name)
        throw new CountersignError('key-unusable', `${where} also belongs to \`${earlier}\``, {
          hint: 'one key proves one principal: remove it from one of them',
        });
      owners.set(id, principal.name);
    }
  }
  const groups = new Map(policy.spec.groups.map((g) => [g.name, g.members]));
  const byEmail = new Map(policy.spec.principals.flatMap((p) => p.emails.map((e) => [e.toLowerCase(), p.name] as const)));
  return {
    policy,
    digest: digestOf(policy),
    ssh,
    openpgp,
    members: (names) => new Set(names.flatMap((n) => groups.get(n) ?? [n])),
    byEmail,
  };
}

async function addKey(
  source: { ssh?: string | undefined; openpgp?: string | undefined },
  owner: KeyOwner,
  where: string,
  ssh: Map<string, { key: SshKey; owner: KeyOwner }>,
  openpgp: { key: Key; owner: KeyOwner }[],
): Promise<string> {
  try {
    if (source.ssh !== undefined) {
      const key = parseSshKey(source.ssh);
      ssh.set(key.blob, { key, owner });
      return key.fingerprint;
    }
    const key = await readKey({ armoredKey: source.openpgp ?? '' });
    if (key.isPrivate()) throw new Error('it is a private key');
    openpgp.push({ key, owner });
    return key.getFingerprint();
  } catch (thrown) {
    throw new CountersignError('key-unusable', `${where} cannot be used: ${messageOf(thrown)}`, {
      cause: thrown,
      hint: 'give an OpenSSH public key line or an armored OpenPGP public key',
    });
  }
}
