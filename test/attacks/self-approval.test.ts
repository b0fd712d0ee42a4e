import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attackStage } from '../kit/attack.ts';
import { trustDocument } from '../kit/documents.ts';
import { sshPerson } from '../kit/fleet.ts';

// Nobody who had a hand in a change approves it, by whatever key or name.
const { directory, dana, lee, kim, mallory, approved } = attackStage();
const people = [dana, lee, kim];

test('by the author, who let someone else sign the commit', async () =>
  assert.deepEqual(await approved(lee, {}, { author: lee }), ['self-approval']));
test('by a co-author', async () =>
  assert.deepEqual(await approved(lee, {}, { message: 'pair\n\nCo-authored-by: Lee <LEE@example.test>' }), [
    'self-approval',
  ]));
test('by the signer', async () => assert.deepEqual(await approved(dana), ['self-approval']));
test('by the signer’s second key', async () => {
  const second = { ...sshPerson(directory, 'dana2'), name: 'dana', email: dana.email };
  const document = trustDocument(people) as { spec: { principals: { name: string; keys: object[] }[] } };
  document.spec.principals[0]?.keys.push({ ssh: second.publicKey });
  assert.deepEqual(await approved(second, {}, { trust: document }), ['self-approval']);
});
test('by a key nobody knows', async () => assert.deepEqual(await approved(mallory), ['unknown-key']));
for (const kind of ['platform', 'bot'])
  test(`by a ${kind}`, async () => {
    const document = trustDocument(people) as { spec: { principals: { name: string; kind?: string }[] } };
    (document.spec.principals[1] as { kind?: string }).kind = kind;
    assert.deepEqual(await approved(lee, {}, { trust: document }), ['approval-by-platform']);
  });
test('by someone the rule does not name', async () => {
  const trust = trustDocument(people, {
    rules: [{ name: 'r', signers: ['dana'], approvals: { required: 1, from: ['dana'] } }],
  });
  assert.deepEqual(await approved(lee, {}, { trust }), ['approval-missing']);
});
