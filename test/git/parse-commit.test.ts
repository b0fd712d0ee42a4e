import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseCommit } from '../../src/git/index.ts';

const ID = 'a'.repeat(40);
const TREE = `tree ${'1'.repeat(40)}\n`;
const WHO = 'author A <a@example.test> 1700000000 +0000\ncommitter C <c@example.test> 1700000001 +0100\n';
const SIG = 'gpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n \n -----END SSH SIGNATURE-----\n';
const parse = (text: string) => parseCommit(ID, Buffer.from(text, 'latin1'));
const reason = (text: string) => {
  const parsed = parse(text);
  return parsed.kind === 'malformed' ? parsed.reason : 'accepted';
};

test('a commit is taken apart from its own bytes', () => {
  const parsed = parse(`${TREE}parent ${'2'.repeat(40)}\n${WHO}${SIG}encoding latin1\n\nsubject\n\nbody\n`);
  assert.ok(parsed.kind === 'commit');
  const { commit } = parsed;
  assert.deepEqual(commit.parents, ['2'.repeat(40)]);
  assert.deepEqual(commit.author, { name: 'A', email: 'a@example.test', time: 1700000000 });
  assert.equal(commit.signature, '-----BEGIN SSH SIGNATURE-----\nAAAA\n\n-----END SSH SIGNATURE-----');
  assert.equal(
    Buffer.from(commit.payload).toString(),
    `${TREE}parent ${'2'.repeat(40)}\n${WHO}encoding latin1\n\nsubject\n\nbody\n`,
  );
});

for (const [what, text, why] of [
  ['a second tree', `${TREE}${TREE}${WHO}\nx`, /twice/],
  ['a second author', `${TREE}${WHO}author B <b@example.test> 1 +0000\n\nx`, /twice/],
  ['two signatures', `${TREE}${WHO}${SIG}${SIG}\nx`, /twice/],
  ['a header that only starts like a signature', `${TREE}${WHO}gpgsig-evil x\n${SIG}\nx`, /only looks like/],
  ['a parent after the author', `${TREE}${WHO}parent ${'2'.repeat(40)}\n\nx`, /not in order/],
  ['no tree', `${WHO}\nx`, /not in order/],
  ['a short tree id', `tree 1234\n${WHO}\nx`, /full object id/],
  [
    'a NUL in the header',
    `${TREE}author A\0 <a@example.test> 1 +0000\ncommitter C <c@example.test> 1 +0000\n\nx`,
    /NUL/,
  ],
  [
    'an author with two addresses',
    `${TREE}author A <x@example.test> <a@example.test> 1 +0000\ncommitter C <c@example.test> 1 +0000\n\nx`,
    /author line/,
  ],
  ['a header without end', `${TREE}${WHO}`, /no end/],
  ['a header of odd letters', `${TREE}${WHO}x\u00e9y z\n\nx`, /name that Git does not write/],
] as const) {
  test(`${what} is refused`, () => assert.match(reason(text), why));
}

test('splitting and joining gives the bytes back', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary-ascii' }),
      fc.array(fc.string({ unit: fc.constantFrom(...'AB+/= ') }), { minLength: 1, maxLength: 5 }),
      (message, lines) => {
        const signature = `gpgsig ${lines.join('\n ')}\n`;
        const parsed = parse(`${TREE}${WHO}${signature}\n${message}`);
        assert.ok(parsed.kind === 'commit');
        assert.equal(parsed.commit.signature, lines.join('\n'));
        assert.equal(Buffer.from(parsed.commit.payload).toString('latin1'), `${TREE}${WHO}\n${message}`);
      },
    ),
  );
});

test('any bytes are taken apart or refused, never anything else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) =>
      ['commit', 'malformed'].includes(parseCommit(ID, bytes).kind),
    ),
    { numRuns: 2000 },
  );
  const seed = Buffer.from(`${TREE}${WHO}${SIG}\nx`);
  fc.assert(
    fc.property(fc.nat(seed.length - 1), fc.nat(255), (at, byte) => {
      const altered = Buffer.from(seed);
      altered[at] = byte;
      return ['commit', 'malformed'].includes(parseCommit(ID, altered).kind);
    }),
    { numRuns: 2000 },
  );
});
