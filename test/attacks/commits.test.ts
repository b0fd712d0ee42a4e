import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { NO_REVISION } from '../../src/model/index.ts';
import { approveAs } from '../kit/approve.ts';
import { trustDocument } from '../kit/documents.ts';
import { endGpg, Fleet, openPgpPerson, run, sshPerson } from '../kit/fleet.ts';
import { codes, judge } from '../kit/judge.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

// Commits that git itself may call good, and that are not. Written as raw objects, as an attacker would.
const directory = scratch();
const dana = sshPerson(directory, 'dana');
const lee = openPgpPerson(directory, 'lee');
after(() => endGpg(lee.gnupgHome ?? ''));
const people = [dana, lee];
const PATH = 'clusters/production';
const trust = trustDocument(people, { required: 0 });
let fleet: Fleet;
let good = '';
let signedByLee = '';

before(async () => {
  fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  good = fleet.commit(dana, 'first', { [`${PATH}/ns.yaml`]: namespace('shop') });
  signedByLee = fleet.commit(lee, 'second', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '1' }) });
  fleet.push();
});

/** Writes a changed copy of a raw commit straight into the bare repository. */
function forge(commit: string, change: (raw: string) => string): string {
  const raw = execFileSync('git', ['cat-file', 'commit', commit], { cwd: fleet.bare }).toString('latin1');
  const altered = change(raw);
  assert.notEqual(altered, raw);
  return run('git', ['hash-object', '-t', 'commit', '-w', '--stdin', '--literally'], {
    cwd: fleet.bare,
    input: Buffer.from(altered, 'latin1'),
  });
}

const judged = async (commit: string) => codes(await judge(fleet, people, commit, { trust }));

test('the control: the commits as made are allowed', async () => assert.deepEqual(await judged(signedByLee), []));

test('another message under the same signature', async () =>
  assert.deepEqual(await judged(forge(good, (raw) => raw.replace('first', 'fixed'))), ['bad-signature']));
test('the same for OpenPGP', async () =>
  assert.deepEqual(await judged(forge(signedByLee, (raw) => raw.replace('second', 'secund'))), ['bad-signature']));
test('one more newline at the end, which a rebuilt payload would lose', async () =>
  assert.deepEqual(await judged(forge(good, (raw) => `${raw}\n`)), ['bad-signature']));
test('a carriage return in the message', async () =>
  assert.deepEqual(await judged(forge(signedByLee, (raw) => raw.replace('second', 'second\r'))), ['bad-signature']));
test('a second tree header that could win over the first', async () =>
  assert.deepEqual(await judged(forge(good, (raw) => raw.replace(/^(tree [0-9a-f]+\n)/, `$1tree ${'1'.repeat(40)}\n`))), [
    'header-repeated',
  ]));
test('a header that git strips because it starts like a signature', async () =>
  assert.deepEqual(await judged(forge(good, (raw) => raw.replace('gpgsig ', 'gpgsig-evil hidden\ngpgsig '))), ['header-like-signature']));
test('two signatures in two headers', async () =>
  assert.deepEqual(await judged(forge(good, (raw) => raw.replace(/(gpgsig [\s\S]*?END SSH SIGNATURE-----\n)/, '$1$1'))), [
    'header-repeated',
  ]));
test('two armored blocks in one header', async () =>
  assert.deepEqual(
    await judged(
      forge(signedByLee, (raw) =>
        raw.replace(
          /( -----END PGP SIGNATURE-----\n)/,
          `$1 -----BEGIN PGP SIGNATURE-----\n \n iHUEABYKAB0=\n -----END PGP SIGNATURE-----\n`,
        ),
      ),
    ),
    ['bad-signature'],
  ));
test('an armored message instead of a signature', async () =>
  assert.deepEqual(await judged(forge(signedByLee, (raw) => raw.replaceAll('PGP SIGNATURE', 'PGP MESSAGE'))), [
    'signature-format-unknown',
  ]));
test('a signature header that holds no signature', async () =>
  assert.deepEqual(await judged(forge(good, (raw) => raw.replace(/gpgsig [\s\S]*?END SSH SIGNATURE-----\n/, 'gpgsig trust me\n'))), [
    'signature-format-unknown',
  ]));
test('no signature at all', async () =>
  assert.deepEqual(await judged(forge(good, (raw) => raw.replace(/gpgsig [\s\S]*?END SSH SIGNATURE-----\n/, ''))), ['unsigned']));

test('a signature made for files, not for git', async () => {
  const payload = execFileSync('git', ['cat-file', 'commit', good], { cwd: fleet.bare })
    .toString('latin1')
    .replace(/gpgsig [\s\S]*?END SSH SIGNATURE-----\n/, '');
  const signature = execFileSync('ssh-keygen', ['-q', '-Y', 'sign', '-n', 'file', '-f', dana.signingKey], {
    input: Buffer.from(payload, 'latin1'),
    stdio: ['pipe', 'pipe', 'ignore'],
  }).toString();
  const header = `gpgsig ${signature.trim().replaceAll('\n', '\n ')}\n`;
  const forged = forge(good, (raw) => raw.replace(/gpgsig [\s\S]*?END SSH SIGNATURE-----\n/, header));
  assert.deepEqual(await judged(forged), ['signature-for-other-use']);
});

test('an unsigned commit below a signed one', async () => {
  fleet.git(undefined, 'reset', '--quiet', '--hard', good);
  fleet.commit(dana, 'hidden', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: 'evil' }) }, { sign: false });
  const tip = fleet.commit(dana, 'on top', { 'README.md': 'x' });
  fleet.push('--force', 'main');
  assert.deepEqual(await judged(tip), ['unsigned']);
});

test('a branch that was rewritten', async () => {
  fleet.git(undefined, 'checkout', '--quiet', '--orphan', 'other');
  const other = fleet.commit(dana, 'another history', { [`${PATH}/ns.yaml`]: namespace('shop') });
  fleet.git(undefined, 'checkout', '--quiet', 'main');
  fleet.push('--force', 'other:main');
  assert.deepEqual(codes(await judge(fleet, people, other, { trust, from: good })), ['not-a-descendant']);
});

test('a rollback by moving the branch back to an older, good commit', async () => {
  assert.deepEqual(codes(await judge(fleet, people, good, { trust, from: signedByLee })), ['not-a-descendant']);
});

test('an approval cannot make an unsigned commit good', async () => {
  fleet.git(undefined, 'reset', '--quiet', '--hard', signedByLee);
  const commit = fleet.commit(dana, 'unsigned', { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { a: '2' }) }, { sign: false });
  fleet.push('--force', 'main');
  await approveAs(dana, fleet, NO_REVISION, commit);
  assert.deepEqual(await judged(commit), ['unsigned']);
});
