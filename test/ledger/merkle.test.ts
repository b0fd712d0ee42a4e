import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import canonicalize from 'canonicalize';
import fc from 'fast-check';
import { scanCanonical } from '../../src/ledger/canonical-scan.ts';
import { CompactRange, leafHash } from '../../src/ledger/index.ts';
import {
  consistencyProof,
  inclusionProof,
  isConsistent,
  nodeHash,
  rootFromInclusion,
  rootOf,
} from '../../src/ledger/merkle.ts';
import { nodeReader, TreeWriter, tilePath } from '../../src/ledger/tiles.ts';
import { canonicalJson, canonicalPieces } from '../../src/model/index.ts';

/** A tree of some size, with its tiles as a store would have them. */
function treeOf(size: number) {
  const leaves = Array.from({ length: size }, (_, i) => leafHash(`entry ${i}`));
  const tree = new TreeWriter();
  for (const leaf of leaves) tree.append(leaf);
  const tiles = new Map(tree.takeFull().map((t) => [`${t.level}/${t.n}`, t.nodes]));
  const source = {
    tile: (level: number, n: number) => tiles.get(`${level}/${n}`),
    leaves: (from: number, to: number) => leaves.slice(from, to),
  };
  return { leaves, tree, tiles, nodes: (of: number) => nodeReader(source, of) };
}

// RFC 6962 section 2.1, as it is written there.
function byDefinition(leaves: readonly Buffer[]): Buffer {
  if (leaves.length <= 1) return leaves[0] ?? createHash('sha256').digest();
  let k = 1;
  while (k * 2 < leaves.length) k *= 2;
  return nodeHash(byDefinition(leaves.slice(0, k)), byDefinition(leaves.slice(k)));
}

const LARGE = 66_000; // two levels of tiles are full in it, and one of the third has begun
const large = treeOf(LARGE);
const sizes = fc.oneof(
  fc.integer({ min: 1, max: LARGE }),
  fc.constantFrom(1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, LARGE),
);

test('hashes are those of RFC 6962, of text and bytes alike', () => {
  assert.equal(leafHash('').toString('hex'), '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d');
  assert.deepEqual(leafHash('üñ'), leafHash(Buffer.from('üñ')));
  for (const length of [21_844, 21_846, 65_535, 100_000])
    assert.deepEqual(
      leafHash('ü'.repeat(length)),
      createHash('sha256').update('\0').update('ü'.repeat(length)).digest(),
    );
  const [a, b] = [leafHash('a'), leafHash('b')];
  assert.deepEqual(
    nodeHash(a, b),
    createHash('sha256')
      .update(Buffer.from([1]))
      .update(a)
      .update(b)
      .digest(),
  );
});

test('the tree, its tiles and a compact range give one root, which is the definition’s', () => {
  const range = new CompactRange();
  for (const [i, leaf] of large.leaves.entries()) {
    range.append(leaf);
    if (i < 600 || i % 9973 === 0) assert.deepEqual(rootOf(i + 1, large.nodes(i + 1)), range.root(), String(i + 1));
  }
  assert.deepEqual(large.tree.root(), range.root());
  for (const size of [1, 3, 255, 256, 257, 600])
    assert.deepEqual(rootOf(size, large.nodes(size)), byDefinition(large.leaves.slice(0, size)));
});

test('every proof that is made is accepted; altered, moved or shortened, it is not', () => {
  fc.assert(
    fc.property(sizes, fc.nat(), fc.nat(), (size, a, b) => {
      const index = a % size;
      const root = rootOf(size, large.nodes(size));
      const leaf = large.leaves[index] as Buffer;
      const proof = inclusionProof(index, size, large.nodes(size));
      assert.deepEqual(rootFromInclusion(leaf, index, size, proof), root);
      const differs = (other: Buffer | undefined) => assert.ok(other === undefined || !other.equals(root));
      differs(rootFromInclusion(leafHash('another'), index, size, proof));
      if (size > 1) differs(rootFromInclusion(leaf, (index + 1) % size, size, proof));
      differs(rootFromInclusion(leaf, index, size, [...proof, leaf]));
      assert.equal(rootFromInclusion(leaf, size, size, proof), undefined);
      if (proof.length === 0) return;
      differs(rootFromInclusion(leaf, index, size, proof.slice(1)));
      const at = b % proof.length;
      differs(
        rootFromInclusion(
          leaf,
          index,
          size,
          proof.map((h, i) => (i === at ? leafHash(h) : h)),
        ),
      );
    }),
    { numRuns: 300 },
  );
});

test('a tree extends each that it began with, and no other', () => {
  fc.assert(
    fc.property(sizes, fc.nat(), fc.nat(), (to, a, b) => {
      const from = a % (to + 1);
      const [before, after] = [rootOf(from, large.nodes(LARGE)), rootOf(to, large.nodes(to))];
      const proof = consistencyProof(from, to, large.nodes(to));
      assert.ok(isConsistent([from, before], [to, after], proof));
      if (from > 0) assert.ok(!isConsistent([from, leafHash('x')], [to, after], proof));
      if (from !== to && from > 0) assert.ok(!isConsistent([from, before], [to, leafHash('x')], proof));
      assert.ok(!isConsistent([from, before], [to, after], [...proof, before]));
      assert.ok(!isConsistent([to + 1, after], [to, after], proof));
      if (proof.length === 0) return;
      assert.ok(!isConsistent([from, before], [to, after], proof.slice(1)));
      const at = b % proof.length;
      assert.ok(
        !isConsistent(
          [from, before],
          [to, after],
          proof.map((h, i) => (i === at ? leafHash(h) : h)),
        ),
      );
    }),
    { numRuns: 300 },
  );
});

test('what is asked for outside of a tree is refused', () => {
  assert.throws(() => inclusionProof(5, 5, large.nodes(5)), RangeError);
  assert.throws(() => inclusionProof(-1, 5, large.nodes(5)), RangeError);
  assert.throws(() => consistencyProof(6, 5, large.nodes(5)), RangeError);
  assert.throws(() => large.nodes(5)({ height: 0, index: 5 }), RangeError);
  assert.throws(
    () => nodeReader({ tile: () => undefined, leaves: () => [] }, 600)({ height: 8, index: 0 }),
    RangeError,
    'a tile that is gone',
  );
});

test('a tree goes on from a copy, and the copy does not move it', () => {
  const { tree } = treeOf(300);
  const root = tree.root();
  const copy = tree.copy();
  for (let i = 300; i < 900; i++) copy.append(leafHash(`entry ${i}`));
  assert.deepEqual([tree.root(), tree.size], [root, 300]);
  assert.deepEqual(copy.root(), rootOf(900, large.nodes(900)));
});

test('tiles are named as tlog-tiles has it', () => {
  const names = [tilePath(0, 5), tilePath(1, 1_234_067), tilePath('entries', 0, 3), tilePath(2, 1000, 255)];
  assert.deepEqual(names, ['tile/0/005', 'tile/1/x001/x234/067', 'tile/entries/000.p/3', 'tile/2/x001/000.p/255']);
});

const json = fc.jsonValue({ maxDepth: 4 });
const object = fc.dictionary(
  fc.oneof(
    fc.string(),
    fc.string({ unit: 'binary' }),
    fc.constantFrom('10', '9', 'a', '__proto__', 'toJSON', 'é', '\u20ac'),
  ),
  json,
);

test('canonical JSON is what the library makes, and reads back equal', () => {
  fc.assert(
    fc.property(fc.oneof(object, json), (value) => {
      const wanted = attempt(() => canonicalize(value));
      if (wanted === undefined) return void assert.throws(() => canonicalJson(value));
      assert.equal(canonicalJson(value), wanted);
    }),
    { numRuns: 2000 },
  );
  for (const bad of [
    Number.NaN,
    Number.POSITIVE_INFINITY,
    { a: { b: Number.NaN } },
    '\ud800',
    { '\ud800': 1 },
    undefined,
    () => 1,
    [() => 1].concat(),
  ])
    assert.ok(attempt(() => canonicalJson(bad)) === attempt(() => canonicalize(bad)), String(bad));
  assert.equal(canonicalJson({ b: undefined, a: -0, 10: 1, 9: 2 }), '{"10":1,"9":2,"a":0}');
});

test('a text is scanned as canonical exactly when it is the one spelling of an object', () => {
  const isCanonical = (text: string) => {
    const value = attempt(() => JSON.parse(text) as unknown);
    return (
      typeof value === 'object' &&
      value !== null &&
      !Array.isArray(value) &&
      attempt(() => canonicalJson(value)) === text
    );
  };
  fc.assert(
    fc.property(
      object,
      fc.nat(),
      fc.constantFrom(...' \n"\\{}[],:0123456789-+.eEtrufalsn\u0001\u0000ü\ud800/'),
      fc.nat(3),
      (value, at, char, how) => {
        const text = attempt(() => canonicalJson(value)) ?? '{}';
        assert.notEqual(scanCanonical(text, []), undefined, text);
        const i = at % (text.length + 1);
        const mutated = [
          text.slice(0, i) + char + text.slice(i + 1),
          text.slice(0, i) + char + text.slice(i),
          text.slice(0, i) + text.slice(i + 1),
          text + char,
        ][how] as string;
        assert.equal(scanCanonical(mutated, []) !== undefined, isCanonical(mutated), JSON.stringify(mutated));
      },
    ),
    { numRuns: 20_000 },
  );
  for (const [text, fine] of [
    ['{"a":1,"a":1}', false],
    ['{"b":1,"a":1}', false],
    ['{"a":1.0}', false],
    ['{"a":1e2}', false],
    ['{"a":1e+21}', true],
    ['{"a":-0}', false],
    ['{"a":"\\u000a"}', false],
    ['{"a":"\\u001f"}', true],
    ['{"a":"\\u001F"}', false],
    ['{"a":"\\/"}', false],
    ['{"\\n":1,"a":1}', true],
    ['{"a":1}{', false],
    ['[]', false],
    ['', false],
    [`{"a":${'['.repeat(5000)}${']'.repeat(5000)}}`, false],
  ] as const)
    assert.equal(scanCanonical(text, []) !== undefined, fine, text.slice(0, 40));
  assert.deepEqual(
    [...(scanCanonical('{"a":{"type":"no"},"type":"yes"}', ['type']) ?? [])],
    [['type', '"yes"']],
    'fields at the top only',
  );
});

function attempt<T>(make: () => T): T | undefined {
  try {
    return make();
  } catch {
    return undefined;
  }
}

test('the bytes of a large object, made piece by piece, are those of its canonical JSON', () => {
  const anything = fc.dictionary(
    fc.string({ unit: 'grapheme' }),
    fc.oneof(fc.jsonValue(), fc.array(fc.jsonValue()), fc.constant(undefined)),
  );
  fc.assert(
    fc.property(anything, (object) => {
      assert.equal([...canonicalPieces(object, new Map(), '\n')].join(''), `${canonicalJson(object)}\n`);
    }),
    { numRuns: 500 },
  );
  const large = {
    z: Array.from({ length: 20_000 }, (_, i) => ({ b: `ä${i}`, a: i })),
    a: 'ü'.repeat(400_000),
    e: [],
    n: null,
  };
  assert.equal([...canonicalPieces(large)].join(''), canonicalJson(large));
  assert.throws(() => [...canonicalPieces({ a: [Number.NaN] })], /NaN is not allowed/);
});
