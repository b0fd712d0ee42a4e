import assert from 'node:assert/strict';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { NativeRepository } from '../../src/git/index.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';
import { mountSmallDisk, type SmallDisk } from '../kit/small-disk.ts';

after(() => {
  if (skip === false) disk.unmount();
});
const directory = scratch();
const mounted = mountSmallDisk(join(directory, 'disk'), 4);
const skip = typeof mounted === 'string' ? mounted : false;
const disk = mounted as SmallDisk;

test('a full disk is reported as that, not as a repository that is unreachable, and the fetch works once there is room', {
  skip,
}, async () => {
  const fleet = new Fleet(directory);
  fleet.remote(fleet.bare);
  const commit = fleet.commit(sshPerson(directory, 'dana'), 'x', { 'big.txt': 'x'.repeat(200_000) });
  fleet.push();
  const repository = new NativeRepository(join(disk.path, 'git'), { file: 'git', path: process.env['PATH'] ?? '' });
  after(() => repository.close());
  disk.fill();
  await assert.rejects(repository.fetch(fleet.url, 'main'), {
    code: 'disk-full',
    recover: 'retry',
    message: /the disk of .* is full/,
    hint: /free space/,
  });
  disk.free();
  await repository.fetch(fleet.url, 'main');
  assert.ok(existsSync(join(disk.path, 'git', 'HEAD')));
  assert.match(commit, /^[0-9a-f]{40}$/);
});

test('a remote whose disk is full does not make ours full', async () => {
  const git = join(directory, 'git');
  const say = (line: string) => {
    writeFileSync(git, `#!/bin/sh\ncase "$*" in *fetch*) echo "${line}" >&2; exit 128;; esac\nexec git "$@"\n`);
    chmodSync(git, 0o755);
  };
  const fetched = async (line: string) => {
    say(line);
    const program = { file: git, path: process.env['PATH'] ?? '' };
    const repository = new NativeRepository(join(directory, 'bare'), program);
    const thrown = await repository.fetch('https://git.example.com/x.git', 'main').catch((e: unknown) => e);
    repository.close();
    return (thrown as { code?: string }).code;
  };
  assert.equal(await fetched('remote: fatal: write error: No space left on device'), 'git-unreachable');
  assert.equal(await fetched('fatal: write error: No space left on device'), 'disk-full');
});
