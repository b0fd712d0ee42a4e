import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutPointers } from '../../src/model/index.ts';

test('pointers remove fields and list items; what is no position of a list removes nothing', () => {
  const value = { a: [1, 2, 3], b: { c: 1, d: 2 } };
  assert.deepEqual(withoutPointers(value, ['/a/0', '/a/2', '/b/c']), { a: [2], b: { d: 2 } });
  for (const pointer of ['/a/length', '/a/-', '/a/9', '/b/x', '/x/y'])
    assert.deepEqual(withoutPointers(value, [pointer]), value);
});
