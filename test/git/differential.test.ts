import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { NativeRepository } from '../../src/git/index.ts';
import { trustPolicySchema } from '../../src/model/index.ts';
import { openTrustStore } from '../../src/trust/index.ts';
import { differential } from '../kit/differential.ts';
import { trustDocument } from '../kit/documents.ts';
import { endGpg, Fleet, openPgpPerson, type Person, run, sshPerson } from '../kit/fleet.ts';
import { forge, payloadOf, signBytes, signedCommit } from '../kit/objects.ts';
import { scratch } from '../kit/scratch.ts';

// The same commits under `git log --format=%G?` and under us. Where the two differ, the row says why, and
// docs/threat-model.md too.
const directory = scratch();
const fleet = new Fleet(directory);
const [dana, kim, robin] = [
  sshPerson(directory, 'dana'),
  sshPerson(directory, 'kim', 'ecdsa', 384),
  sshPerson(directory, 'robin', 'rsa', 3072),
];
const mallory = sshPerson(directory, 'mallory');
const ended = sshPerson(directory, 'ended');
const [lee, stranger] = [openPgpPerson(directory, 'lee'), openPgpPerson(directory, 'stranger')];
after(() => {
  for (const p of [lee, stranger]) endGpg(p.gnupgHome ?? '');
});
const NOW = Math.floor(Date.now() / 1000);

const first = fleet.commit(dana, 'first', { a: '1' });
const tree = run('git', ['rev-parse', `${first}^{tree}`], { cwd: fleet.work });
const byHand = (person: Person, time: number, sign: (b: Buffer) => string) =>
  signedCommit(fleet, payloadOf(tree, [first], person, time, `${Math.random()}\n`), sign);
const pgp = fleet.commit(lee, 'openpgp', { a: '2' });

// what, commit, Git's letter, our code, why they differ
const rows: readonly (readonly [string, string, string, string, string?])[] = [
  ['SSH ed25519', first, 'G', 'verified'],
  ['SSH ecdsa', fleet.commit(kim, 'x', { a: '3' }), 'G', 'verified'],
  ['SSH rsa', fleet.commit(robin, 'x', { a: '4' }), 'G', 'verified'],
  ['OpenPGP', pgp, 'U', 'verified', 'git asks how far the keyring trusts the key; here the policy does'],
  ['unsigned', fleet.commit(dana, 'x', { a: '5' }, { sign: false }), 'N', 'unsigned'],
  ['an SSH key nobody listed', fleet.commit(mallory, 'x', { a: '6' }), 'U', 'unknown-key'],
  ['an OpenPGP key nobody listed', fleet.commit(stranger, 'x', { a: '7' }), 'E', 'unknown-key'],
  ['an altered message, SSH', forge(fleet, first, (raw) => raw.replace('first', 'fixed')), 'B', 'bad-signature'],
  [
    'an altered message, OpenPGP',
    forge(fleet, pgp, (raw) => raw.replace('\n\nopenpgp', '\n\nopengpg')),
    'B',
    'bad-signature',
  ],
  ['a carriage return more', forge(fleet, first, (raw) => raw.replace('first', 'first\r')), 'B', 'bad-signature'],
  [
    'a signature for files',
    byHand(dana, NOW, (b) => signBytes(dana, b, { namespace: 'file' })),
    'B',
    'signature-for-other-use',
  ],
  [
    'a header like a signature’s',
    forge(fleet, first, (raw) => raw.replace('gpgsig ', 'gpgsig-evil x\ngpgsig ')),
    'G',
    'header-like-signature',
    'git covers it by no signature and shows it all the same',
  ],
  [
    'a date from the future',
    byHand(dana, NOW + 86_400, (b) => signBytes(dana, b)),
    'G',
    'commit-from-the-future',
    'git takes the committer’s date for the time of signing',
  ],
  [
    'a key that ended, dated before that',
    byHand(ended, 1_720_000_000, (b) => signBytes(ended, b)),
    'G',
    'key-expired',
    'git takes the committer’s date; here it is when the commit is first seen',
  ],
  ['a key that ended', byHand(ended, NOW, (b) => signBytes(ended, b)), 'U', 'key-expired'],
  ['a message that is no UTF-8', byHand(dana, NOW, (b) => signBytes(dana, b)), 'G', 'verified'],
];

const policy = trustDocument([dana, kim, robin, lee, ended], { required: 0 }) as {
  spec: { principals: { name: string; keys: object[] }[] };
};
(policy.spec.principals.find((p) => p.name === 'ended') as { keys: object[] }).keys = [
  { ssh: ended.publicKey, validBefore: '2025-01-01T00:00:00Z' },
];
const store = await openTrustStore(trustPolicySchema.parse(policy));
const signers = join(directory, 'allowed_signers');
writeFileSync(
  signers,
  [
    ...[dana, kim, robin].map((p) => `${p.email} ${p.publicKey}`),
    `${ended.email} valid-before="20250101Z" ${ended.publicKey}`,
    '',
  ].join('\n'),
);
const keyring = join(directory, 'git-keyring');
run('mkdir', ['-m', '700', keyring]);
run('gpg', ['--batch', '--quiet', '--import'], { env: { GNUPGHOME: keyring }, input: lee.publicKey });
const repository = new NativeRepository(`${fleet.work}/.git`, { file: 'git', path: process.env['PATH'] ?? '' });
const result = await differential(
  fleet.work,
  repository,
  store,
  rows.map(([, id]) => id),
  { config: [`gpg.ssh.allowedSignersFile=${signers}`], env: { GNUPGHOME: keyring } },
);
repository.close();
endGpg(keyring);

for (const [what, id, git, ours, why] of rows) {
  test(`${what}: git ${git}, here ${ours}${why === undefined ? '' : ` (${why})`}`, () =>
    assert.deepEqual(result.each.get(id), { git, ours }));
}

test('every field of every commit is read as git reads it', () => assert.deepEqual(result.fields, []));

test('wherever git says good and here it is refused, the row says why; never the other way about without one', () => {
  for (const [what, , git, ours, why] of rows)
    assert.ok((git === 'G') === (ours === 'verified') || why !== undefined, what);
});
