/**
 * Takes an object encrypted by SOPS and private keys, and returns the decrypted object, which is never written to a
 * disk. Refuses values that were altered, moved, added or removed (SOPS' MAC), and keys that do not fit.
 */
export { type DecryptionKeys, openSealed } from './decrypt-object.ts';
