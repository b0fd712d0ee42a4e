import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { type Replica, World } from '../test/kit/chaos/world.ts';
import { until } from '../test/kit/service.ts';
import { median } from './kit/figures.ts';

// How long until another replica runs an environment, and until a change that was pushed at that moment is in the
// cluster: one is told to stop, killed, or loses its power. Three replicas, PostgreSQL with a standby.
const ROUNDS = Number(process.argv.find((a) => /^rounds=\d+$/.test(a))?.slice(7) ?? 5);
const BARS = { 'told to stop': 5, 'kill -9': 17, 'power cut': 30 } as const;
type Kind = keyof typeof BARS;
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const world = await World.open(directory);
let count = 0;
try {
  await world.begin();
  for (const kind of Object.keys(BARS) as Kind[]) {
    const taken: number[] = [];
    const live: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const [held, applied] = await handOver(kind);
      taken.push(held);
      live.push(applied);
      process.stderr.write(`${kind}, round ${round + 1}: ${held.toFixed(1)} s, a change ${applied.toFixed(1)} s\n`);
    }
    process.stdout.write(
      `${kind}, median of ${ROUNDS}: another replica after ${median(taken).toFixed(1)} s (bar ${BARS[kind]}), ` +
        `the next change after ${median(live).toFixed(1)} s\n`,
    );
  }
} finally {
  await world.close();
  rmSync(directory, { recursive: true, force: true });
}

async function handOver(kind: Kind): Promise<readonly [number, number]> {
  await until(
    async () => world.leader('alpha') !== undefined && (await world.sequencer()) !== undefined,
    60_000,
    () => 'nobody runs alpha',
  );
  await wait(5000);
  const before = world.leader('alpha') as Replica;
  const next = ++count;
  const begun = performance.now();
  if (kind === 'told to stop') void before.service.stop();
  else {
    if (kind === 'power cut') before.database.mode = 'mute';
    process.kill(before.service.pid, 'SIGKILL');
  }
  const pushed = world.push('alpha', next);
  let held = 0;
  await until(
    async () => {
      const leader = world.leader('alpha');
      if (held === 0 && leader !== undefined && leader !== before) held = (performance.now() - begun) / 1000;
      return held > 0 && (await world.count('alpha')) === next;
    },
    120_000,
    () => `nobody took alpha over after ${kind}`,
  );
  const applied = (performance.now() - begun) / 1000;
  await pushed;
  before.database.mode = 'pass';
  await before.service.ended;
  world.start(before);
  await before.service.says('countersign is running');
  return [held, applied];
}
