import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { createKey, newInstance, readSigner } from '../../src/ledger/index.ts';
import { openReplicaKey } from '../../src/ledger/replica-key.ts';
import { prepare } from '../../src/ledger/sequencer.ts';
import { SharedSequencer } from '../../src/ledger/shared-sequencer.ts';
import type { Entry } from '../../src/model/index.ts';
import { inQuickRun, without } from '../kit/machine.ts';
import { Postgres } from '../kit/postgres.ts';
import { scratch } from '../kit/scratch.ts';
import { until } from '../kit/service.ts';

// Replicas that never look by themselves: what happens between them, notifications caused.
const skip = inQuickRun() || without('PostgreSQL');
const directory = scratch();
const NEVER = 3_600_000;
const signer = readSigner('countersign.dev/test', createKey());
let postgres: Postgres;
let serial = 0;
const open: SharedSequencer[] = [];
before(async () => {
  if (skip === false) postgres = await Postgres.start();
});
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close();
});
after(() => postgres?.stop());

async function replica(url: string): Promise<SharedSequencer> {
  const data = join(directory, `${serial++}`);
  mkdirSync(data);
  const sequencer = await SharedSequencer.open({
    url,
    copy: join(data, 'ledger.db'),
    anchor: join(data, 'checkpoint'),
    name: 'the ledger’s database',
    signers: [signer],
    verifiers: [],
    instance: newInstance(new Date()),
    replica: openReplicaKey(data),
    clock: () => new Date(),
    warn: () => {},
    tickMs: NEVER,
  });
  open.push(sequencer);
  return sequencer;
}

const entries = (...verdicts: number[]) => ({
  entries: verdicts.map((verdict) =>
    prepare({
      v: 1,
      time: new Date().toISOString(),
      ...{ type: 'apply.refused', environment: 'production', revision: 'r', verdict, error: 'x' },
    } as Entry),
  ),
  evidence: [],
  subjects: [],
});

describe('entries that a replica hands over', { skip }, () => {
  test('are recorded without waiting for anyone to look', async () => {
    const { url } = await postgres.ledger();
    const [leader, follower] = [await replica(url), await replica(url)];
    await leader.append(entries(0));
    for (let i = 1; i <= 30; i++) assert.equal((await follower.append(entries(i))).bodies?.length, 1);
  });

  test('reach the copies of the others as they are recorded', async () => {
    const { url } = await postgres.ledger();
    const [leader, one, other] = [await replica(url), await replica(url), await replica(url)];
    await leader.append(entries(0));
    const { size } = await one.append(entries(1, 2, 3));
    await until(
      () => Promise.resolve(other.size === size && leader.size === size),
      10_000,
      () => 'a replica does not hear of it',
    );
  });
});
