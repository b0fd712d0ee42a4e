import assert from 'node:assert/strict';
import { test } from 'node:test';
import { imageMatches } from '../../src/model/index.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

test('a pattern of images leaves open what stands for its `*`, and nothing else', () => {
  for (const [pattern, image] of [
    [`reg.example.test:5000/mesh/proxy@${DIGEST}`, `reg.example.test:5000/mesh/proxy@${DIGEST}`],
    ['reg.example.test/mesh/proxy@sha256:*', `reg.example.test/mesh/proxy@${DIGEST}`],
    ['reg.example.test/mesh/proxy:1.27.*', 'reg.example.test/mesh/proxy:1.27.3-distroless'],
    ['reg.example.test/mesh/proxy:*@sha256:*', `reg.example.test/mesh/proxy:1@${DIGEST}`],
    ['vault:1.20', 'vault:1.20'],
  ] as const)
    assert.equal(imageMatches(pattern, image), true, image);
  for (const [pattern, image] of [
    ['reg.example.test/mesh/proxy@sha256:*', 'reg.example.test/mesh/proxy:1'],
    ['reg.example.test/mesh/proxy@sha256:*', `reg.example.test/mesh/proxy:1@${DIGEST}`],
    ['reg.example.test/mesh/proxy@sha256:*', 'reg.example.test/mesh/proxy@sha256:aa'],
    ['reg.example.test/mesh/proxy:*', `reg.example.test/mesh/proxy:1@${DIGEST}`],
    ['reg.example.test/mesh/proxy:*', 'reg.example.test/mesh/proxy:../../x:1'],
    ['reg.example.test/mesh/proxy:*', 'reg.example.test/mesh/proxy:1@evil.example.test/x'],
    ['reg.example.test/mesh/proxy:*', 'reg.example.test/mesh/proxy'],
    ['reg.example.test/mesh/proxy:*', 'reg.example.test/mesh/proxy:*'],
    ['reg.example.test/mesh/proxy:1.*', 'regXexample.test/mesh/proxy:1.2'],
    ['reg.example.test/mesh/proxy:1.2', 'reg.example.test/mesh/proxy:1.2\n'],
    ['reg.example.test/mesh/*:1', 'reg.example.test/mesh/proxy:1'],
  ] as const)
    assert.equal(imageMatches(pattern, image), false, image);
});
