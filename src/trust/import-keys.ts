import { readKeys } from 'openpgp';
import { z } from 'zod';
import { parseAllowedSigners } from './allowed-signers.ts';
import { readOpenPgpKeys } from './openpgp-key.ts';
import { parseSshKey } from './ssh-key.ts';
import { SshFormatError } from './ssh-wire.ts';

/** A key in the form a TrustPolicy uses. */
type ImportedKey = {
  readonly ssh?: string;
  readonly openpgp?: string;
  readonly validAfter?: string;
  readonly validBefore?: string;
};

/** Content of a key file: keys with the addresses they came with, authorities, and omissions with the reason. */
export type ImportedKeys = {
  readonly format: string;
  readonly keys: readonly { readonly emails: readonly string[]; readonly key: ImportedKey }[];
  readonly authorities: readonly { readonly ssh: string; readonly principals: string }[];
  readonly leftOut: readonly string[];
};

// Answers of GitHub (`/users/NAME/ssh_signing_keys`, `/keys`, `/gpg_keys`) and GitLab (`/users/ID/keys`, `/gpg_keys`).
const listingSchema = z.array(
  z.object({
    key: z.string().nullish(),
    raw_key: z.string().nullish(),
    emails: z.array(z.object({ email: z.string(), verified: z.boolean().optional() })).optional(),
    expires_at: z.string().nullish(),
    usage_type: z.string().optional(),
    title: z.string().optional(),
  }),
);

/**
 * Reads keys from an allowed_signers file, an OpenPGP keyring (armored or binary), a forge's `NAME.keys` or `NAME.gpg`,
 * or a forge's key listing saved as JSON. Throws an Error that says what the file looked like.
 */
export async function importKeys(bytes: Uint8Array): Promise<ImportedKeys> {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  if (/^\s*\[/.test(text)) return fromListing(text);
  if (text.includes('-----BEGIN PGP PUBLIC KEY'))
    return { format: 'OpenPGP keys', keys: await fromArmor(text), authorities: [], leftOut: [] };
  if (((bytes[0] ?? 0) & 0x80) !== 0)
    return { format: 'OpenPGP keyring', keys: await fromKeyring(bytes), authorities: [], leftOut: [] };
  const lines = text.split('\n').filter((line) => !/^\s*(#|$)/.test(line));
  if (lines.length === 0) throw new Error('it contains no keys');
  if (lines.every((line) => /^(ssh-|ecdsa-|sk-)/.test(line))) return fromLines(lines, 'SSH public keys');
  return fromAllowedSigners(text);
}

function fromLines(lines: readonly string[], format: string): ImportedKeys {
  const keys: { emails: string[]; key: ImportedKey }[] = [];
  const leftOut: string[] = [];
  for (const line of lines) {
    try {
      parseSshKey(line);
      keys.push({ emails: [], key: { ssh: line.trim() } });
    } catch (thrown) {
      if (!(thrown instanceof SshFormatError)) throw thrown;
      leftOut.push(`\`${line.slice(0, 40)}…\`: ${thrown.message}`);
    }
  }
  return { format, keys, authorities: [], leftOut };
}

async function fromListing(text: string): Promise<ImportedKeys> {
  const parsed = listingSchema.safeParse(parse(text));
  if (!parsed.success) throw new Error('it is JSON, but not a key listing from GitHub or GitLab');
  const keys: { emails: string[]; key: ImportedKey }[] = [];
  const leftOut: string[] = [];
  for (const item of parsed.data) {
    const key = item.raw_key ?? item.key ?? '';
    if (item.usage_type === 'auth')
      leftOut.push(`\`${item.title ?? key.slice(0, 40)}\`: it is an authentication key, not a signing key`);
    else if (key.includes('-----BEGIN PGP')) {
      const verified = (item.emails ?? []).filter((e) => e.verified !== false).map((e) => e.email.toLowerCase());
      for (const found of await fromArmor(key))
        keys.push({ emails: verified.length > 0 ? verified : found.emails, key: found.key });
    } else {
      const one = fromLines([key], '');
      leftOut.push(...one.leftOut);
      const ends =
        item.expires_at === null || item.expires_at === undefined
          ? {}
          : { validBefore: new Date(item.expires_at).toISOString() };
      keys.push(...one.keys.map(({ key: found }) => ({ emails: [], key: { ...found, ...ends } })));
    }
  }
  return { format: 'forge key listing', keys, authorities: [], leftOut };
}

async function fromArmor(text: string): Promise<{ emails: string[]; key: ImportedKey }[]> {
  return (await readOpenPgpKeys(text, 2048)).map(({ key }) => ({
    emails: addressesIn(key.getUserIDs()),
    key: { openpgp: key.armor().replaceAll('\r\n', '\n') },
  }));
}

async function fromKeyring(bytes: Uint8Array): Promise<{ emails: string[]; key: ImportedKey }[]> {
  const keys = await readKeys({ binaryKeys: bytes }).catch((cause: Error) => {
    throw new Error(`it is not an OpenPGP keyring: ${cause.message}`, { cause });
  });
  const armored = keys.map((key) => key.armor()).join('\n');
  return fromArmor(armored);
}

function fromAllowedSigners(text: string): ImportedKeys {
  const keys: { emails: string[]; key: ImportedKey }[] = [];
  const authorities: { ssh: string; principals: string }[] = [];
  const leftOut: string[] = [];
  for (const signer of parseAllowedSigners(text)) {
    const ssh = `${signer.key.type} ${signer.key.blob}`;
    const names = signer.principals.split(',');
    if (signer.certAuthority) authorities.push({ ssh, principals: signer.principals });
    else if (names.some((n) => /[*?!]/.test(n)))
      leftOut.push(
        `line ${signer.line}: \`${signer.principals}\` would attribute the key to anyone who matches; name one person`,
      );
    else
      keys.push({
        emails: names.map((n) => n.toLowerCase()),
        key: {
          ssh,
          ...(signer.validAfter === undefined ? {} : { validAfter: new Date(signer.validAfter).toISOString() }),
          ...(signer.validBefore === undefined ? {} : { validBefore: new Date(signer.validBefore).toISOString() }),
        },
      });
  }
  return { format: 'allowed signers', keys, authorities, leftOut };
}

function addressesIn(userIds: readonly string[]): string[] {
  return [...new Set(userIds.flatMap((id) => /<([^>\s]+@[^>\s]+)>/.exec(id)?.[1]?.toLowerCase() ?? []))];
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
