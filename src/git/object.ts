import { createHash } from 'node:crypto';
import { CountersignError } from '../model/index.ts';

export type ObjectType = 'commit' | 'tree' | 'blob' | 'tag';
export type GitObject = { readonly type: ObjectType; readonly bytes: Uint8Array };

/**
 * Throws `git-object-corrupt` unless the bytes hash to the id (SHA-1 or SHA-256 by its length):
 * neither a library nor a program is believed about what an id stands for.
 */
export function verifyObjectId(id: string, object: GitObject): void {
  const hash = createHash(id.length === 64 ? 'sha256' : 'sha1');
  hash.update(`${object.type} ${object.bytes.length}\0`).update(object.bytes);
  if (hash.digest('hex') !== id)
    throw new CountersignError('git-object-corrupt', `the ${object.type} \`${id}\` does not hash to its id`, {
      hint: 'fetch the repository again; if it stays so, the remote is damaged or hostile',
    });
}

/** The object's bytes, if it is of the wanted type. */
export function expectType(id: string, object: GitObject, type: ObjectType): Uint8Array {
  if (object.type !== type) throw new CountersignError('git-object-corrupt', `\`${id}\` is a ${object.type}, not a ${type}`);
  return object.bytes;
}
