import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseSshKey, type SshKey } from '../../src/trust/ssh-key.ts';
import { SshFormatError } from '../../src/trust/ssh-wire.ts';
import { parseSshSignature, type SshSignature, verifySshSignature } from '../../src/trust/sshsig.ts';
import { run, sshPerson } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const file = join(directory, 'message');
writeFileSync(file, 'the message');

// Whether the signature holds and is the key's.
function holds(signature: SshSignature, key: SshKey, message: string, namespace: string): boolean {
  return verifySshSignature(signature, Buffer.from(message), namespace)?.key.fingerprint === key.fingerprint;
}

function sign(key: string, namespace = 'git', hash = 'sha512'): string {
  run('ssh-keygen', ['-q', '-Y', 'sign', '-n', namespace, '-O', `hashalg=${hash}`, '-f', key, file]);
  const signature = readFileSync(`${file}.sig`, 'utf8');
  run('rm', [`${file}.sig`]);
  return signature;
}

for (const [type, bits] of [
  ['ed25519', undefined],
  ['ecdsa', 256],
  ['ecdsa', 384],
  ['ecdsa', 521],
  ['rsa', 2048],
] as const) {
  test(`a signature by ssh-keygen with ${type} ${bits ?? ''} is verified, and only over its message and namespace`, () => {
    const person = sshPerson(directory, `${type}${bits ?? ''}`, type, bits);
    const key = parseSshKey(person.publicKey);
    for (const hash of ['sha256', 'sha512']) {
      const signature = parseSshSignature(sign(person.signingKey, 'git', hash));
      assert.equal(holds(signature, key, 'the message', 'git'), true);
      assert.equal(holds(signature, key, 'the messagf', 'git'), false);
      assert.equal(holds(signature, key, 'the message', 'file'), false);
    }
    assert.equal(
      holds(parseSshSignature(sign(person.signingKey, 'file')), key, 'the message', 'git'),
      false,
      'made for another use',
    );
  });
}

test('a signature of one key is not another’s', () => {
  const [a, b] = [sshPerson(directory, 'a'), sshPerson(directory, 'b')];
  assert.equal(holds(parseSshSignature(sign(a.signingKey)), parseSshKey(b.publicKey), 'the message', 'git'), false);
});

test('fingerprints are those of ssh-keygen', () => {
  const person = sshPerson(directory, 'finger');
  assert.ok(
    run('ssh-keygen', ['-l', '-f', `${person.signingKey}.pub`]).includes(parseSshKey(person.publicKey).fingerprint),
  );
});

test('two armored blocks, trailing bytes and other magic are refused', () => {
  const person = sshPerson(directory, 'armor');
  const good = sign(person.signingKey);
  assert.throws(() => parseSshSignature(good + good), SshFormatError);
  const bytes = Buffer.from(good.replaceAll(/-----.*-----|\n/g, ''), 'base64');
  const armor = (b: Buffer) => `-----BEGIN SSH SIGNATURE-----\n${b.toString('base64')}\n-----END SSH SIGNATURE-----\n`;
  assert.throws(() => parseSshSignature(armor(Buffer.concat([bytes, Buffer.from([0])]))), /left over/);
  assert.throws(
    () => parseSshSignature(armor(Buffer.from(bytes.toString('latin1').replace('SSHSIG', 'SSHSIX'), 'latin1'))),
    /magic/,
  );
});

test('every flipped bit of a signature is found', () => {
  const person = sshPerson(directory, 'flip');
  const key = parseSshKey(person.publicKey);
  const bytes = Buffer.from(sign(person.signingKey).replaceAll(/-----.*-----|\n/g, ''), 'base64');
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const altered = Buffer.from(bytes);
    altered[bit >> 3] = (altered[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    const verdict = () =>
      holds(
        parseSshSignature(
          `-----BEGIN SSH SIGNATURE-----\n${altered.toString('base64')}\n-----END SSH SIGNATURE-----\n`,
        ),
        key,
        'the message',
        'git',
      );
    try {
      assert.equal(verdict(), false, `bit ${bit}`);
    } catch (thrown) {
      assert.ok(thrown instanceof SshFormatError, String(thrown));
    }
  }
});

test('any bytes are a signature or refused, never anything else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (bytes, magic) => {
      const body = magic ? Buffer.concat([Buffer.from('SSHSIG\0\0\0\x01'), bytes]) : Buffer.from(bytes);
      for (const read of [
        () =>
          parseSshSignature(`-----BEGIN SSH SIGNATURE-----\n${body.toString('base64')}\n-----END SSH SIGNATURE-----\n`),
        () => parseSshKey(`ssh-ed25519 ${body.toString('base64')}`),
      ]) {
        try {
          read();
        } catch (thrown) {
          assert.ok(thrown instanceof SshFormatError, String(thrown));
        }
      }
    }),
    { numRuns: 2000 },
  );
});
