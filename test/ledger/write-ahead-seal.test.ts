import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Seal, seal, unseal } from '../../src/ledger/write-ahead-seal.ts';

const keys = [new Uint8Array(32).fill(1)];
const ours: Seal = { replica: 'one', keys };

test('each part of a line is authenticated: whose file, which number, what came before, what it says', () => {
  const sealed = seal(ours, 7, 'before', { a: 1 });
  const read = (more: object, by = ours) => unseal(by, JSON.stringify({ ...sealed, ...more }));
  assert.deepEqual(read({}), sealed);
  assert.deepEqual(
    unseal({ ...ours, keys: [new Uint8Array(32), ...keys] }, JSON.stringify(sealed)),
    sealed,
    'by an older key',
  );
  for (const more of [
    { seq: 8 },
    { seq: '7' },
    { prev: 'other' },
    { prev: 7 },
    { line: { a: 2 } },
    { line: 'a' },
    { mac: '' },
    { mac: 7 },
  ])
    assert.equal(read(more), undefined, JSON.stringify(more));
  assert.equal(read({}, { ...ours, replica: 'two' }), undefined);
  assert.equal(read({}, { ...ours, keys: [new Uint8Array(32)] }), undefined);
  assert.equal(unseal(ours, 'junk'), undefined);
});
