import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import type { CountersignError } from '../../src/model/index.ts';
import { provide, type ToolSettings } from '../../src/tools/index.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const platform = `${process.platform}-${process.arch === 'x64' ? 'amd64' : process.arch}`;
let server: Server;
let base = '';
let archive: Buffer;
let sha512 = '';
const requests: (string | undefined)[] = [];
let said: string[] = [];
let n = 0;

// A publisher on loopback with the layout of the real one.
before(async () => {
  mkdirSync(join(directory, 'controller-tools/envtest'), { recursive: true });
  writeFileSync(
    join(directory, 'controller-tools/envtest/etcd'),
    `#!/bin/sh\necho real\n${'# filling\n'.repeat(20_000)}`,
  );
  execFileSync('tar', ['czf', 'a.tar.gz', 'controller-tools'], { cwd: directory });
  archive = readFileSync(join(directory, 'a.tar.gz'));
  sha512 = createHash('sha512').update(archive).digest('hex');
  server = createServer((request, response) => {
    requests.push(request.headers.range);
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    response.writeHead(from > 0 ? 206 : 200, { 'content-length': archive.length - from });
    response.end(archive.subarray(from));
  }).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => server.close());
beforeEach(() => {
  said = [];
  requests.length = 0;
});

function settings(changes: Partial<ToolSettings> & { sha?: string } = {}): ToolSettings {
  const cache = join(directory, `cache-${n++}`);
  return {
    path: '/nonexistent',
    kubebuilderAssets: undefined,
    cache,
    root: directory,
    say: (line) => said.push(line),
    mirror: (url) => url.replace('https://publisher.example', base),
    tools: {
      etcd: {
        version: '1',
        go: { module: 'none', package: './x' },
        archive: {
          url: 'https://publisher.example/{platform}.tar.gz',
          member: 'controller-tools/envtest/etcd',
          sha512: { [platform]: changes.sha ?? sha512 },
        },
        byHand: 'install etcd',
      },
    },
    ...changes,
  };
}

test('a program on the path is used before anything else, and KUBEBUILDER_ASSETS before the path', async () => {
  const bins = ['a', 'b'].map((d) => join(directory, d));
  for (const bin of bins) {
    mkdirSync(bin);
    writeFileSync(join(bin, 'etcd'), '#!/bin/sh\n');
    chmodSync(join(bin, 'etcd'), 0o755);
  }
  assert.equal(await provide('etcd', settings({ path: bins[0] ?? '' })), join(bins[0] ?? '', 'etcd'));
  assert.equal(
    await provide('etcd', settings({ path: bins[0] ?? '', kubebuilderAssets: bins[1] })),
    join(bins[1] ?? '', 'etcd'),
  );
  assert.deepEqual(requests, []);
});

test('the publisher’s archive is downloaded with progress, checked and kept', async () => {
  const s = settings();
  const file = await provide('etcd', s);
  assert.equal(execFileSync(file, { encoding: 'utf8' }), 'real\n');
  assert.ok(said.some((line) => /downloading/.test(line)) && said.some((line) => /MiB of/.test(line)));
  await provide('etcd', s);
  assert.equal(requests.length, 1, 'kept between calls');
});

test('a download that broke off goes on where it was', async () => {
  const s = settings();
  mkdirSync(s.cache, { recursive: true });
  const part = join(s.cache, `${sha512.slice(0, 16)}.tar.gz.part`);
  writeFileSync(part, archive);
  truncateSync(part, 100);
  await provide('etcd', s);
  assert.deepEqual(requests, ['bytes=100-']);
});

test('an archive that is not the pinned one is refused and thrown away', async () => {
  const s = settings({ sha: 'f'.repeat(128) });
  await assert.rejects(
    provide('etcd', s),
    (e: CountersignError) => e.code === 'tool-missing' && /not the pinned one/.test(e.message),
  );
  assert.equal(existsSync(join(s.cache, `${'f'.repeat(16)}.tar.gz.part`)), false);
  assert.equal(existsSync(join(s.cache, 'etcd-1')), false);
});

test('when nothing helps, every way that was tried is named, and what to do by hand', async () => {
  await assert.rejects(provide('etcd', settings({ mirror: () => 'http://127.0.0.1:9/x' })), (e: CountersignError) => {
    assert.match(
      e.message,
      /not in KUBEBUILDER_ASSETS or PATH; archive: cannot reach 127\.0\.0\.1:9.*; Go build: `go` is not on the PATH/,
    );
    assert.equal(e.hint, 'install etcd');
    return true;
  });
});
