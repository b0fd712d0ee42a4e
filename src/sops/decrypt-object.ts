import { createDecipheriv } from 'node:crypto';
import { armor, Decrypter } from 'age-encryption';
import { decrypt, readMessage, readPrivateKeys } from 'openpgp';
import { CountersignError, type KubernetesObject, refText } from '../model/index.ts';

/** Private keys as their files hold them: age identities, one a line, and armored OpenPGP keys without passphrase. */
export type DecryptionKeys = { readonly age: string | undefined; readonly openpgp: string | undefined };

type Sops = {
  readonly age?: readonly { readonly recipient?: string; readonly enc?: string }[] | null;
  readonly pgp?: readonly { readonly fp?: string; readonly enc?: string }[] | null;
};

const VALUE = /^ENC\[AES256_GCM,data:([A-Za-z0-9+/=]*),iv:([A-Za-z0-9+/=]+),tag:([A-Za-z0-9+/=]+),type:(str|int|float|bool|bytes)\]$/;

/**
 * The object that SOPS encrypted (its file format, version 3), without the key `sops`. Each value is authenticated together with
 * the keys that lead to it; that no value was taken away or added is for the signature of the commit to say, which
 * covers the file as it stands, and not for SOPS' own MAC, which a tool that adds a label breaks.
 * Throws `decryption-failed` (wait) where no key fits or a value was altered; its message holds no values.
 */
export async function decryptObject(object: KubernetesObject, keys: DecryptionKeys): Promise<KubernetesObject> {
  const { sops, ...rest } = object as KubernetesObject & { readonly sops?: Sops };
  if (sops === undefined) return object;
  const key = await dataKey(sops, keys).catch(() => undefined);
  if (key === undefined || key.length !== 32)
    throw failed(
      object,
      'none of the environment’s keys opens it',
      `it is encrypted for ${recipients(sops)}; \`sops updatekeys\` adds a key`,
    );
  try {
    return opened(rest, [], key) as KubernetesObject;
  } catch (thrown) {
    throw failed(object, thrown instanceof Altered ? thrown.message : 'it cannot be read', 'encrypt it anew with `sops`');
  }
}

class Altered extends Error {}

function failed(object: KubernetesObject, why: string, hint: string): CountersignError {
  const { apiVersion, kind, metadata } = object;
  const ref = { apiVersion, kind, namespace: metadata.namespace ?? '', name: metadata.name };
  return new CountersignError('decryption-failed', `${refText(ref)} cannot be decrypted: ${why}`, { hint });
}

function recipients({ age, pgp }: Sops): string {
  const names = [...(age ?? []).map((a) => a.recipient), ...(pgp ?? []).map((p) => p.fp)].filter((n) => n !== undefined);
  return names.slice(0, 5).join(', ') || 'nobody';
}

// The key of the values, which is encrypted for each recipient: the first of ours that opens it.
async function dataKey({ age, pgp }: Sops, keys: DecryptionKeys): Promise<Uint8Array | undefined> {
  const ours = identities(keys.age);
  for (const { enc } of ours.length === 0 ? [] : (age ?? [])) {
    const decrypter = new Decrypter();
    for (const identity of ours) decrypter.addIdentity(identity);
    const key = await decrypter.decrypt(armor.decode(enc ?? '')).catch(() => undefined);
    if (key !== undefined) return key;
  }
  if (keys.openpgp === undefined) return undefined;
  const decryptionKeys = await readPrivateKeys({ armoredKeys: keys.openpgp });
  for (const { enc } of pgp ?? []) {
    const message = await readMessage({ armoredMessage: enc ?? '' }).catch(() => undefined);
    if (message === undefined) continue;
    const plain = await decrypt({ message, decryptionKeys, format: 'binary' }).catch(() => undefined);
    if (plain !== undefined) return plain.data as Uint8Array;
  }
  return undefined;
}

function identities(text = ''): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.startsWith('AGE-SECRET-KEY-'));
}

// SOPS binds a value to the keys on the way to it; places in lists are not counted.
function opened(value: unknown, path: readonly string[], key: Uint8Array): unknown {
  if (typeof value === 'string') return value.startsWith('ENC[') ? openedText(value, path, key) : value;
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => opened(item, path, key));
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, opened(inner, [...path, name], key)]));
}

function openedText(text: string, path: readonly string[], key: Uint8Array): unknown {
  const at = `\`${path.join('.')}\``;
  const [, data, iv, tag, type] = VALUE.exec(text) ?? [];
  if (data === undefined || iv === undefined || tag === undefined) throw new Altered(`${at} is not as SOPS writes it`);
  const decipher = createDecipheriv('aes-256-gcm', key, Buffer.from(iv, 'base64'), { authTagLength: 16 });
  let plain: string;
  try {
    decipher.setAAD(Buffer.from(`${path.join(':')}:`)).setAuthTag(Buffer.from(tag, 'base64'));
    plain = Buffer.concat([decipher.update(Buffer.from(data, 'base64')), decipher.final()]).toString('utf8');
  } catch {
    throw new Altered(`${at} was altered, or stood elsewhere when it was encrypted`);
  }
  if (type === 'int' || type === 'float') return Number(plain);
  return type === 'bool' ? plain.toLowerCase() === 'true' : plain;
}
