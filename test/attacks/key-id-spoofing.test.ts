import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readKey } from 'openpgp';
import { attackStage } from '../kit/attack.ts';
import { endGpg, openPgpPerson, run } from '../kit/fleet.ts';
import { packetBytes, payloadOf, signBytes, signedCommit } from '../kit/objects.ts';

// A key id or a name in a signature is a claim.
const { fleet, dana, lee, mallory, first, judged } = attackStage();
const tree = run('git', ['rev-parse', `${first}^{tree}`], { cwd: fleet.work });
const payload = payloadOf(tree, [first], dana, Math.floor(Date.now() / 1000));

test('someone else’s key under dana’s name', async () =>
  assert.deepEqual(await judged(signedCommit(fleet, payload, (b) => signBytes(mallory, b))), ['unknown-key']));
test('a signature by mallory’s key in which dana’s key is put', async () => {
  const blob = Buffer.from(dana.publicKey.split(' ')[1] ?? '', 'base64');
  const signed = (b: Buffer) => {
    const wire = Buffer.from(signBytes(mallory, b).replaceAll(/-----.*-----|\n/g, ''), 'base64');
    blob.copy(wire, 14); // magic 6, version 4, length 4
    return `-----BEGIN SSH SIGNATURE-----\n${wire.toString('base64')}\n-----END SSH SIGNATURE-----`;
  };
  assert.deepEqual(await judged(signedCommit(fleet, payload, signed)), ['bad-signature']);
});
test('an OpenPGP signature whose issuer is set to lee’s key id', async () => {
  const thief = { ...openPgpPerson(fleet.work.replace(/fleet$/, ''), 'thief'), name: 'lee' };
  const idOf = async (armored: string) =>
    Buffer.from((await readKey({ armoredKey: armored })).getKeyID().toHex(), 'hex');
  const fingerprintOf = async (armored: string) =>
    Buffer.from((await readKey({ armoredKey: armored })).getFingerprint(), 'hex');
  const [from, to] = [await idOf(thief.publicKey), await idOf(lee.publicKey)];
  const [fromPrint, toPrint] = [await fingerprintOf(thief.publicKey), await fingerprintOf(lee.publicKey)];
  const signed = (b: Buffer) => {
    const body = packetBytes(signBytes(thief, b));
    for (const [old, now] of [
      [fromPrint, toPrint],
      [from, to],
    ] as const)
      for (let at = body.indexOf(old); at >= 0; at = body.indexOf(old)) now.copy(body, at);
    return `-----BEGIN PGP SIGNATURE-----\n\n${body.toString('base64')}\n-----END PGP SIGNATURE-----`;
  };
  assert.deepEqual(await judged(signedCommit(fleet, payload, signed)), ['bad-signature']);
  assert.deepEqual(await judged(signedCommit(fleet, payload, (b) => signBytes(thief, b))), ['unknown-key']);
  endGpg(thief.gnupgHome ?? '');
});
