import { createHash } from 'node:crypto';
import { field } from '../../src/trust/ssh-wire.ts';

/** What a key signs over a payload (PROTOCOL.sshsig), for keys that `ssh-keygen` has no hands on. */
export function sshsigMessage(payload: Buffer): Buffer {
  const digest = createHash('sha512').update(payload).digest();
  return Buffer.concat([Buffer.from('SSHSIG'), field('git'), field(''), field('sha512'), field(digest)]);
}

/** The armored signature from a key's and a signature's wire bytes. */
export function sshsigArmor(publicKey: Buffer, signature: Buffer): string {
  const head = Buffer.concat([Buffer.from('SSHSIG'), Buffer.from([0, 0, 0, 1])]);
  const wire = Buffer.concat([head, field(publicKey), field('git'), field(''), field('sha512'), field(signature)]);
  return `-----BEGIN SSH SIGNATURE-----\n${(wire.toString('base64').match(/.{1,70}/g) ?? []).join('\n')}\n-----END SSH SIGNATURE-----`;
}
