import { setTimeout as wait } from 'node:timers/promises';
import type { Duty } from './actors.ts';
import type { DatabaseNetwork } from './databases.ts';
import type { ENVIRONMENTS, Replica, World } from './world.ts';

/** Something that goes wrong. */
export type Fault = {
  readonly name: string;
  /** Breaks it; returns what mends it again, if somebody must. */
  readonly breaks: (world: World) => Promise<(() => Promise<void>) | undefined>;
  /** How long it stays broken, in seconds. */
  readonly lasts: number;
  /** Duties that nobody can do while it is broken: their time counts from when it is mended. */
  readonly stops?: readonly Duty[];
  /** Makes everything as it was before, once the fault was measured. */
  readonly after?: (world: World) => Promise<void>;
};

const LEDGER: readonly Duty[] = ['change', 'record'];

/** Every fault there is, the ordinary ones first. */
export const FAULTS: readonly Fault[] = [
  {
    name: 'kill -9 of the replica that runs alpha',
    lasts: 6,
    breaks: async (world) => killed(world, leaderOf(world, 'alpha')),
  },
  {
    name: 'kill -9 of the replica that sequences',
    lasts: 6,
    breaks: async (world) => killed(world, await sequencerOf(world)),
  },
  {
    name: 'a replica is told to stop',
    lasts: 6,
    breaks: async (world) => {
      const replica = leaderOf(world, 'beta');
      void replica.service.stop();
      return async () => {
        await replica.service.ended;
        world.start(replica);
      };
    },
  },
  {
    name: 'power cut of the replica that sequences',
    lasts: 40,
    breaks: async (world) => {
      const replica = await sequencerOf(world);
      replica.database.mode = 'mute';
      process.kill(replica.service.pid, 'SIGKILL');
      return async () => {
        replica.database.mode = 'pass';
        world.start(replica);
      };
    },
  },
  {
    name: 'the replica that sequences is stopped for 25 s',
    lasts: 25,
    breaks: async (world) => paused(world, await sequencerOf(world)),
  },
  {
    name: 'packets between the replica that sequences and the database are lost for 40 s',
    lasts: 40,
    breaks: async (world) => {
      return during((await sequencerOf(world)).database, 'mute');
    },
  },
  {
    name: 'the replica that runs alpha is cut from the database for 20 s',
    lasts: 20,
    breaks: async (world) => {
      return during(leaderOf(world, 'alpha').database, 'cut');
    },
  },
  {
    name: 'the replica that runs beta is cut from the API server for 25 s',
    lasts: 25,
    breaks: async (world) => {
      const { api } = leaderOf(world, 'beta');
      api.fault = () => ({ drop: 'before' });
      api.cut(() => true);
      return async () => {
        api.fault = () => 'pass';
      };
    },
  },
  { name: 'kill -9 of the database, 3 s', lasts: 3, stops: LEDGER, breaks: async (world) => databaseDown(world) },
  { name: 'kill -9 of the database, 8 s', lasts: 8, stops: LEDGER, breaks: async (world) => databaseDown(world) },
  {
    name: 'the database is lost for ever, and its standby is promoted after 3 s',
    lasts: 3,
    stops: LEDGER,
    breaks: async ({ databases }) => {
      await databases.lose();
      return async () => databases.promote();
    },
    after: ({ databases }) => databases.pair(),
  },
  {
    name: 'the standby of the database is away for 10 s',
    lasts: 10,
    stops: LEDGER,
    breaks: async ({ databases: { standby } }) => {
      await standby.kill();
      return () => standby.up();
    },
  },
  {
    name: 'the disk of the replica that runs alpha is full for 25 s',
    lasts: 25,
    breaks: async (world) => {
      const { disk } = leaderOf(world, 'alpha');
      if (typeof disk === 'string') throw new Error(disk);
      disk.fill();
      return async () => disk.free();
    },
  },
  {
    name: 'the Lease of alpha is deleted',
    lasts: 0,
    breaks: async (world) => {
      await world.stage.admin.request('DELETE', world.lease('alpha'));
      return undefined;
    },
  },
  {
    name: 'the Lease of alpha is given to a stranger',
    lasts: 0,
    breaks: async (world) => {
      const { body } = await world.stage.get(world.lease('alpha'));
      const spec = { ...(body['spec'] as object), holderIdentity: 'a stranger', renewTime: new Date().toISOString() };
      await world.stage.admin.request('PUT', world.lease('alpha'), { ...body, spec });
      return undefined;
    },
  },
  {
    name: 'the Git server is away for 20 s',
    lasts: 20,
    stops: ['change'],
    breaks: async (world) => world.gitAway(),
  },
  {
    name: 'kill -9 of all replicas',
    lasts: 1,
    stops: ['change', 'record', 'break-glass', 'admission'],
    breaks: async (world) => {
      for (const { service } of world.replicas) process.kill(service.pid, 'SIGKILL');
      return async () => world.startEnded();
    },
  },
];

function leaderOf(world: World, environment: (typeof ENVIRONMENTS)[number]): Replica {
  const found = world.leader(environment);
  if (found === undefined) throw new Error(`nobody runs ${environment}`);
  return found;
}

async function sequencerOf(world: World): Promise<Replica> {
  for (let i = 0; i < 100; i++) {
    const found = await world.sequencer();
    if (found !== undefined) return found;
    await wait(100);
  }
  throw new Error('nobody sequences');
}

function during(network: DatabaseNetwork, mode: 'mute' | 'cut'): () => Promise<void> {
  network.mode = mode;
  return async () => {
    network.mode = 'pass';
  };
}

function killed(world: World, replica: Replica): () => Promise<void> {
  process.kill(replica.service.pid, 'SIGKILL');
  return async () => world.start(replica);
}

function paused(world: World, replica: Replica): () => Promise<void> {
  const { pid } = replica.service;
  process.kill(pid, 'SIGSTOP');
  return async () => {
    process.kill(pid, 'SIGCONT');
    await wait(3000);
    world.startEnded();
  };
}

async function databaseDown(world: World): Promise<() => Promise<void>> {
  const { primary } = world.databases;
  await primary.kill();
  return () => primary.up();
}
