import assert from 'node:assert/strict';
import { test } from 'node:test';
import { objectDiff } from '../../src/cli/object-diff.ts';

test('a diff of a Secret shows no value, not even from the copy that kubectl keeps in an annotation', () => {
  const secret = (password: string, annotations: Readonly<Record<string, string>>) => ({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name: 'keys', annotations },
    data: { password },
  });
  const copy = { 'kubectl.kubernetes.io/last-applied-configuration': '{"stringData":{"password":"hunter2"}}' };
  const text = objectDiff('keys', secret('aHVudGVyMg==', copy), secret('b3RoZXI=', { team: 'shop' }));
  assert.doesNotMatch(text, /hunter2|aHVudGVyMg|b3RoZXI/);
  assert.match(text, /last-applied-configuration: \(hidden\)/);
  assert.match(text, /team: shop/);
});
