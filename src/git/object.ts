import { createHash } from 'node:crypto';
import { CountersignError } from '../model/index.ts';

export type ObjectType = 'commit' | 'tree' | 'blob' | 'tag';
export type GitObject = { readonly type: ObjectType; readonly bytes: Uint8Array };

/**
 * The most bytes of an object that are read, by its type. Git itself has no limit, and a megabyte of one letter is a
 * kilobyte in a pack: whoever may push could otherwise fill memory before any signature was looked at.
 */
export const MAX_BYTES: Readonly<Record<ObjectType, number>> = {
  commit: 256 * 1024, // the longest messages of public histories have a quarter of this
  tag: 256 * 1024,
  tree: 16 * 1024 * 1024, // 200,000 files in one directory
  blob: 64 * 1024 * 1024, // a manifest or key is far smaller; a disk image in the repository must not fill memory
};

/** An object that is larger than any of its type that is read. */
export class ObjectTooLarge extends CountersignError {
  constructor(id: string, type: ObjectType) {
    super('git-object-corrupt', `the ${type} \`${id}\` is larger than ${MAX_BYTES[type]} bytes`);
  }
}

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
  if (object.type !== type)
    throw new CountersignError('git-object-corrupt', `\`${id}\` is a ${object.type}, not a ${type}`);
  return object.bytes;
}
