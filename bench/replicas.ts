import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createKey, type Ledger, openLedger } from '../src/ledger/index.ts';
import { Postgres } from '../test/kit/postgres.ts';
import { median, print, range, round0 } from './kit/figures.ts';

// Three replicas on one PostgreSQL, in one process. Entries a second that a follower gets recorded, against the replica
// that sequences, turn by turn in one run; and how long a change waits at a follower while refusals flood it.
const ENTRIES = Number(process.argv.find((a) => /^\d+$/.test(a)) ?? 20_000);
const ROUNDS = 3;
const WAITING = 4096;
const FLOOD = 1000; // refusals a second
const FLOOD_S = 10;
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
const key = join(directory, 'key.pem');
writeFileSync(key, createKey());

const denied = (i: number) =>
  ({
    type: 'admission.denied',
    environment: 'production',
    user: `user-${i}`,
    operation: 'CREATE',
    object: { apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: `settings-${i}` },
    mode: 'enforce',
    reason: 'x'.repeat(200),
  }) as const;
const refused = (i: number) =>
  ({ type: 'apply.refused', environment: 'production', revision: 'r', verdict: i, error: 'x'.repeat(400) }) as const;

async function rate(ledger: Ledger): Promise<number> {
  let next = 0;
  const started = performance.now();
  const one = async () => {
    while (next < ENTRIES) await ledger.record(refused(next++));
  };
  await Promise.all(Array.from({ length: WAITING }, one));
  return ENTRIES / ((performance.now() - started) / 1000);
}

/** One entry at a time while refusals arrive: what the entries waited, in milliseconds. */
async function flooded(
  ledger: Ledger,
): Promise<{ readonly waits: readonly number[]; readonly recorded: number; readonly sent: number }> {
  const end = performance.now() + FLOOD_S * 1000;
  const waits: number[] = [];
  let recorded = 0;
  let sent = 0;
  const flooding = (async () => {
    for (const begun = performance.now(); performance.now() < end; await pause(10))
      for (const due = ((performance.now() - begun) / 1000) * FLOOD; sent < due; sent++)
        ledger.record(denied(sent)).then(
          () => recorded++,
          () => {},
        );
  })();
  for (let i = 0; performance.now() < end; i++, await pause(50)) {
    const begun = performance.now();
    await ledger.record(refused(i));
    waits.push(performance.now() - begun);
  }
  await flooding;
  while (ledger.backlog > 0) await pause(20);
  return { waits: waits.sort((a, b) => a - b), recorded, sent };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const postgres = await Postgres.start();
try {
  const { url } = await postgres.ledger();
  const open = (name: string) =>
    openLedger(join(directory, name), 'bench.test/l', { postgres: url, key: { files: [key] } });
  const [leader, follower, other] = [await open('a'), await open('b'), await open('c')];
  const [alone, handed, both]: [number[], number[], number[]] = [[], [], []];
  for (let round = 0; round < ROUNDS; round++) {
    alone.push(await rate(leader));
    handed.push(await rate(follower));
    both.push((await Promise.all([rate(follower), rate(other)])).reduce((a, b) => a + b));
  }
  const against = (rates: readonly number[]) => median(rates.map((r, i) => r / (alone[i] as number))).toFixed(2);
  const show = (rates: readonly number[]) => `${round0(median(rates))}/s (${range(rates)})`;
  print(`the replica that sequences: ${show(alone)}`);
  print(`a follower: ${show(handed)}, ratio ${against(handed)}`);
  print(`two followers together: ${show(both)}, ratio ${against(both)}`);
  const { waits, recorded, sent } = await flooded(follower);
  const at = (part: number) => `${(waits[Math.floor((waits.length - 1) * part)] ?? 0).toFixed(0)} ms`;
  print(
    `an entry at a follower under ${FLOOD} refusals a second: p50 ${at(0.5)}, p99 ${at(0.99)}, at most ${at(1)}; ` +
      `${recorded} of ${sent} refusals recorded`,
  );
  for (const ledger of [leader, follower, other]) await ledger.close();
} finally {
  await postgres.stop();
  rmSync(directory, { recursive: true, force: true });
}
