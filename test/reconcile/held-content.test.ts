import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Environment } from '../../src/model/index.ts';
import { refused } from '../kit/fake-cluster.ts';
import { Crash, Loop, signedHistory } from '../kit/loop.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

// What failed, or was rolled back from, is held by what the environment renders, and not by the commit that brought it.
const history = await signedHistory(scratch());
const [dana] = history.people;
const shop = (colour: string) => ({ 'ns.yaml': namespace('shop'), 'cm.yaml': configMap('shop', 'cm', { colour }) });
const elsewhere = (text: string) => history.fleet.commit(dana, text, { 'docs/readme.md': text });
const blue = history.commit('blue', shop('blue'));
const bad = history.commit('bad', { ...shop('red'), 'bad.yaml': configMap('shop', 'bad', {}) });
const unrelated = elsewhere('unrelated');
const comment = history.commit('comment', { 'cm.yaml': `# a comment\n${configMap('shop', 'cm', { colour: 'red' })}` });
const mended = history.commit('mended', { 'bad.yaml': configMap('shop', 'bad', { a: '1' }) });
const after = elsewhere('after');
history.push();
const ids = [blue, bad, unrelated, comment, mended, after];
const name = (id: string) => ['blue', 'bad', 'unrelated', 'comment', 'mended', 'after'][ids.indexOf(id)];
const purposes = (loop: Loop) => loop.entries('apply.intent').map((i) => `${i.purpose} ${name(i.revision)}`);
const fails = (loop: Loop, times = 1) =>
  loop.cluster.fail({ verb: 'apply', when: (ref) => ref.name === 'bad', error: refused(), times });
const resume = (loop: Loop) =>
  loop.record({ type: 'environment.resumed', environment: 'production', user: 'dana', reason: 'the quota is higher' });

test('a commit that touches another directory, or only comments, does not bring back what failed', async () => {
  const loop = Loop.open(history);
  await loop.at(blue);
  fails(loop);
  await loop.at(bad);
  for (const tip of [bad, unrelated, comment]) {
    await loop.at(tip);
    assert.deepEqual(purposes(loop), ['apply blue', 'apply bad', 'restore blue']);
    assert.equal(loop.status.state, 'held');
  }
  assert.match(
    loop.status.message,
    new RegExp(`^${comment.slice(0, 12)} renders the same objects as ${bad.slice(0, 12)}, which could not be applied`),
  );
  assert.match(loop.status.message, /held at .* until its objects, rules or trust change/);
  loop.restart();
  await loop.at(unrelated);
  assert.equal(loop.status.state, 'held', 'also for another process');
  await loop.at(mended);
  assert.equal(purposes(loop).at(-1), 'apply mended');
});

test('a first revision that failed is not tried again by an unrelated commit', async () => {
  const loop = Loop.open(history);
  fails(loop);
  await loop.at(bad);
  await loop.at(unrelated);
  assert.deepEqual(
    loop.entries('apply.intent').map((i) => i.purpose),
    ['apply', 'restore'],
  );
  assert.match(loop.status.message, /nothing is applied until its objects/);
});

test('`resume` tries what is held once more', async () => {
  const loop = Loop.open(history);
  await loop.at(blue);
  fails(loop, 2);
  await loop.at(bad);
  await loop.at(unrelated);
  await resume(loop);
  await loop.at(unrelated);
  assert.deepEqual(purposes(loop).slice(3), ['apply unrelated', 'restore blue'], 'it failed again');
  await loop.at(comment);
  assert.deepEqual(purposes(loop).length, 5, 'and is held again');
  await resume(loop);
  await loop.at(comment);
  assert.equal(purposes(loop).at(-1), 'apply comment');
  assert.equal(loop.status.state, 'applied');
});

test('a rollback holds whatever renders what was rolled back from, until someone resumes', async () => {
  const loop = Loop.open(history);
  await loop.at(blue);
  await loop.at(bad);
  await loop.reconciler.rollBack(blue, { user: 'dana', reason: 'INC-1' });
  for (const tip of [bad, unrelated, comment]) {
    await loop.at(tip);
    assert.equal(purposes(loop).at(-1), 'rollback blue');
    assert.match(loop.status.message, /^rolled back to .* until its objects change, .*: INC-1$/);
  }
  await resume(loop);
  await loop.at(comment);
  assert.equal(purposes(loop).at(-1), 'apply comment');
});

test('a newer commit with the same objects does not start a change again that waits for health', async () => {
  const health = { wait: true, timeout: '60s' } as Environment['spec']['health'];
  const loop = Loop.open(history, { spec: { health } });
  await loop.at(blue);
  loop.cluster.health = () => ({ state: 'progressing', message: 'rolling out' });
  const begun = loop.at(bad);
  while (!loop.cluster.writes.includes('apply ConfigMap shop/bad')) await new Promise((done) => setTimeout(done, 5));
  loop.tip = unrelated;
  loop.reconciler.poke();
  await new Promise((done) => setTimeout(done, 300));
  loop.cluster.health = () => ({ state: 'current', message: '' });
  await begun;
  assert.deepEqual(purposes(loop), ['apply blue', 'apply bad']);
  await loop.at(unrelated);
  assert.deepEqual(purposes(loop), ['apply blue', 'apply bad', 'apply unrelated']);
  assert.equal(loop.status.state, 'applied');
});

test('a failure says what was seen of the object, before it is undone', async () => {
  const health = { wait: true, timeout: '60s' } as Environment['spec']['health'];
  const loop = Loop.open(history, { spec: { health } });
  await loop.at(blue);
  const ref = { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'bad' };
  const container = {
    pod: 'bad-1',
    container: 'app',
    state: 'waiting',
    reason: 'ImagePullBackOff',
    message: 'no such image',
    restarts: 0,
  } as const;
  loop.cluster.health = ({ name }) =>
    name === 'bad' ? { state: 'failed', message: 'it is stalled' } : { state: 'current', message: '' };
  loop.cluster.seen = [{ ref, conditions: [], containers: [container], events: [] }];
  await loop.at(bad);
  const [result] = loop.entries('apply.result').filter((r) => r.outcome === 'failed');
  assert.match(result?.error ?? '', /bad: it is stalled; container `app` of bad-1: ImagePullBackOff: no such image$/);
  const evidence = loop.evidence(result?.evidence) as { readonly seen?: unknown };
  assert.deepEqual(evidence.seen, loop.cluster.seen);
});

for (const onFirstFailure of ['remove', 'keep'] as const)
  test(`a first revision that fails: ${onFirstFailure}`, async () => {
    const loop = Loop.open(history, { spec: { apply: { conflicts: 'refuse', onFirstFailure } } });
    fails(loop);
    await loop.at(bad);
    assert.deepEqual(loop.cluster.names(), onFirstFailure === 'keep' ? ['cm', 'shop'] : []);
    assert.equal(loop.status.state, 'held');
    await loop.at(unrelated);
    assert.equal(loop.status.state, 'held');
    await loop.at(mended);
    assert.equal(loop.status.state, 'applied');
    assert.deepEqual(loop.cluster.names(), ['bad', 'cm', 'shop']);
  });

test('a namespace goes with the change that created it and failed, unless others use it or it was there before', async () => {
  const used = Loop.open(history);
  used.cluster.inUse.add('shop');
  fails(used);
  await used.at(bad);
  assert.deepEqual(used.cluster.names(), ['shop']);

  const interrupted = Loop.open(history);
  interrupted.crashAt = 'first-write';
  await assert.rejects(interrupted.at(bad), Crash);
  assert.deepEqual(interrupted.cluster.names(), ['shop']);
  interrupted.restart();
  fails(interrupted);
  await interrupted.at(bad);
  assert.deepEqual(interrupted.cluster.names(), [], 'also after a crash in between');

  const before = Loop.open(history);
  await before.at(blue);
  fails(before);
  await before.at(bad);
  assert.deepEqual(before.cluster.names(), ['cm', 'shop']);
});

test('a resume that ends a suspension tries nothing again, and a second one does', async () => {
  const loop = Loop.open(history);
  await loop.at(blue);
  fails(loop);
  await loop.at(bad);
  await loop.record({ type: 'environment.suspended', environment: 'production', user: 'dana', reason: 'maintenance' });
  await loop.at(unrelated);
  await resume(loop);
  await loop.at(unrelated);
  assert.equal(loop.status.state, 'held');
  await resume(loop);
  await loop.at(unrelated);
  assert.equal(purposes(loop).at(-1), 'apply unrelated');
});

test('each failure since the last success is held, also after a rollback to something older', async () => {
  const loop = Loop.open(history);
  await loop.at(blue);
  await loop.at(mended);
  fails(loop, 1);
  const again = history.commit('worse', { 'bad.yaml': configMap('shop', 'bad', { a: '2' }) });
  const readme = history.fleet.commit(dana, 'readme', { 'docs/other.md': 'x' });
  const other = history.commit('other', { 'bad.yaml': configMap('shop', 'bad', { a: '3' }) });
  const back = history.commit('back', { 'bad.yaml': configMap('shop', 'bad', { a: '2' }) });
  history.push();
  await loop.at(again);
  assert.equal(loop.status.state, 'held');
  await loop.reconciler.rollBack(blue, { user: 'dana', reason: 'INC-1' });
  const before = loop.entries('apply.intent').length;
  await loop.at(readme);
  assert.equal(loop.entries('apply.intent').length, before, 'the README does not bring it back');
  assert.equal(loop.status.state, 'held');
  fails(loop, 1);
  await loop.at(other);
  const after = loop.entries('apply.intent').length;
  await loop.at(back);
  assert.equal(loop.entries('apply.intent').length, after, 'what failed before the newest failure');
});
