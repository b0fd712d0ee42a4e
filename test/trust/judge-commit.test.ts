import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { NativeRepository } from '../../src/git/index.ts';
import { type CommitVerdict, trustPolicySchema } from '../../src/model/index.ts';
import { openTrustStore } from '../../src/trust/index.ts';
import { trustDocument } from '../kit/documents.ts';
import { endGpg, Fleet, openPgpPerson, type Person, sshPerson } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';
import { verdictUnder } from '../kit/verdict.ts';

const directory = scratch();
const fleet = new Fleet(directory);
const lee = openPgpPerson(directory, 'lee');
after(() => endGpg(lee.gnupgHome ?? ''));
const people = [
  sshPerson(directory, 'dana'),
  sshPerson(directory, 'kim', 'ecdsa', 384),
  sshPerson(directory, 'robin', 'rsa', 3072),
  lee,
];
const repository = new NativeRepository(`${fleet.work}/.git`, { file: 'git', path: process.env['PATH'] ?? '' });
after(() => repository.close());

async function verdictOn(commit: string, known: readonly Person[], at = Date.now()): Promise<CommitVerdict> {
  const store = await openTrustStore(trustPolicySchema.parse(trustDocument(known, { required: 0 })));
  return verdictUnder(store, repository, commit, { at });
}

describe('a commit signed with', () => {
  for (const person of people) {
    const kind = person.format === 'ssh' ? person.publicKey.split(' ')[0] : 'OpenPGP';
    test(`${kind} is verified, and its signer named`, async () => {
      const verdict = await verdictOn(fleet.commit(person, 'x', { x: person.name }), people);
      assert.equal(verdict.outcome, 'verified', verdict.reason);
      assert.equal(verdict.signer?.principal, person.name);
      assert.equal(verdict.format, person.format);
    });
    test(`${kind} of nobody known is refused`, async () => {
      const verdict = await verdictOn(
        fleet.commit(person, 'x', { x: `${person.name}2` }),
        people.filter((p) => p !== person),
      );
      assert.deepEqual([verdict.outcome, verdict.code], ['refused', 'unknown-key']);
      assert.match(verdict.hint ?? '', /TrustPolicy/);
    });
  }
});

test('the author’s name proves nothing: only the key does', async () => {
  const [dana, kim] = people as [Person, Person];
  const verdict = await verdictOn(fleet.commit(kim, 'x', { x: 'n' }, { author: dana }), people);
  assert.equal(verdict.signer?.principal, 'kim');
  assert.match(verdict.author, /^dana/);
});

test('a key counts only in its time', async () => {
  const [dana] = people as [Person];
  const commit = fleet.commit(dana, 'x', { x: 't' });
  const policy = trustPolicySchema.parse(trustDocument([dana], { required: 0 }));
  const [principal] = policy.spec.principals;
  const bounded = async (window: object) => {
    const key = { ...principal?.keys[0], ...window };
    const store = await openTrustStore({
      ...policy,
      spec: { ...policy.spec, principals: [{ ...(principal as NonNullable<typeof principal>), keys: [key] }] },
    });
    return verdictUnder(store, repository, commit, { at: Date.parse('2026-06-01T00:00:00Z') + 1e11 });
  };
  assert.equal((await bounded({ validBefore: '2100-01-01T00:00:00Z' })).outcome, 'verified');
  assert.equal((await bounded({ validBefore: '2026-01-01T00:00:00Z' })).code, 'key-expired');
  assert.equal((await bounded({ validAfter: '2100-01-01T00:00:00Z' })).code, 'key-not-yet-valid');
});

test('a commit from the future is refused', async () => {
  const [dana] = people as [Person];
  const verdict = await verdictOn(fleet.commit(dana, 'x', { x: 'f' }), people, Date.now() - 3 * 86_400_000);
  assert.equal(verdict.code, 'commit-from-the-future');
});

test('weak, private and shared keys are refused when the policy is read', async () => {
  const weak = sshPerson(directory, 'weak', 'rsa', 1024);
  await assert.rejects(
    openTrustStore(trustPolicySchema.parse(trustDocument([weak], { required: 0 }))),
    (e: Error) => /1024 bits is too weak/.test(e.message) && /`weak`/.test(e.message),
  );
  const [dana] = people as [Person];
  await assert.rejects(
    openTrustStore(trustPolicySchema.parse(trustDocument([dana, { ...dana, name: 'twin' }], { required: 0 }))),
    /also belongs to `dana`/,
  );
});

before(() => fleet.remote(fleet.bare));
