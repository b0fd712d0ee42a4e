import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turns } from '../../src/model/index.ts';

// Half a millisecond of work: of a slice of one, no more than three fit.
function work<T>(item: T): T {
  for (const end = performance.now() + 0.5; performance.now() < end; );
  return item;
}

// How often the event loop goes round while something is done.
async function turnsDuring(task: () => Promise<unknown>): Promise<number> {
  let turns = 0;
  let isOver = false;
  const count = () => {
    turns++;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  await task();
  isOver = true;
  return turns;
}

const items = Array.from({ length: 60 }, (_, i) => i);

test('work in bulk lets others have their turn, and its results stay in order', async () => {
  let made: number[] = [];
  const turns = await turnsDuring(async () => {
    made = await new Turns().map(items, (i) => work(i) * 2);
  });
  assert.deepEqual(
    made,
    items.map((i) => i * 2),
  );
  assert.ok(turns >= items.length / 3, `${turns} turns`);
});

test('many such tasks side by side keep the event loop no longer than one', async () => {
  const shared = new Turns();
  const turns = await turnsDuring(() =>
    Promise.all(
      items.map(async (i) => {
        await shared.breathe();
        work(i);
      }),
    ),
  );
  assert.ok(turns >= items.length / 3, `${turns} turns`);
});

test('while others wait for answers it rests between its slices', async () => {
  const idle = () => performance.eventLoopUtilization().idle;
  const before = idle();
  await new Turns(() => true).map(items, work);
  assert.ok(idle() - before > 10, `${idle() - before} ms`);
});
