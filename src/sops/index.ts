/**
 * Takes an object that SOPS encrypted and private keys, gives the object as it was before; nothing of it is ever
 * written to a disk. Refuses values that were altered, moved, added or removed (SOPS' MAC), and keys that do not fit.
 */
export { type DecryptionKeys, type OpenedObject, openSealed, type Seal, type SealedObject } from './decrypt-object.ts';
