import { messageOf, type TrustPolicy } from '../model/index.ts';
import { parseAllowedSigners } from './allowed-signers.ts';
import { readOpenPgpKeys } from './openpgp-key.ts';
import { parseSshKey } from './ssh-key.ts';

/** One key of a policy, for display. Times in ISO 8601. */
export type KeyDescription = {
  readonly principal: string;
  readonly format: 'ssh' | 'openpgp';
  readonly type: string;
  readonly bits?: number;
  readonly fingerprint: string;
  readonly role: 'key' | 'authority' | 'allowed signer';
  readonly validAfter?: string;
  readonly validBefore?: string;
  /** Revoked by the policy, or by the OpenPGP key itself. */
  readonly revoked?: string;
  readonly problem?: string;
};

/** Describes every key of a policy, including unusable ones, with its problem. */
export async function describeKeys(policy: TrustPolicy): Promise<readonly KeyDescription[]> {
  const all: KeyDescription[] = [];
  for (const principal of policy.spec.principals)
    for (const key of principal.keys) {
      const window = {
        ...(key.validAfter === undefined ? {} : { validAfter: key.validAfter }),
        ...(key.validBefore === undefined ? {} : { validBefore: key.validBefore }),
        ...(key.revoked === undefined ? {} : { revoked: `${key.revoked.reason} at ${key.revoked.at}` }),
      };
      if (key.ssh !== undefined) all.push({ ...sshKey(principal.name, key.ssh, 'key'), ...window });
      else
        for (const described of await openPgpKeys(principal.name, key.openpgp ?? ''))
          all.push({ ...described, ...window });
    }
  for (const authority of policy.spec.certificateAuthorities)
    all.push(sshKey(authority.name, authority.ssh, 'authority'));
  for (const signer of allowedSigners(policy.spec.allowedSigners ?? '')) {
    all.push({
      ...describeSsh(signer.principals, signer.key, signer.certAuthority ? 'authority' : 'allowed signer'),
      ...(signer.validAfter === undefined ? {} : { validAfter: new Date(signer.validAfter).toISOString() }),
      ...(signer.validBefore === undefined ? {} : { validBefore: new Date(signer.validBefore).toISOString() }),
      ...(signer.localTime ? { problem: 'its time has no `Z`, so it depends on the time zone of the machine' } : {}),
    });
  }
  return all;
}

function sshKey(principal: string, line: string, role: KeyDescription['role']): KeyDescription {
  try {
    return describeSsh(principal, parseSshKey(line), role);
  } catch (thrown) {
    return { principal, format: 'ssh', type: '', fingerprint: '', role, problem: messageOf(thrown) };
  }
}

function describeSsh(
  principal: string,
  key: ReturnType<typeof parseSshKey>,
  role: KeyDescription['role'],
): KeyDescription {
  return { principal, format: 'ssh', type: key.type, bits: key.bits, fingerprint: key.fingerprint, role };
}

async function openPgpKeys(principal: string, armored: string): Promise<KeyDescription[]> {
  const about = { principal, format: 'openpgp', role: 'key' } as const;
  try {
    return await Promise.all(
      (await readOpenPgpKeys(armored, 2048)).map(async ({ key, fingerprint, revocations }) => {
        const { algorithm, bits, curve } = key.getAlgorithmInfo();
        const ends = await key.getExpirationTime().catch(() => null);
        const [revoked] = revocations;
        return {
          ...about,
          type: curve ?? algorithm,
          ...(bits === undefined ? {} : { bits }),
          fingerprint,
          ...(ends instanceof Date ? { validBefore: ends.toISOString() } : {}),
          ...(revoked === undefined ? {} : { revoked: `by the key itself at ${new Date(revoked.at).toISOString()}` }),
        };
      }),
    );
  } catch (thrown) {
    return [{ ...about, type: '', fingerprint: '', problem: messageOf(thrown) }];
  }
}

function allowedSigners(text: string): ReturnType<typeof parseAllowedSigners> {
  try {
    return parseAllowedSigners(text);
  } catch {
    return []; // opening the policy reports the line
  }
}
