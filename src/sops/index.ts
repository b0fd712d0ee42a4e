/**
 * Takes an object that SOPS encrypted and private keys, gives the object as it was before; nothing of it is ever written to a disk.
 * Refuses values that were altered or moved, and keys that do not fit.
 */
export { type DecryptionKeys, decryptObject } from './decrypt-object.ts';
