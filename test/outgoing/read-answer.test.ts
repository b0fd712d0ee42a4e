import assert from 'node:assert/strict';
import { test } from 'node:test';
import { listAt, objectIn, textAt } from '../../src/cluster/read-answer.ts';

const object = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'a', labels: { a: 'b' } }, data: {} };

test('an object in an answer is read as it is', () => {
  assert.equal(objectIn({ status: 200, body: object }), object);
});

for (const [what, body] of [
  ['nothing', {}],
  ['a list of a proxy', { items: [] }],
  ['an object without metadata', { apiVersion: 'v1', kind: 'ConfigMap' }],
  ['metadata that is a text', { ...object, metadata: 'a' }],
  ['labels that are numbers', { ...object, metadata: { name: 'a', labels: { a: 1 } } }],
  ['annotations that are a list', { ...object, metadata: { name: 'a', annotations: ['x'] } }],
] as const)
  test(`${what} in place of an object is an error to retry, never an object`, () => {
    assert.throws(() => objectIn({ status: 200, body }), { code: 'cluster-unreachable', recover: 'retry' });
  });

test('a field of another type counts as absent', () => {
  assert.equal(textAt({ a: { b: 'c' } }, 'a', 'b'), 'c');
  for (const body of [{ a: { b: 1 } }, { a: 'b' }, { a: [{ b: 'c' }] }, null, 'text', undefined])
    assert.equal(textAt(body, 'a', 'b'), undefined);
  assert.deepEqual(listAt({ a: ['x'] }, 'a'), ['x']);
  for (const body of [{ a: { length: 1 } }, { a: null }, {}]) assert.deepEqual(listAt(body, 'a'), []);
});
