import { createDecipheriv, createHash, createHmac } from 'node:crypto';
import { decrypt, readMessage, readPrivateKeys } from 'openpgp';
import {
  CountersignError,
  canonicalJson,
  type KubernetesObject,
  type OrderedValue,
  orderedValue,
  refText,
} from '../model/index.ts';

/** Contents of private key files: age identities, one per line, and armored OpenPGP keys without passphrase. */
export type DecryptionKeys = { readonly age: string | undefined; readonly openpgp: string | undefined };

/** An encrypted object with every document of its file, in order. */
export type SealedObject = { readonly object: KubernetesObject; readonly sealedWith?: readonly OrderedValue[] };

/** The decrypted object; `seal` is undefined if it was not encrypted. */
export type OpenedObject = { readonly object: KubernetesObject; readonly seal: Seal | undefined };

/**
 * Fingerprint of a data key: it identifies the key but reveals nothing about it (HMAC-SHA-256 under the key, in hex).
 */
type Seal = { readonly key: string };

type Sops = {
  readonly age?: readonly { readonly recipient?: string; readonly enc?: string }[] | null;
  readonly pgp?: readonly { readonly fp?: string; readonly enc?: string }[] | null;
  readonly mac?: unknown;
  readonly lastmodified?: unknown;
  readonly mac_only_encrypted?: unknown;
};

const VALUE =
  /^ENC\[AES256_GCM,data:([A-Za-z0-9+/=]*),iv:([A-Za-z0-9+/=]+),tag:([A-Za-z0-9+/=]+),type:(str|int|float|bool|bytes)\]$/;
const FINGERPRINT = 'countersign.dev/sops-data-key/v1';
// SOPS hashes this first if its MAC covers only encrypted values: SHA-256 of `sops` (MACOnlyEncryptedInitialization).
const ONLY_ENCRYPTED = createHash('sha256').update('sops').digest();

/**
 * Decrypts an object encrypted by SOPS (file format version 3) and removes the key `sops`. Each value is authenticated
 * together with its path, and all of them by SOPS' MAC over the documents of the file in Git. So no value was added,
 * removed, moved or replaced by plaintext. If a program generated the object from that file, `data` and `stringData`
 * must still match the file; name and labels may differ. With `mac_only_encrypted`, the MAC ignores plaintext, so every
 * value of `data` and `stringData` must be encrypted.
 *
 * Throws `decryption-failed` (wait) if no key fits or anything was altered; its message contains no values.
 */
export async function openSealed({ object, sealedWith }: SealedObject, keys: DecryptionKeys): Promise<OpenedObject> {
  const { sops, ...rest } = object as KubernetesObject & { readonly sops?: Sops };
  if (sops === undefined) return { object, seal: undefined };
  const key = await dataKey(sops, keys).catch(() => undefined);
  if (key === undefined || key.length !== 32)
    throw failed(
      object,
      'none of the environment’s keys can decrypt it',
      `it is encrypted for ${recipients(sops)}; \`sops updatekeys\` adds a key`,
    );
  const onlyEncrypted = sops.mac_only_encrypted === true;
  try {
    const documents = (sealedWith ?? [orderedValue(object)]).map(withoutSops);
    if (onlyEncrypted) refuseClearValues(rest);
    verifyMac(documents, sops, key, onlyEncrypted);
    if (!documents.some((document) => hasSameValues(document, rest)))
      throw new Altered('its values differ from those in its file', EDIT);
    const seal = { key: createHmac('sha256', key).update(FINGERPRINT).digest('hex') };
    return { object: opened(rest, [], key) as KubernetesObject, seal };
  } catch (thrown) {
    if (thrown instanceof Altered) throw failed(object, thrown.message, thrown.hint);
    throw failed(object, 'it cannot be read', ENCRYPT_AGAIN);
  }
}

const ENCRYPT_AGAIN = 'encrypt it again with `sops`';
const EDIT = 'edit it with `sops edit`, which updates the MAC';

class Altered extends Error {
  readonly hint: string;
  constructor(message: string, hint = ENCRYPT_AGAIN) {
    super(message);
    this.hint = hint;
  }
}

function withoutSops(document: OrderedValue): OrderedValue {
  return isMapping(document) ? { mapping: document.mapping.filter(([name]) => name !== 'sops') } : document;
}

function isMapping(value: OrderedValue): value is Extract<OrderedValue, { mapping: unknown }> {
  return typeof value === 'object' && value !== null && 'mapping' in value;
}

function hasSameValues(document: OrderedValue, object: Readonly<Record<string, unknown>>): boolean {
  const { data, stringData, kind } = plainOf(document) as Record<string, unknown>;
  const spelledOut = (values: object) => canonicalJson(values);
  return (
    kind === object['kind'] &&
    spelledOut({ data: data ?? {}, stringData: stringData ?? {} }) ===
      spelledOut({ data: object['data'] ?? {}, stringData: object['stringData'] ?? {} })
  );
}

function plainOf(value: OrderedValue): unknown {
  if (isMapping(value)) return Object.fromEntries(value.mapping.map(([name, inner]) => [name, plainOf(inner)]));
  return Array.isArray(value) ? value.map(plainOf) : value;
}

function refuseClearValues(object: Readonly<Record<string, unknown>>): void {
  for (const field of ['data', 'stringData'])
    for (const [name, value] of Object.entries((object[field] ?? {}) as object))
      if (value !== '' && value !== null && !(typeof value === 'string' && VALUE.test(value)))
        throw new Altered(`\`${field}.${name}\` is not encrypted, and \`mac_only_encrypted\` leaves it unprotected`);
}

/**
 * Checks SOPS' message authentication code: SHA-512 over the values in file order, in hex, encrypted under the data key
 * and bound to the time of the last change (getsops/sops v3, `Tree.Decrypt` and `ToBytes`).
 */
function verifyMac(
  documents: readonly OrderedValue[],
  { mac, lastmodified }: Sops,
  key: Uint8Array,
  onlyEncrypted: boolean,
): void {
  const said =
    typeof mac === 'string' && typeof lastmodified === 'string' ? decipher(mac, key, lastmodified) : undefined;
  if (said === undefined) throw new Altered('its MAC is missing or was altered');
  const hash = createHash('sha512');
  if (onlyEncrypted) hash.update(ONLY_ENCRYPTED);
  const add = (value: OrderedValue, path: readonly string[]): void => {
    if (isMapping(value)) for (const [name, inner] of value.mapping) add(inner, [...path, name]);
    else if (Array.isArray(value)) for (const item of value) add(item, path);
    else if (typeof value === 'string' && value.startsWith('ENC[')) hash.update(openedText(value, path, key).bytes);
    else if (!onlyEncrypted && value !== null) hash.update(spelled(value));
  };
  for (const document of documents) add(document, []);
  if (hash.digest('hex').toUpperCase() !== said.plain)
    throw new Altered('a value was added, removed, moved or changed since SOPS wrote it', EDIT);
}

// Spells a plaintext value as SOPS does for its hash.
function spelled(value: unknown): string {
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  return String(value);
}

function failed(object: KubernetesObject, why: string, hint: string): CountersignError {
  const { apiVersion, kind, metadata } = object;
  const ref = { apiVersion, kind, namespace: metadata.namespace ?? '', name: metadata.name };
  return new CountersignError('decryption-failed', `${refText(ref)} cannot be decrypted: ${why}`, { hint });
}

// This part of the file is not authenticated: only text in the form of a recipient or a fingerprint is repeated.
function recipients({ age, pgp }: Sops): string {
  const list = (value: unknown) =>
    Array.isArray(value) ? (value as readonly ({ recipient?: unknown; fp?: unknown } | null)[]) : [];
  const names = [...list(age).map((a) => a?.recipient), ...list(pgp).map((p) => p?.fp)];
  const shaped = names.filter((n) => typeof n === 'string' && /^[A-Za-z0-9]{1,120}$/.test(n));
  return shaped.slice(0, 5).join(', ') || 'no one';
}

// Returns the data key, which is encrypted for each recipient: the first of our keys that decrypts it counts.
async function dataKey({ age, pgp }: Sops, keys: DecryptionKeys): Promise<Uint8Array | undefined> {
  const ours = identities(keys.age);
  const { armor, Decrypter } = await import('age-encryption'); // loaded on demand: few environments decrypt
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

// SOPS binds a value to the keys on its path; positions in lists are not part of it.
function opened(value: unknown, path: readonly string[], key: Uint8Array): unknown {
  if (typeof value === 'string') return value.startsWith('ENC[') ? openedText(value, path, key).value : value;
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => opened(item, path, key));
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, opened(inner, [...path, name], key)]));
}

function openedText(
  text: string,
  path: readonly string[],
  key: Uint8Array,
): { readonly value: unknown; readonly bytes: Buffer } {
  const at = `\`${path.join('.')}\``;
  if (!VALUE.test(text)) throw new Altered(`${at} does not have the format of SOPS`);
  const found = decipher(text, key, `${path.join(':')}:`);
  if (found === undefined) throw new Altered(`${at} was altered, or was encrypted at a different place`);
  const { type, plain, bytes } = found;
  const value = typed(type, plain);
  if (value === undefined) throw new Altered(`${at} claims to be of type ${type}, but is not`);
  return { value, bytes };
}

// The type is stored next to the value, unauthenticated.
function typed(type: string, plain: string): string | number | boolean | undefined {
  if (type === 'int') return /^-?\d+$/.test(plain) && Number.isSafeInteger(Number(plain)) ? Number(plain) : undefined;
  if (type === 'float') return /^-?\d+(\.\d+)?$/.test(plain) ? Number(plain) : undefined;
  if (type === 'bool') return /^(true|false)$/i.test(plain) ? plain.toLowerCase() === 'true' : undefined;
  return plain;
}

function decipher(
  text: string,
  key: Uint8Array,
  boundTo: string,
): { readonly type: string; readonly plain: string; readonly bytes: Buffer } | undefined {
  const [, data, iv, tag, type] = VALUE.exec(text) ?? [];
  if (data === undefined || iv === undefined || tag === undefined || type === undefined) return undefined;
  try {
    const aes = createDecipheriv('aes-256-gcm', key, Buffer.from(iv, 'base64'), { authTagLength: 16 });
    aes.setAAD(Buffer.from(boundTo)).setAuthTag(Buffer.from(tag, 'base64'));
    const bytes = Buffer.concat([aes.update(Buffer.from(data, 'base64')), aes.final()]);
    return { type, plain: bytes.toString('utf8'), bytes };
  } catch {
    return undefined;
  }
}
