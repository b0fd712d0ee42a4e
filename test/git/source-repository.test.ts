import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { diffTrees, openRepository, type Repository, sourceRepository } from '../../src/git/index.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const dana = sshPerson(directory, 'dana');
const fleet = new Fleet(directory, 'fleet');
const first = fleet.commit(dana, 'first', { 'a/x': '1', 'b/x': '1' });
const second = fleet.commit(dana, 'second', { 'a/x': '2' });
const repository = openRepository(`${fleet.work}/.git`, undefined);
after(() => repository.close());

let reads = 0;
let fails = 0;
const counted = new Proxy(repository, {
  get(target, key) {
    const value: unknown = Reflect.get(target, key, target);
    if (typeof value !== 'function') return value;
    return (...args: unknown[]) => {
      if (key === 'read') reads++;
      if (key === 'read' && fails-- > 0) return Promise.reject(new Error('unreadable'));
      return value.apply(target, args);
    };
  },
}) as Repository;

test('environments that share a repository compute a difference once', async () => {
  const source = sourceRepository(counted);
  const [one, other] = await Promise.all([source.diff(first, second), source.diff(first, second)]);
  const once = reads;
  assert.deepEqual(one, await diffTrees(repository, first, second));
  assert.equal(other, one);
  await source.diff(first, second);
  assert.equal(reads, once);
  assert.deepEqual(
    (await source.diff(second, first)).map((c) => c.path),
    ['a/x'],
    'another pair is another difference',
  );
});

test('a difference that could not be read is read again', async () => {
  const source = sourceRepository(counted);
  fails = 1;
  await assert.rejects(source.diff(first, second), /unreadable/);
  fails = 0;
  assert.equal((await source.diff(first, second)).length, 1);
});

test('ids of directories are those of Git; a file and a missing directory have none', async () => {
  const ids = await sourceRepository(repository).directoryIds(second, ['a', './b/', '.', 'a/x', 'c', 'c/d']);
  const of = (path: string) => fleet.git(undefined, 'rev-parse', `${second}:${path}`);
  assert.deepEqual(
    [...ids],
    [
      ['a', of('a')],
      ['./b/', of('b')],
      ['.', of('')],
    ],
  );
});
