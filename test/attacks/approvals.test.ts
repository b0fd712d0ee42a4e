import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { NO_REVISION } from '../../src/model/index.ts';
import { type ApprovalChanges, approveAs } from '../kit/approve.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, type Person, sshPerson } from '../kit/fleet.ts';
import { codes, judge } from '../kit/judge.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

// Approvals that look right and are not. Each is really signed; each is refused with its own code.
const directory = scratch();
const [dana, lee, mallory] = [sshPerson(directory, 'dana'), sshPerson(directory, 'lee'), sshPerson(directory, 'mallory')];
const people = [dana, lee];
const PATH = 'clusters/production';
let fleet: Fleet;
let base = '';
let n = 0;

before(async () => {
  fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  base = fleet.commit(dana, 'first', { [`${PATH}/ns.yaml`]: namespace('shop') });
  fleet.push();
});

async function attempt(
  approver: Person,
  changes: ApprovalChanges,
  options: { message?: string; author?: Person; people?: readonly Person[]; trust?: object } = {},
): Promise<string[]> {
  fleet.git(undefined, 'reset', '--quiet', '--hard', base);
  const commit = fleet.commit(
    dana,
    options.message ?? `change ${++n}`,
    { [`${PATH}/cm.yaml`]: configMap('shop', 'cm', { n: String(++n) }) },
    options.author === undefined ? {} : { author: options.author },
  );
  fleet.push('--force', 'main');
  await approveAs(approver, fleet, base, commit, changes);
  return codes(
    await judge(fleet, options.people ?? people, commit, { from: base, ...(options.trust === undefined ? {} : { trust: options.trust }) }),
  );
}

test('the control: a plain approval counts', async () => assert.deepEqual(await attempt(lee, {}), []));

test('by a key nobody knows', async () => assert.deepEqual(await attempt(mallory, {}), ['unknown-key']));
test('for another repository', async () =>
  assert.deepEqual(await attempt(lee, { repository: 'https://git.example.test/other.git' }), ['approval-elsewhere']));
test('for another branch, put where it does not belong', async () =>
  assert.deepEqual(await attempt(lee, { statement: (s) => ({ ...s, predicate: { ...s.predicate, targetRef: 'refs/heads/staging' } }) }), [
    'approval-elsewhere',
  ]));
test('for another environment', async () => assert.deepEqual(await attempt(lee, { environments: ['staging'] }), ['approval-elsewhere']));
test('for this environment', async () => assert.deepEqual(await attempt(lee, { environments: ['production'] }), []));
test('past its end', async () => assert.deepEqual(await attempt(lee, { expiresAt: '2020-01-01T00:00:00Z' }), ['approval-expired']));
test('of another tree under the same commit', async () =>
  assert.deepEqual(await attempt(lee, { statement: (s) => ({ ...s, predicate: { ...s.predicate, targetID: '1'.repeat(40) } }) }), [
    'approval-unreadable',
  ]));
test('of another tree, told consistently', async () =>
  assert.deepEqual(
    await attempt(lee, {
      statement: (s) => ({
        ...s,
        subject: s.subject.map((x) => ({ ...x, digest: { ...x.digest, gitTree: '1'.repeat(40) } })),
        predicate: { ...s.predicate, targetID: '1'.repeat(40) },
      }),
    }),
    ['approval-stale'],
  ));
test('from another base', async () =>
  assert.deepEqual(await attempt(lee, { statement: (s) => ({ ...s, predicate: { ...s.predicate, fromID: NO_REVISION } }) }), [
    'approval-stale',
  ]));
test('with another change digest', async () =>
  assert.deepEqual(
    await attempt(lee, { statement: (s) => ({ ...s, predicate: { ...s.predicate, changeDigest: { sha256: '0'.repeat(64) } } }) }),
    ['approval-stale'],
  ));
test('whose content was changed after signing', async () =>
  assert.deepEqual(await attempt(lee, { payload: (p) => Buffer.from(p.toString().replace('reviewed', 'approved')) }), ['bad-signature']));
test('that is a commit signature of the same key', async () =>
  assert.deepEqual(await attempt(lee, { payload: () => Buffer.from('{}') }), ['bad-signature']));
test('by the author, who let someone else sign the commit', async () =>
  assert.deepEqual(await attempt(lee, {}, { author: lee }), ['self-approval']));
test('by a co-author', async () =>
  assert.deepEqual(await attempt(lee, {}, { message: `pair\n\nCo-authored-by: Lee <LEE@example.test>` }), ['self-approval']));
test('by the signer’s second key', async () => {
  const second = { ...sshPerson(directory, 'dana2'), name: 'dana', email: dana.email };
  const document = trustDocument(people) as { spec: { principals: { name: string; keys: object[] }[] } };
  document.spec.principals[0]?.keys.push({ ssh: second.publicKey });
  assert.deepEqual(await attempt(second, {}, { trust: document }), ['self-approval']);
});
test('by a platform', async () => {
  const document = trustDocument(people) as { spec: { principals: { name: string; kind?: string }[] } };
  (document.spec.principals[1] as { kind?: string }).kind = 'platform';
  assert.deepEqual(await attempt(lee, {}, { trust: document }), ['approval-by-platform']);
});
test('by someone the rule does not name', async () => {
  const trust = trustDocument(people, { rules: [{ name: 'r', signers: ['dana'], approvals: { required: 1, from: ['dana'] } }] });
  assert.deepEqual(await attempt(lee, {}, { trust }), ['approval-missing']);
});
