import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  createKey,
  evidenceRef,
  type Ledger,
  LedgerReader,
  openLedger,
  parseVerifiers,
  verifyLedger,
} from '../../src/ledger/index.ts';
import type { CountersignError } from '../../src/model/index.ts';
import { inQuickRun, without } from '../kit/machine.ts';
import { Postgres } from '../kit/postgres.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const ORIGIN = 'countersign.dev/test';
const body = (i: number) =>
  ({ type: 'apply.refused', environment: 'production', revision: 'r', verdict: i, error: `error ${i}` }) as const;
let n = 0;
let postgres: Postgres | undefined;

const key = join(directory, 'shared.key');
writeFileSync(key, createKey());

type Kind = {
  readonly name: string;
  readonly skip: string | false;
  readonly place: () => Promise<{ data: string; url?: string; owner?: string }>;
};
const KINDS: readonly Kind[] = [
  { name: 'SQLite', skip: false, place: async () => ({ data: join(directory, String(n++)) }) },
  {
    name: 'PostgreSQL',
    skip: inQuickRun() || without('PostgreSQL'),
    place: async () => ({ data: join(directory, String(n++)), ...(await (postgres as Postgres).ledger()) }),
  },
];

before(async () => {
  if (KINDS[1]?.skip === false) postgres = await Postgres.start();
});
after(() => postgres?.stop());

const open = ({ data, url }: { data: string; url?: string }): Promise<Ledger> =>
  openLedger(data, ORIGIN, url === undefined ? {} : { postgres: url, key: { files: [key] } });

function check(data: string) {
  const reader = new LedgerReader(join(data, 'ledger.db'));
  try {
    const keys = parseVerifiers(readFileSync(join(data, 'ledger.pub'), 'utf8'));
    return verifyLedger(reader, keys, { trusted: [readFileSync(join(data, 'checkpoint'), 'utf8')] });
  } finally {
    reader.close();
  }
}

for (const { name, skip, place } of KINDS) {
  describe(`a ledger in ${name}`, { skip }, () => {
    test('keeps what was recorded, in order, with its evidence and names, and goes on after it was closed', async () => {
      const at = await place();
      const ledger = await open(at);
      const evidence = evidenceRef({ long: 'x'.repeat(1000) });
      const user = ledger.subject('dana@example.com');
      const recorded = await Promise.all([
        ledger.record(
          { type: 'commits.seen', environment: 'production', ref: 'r', tip: 't', count: 1, evidence: evidence.ref },
          [evidence],
        ),
        ledger.record({ type: 'environment.suspended', environment: 'production', user, reason: 'INC-7' }),
      ]);
      assert.deepEqual(
        recorded.map((r) => r.index),
        [1, 2],
      );
      assert.deepEqual(ledger.read.evidence(evidence.ref), { long: 'x'.repeat(1000) });
      assert.equal(ledger.read.latest(['environment.suspended'], 'production')?.entry.user, 'dana@example.com');
      assert.equal(ledger.subject('dana@example.com'), user, 'one text has one commitment');
      await ledger.close();
      const again = await open(at);
      assert.deepEqual([again.found.entries, again.found.unanchored], [3, 0]);
      assert.equal((await again.record(body(1))).index, 3);
      await again.close();
      assert.deepEqual([check(at.data).finding, check(at.data).size], [undefined, 4]);
    });

    test('takes many at once, over several tiles, and each is in once', async () => {
      const at = await place();
      const ledger = await open(at);
      const recorded = await Promise.all(Array.from({ length: 1500 }, (_, i) => ledger.record(body(i))));
      assert.deepEqual(
        recorded.map((r) => r.index),
        Array.from({ length: 1500 }, (_, i) => i + 1),
      );
      const errors = ledger.read.all('apply.refused', 'production').map((r) => r.entry.error);
      assert.deepEqual(
        errors,
        Array.from({ length: 1500 }, (_, i) => `error ${i}`),
      );
      await ledger.close();
      assert.equal(check(at.data).finding, undefined);
    });

    test('never lets time go back', async () => {
      const at = await place();
      let now = Date.parse('2030-01-01T00:00:00.000Z');
      const options = at.url === undefined ? {} : { postgres: at.url, key: { files: [key] } };
      const ledger = await openLedger(at.data, ORIGIN, { ...options, clock: () => new Date(now) });
      await ledger.record(body(1));
      now -= 3_600_000;
      assert.ok((await ledger.record(body(2))).entry.time >= '2030-01-01T00:00:00.000Z');
      await ledger.close();
      const again = await open(at);
      assert.ok((await again.record(body(3))).entry.time >= '2030-01-01T00:00:00.000Z', 'after a restart neither');
      await again.close();
      assert.equal(check(at.data).finding, undefined);
    });

    test('refuses what does not fit its schema, and what is too large, and goes on', async () => {
      const ledger = await open(await place());
      for (const wrong of [
        { ...body(1), verdict: 'one' },
        { ...body(1), more: 1 },
        { type: 'apply.refused', environment: 'x' },
        { type: 'nothing.known' },
        { ...body(1), error: 'ü'.repeat(40_000) },
      ])
        await assert.rejects(ledger.record(wrong as never), { code: 'ledger-unusable' });
      assert.equal((await ledger.record(body(2))).index, 1);
      await ledger.close();
    });
  });
}

describe('replicas on one PostgreSQL', { skip: KINDS[1]?.skip ?? false }, () => {
  const replica = (url: string) => open({ data: join(directory, `replica-${n++}`), url });

  test('three write at the same time: every entry is in once, in one tree, and each replica reads what it wrote', async () => {
    const { url } = await (postgres as Postgres).ledger();
    const ledgers = [await replica(url), await replica(url), await replica(url)];
    const indexes = await Promise.all(
      ledgers.flatMap((ledger, r) =>
        Array.from({ length: 60 }, async (_, i) => {
          await new Promise((resolve) => setTimeout(resolve, i * 10));
          const { index } = await ledger.record(body(1000 * r + i));
          const read = ledger.read.entry(index)?.entry;
          assert.equal(read?.type === 'apply.refused' && read.verdict, 1000 * r + i);
          return index;
        }),
      ),
    );
    assert.equal(new Set(indexes).size, 180);
    const [first] = ledgers as [Ledger, ...Ledger[]];
    await first.record(body(9000));
    const types = [...first.read.search({})].map(({ entry }) => entry.type);
    assert.deepEqual(
      [
        types.length,
        types.filter((t) => t === 'apply.refused').length,
        types.filter((t) => t === 'replica.enrolled').length,
      ],
      [184, 181, 2],
      'nothing else but that two of them hand entries over',
    );
    for (const ledger of ledgers) await ledger.close();
  });

  test('when the one that sequences ends, another goes on', async () => {
    const { url } = await (postgres as Postgres).ledger();
    const [first, second] = [await replica(url), await replica(url)];
    await first.record(body(1));
    await second.record(body(2));
    await first.close();
    assert.equal((await second.record(body(3))).index, 4);
    assert.deepEqual(
      [...second.read.search({})].map(({ entry }) => entry.type),
      ['log.opened', 'apply.refused', 'replica.enrolled', 'apply.refused', 'apply.refused'],
    );
    await second.close();
  });

  test('a replica’s copy is never taken for a ledger of its own, nor the other way round', async () => {
    const { url } = await (postgres as Postgres).ledger();
    const data = join(directory, `replica-${n++}`);
    await (await open({ data, url })).close();
    await assert.rejects(openLedger(data, ORIGIN, { key: { files: [key] } }), {
      code: 'ledger-unusable',
      message: /is a replica’s copy/,
      hint: /--ledger/,
    });
    const own = join(directory, String(n++));
    await (await openLedger(own, ORIGIN, { key: { files: [key] } })).close();
    await assert.rejects(open({ data: own, url }), { code: 'ledger-unusable', message: /is a ledger of its own/ });
  });

  test('the service’s role can change nothing, and one that can is not used', async () => {
    const at = await (postgres as Postgres).ledger();
    await (await replica(at.url)).close();
    for (const sql of [
      "UPDATE countersign.entry SET body = 'x'",
      'DELETE FROM countersign.entry',
      'TRUNCATE countersign.entry',
      'DELETE FROM countersign.tile',
    ])
      await assert.rejects((postgres as Postgres).ask(at.url, sql), /permission denied/);
    await assert.rejects(
      (postgres as Postgres).ask(at.owner, 'DELETE FROM countersign.entry'),
      /append-only/,
      'nor its owner, without trying',
    );
    await assert.rejects(replica(at.owner), { code: 'ledger-unusable', message: /may change or delete entries/ });
  });

  test('what its owner changes is noticed, and a state put back is not gone on from', async () => {
    const at = await (postgres as Postgres).ledger();
    const place = { data: join(directory, `replica-${n++}`), url: at.url };
    const ledger = await open(place);
    await ledger.record(body(1));
    await ledger.record(body(2));
    await ledger.close();
    const forge = (sql: string) =>
      (postgres as Postgres).ask(at.owner, `ALTER TABLE countersign.entry DISABLE TRIGGER ALL; ${sql}`);
    await forge("UPDATE countersign.entry SET body = replace(body, 'error 1', 'error 9')");
    assert.equal(check(place.data).finding, undefined, 'the copy is what was signed');
    await assert.rejects(replica(at.url), { code: 'ledger-inconsistent', message: /entry 1 .* was altered/ });
    const fitting =
      "UPDATE countersign.entry SET leaf = sha256('\\x00'::bytea || convert_to(body, 'UTF8')) WHERE seq = 1";
    await forge(fitting);
    await assert.rejects(
      replica(at.url),
      { code: 'ledger-inconsistent', message: /its root differs at 3 entries/ },
      'nor with its leaf made to fit',
    );
    await forge('DELETE FROM countersign.entry WHERE seq = 2; DELETE FROM countersign.checkpoint WHERE size > 2');
    await assert.rejects(open(place), {
      code: 'ledger-inconsistent',
      message: /rolled back to an older state/,
      recover: 'halt',
    });
  });

  test('killed in the middle of commits, it loses nothing that was acknowledged, and the replicas go on', {
    timeout: 120_000,
  }, async () => {
    const server = await Postgres.start();
    const { url } = await server.ledger();
    const [one, two] = [await replica(url), await replica(url)];
    const acknowledged = new Map<number, number>();
    let i = 0;
    let isOver = false;
    const write = async (ledger: Ledger) => {
      while (!isOver) {
        const mine = i++;
        const recorded = await ledger.record(body(mine)).catch((thrown: CountersignError) => {
          assert.equal(thrown.recover, 'retry', thrown.message);
          return new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 20));
        });
        if (recorded !== undefined) acknowledged.set(mine, recorded.index);
      }
    };
    const writers = [...Array.from({ length: 20 }, () => write(one)), ...Array.from({ length: 5 }, () => write(two))];
    for (let round = 0; round < 4; round++) {
      await new Promise((resolve) => setTimeout(resolve, 400 + 137 * round));
      await server.kill();
      await server.up();
      const before = acknowledged.size;
      for (const end = Date.now() + 15_000; acknowledged.size === before; ) {
        assert.ok(Date.now() < end, 'the replicas go on');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    isOver = true;
    await Promise.all(writers);
    await one.close();
    await two.close();
    const fresh = { data: join(directory, `replica-${n++}`), url };
    await (await open(fresh)).close();
    const reader = new LedgerReader(join(fresh.data, 'ledger.db'));
    const seen = new Map<number, number>();
    for (const { index, entry } of reader.search({ types: ['apply.refused'] })) {
      assert.ok(entry.type === 'apply.refused' && !seen.has(entry.verdict), 'nothing is in twice');
      seen.set(entry.verdict, index);
    }
    for (const [mine, index] of acknowledged)
      assert.equal(seen.get(mine), index, 'what was acknowledged is where it was said to be');
    reader.close();
    assert.equal(check(fresh.data).finding, undefined);
    await server.stop();
  });
});
