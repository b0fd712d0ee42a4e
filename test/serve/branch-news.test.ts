import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { openRepository, sourceRepository } from '../../src/git/index.ts';
import { BranchNews } from '../../src/serve/branch-news.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const dana = sshPerson(directory, 'dana');
const fleet = new Fleet(directory, 'fleet');
const repository = openRepository(`${fleet.work}/.git`, undefined);
after(() => repository.close());

function listening(...paths: readonly string[]) {
  const woken: string[] = [];
  const news = new BranchNews(sourceRepository(repository));
  for (const path of paths) news.listen(path, () => woken.push(path));
  const at = async (tip: string) => {
    woken.length = 0;
    await news.isAt(tip);
    return [...woken];
  };
  return at;
}

test('a commit wakes the environments whose directories it changes, and no others', async () => {
  const first = fleet.commit(dana, 'first', { 'clusters/a/x': '1', 'clusters/ab/x': '1', 'clusters/b/x': '1' });
  const second = fleet.commit(dana, 'second', { 'clusters/a/x': '2' });
  const third = fleet.commit(dana, 'third', { 'clusters/b/x': undefined, 'clusters/c/x': '1', README: 'x' });
  const at = listening('clusters/a', './clusters/ab/', 'clusters/b', 'clusters/c', '.');
  assert.deepEqual(await at(first), [], 'the first tip is no news');
  assert.deepEqual(await at(second), ['clusters/a', '.']);
  assert.deepEqual(await at(second), []);
  assert.deepEqual(await at(third), ['clusters/b', 'clusters/c', '.'], 'one is gone, one is new');
  assert.deepEqual(await at(first), ['clusters/a', 'clusters/b', 'clusters/c', '.'], 'and back');
});

test('a tip that cannot be read wakes no one, and the next one is a new beginning', async () => {
  const first = fleet.commit(dana, 'fourth', { 'clusters/a/x': '4' });
  const second = fleet.commit(dana, 'fifth', { 'clusters/a/x': '5' });
  const at = listening('clusters/a', 'clusters/b');
  await at(first);
  assert.deepEqual(await at(`${'0'.repeat(39)}1`), []);
  assert.deepEqual(await at(second), []);
});
