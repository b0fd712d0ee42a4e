import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  diffTrees,
  IsomorphicRepository,
  listTree,
  NativeRepository,
  openRepository,
  parseTree,
  type Repository,
  RunBeside,
  readBlob,
  readCommit,
  redactUrl,
  sourceRef,
} from '../../src/git/index.ts';
import { verifyObjectId } from '../../src/git/object.ts';
import { type CountersignError, NO_REVISION } from '../../src/model/index.ts';
import { Fleet, run, sshPerson } from '../kit/fleet.ts';
import { type GitServer, startGitServer } from '../kit/git-server.ts';
import { scratch } from '../kit/scratch.ts';
import { until } from '../kit/service.ts';

const directory = scratch();
const git = { file: 'git', path: process.env['PATH'] ?? '' };
let server: GitServer;
let fleet: Fleet;
let first = '';
let side = '';
let merge = '';

before(async () => {
  server = await startGitServer(directory);
  const dana = sshPerson(directory, 'dana');
  fleet = new Fleet(directory);
  fleet.remote(`${server.url}/fleet.git`);
  first = fleet.commit(dana, 'first', { 'a/one.yaml': 'a: 1\n', 'b/two.yaml': 'b: 2\n' });
  fleet.git(dana, 'switch', '--quiet', '-c', 'side');
  side = fleet.commit(dana, 'side', { 'a/side.yaml': 'c: 3\n' });
  fleet.git(dana, 'switch', '--quiet', 'main');
  fleet.commit(dana, 'main', { 'b/two.yaml': undefined, 'b/three.yaml': 'b: 2\n' });
  fleet.git(dana, 'merge', '--quiet', '--no-ff', '-S', '-m', 'merge', 'side');
  merge = fleet.head();
  fleet.push();
  run('git', ['gc', '--quiet'], { cwd: fleet.bare });
});
after(() => server.stop());

const ids = async (repository: Repository, from: string, to: string) =>
  (await Array.fromAsync(repository.listCommits(from, to))).flat();

const beside = new RunBeside();
after(() => beside.close());

// One contract, two implementations, one of which has two ways to start programs.
for (const [name, open] of [
  ['the git program', (d: string): Repository => new NativeRepository(d, git)],
  ['git programs started beside', (d: string): Repository => new NativeRepository(d, { ...git, run: beside.run })],
  ['isomorphic-git', (d: string): Repository => new IsomorphicRepository(d)],
] as const) {
  describe(`a repository read through ${name}`, () => {
    const at = join(directory, name.replaceAll(' ', '-'));
    const repository = open(at);
    after(() => repository.close());

    test('fetches a branch over HTTP and resolves it', async () => {
      await repository.fetch(fleet.url, 'main');
      assert.equal(await repository.resolve(sourceRef('main')), merge);
    });

    test('lists commits from one revision to another, parents first', async () => {
      const all = await ids(repository, NO_REVISION, merge);
      assert.equal(all.length, 4);
      assert.equal(all.at(-1), merge);
      assert.equal(all[0], first);
      const later = await ids(repository, first, merge);
      assert.deepEqual(new Set(later), new Set(all.filter((c) => c !== first)));
      assert.deepEqual(await ids(repository, merge, merge), []);
    });

    test('knows descent', async () => {
      assert.equal(await repository.isAncestor(first, merge), true);
      assert.equal(await repository.isAncestor(side, merge), true);
      assert.equal(await repository.isAncestor(merge, first), false);
    });

    test('gives raw commits, trees and blobs as git has them', async () => {
      const raw = Buffer.from((await repository.read(merge)).bytes).toString('utf8');
      assert.equal(raw.trim(), run('git', ['cat-file', 'commit', merge], { cwd: fleet.work }));
      const files = await listTree(repository, (await readCommit(repository, merge)).tree, 'a');
      assert.deepEqual(
        files.map((f) => f.path),
        ['a/one.yaml', 'a/side.yaml'],
      );
      assert.equal(Buffer.from(await readBlob(repository, files[0]?.blob ?? '')).toString(), 'a: 1\n');
    });

    test('tells which paths changed', async () => {
      const paths = await diffTrees(repository, first, merge);
      assert.deepEqual(
        paths.map((p) => [p.path, p.before === undefined, p.after === undefined]),
        [
          ['a/side.yaml', true, false],
          ['b/three.yaml', true, false],
          ['b/two.yaml', false, true],
        ],
      );
    });

    test('says that an object is missing', async () => {
      await assert.rejects(repository.read('1'.repeat(40)), { code: 'git-object-missing' });
      assert.equal((await repository.read(first)).type, 'commit'); // and goes on
    });

    test('says that a branch is missing, and that a server is', async () => {
      await assert.rejects(
        repository.fetch(fleet.url, 'nowhere'),
        (e: CountersignError) =>
          e.code === 'git-ref-missing' && e.message.includes('`nowhere`') && e.hint !== undefined,
      );
      await assert.rejects(
        open(`${at}-2`).fetch('http://user:secret@127.0.0.1:9/x.git', 'main'),
        (e: CountersignError) => e.code === 'git-unreachable' && !e.message.includes('secret') && e.recover === 'retry',
      );
    });
  });
}

test('a local path is fetched through the git program, and refused without it', async () => {
  const local = openRepository(join(directory, 'local'), git);
  await local.fetch(fleet.bare, 'main');
  assert.equal(await local.resolve(sourceRef('main')), merge);
  local.close();
  await assert.rejects(openRepository(join(directory, 'local2'), undefined).fetch(fleet.bare, 'main'), {
    code: 'git-unreachable',
  });
});

test('a shallow repository is refused: its history is cut off', async () => {
  const shallow = join(directory, 'shallow');
  run('git', ['clone', '--quiet', '--bare', '--depth=1', fleet.url, shallow]);
  const repository = new NativeRepository(shallow, git);
  await assert.rejects(ids(repository, NO_REVISION, merge), { code: 'git-shallow' });
  await assert.rejects(ids(new IsomorphicRepository(shallow), NO_REVISION, merge), { code: 'git-shallow' });
});

test('bytes that do not hash to their id are refused', () => {
  assert.throws(() => verifyObjectId('1'.repeat(40), { type: 'blob', bytes: Buffer.from('x') }), {
    code: 'git-object-corrupt',
  });
});

test('replacement objects change nothing', async () => {
  const at = join(directory, 'replaced');
  run('git', ['clone', '--quiet', '--bare', fleet.url, at]);
  run('git', ['replace', merge, first], { cwd: at });
  const repository = new NativeRepository(at, git);
  assert.equal((await ids(repository, NO_REVISION, merge)).length, 4);
  repository.close();
});

for (const name of ['..', '.git', 'a/b', '']) {
  test(`a tree with the name \`${name}\` is refused`, () => {
    const bytes = Buffer.concat([Buffer.from(`100644 ${name}\0`), Buffer.alloc(20, 1)]);
    assert.throws(() => parseTree('1'.repeat(40), bytes), { code: 'git-object-corrupt' });
  });
}

test('an object that is too large or missing fails its own read, and none that waits beside it', async () => {
  const repository = new NativeRepository(fleet.bare, git);
  after(() => repository.close());
  const tree = run('git', ['rev-parse', `${first}^{tree}`], { cwd: fleet.bare });
  const person = 'mallory <mallory@example.test> 1750000000 +0000';
  const huge = run('git', ['hash-object', '-t', 'commit', '-w', '--stdin'], {
    cwd: fleet.bare,
    input: `tree ${tree}\nauthor ${person}\ncommitter ${person}\n\n${'x'.repeat(20 * 1024 * 1024)}\n`,
  });
  const reads = await Promise.allSettled([first, huge, side, 'f'.repeat(40), merge].map((id) => repository.read(id)));
  assert.deepEqual(
    reads.map((r) => (r.status === 'fulfilled' ? r.value.type : (r.reason as CountersignError).code)),
    ['commit', 'git-object-corrupt', 'commit', 'git-object-missing', 'commit'],
  );
  // Git keeps the memory that a large object took: the program that read it ends, and a new one is asked.
  const programs = () =>
    readdirSync('/proc').filter((pid) => {
      try {
        const [, ppid] = /^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
        return (
          Number(ppid) === process.pid && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('cat-file\0--batch')
        );
      } catch {
        return false;
      }
    });
  const before = programs();
  await assert.rejects(repository.read(huge), { code: 'git-object-corrupt' });
  assert.equal((await repository.read(first)).type, 'commit');
  if (process.platform === 'linux')
    await until(
      () => programs().length <= 1 && !programs().some((pid) => before.includes(pid)),
      20_000,
      () => `programs that still run: ${programs()}`,
    );
});

test('objects that Git refuses are not fetched, and the hint is about whoever pushed them', async () => {
  const tree = run('git', ['rev-parse', `${first}^{tree}`], { cwd: fleet.bare });
  const input = `tree ${tree}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\nx-a \0\n\nm\n`;
  const id = run('git', ['hash-object', '-t', 'commit', '-w', '--stdin', '--literally'], { cwd: fleet.bare, input });
  run('git', ['update-ref', 'refs/heads/unsound', id], { cwd: fleet.bare });
  const repository = new NativeRepository(join(directory, 'unsound'), git);
  await assert.rejects(repository.fetch(`${server.url}/fleet.git`, 'unsound'), {
    code: 'git-unreachable',
    message: /its objects are not sound$/,
    hint: /who pushed them/,
  });
});

test('no credentials in an address that is shown', () => {
  assert.equal(redactUrl('https://user:token@git.example.test/a.git?key=1'), 'https://git.example.test/a.git');
});

describe('somebody else’s Git does not get a say', () => {
  const fresh = (name: string) => new NativeRepository(join(directory, `hygiene-${name}`), git);

  test('a graft that cuts history off changes nothing', async () => {
    const at = join(directory, 'grafted');
    run('git', ['clone', '--quiet', '--bare', fleet.url, at]);
    writeFileSync(join(at, 'info', 'grafts'), `${merge}\n`);
    assert.equal(run('git', ['rev-list', '--count', merge], { cwd: at }), '1', 'git itself believes it');
    const repository = new NativeRepository(at, git);
    assert.equal((await ids(repository, NO_REVISION, merge)).length, 4);
    repository.close();
  });

  test('a global configuration that sends addresses elsewhere is not read', async () => {
    const config = join(directory, 'global-config');
    writeFileSync(config, `[url "http://127.0.0.1:9/"]\n\tinsteadOf = ${server.url}/\n`);
    process.env['GIT_CONFIG_GLOBAL'] = config;
    try {
      const repository = fresh('global');
      await repository.fetch(fleet.url, 'main');
      assert.equal(await repository.resolve(sourceRef('main')), merge);
      repository.close();
    } finally {
      delete process.env['GIT_CONFIG_GLOBAL'];
    }
  });

  test('no hook runs', async () => {
    const repository = fresh('hooks');
    await repository.fetch(fleet.url, 'main');
    const hooks = join(directory, 'hygiene-hooks', 'hooks');
    mkdirSync(hooks, { recursive: true });
    for (const hook of ['reference-transaction', 'post-checkout', 'pre-auto-gc'])
      writeFileSync(join(hooks, hook), `#!/bin/sh\ntouch ${directory}/hooked\n`, { mode: 0o755 });
    fleet.commit(sshPerson(directory, 'hook'), 'more', { 'b/four.yaml': 'd: 4\n' });
    fleet.push('HEAD:refs/heads/hooked');
    await repository.fetch(fleet.url, 'hooked');
    assert.ok((await repository.resolve(sourceRef('hooked'))) !== undefined);
    assert.equal(existsSync(join(directory, 'hooked')), false);
    repository.close();
  });

  for (const [url, why] of [
    ['ext::sh -c "touch /tmp/owned"', /transport 'ext' not allowed/],
    ['git://127.0.0.1/x', /transport 'git' not allowed/],
    ['--upload-pack=touch', /cannot fetch/],
  ] as const)
    test(`\`${url}\` is no remote`, async () => {
      await assert.rejects(
        fresh('protocol').fetch(url, 'main'),
        (e: CountersignError) => e.code === 'git-unreachable' && why.test(e.message),
      );
    });

  test('a branch named like an option is a name', async () => {
    await assert.rejects(
      fresh('option').fetch(fleet.url, '--upload-pack=x'),
      (e: CountersignError) => e.code === 'git-ref-missing' || e.code === 'git-unreachable',
    );
    const repository = fresh('global');
    assert.equal(await repository.resolve('--all'), undefined);
    repository.close();
  });

  test('objects that Git’s own check refuses are not fetched', async () => {
    const bad = new Fleet(directory, 'bad');
    bad.remote(bad.bare);
    const blob = run('git', ['hash-object', '-w', '--stdin'], { cwd: bad.bare, input: 'x' });
    const tree = run('git', ['hash-object', '-t', 'tree', '-w', '--stdin', '--literally'], {
      cwd: bad.bare,
      input: Buffer.concat(
        ['a', 'a'].map((name) => Buffer.concat([Buffer.from(`100644 ${name}\0`), Buffer.from(blob, 'hex')])),
      ),
    });
    const commit = run(
      'git',
      ['-c', 'user.name=x', '-c', 'user.email=x@example.test', 'commit-tree', '-m', 'x', tree],
      { cwd: bad.bare },
    );
    run('git', ['update-ref', 'refs/heads/main', commit], { cwd: bad.bare });
    await assert.rejects(fresh('fsck').fetch(`${server.url}/bad.git`, 'main'), { code: 'git-unreachable' });
  });
});

test('a program that is not there, and a thread that is closed meanwhile, are told to everybody who waits', async () => {
  const runs = new RunBeside();
  await assert.rejects(runs.run(join(directory, 'no-such-git'), []), { code: 'tool-missing', message: /cannot run/ });
  const sleeping = [runs.run('sleep', ['20']), runs.run('sleep', ['20'])];
  const told = Promise.all(sleeping.map((s) => assert.rejects(s, { code: 'tool-missing', recover: 'retry' })));
  await runs.close();
  await told;
  const again = await runs.run('printf', ['%s', 'again']);
  assert.equal(again.stdout.toString('utf8'), 'again');
  await runs.close();
});

test('what was pushed cannot take more memory to unpack than git may use', {
  skip: process.platform !== 'linux',
}, async () => {
  const dana = sshPerson(directory, 'dana-of-memory');
  const bomb = new Fleet(directory, 'bomb');
  bomb.remote(`${server.url}/bomb.git`);
  const good = bomb.commit(dana, 'good', { a: 'x' });
  bomb.push();
  const limited = new NativeRepository(join(directory, 'limited.git'), { ...git, memory: 128 * 1024 * 1024 });
  try {
    await limited.fetch(bomb.url, 'main');
    const tree = bomb.git(undefined, 'rev-parse', 'HEAD^{tree}');
    const person = 'mallory <mallory@example.test> 1700000000 +0000';
    const head = `tree ${tree}\nparent ${good}\nauthor ${person}\ncommitter ${person}\n\n`;
    const input = Buffer.concat([Buffer.from(head), Buffer.alloc(300 * 1024 * 1024, 0x78)]); // 300 KiB in a pack
    const huge = run('git', ['hash-object', '-t', 'commit', '-w', '--stdin', '--literally'], { cwd: bomb.bare, input });
    run('git', ['update-ref', 'refs/heads/main', huge], { cwd: bomb.bare });
    await assert.rejects(limited.fetch(bomb.url, 'main'), { code: 'git-unreachable', recover: 'retry' });
    assert.equal(await limited.resolve(sourceRef('main')), good);
    run('git', ['update-ref', 'refs/heads/main', good], { cwd: bomb.bare });
    await limited.fetch(bomb.url, 'main');
  } finally {
    limited.close();
  }
});
