import { setTimeout as wait } from 'node:timers/promises';
import { random } from '../random.ts';
import { until } from '../service.ts';
import { Actors, DUTIES, type Duty } from './actors.ts';
import { problemsOf } from './check.ts';
import { FAULTS, type Fault } from './faults.ts';
import { type Outage, outagesSince } from './outages.ts';
import { ENVIRONMENTS, World } from './world.ts';

export type ChaosOptions = {
  /** Where logs are left. */
  readonly directory: string;
  /** How long faults go on: first each of them in order, then at random. */
  readonly minutes: number;
  readonly seed: number;
  /** Parts of the names of faults; all of them unless told. */
  readonly only?: readonly string[];
  /** Nothing may be away for longer, in seconds, whatever happened. */
  readonly limit: number;
  readonly say: (line: string) => void;
};

/** One fault, and how long each duty was away for it. */
export type FaultRow = { readonly fault: string; readonly away: Outage };

export type ChaosResult = {
  readonly rows: readonly FaultRow[];
  readonly problems: readonly string[];
  readonly counts: Readonly<Record<string, number>>;
};

const WAIT_S = 120;
const QUIET_MS = 6000; // so long all must go well before a fault counts as over

/** Runs three replicas and breaks what is around them, one fault after the other; then checks everything. */
export async function runChaos({ directory, minutes, seed, only, limit, say }: ChaosOptions): Promise<ChaosResult> {
  const chosen = FAULTS.filter((f) => only === undefined || only.some((part) => f.name.includes(part)));
  if (chosen.length === 0) throw new Error(`no fault is called ${only?.join(', ')}`);
  say('starting PostgreSQL with a standby, a control plane and three replicas');
  const world = await World.open(directory);
  try {
    await world.begin();
    const actors = new Actors(world);
    await actors.start();
    const rows: FaultRow[] = [];
    const problems: string[] = [];
    const pick = random(seed);
    const end = performance.now() + minutes * 60_000;
    for (let i = 0; performance.now() < end || i < chosen.length; i++) {
      if (performance.now() >= end && only === undefined) break;
      const fault = chosen[i < chosen.length ? i : Math.floor(pick() * chosen.length)] as Fault;
      await calm(world, actors);
      const row = await suffer(fault, world, actors);
      rows.push(row);
      say(`${fault.name}: ${DUTIES.map((d) => `${d} ${row.away[d].toFixed(1)} s`).join(', ')}`);
      problems.push(...lateIn(row, limit));
      await fault.after?.(world);
    }
    await calm(world, actors);
    say('no more faults: waiting until all is recorded and applied');
    await actors.stop(() => settle(world, actors));
    const found = await problemsOf(world, actors);
    return { rows, problems: [...problems, ...found.problems], counts: found.counts };
  } finally {
    await world.close();
  }
}

function lateIn({ fault, away }: FaultRow, limit: number): string[] {
  return DUTIES.filter((d) => away[d] > limit).map((d) => `${fault}: ${d} was away for ${away[d].toFixed(1)} s`);
}

async function suffer(fault: Fault, world: World, actors: Actors): Promise<FaultRow> {
  const begun = performance.now();
  const mend = await fault.breaks(world);
  await wait(fault.lasts * 1000);
  await mend?.();
  const mended = performance.now();
  await wait(QUIET_MS); // what it does may begin later: a Lease is looked at every five seconds
  await calm(world, actors);
  const of = (from: number) => outagesSince(from, actors.tries, actors.waiting, performance.now());
  const [all, after] = [of(begun), of(mended)];
  const away = (duty: Duty) => (fault.stops?.includes(duty) === true ? after[duty] : all[duty]);
  return { fault: fault.name, away: Object.fromEntries(DUTIES.map((d) => [d, away(d)])) as Outage };
}

// Waits until everything went well for a while, but not for ever: then what is still away is the finding.
async function calm(world: World, actors: Actors): Promise<void> {
  for (const end = performance.now() + WAIT_S * 1000; performance.now() < end; await wait(250)) {
    world.startEnded();
    const since = performance.now() - QUIET_MS;
    const recent = actors.tries.filter((t) => t.begun > since);
    const isWell = DUTIES.filter((d) => d === 'admission' || d === 'break-glass').every((duty) => {
      const mine = recent.filter((t) => t.duty === duty);
      return mine.length > 1 && mine.every((t) => t.isGood);
    });
    const isPrompt = actors.waiting.every((w) => w.begun > since);
    if (isWell && isPrompt && ENVIRONMENTS.every((e) => world.leader(e) !== undefined)) return;
  }
}

async function settle(world: World, actors: Actors): Promise<void> {
  world.startEnded();
  const isThere = async () =>
    (await Promise.all(ENVIRONMENTS.map((e) => world.count(e)))).every(
      (n, i) => n === actors.last(ENVIRONMENTS[i] ?? 'alpha'),
    );
  await until(isThere, WAIT_S * 1000, () => '').catch(() => {}); // the checker says it
  await wait(8000); // until copies and write-ahead files have caught up
}
