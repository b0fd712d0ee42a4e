import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fuzzTargets, garbage, mutate, residentMiB, tryInput } from './kit/fuzz.ts';
import { inQuickRun } from './kit/machine.ts';
import { scratch } from './kit/scratch.ts';

// The short form of `node scripts/fuzz.ts`, with a fixed seed so that a failure comes again.
const targets = await fuzzTargets(scratch());
const MEMORY_MIB = 768; // resident, with what the collector has not yet given back
// Not speed: an input that would hang is told from a slow machine.
const HANGS_MS = 30_000;

describe('parsers of somebody else’s bytes', { skip: inQuickRun() }, () => {
  for (const target of targets) {
    test(`${target.name}: the seeds are read`, async () => {
      for (const seed of target.seeds) assert.equal(await tryInput(target, seed, HANGS_MS), 'value');
    });
    test(`${target.name}: changed bytes are a value or a refusal, in time`, async () => {
      const random = sequence(1);
      for (let i = 0; i < 400; i++)
        await tryInput(target, mutate(target.seeds[i % target.seeds.length] ?? Buffer.from('x'), random), HANGS_MS);
    });
    test(`${target.name}: ten megabytes of garbage cost neither time nor memory`, async () => {
      const inputs = garbage(target.seeds[0] ?? Buffer.from('x'));
      const before = residentMiB();
      for (const bytes of inputs) await tryInput(target, bytes, HANGS_MS);
      const grown = residentMiB() - before;
      assert.ok(grown < MEMORY_MIB, `${grown.toFixed(0)} MiB more`);
    });
  }
});

function sequence(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
