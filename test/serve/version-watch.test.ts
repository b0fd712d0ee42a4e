import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Answer } from '../../src/cluster/index.ts';
import { CountersignError } from '../../src/model/index.ts';
import { VersionWatch } from '../../src/serve/version-watch.ts';

/** An API server that answers /version as it is told, and a watch over it. */
function watched(first: object) {
  const said: string[] = [];
  const asked: string[] = [];
  const server = {
    url: 'https://a.example.test',
    answers: { status: 200, body: first } as { status: number; body: object } | undefined,
    request: async (method: string, path: string): Promise<Answer> => {
      asked.push(`${method} ${path}`);
      if (server.answers === undefined) throw new CountersignError('cluster-unreachable', 'no answer');
      return { ...server.answers, warnings: [], retryAfter: undefined } as Answer;
    },
  };
  const log = {
    warn: (_: unknown, message: string) => void said.push(`warn ${message}`),
    info: (_: unknown, message: string) => void said.push(`info ${message}`),
  };
  const watch = new VersionWatch([server, { ...server }], log as never);
  return { server, watch, said, asked };
}

test('an API server outside of the range is logged once, and stays in `status` until it is upgraded', async () => {
  const { server, watch, said, asked } = watched({ major: '1', minor: '33+' });
  await watch.look();
  assert.deepEqual(asked, ['GET /version'], 'environments in one cluster share it');
  const older =
    'the API server at `https://a.example.test` is Kubernetes 1.33, older than 1.34, the oldest supported ' +
    'version: upgrade the cluster (docs/supported-versions.md)';
  assert.deepEqual([watch.troubles, said], [[older], [`warn ${older}`]]);
  await watch.look();
  server.answers = undefined;
  await watch.look();
  assert.deepEqual([watch.troubles, said.length], [[older], 1], 'said once; an outage changes nothing');
  server.answers = { status: 200, body: { major: '1', minor: '34' } };
  await watch.look();
  assert.deepEqual(watch.troubles, []);
  assert.equal(said[1], 'info the API server at `https://a.example.test` is of a supported version now');
});

test('a cluster that is upgraded past the newest tested version is reported while the service runs', async () => {
  const { server, watch } = watched({ major: '1', minor: '37' });
  await watch.look();
  assert.deepEqual(watch.troubles, []);
  server.answers = { status: 200, body: { major: '1', minor: '38' } };
  await watch.look();
  assert.match(watch.troubles[0] ?? '', /is Kubernetes 1\.38, newer than 1\.37, .*: upgrade countersign/);
});

test('a version that is not stated is not taken for a supported one', async () => {
  const { server, watch } = watched({});
  await watch.look();
  assert.match(watch.troubles[0] ?? '', /states no version of Kubernetes/);
  server.answers = { status: 403, body: {} };
  await watch.look();
  assert.match(
    watch.troubles[0] ?? '',
    /does not state its version \(403\): grant the service `get` on the path \/version/,
  );
});
