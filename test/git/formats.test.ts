import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import { NativeRepository, parseCommit, parseTag } from '../../src/git/index.ts';
import { type CommitVerdict, trustPolicySchema } from '../../src/model/index.ts';
import { openTrustStore, verifyTag } from '../../src/trust/index.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, type Person, run, sshPerson } from '../kit/fleet.ts';
import { forge, payloadOf, rawObject, signBytes, signedCommit, writeObject } from '../kit/objects.ts';
import { scratch } from '../kit/scratch.ts';
import { verdictUnder } from '../kit/verdict.ts';

const directory = scratch();
const [dana, lee] = ['dana', 'lee'].map((name) => sshPerson(directory, name)) as [Person, Person];
const mallory = sshPerson(directory, 'mallory');
const git = { file: 'git', path: process.env['PATH'] ?? '' };
const store = openTrustStore(trustPolicySchema.parse(trustDocument([dana, lee], { required: 0 })));
const NOW = Math.floor(Date.now() / 1000);
const fleet = new Fleet(directory);
fleet.remote(fleet.bare);
const first = fleet.commit(dana, 'first', { 'a.yaml': 'a: 1\n' });
const tree = run('git', ['rev-parse', `${first}^{tree}`], { cwd: fleet.work });
const repository = new NativeRepository(`${fleet.work}/.git`, git);
after(() => repository.close());
const verdictOn = async (commit: string): Promise<CommitVerdict> => verdictUnder(await store, repository, commit);

describe('a repository whose ids are SHA-256', () => {
  const work = join(directory, 'sha256');
  mkdirSync(work);
  run('git', ['init', '--quiet', '--object-format=sha256', '--initial-branch=main', work]);
  const settings = [
    '-c',
    'user.name=dana',
    '-c',
    `user.email=${dana.email}`,
    '-c',
    'gpg.format=ssh',
    '-c',
    `user.signingkey=${dana.signingKey}`,
  ];
  run('git', [...settings, 'commit', '--quiet', '--allow-empty', '-S', '-m', 'first'], { cwd: work });
  const head = run('git', ['rev-parse', 'HEAD'], { cwd: work });
  const native = new NativeRepository(`${work}/.git`, git);
  after(() => native.close());

  test('its commits are signed in their own header, and verified', async () => {
    assert.equal(head.length, 64);
    assert.match(Buffer.from((await native.read(head)).bytes).toString(), /^gpgsig-sha256 /m);
    assert.equal((await verdictUnder(await store, native, head)).outcome, 'verified');
  });

  test('the signature for the other hash is no signature here', async () => {
    const raw = Buffer.from((await native.read(head)).bytes).toString('latin1');
    const altered = Buffer.from(raw.replace('gpgsig-sha256 ', 'gpgsig '), 'latin1');
    const id = run('git', ['hash-object', '-t', 'commit', '-w', '--stdin', '--literally'], {
      cwd: work,
      input: altered,
    });
    assert.equal((await verdictUnder(await store, native, id)).code, 'unsigned');
  });
});

test('of two signatures, the one for the store’s own hash counts; both are outside of what is signed', async () => {
  const payload = payloadOf(tree, [first], dana, NOW);
  const one = signedCommit(fleet, payload, (b) => signBytes(dana, b));
  const both = forge(fleet, one, (raw) =>
    raw.replace('gpgsig ', 'gpgsig-sha256 -----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----\ngpgsig '),
  );
  assert.equal((await verdictOn(both)).outcome, 'verified');
});

for (const [what, message] of [
  ['bytes that are no UTF-8', 'caf\xe9\n'],
  ['a NUL', 'before\0after\n'],
  ['carriage returns and trailing blank lines', 'a\r\nb\r\n\n\n'],
  ['no newline at its end', 'short'],
  ['nothing', ''],
] as const) {
  test(`a message of ${what} is verified by its bytes`, async () => {
    assert.equal(
      (await verdictOn(signedCommit(fleet, payloadOf(tree, [first], dana, NOW, message), (b) => signBytes(dana, b))))
        .outcome,
      'verified',
    );
  });
}

describe('a merge of a signed tag', () => {
  fleet.git(undefined, 'switch', '--quiet', '-c', 'side');
  const side = fleet.commit(lee, 'side', { 'side.yaml': 'b: 2\n' });
  fleet.git(lee, 'tag', '-s', '-m', 'release', 'v1');
  fleet.git(undefined, 'switch', '--quiet', 'main');
  fleet.commit(dana, 'main', { 'main.yaml': 'c: 3\n' });
  fleet.git(dana, 'merge', '--quiet', '--no-ff', '-S', '-m', 'merge the release', 'v1');
  const merge = fleet.head();

  test('carries the tag, and its signer is told', async () => {
    const verdict = await verdictOn(merge);
    assert.equal(verdict.outcome, 'verified', verdict.reason);
    assert.deepEqual(verdict.tags, [{ name: 'v1', signer: 'lee', code: 'verified' }]);
  });
  test('is refused when the tag was altered', async () => {
    const payload = rawObject(fleet, merge)
      .toString('latin1')
      .replace(/gpgsig [\s\S]*?END SSH SIGNATURE-----\n/, '')
      .replace(' release\n', ' relaese\n');
    assert.equal((await verdictOn(signedCommit(fleet, payload, (b) => signBytes(dana, b)))).code, 'mergetag-bad');
  });
  test('is refused when the tag is of a commit that is not merged', async () => {
    const payload = rawObject(fleet, merge)
      .toString('latin1')
      .replace(/gpgsig [\s\S]*?END SSH SIGNATURE-----\n/, '')
      .replace(`mergetag object ${side}`, `mergetag object ${first}`);
    assert.equal((await verdictOn(signedCommit(fleet, payload, (b) => signBytes(dana, b)))).code, 'mergetag-foreign');
  });
});

describe('a tag', () => {
  fleet.git(dana, 'tag', '-s', '-m', 'the release', 'v2', first);
  fleet.git(mallory, 'tag', '-s', '-m', 'the release', 'v2-mallory', first);
  fleet.git(dana, 'tag', '-a', '-m', 'annotated only', 'v3', first);
  const bytesOf = (name: string) =>
    rawObject(fleet, run('git', ['rev-parse', `refs/tags/${name}`], { cwd: fleet.work }), 'tag');
  const judged = async (bytes: Buffer, name: string): Promise<string> => {
    const parsed = parseTag(bytes, 40);
    if (parsed.kind === 'malformed') return parsed.code;
    return (await verifyTag('1'.repeat(40), parsed.tag, name, await store, { at: Date.now(), basis: 'now' })).code;
  };

  test('that is signed is verified', async () => assert.equal(await judged(bytesOf('v2'), 'v2'), 'verified'));
  test('under another name is refused', async () => assert.equal(await judged(bytesOf('v2'), 'v9'), 'tag-renamed'));
  test('by a key nobody knows is refused', async () =>
    assert.equal(await judged(bytesOf('v2-mallory'), 'v2-mallory'), 'unknown-key'));
  test('that is only annotated is unsigned', async () => assert.equal(await judged(bytesOf('v3'), 'v3'), 'unsigned'));
  test('whose message was changed is refused', async () =>
    assert.equal(
      await judged(Buffer.from(bytesOf('v2').toString().replace('the release', 'a release')), 'v2'),
      'bad-signature',
    ));
  test('that names another commit under the same signature is refused', async () =>
    assert.equal(
      await judged(Buffer.from(bytesOf('v2').toString().replace(first, '2'.repeat(40))), 'v2'),
      'bad-signature',
    ));
  test('with text behind its signature is refused', async () =>
    assert.equal(await judged(Buffer.concat([bytesOf('v2'), Buffer.from('more\n')]), 'v2'), 'bad-signature'));
  test('with a signature only in a header is none of this repository’s', async () =>
    assert.equal(
      await judged(Buffer.from(bytesOf('v3').toString().replace('\n\n', '\ngpgsig-sha256 x\n\n')), 'v3'),
      'header-like-signature',
    ));
  for (const [what, change, code] of [
    ['two objects', (t: string) => t.replace(/^(object .*\n)/, '$1$1'), 'header-repeated'],
    ['its type first', (t: string) => t.replace(/^(object .*\n)(type .*\n)/, '$2$1'), 'headers-out-of-order'],
    ['a tree as what it names', (t: string) => t.replace('type commit', 'type tree'), 'malformed'],
    ['a header of somebody’s own', (t: string) => t.replace('\n\n', '\nnote x\n\n'), 'malformed'],
  ] as const)
    test(`with ${what} is refused`, async () =>
      assert.equal(await judged(Buffer.from(change(bytesOf('v3').toString())), 'v3'), code));
});

// What a commit is made of, put back together: the property that nothing is lost or moved.
const headerLine = fc.string({ unit: fc.constantFrom(...'ab -=+/<>@9é') }).map((t) => t.replaceAll('\n', ''));
test('splitting a commit and putting signature and payload together again gives the same bytes', () => {
  const who = 'A <a@example.test> 1700000000 +0000';
  fc.assert(
    fc.property(
      fc.nat(3),
      fc.array(headerLine, { minLength: 1, maxLength: 4 }),
      fc.array(
        fc.tuple(
          fc.constantFrom('encoding', 'change-id', 'mergetag', 'x-extra'),
          fc.array(headerLine, { minLength: 1, maxLength: 3 }),
        ),
        { maxLength: 3 },
      ),
      fc.uint8Array({ maxLength: 100 }),
      fc.boolean(),
      (parents, signature, extra, message, first) => {
        const unique = extra.filter(
          ([name], i) =>
            !['encoding', 'change-id'].includes(name) || extra.findIndex(([other]) => other === name) === i,
        );
        const block = (name: string, lines: readonly string[]) => Buffer.from(`${name} ${lines.join('\n ')}\n`);
        const head = Buffer.from(
          `tree ${'1'.repeat(40)}\n${`parent ${'2'.repeat(40)}\n`.repeat(parents)}author ${who}\ncommitter ${who}\n`,
        );
        const extras = unique.map(([name, lines]) => block(name, lines));
        const sig = block('gpgsig', signature);
        const body = Buffer.concat([Buffer.from('\n'), message]);
        const raw = Buffer.concat(first ? [head, sig, ...extras, body] : [head, ...extras, sig, body]);
        const parsed = parseCommit('a'.repeat(40), raw);
        assert.ok(parsed.kind === 'commit', parsed.kind === 'malformed' ? parsed.reason : '');
        assert.deepEqual(Buffer.from(parsed.commit.payload), Buffer.concat([head, ...extras, body]));
        assert.equal(parsed.commit.signature, signature.join('\n'));
        const again = first
          ? Buffer.concat([head, sig, Buffer.from(parsed.commit.payload).subarray(head.length)])
          : Buffer.concat([
              parsed.commit.payload.subarray(0, head.length + Buffer.concat(extras).length),
              sig,
              parsed.commit.payload.subarray(head.length + Buffer.concat(extras).length),
            ]);
        assert.deepEqual(again, raw);
      },
    ),
    { numRuns: 500 },
  );
});

test('a tag of any bytes is taken apart or refused, never anything else', () => {
  const seed = rawObject(fleet, run('git', ['rev-parse', 'refs/tags/v2'], { cwd: fleet.work }), 'tag');
  fc.assert(
    fc.property(fc.nat(seed.length - 1), fc.nat(255), (at, byte) => {
      const altered = Buffer.from(seed);
      altered[at] = byte;
      return ['tag', 'malformed'].includes(parseTag(altered, 40).kind);
    }),
    { numRuns: 2000 },
  );
  assert.equal(writeObject(fleet, Buffer.from(seed), 'tag').length, 40);
});
