import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unreachable } from '../kit/fake-cluster.ts';
import { Crash, Loop, signedHistory } from '../kit/loop.ts';
import { configMap, namespace } from '../kit/manifests.ts';
import { scratch } from '../kit/scratch.ts';

// The duties of the loop stand alone: none waits for another that hangs.
const history = await signedHistory(scratch());
const shop = (colour: string) => ({ 'ns.yaml': namespace('shop'), 'cm.yaml': configMap('shop', 'cm', { colour }) });
const blue = history.commit('blue', shop('blue'));
const more = history.commit('more', { 'more.yaml': configMap('shop', 'more', {}) });
history.push();
const purposes = (loop: Loop) =>
  loop.entries('apply.intent').map((i) => `${i.purpose} ${i.revision === blue ? 'blue' : 'more'}`);
const soon = async (is: () => boolean, what: string) => {
  for (let i = 0; i < 2000 && !is(); i++) await new Promise((done) => setTimeout(done, 5));
  assert.ok(is(), what);
};

/** A loop at blue that hangs in the dry run of what the next commit adds. */
async function hanging(): Promise<{ readonly loop: Loop; readonly release: () => void; readonly pass: Promise<void> }> {
  const loop = Loop.open(history);
  await loop.at(blue);
  let isReached = false;
  const release = loop.cluster.hold((verb, { name }) => {
    if (verb !== 'dryRun' || name !== 'more') return false;
    isReached = true;
    return true;
  });
  const pass = loop.at(more);
  await soon(() => isReached, 'the dry run');
  return { loop, release, pass };
}

test('drift is reverted while a dry run hangs, and the change is looked at again', async () => {
  const { loop, release, pass } = await hanging();
  loop.cluster.lose('cm');
  loop.reconciler.stir();
  await soon(() => loop.cluster.names().includes('cm'), 'the return of what was lost');
  assert.deepEqual(purposes(loop), ['apply blue', 'correct blue']);
  release();
  await pass;
  assert.deepEqual(purposes(loop), ['apply blue', 'correct blue'], 'its plan was made from an earlier state');
  await loop.at(more);
  assert.equal(purposes(loop).at(-1), 'apply more');
  assert.equal(loop.status.state, 'applied');
});

test('a rollback that is made while a dry run hangs is not undone by what comes after it', async () => {
  const { loop, release, pass } = await hanging();
  await loop.reconciler.rollBack(blue, { user: 'dana', reason: 'INC-1' });
  release();
  await pass;
  await loop.at(more);
  assert.deepEqual(purposes(loop), ['apply blue', 'rollback blue']);
  assert.equal(loop.status.state, 'held');
});

test('without drift, what hung goes on where it was', async () => {
  const { loop, release, pass } = await hanging();
  release();
  await pass;
  assert.deepEqual(purposes(loop), ['apply blue', 'apply more']);
});

test('a rollback to where it is, made while a commit is being judged, holds that commit', async () => {
  const loop = Loop.open(history);
  await loop.at(blue);
  const { promise, resolve } = Promise.withResolvers<void>();
  let isJudging = false;
  loop.judging = () => {
    isJudging = true;
    return promise;
  };
  const pass = loop.at(more);
  await soon(() => isJudging, 'the judgement');
  loop.judging = async () => {};
  await loop.reconciler.rollBack(blue, { user: 'dana', reason: 'INC-1' });
  resolve();
  await pass;
  await loop.at(more);
  assert.deepEqual(purposes(loop), ['apply blue', 'rollback blue']);
  assert.equal(loop.status.state, 'held');
});

test('a tip that cannot be judged does not keep a change that was begun from being finished', async () => {
  const loop = Loop.open(history);
  loop.crashAt = 'first-write';
  await assert.rejects(loop.at(blue), Crash);
  loop.restart();
  loop.judging = () => Promise.reject(unreachable());
  await assert.rejects(loop.at(more), { recover: 'retry' });
  assert.equal(loop.entries('apply.result')[0]?.outcome, 'applied');
  assert.deepEqual(loop.cluster.names(), ['cm', 'shop']);
});
