import { createHash } from 'node:crypto';
import { CountersignError } from '../model/index.ts';

export type ObjectType = 'commit' | 'tree' | 'blob' | 'tag';
export type GitObject = { readonly type: ObjectType; readonly bytes: Uint8Array };

/**
 * Maximum bytes of an object, by type. Git itself has no limit, and a megabyte of one letter takes a kilobyte in a
 * pack. Without limits, anyone who may push could fill memory before a signature is checked.
 */
export const MAX_BYTES: Readonly<Record<ObjectType, number>> = {
  commit: 256 * 1024, // the longest messages in public histories have a quarter of this
  tag: 256 * 1024,
  tree: 16 * 1024 * 1024, // 200,000 files in one directory
  blob: 64 * 1024 * 1024, // manifests and keys are far smaller; a disk image in the repository must not fill memory
};

/** Thrown for an object larger than the limit of its type. */
export class ObjectTooLarge extends CountersignError {
  constructor(id: string, type: ObjectType) {
    super('git-object-corrupt', `the ${type} \`${id}\` is larger than ${MAX_BYTES[type]} bytes`);
  }
}

/**
 * Throws `git-object-corrupt` unless the bytes hash to the id (SHA-1 or SHA-256 by its length). Neither a library nor a
 * program is trusted to map ids to content.
 */
export function verifyObjectId(id: string, object: GitObject): void {
  const hash = createHash(id.length === 64 ? 'sha256' : 'sha1');
  hash.update(`${object.type} ${object.bytes.length}\0`).update(object.bytes);
  if (hash.digest('hex') !== id)
    throw new CountersignError('git-object-corrupt', `the ${object.type} \`${id}\` does not hash to its id`, {
      hint: 'fetch the repository again; if the error stays, the remote is damaged or hostile',
    });
}

/** Returns the object's bytes if it has the expected type. */
export function expectType(id: string, object: GitObject, type: ObjectType): Uint8Array {
  if (object.type !== type)
    throw new CountersignError('git-object-corrupt', `\`${id}\` is a ${object.type}, not a ${type}`);
  return object.bytes;
}
