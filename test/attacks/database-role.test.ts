import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import pg from 'pg';
import { createKey, evidenceRef, type Ledger, openLedger, readSigner } from '../../src/ledger/index.ts';
import { signedRow } from '../../src/ledger/outbox.ts';
import { PostgresTables } from '../../src/ledger/postgres.ts';
import { enrolmentOf, openReplicaKey } from '../../src/ledger/replica-key.ts';
import type { EntryBody } from '../../src/model/index.ts';
import { inQuickRun, without } from '../kit/machine.ts';
import { Postgres } from '../kit/postgres.ts';
import { scratch } from '../kit/scratch.ts';
import { until } from '../kit/service.ts';

// Whoever has the role that the service uses in PostgreSQL. It has no ledger key.
const skip = inQuickRun() || without('PostgreSQL');
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
const pem = createKey();
const key = join(directory, 'shared.key');
writeFileSync(key, pem, { mode: 0o600 });
const open: { close(): Promise<unknown> }[] = [];
let postgres: Postgres;
let serial = 0;
before(async () => {
  if (skip === false) postgres = await Postgres.start();
});
after(async () => {
  for (const one of open.splice(0).reverse()) await one.close().catch(() => {});
  await postgres?.stop();
});

const refusedApply = (verdict: number): EntryBody => ({
  type: 'apply.refused',
  environment: 'production',
  revision: 'r',
  verdict,
  error: 'x',
});

async function replica(url: string, said: string[] = []): Promise<Ledger> {
  const options = {
    postgres: url,
    key: { files: [key] },
    warn: (m: string) => said.push(m),
    holdFor: { production: 3_600_000 },
  };
  const ledger = await openLedger(join(directory, `replica-${serial++}`), ORIGIN, options);
  open.push(ledger);
  return ledger;
}

/**
 * A ledger with one entry, the role's own connection, and a replica key that is enrolled: that of a replica that is
 * there.
 */
async function setting() {
  const { url, owner } = await postgres.ledger();
  const said: string[] = [];
  const ledger = await replica(url, said);
  await ledger.record(refusedApply(1));
  const thief = new pg.Client({ connectionString: url });
  await thief.connect();
  open.push({ close: () => thief.end() });
  await thief.query('SET search_path = countersign');
  const hand = (content: unknown, id: string = randomUUID()) =>
    thief.query('INSERT INTO outbox (id, batch) VALUES ($1, $2)', [id, JSON.stringify(content)]);
  const term = async () => String((await thief.query('SELECT nonce FROM term')).rows[0].nonce);
  const refused = () => ledger.read.all('record.refused', '').map(({ entry }) => entry);
  const emptied = (refusals: number) =>
    until(
      async () => (await thief.query('SELECT id FROM outbox')).rows.length === 0 && refused().length >= refusals,
      10_000,
      () => 'rows stay in `outbox`',
    );
  return { url, owner, ledger, said, thief, hand, term, refused, emptied };
}
type Setting = Awaited<ReturnType<typeof setting>>;

const entryOf = (fields: EntryBody, time = new Date().toISOString()) => {
  const body = JSON.stringify({ v: 1, time, ...fields });
  return { body, type: fields.type, environment: (fields as { environment?: string }).environment ?? '' };
};
const batchOf = (...bodies: EntryBody[]) => ({ entries: bodies.map((b) => entryOf(b)), evidence: [], subjects: [] });
const used = (until: string): EntryBody => ({
  type: 'breakglass.used',
  environment: 'production',
  user: 'alice',
  operation: 'UPDATE',
  object: { apiVersion: 'apps/v1', kind: 'Deployment', namespace: 'shop', name: 'web' },
  reason: 'INC-1',
  until,
});
const inAnHour = () => new Date(Date.now() + 3_000_000).toISOString();

/** A replica that is enrolled, held by whoever broke into it: what it hands over is checked all the same. */
async function enrolled({ hand, ledger }: Setting) {
  const data = join(directory, `stolen-${serial++}`);
  mkdirSync(data);
  const own = openReplicaKey(data);
  await hand({ enrolment: enrolmentOf(own, readSigner(ORIGIN, pem)) });
  await until(
    () => Promise.resolve(ledger.read.all('replica.enrolled', '').some(({ entry }) => entry.replica === own.id)),
    10_000,
    () => 'the replica is not enrolled',
  );
  return own;
}

describe('whoever has the role of the service in PostgreSQL', { skip }, () => {
  test('the control: what an enrolled replica signs is recorded', async () => {
    const s = await setting();
    const own = await enrolled(s);
    const id = randomUUID();
    await s.hand(
      signedRow(id, batchOf(used(inAnHour())), { origin: ORIGIN, term: await s.term(), counter: 1 }, own),
      id,
    );
    await until(
      () => Promise.resolve(s.ledger.read.latest(['breakglass.used'], 'production')?.entry.user === 'alice'),
      10_000,
      () => 'it is not recorded',
    );
    await s.emptied(0);
    assert.deepEqual(s.refused(), []);
  });

  test('without a replica’s key: nothing of it is recorded, and the ledger says so once', async () => {
    const s = await setting();
    const stranger = openReplicaKey(directory);
    const batch = batchOf(used(inAnHour()));
    await s.hand(batch);
    await s.hand({
      replica: 'r',
      run: 'x',
      counter: 1,
      term: await s.term(),
      batch: JSON.stringify(batch),
      signature: 'AAAA',
    });
    const id = randomUUID();
    await s.hand(signedRow(id, batch, { origin: ORIGIN, term: await s.term(), counter: 1 }, stranger), id);
    for (const junk of ['nonsense', null, [], { entries: 'none' }, { enrolment: 'none' }, { enrolment: 7 }])
      await s.hand(junk);
    await s.hand({ enrolment: enrolmentOf(stranger, readSigner(ORIGIN, createKey())) });
    await s.hand({ enrolment: enrolmentOf(stranger, readSigner('countersign.dev/other', pem)) });
    await s.emptied(1);
    assert.equal(s.ledger.read.latest(['breakglass.used'], 'production'), undefined);
    assert.deepEqual(s.ledger.read.all('replica.enrolled', ''), []);
    const [first] = s.refused();
    assert.deepEqual([s.refused().length, first?.source, first?.replica], [1, 'outbox', 'unauthenticated']);
    assert.match(first?.digest ?? '', /^[0-9a-f]{64}$/);
    assert.ok(s.said.some((m) => /unauthenticated is not recorded/.test(m)));
    assert.equal((await s.ledger.record(refusedApply(2))).index, 3);
  });

  test('what a replica signed is not taken again, for another term, or altered', async () => {
    const s = await setting();
    const own = await enrolled(s);
    const at = { origin: ORIGIN, term: await s.term(), counter: 1 };
    const id = randomUUID();
    const row = signedRow(id, batchOf(refusedApply(77)), at, own);
    await s.hand(row, id);
    await until(
      () => Promise.resolve(s.ledger.read.all('apply.refused', 'production').length === 2),
      10_000,
      () => 'it is not recorded',
    );
    await s.thief.query('DELETE FROM taken');
    await s.hand(row, id); // the same once more
    await s.hand(row); // under another id
    const other = (change: object) =>
      s.hand({ ...signedRow(id, batchOf(refusedApply(77)), { ...at, counter: 2 }, own), ...change }, randomUUID());
    await other({ counter: 3 });
    await other({ term: '00' });
    await other({ run: 'another' });
    await other({ batch: JSON.stringify(batchOf(refusedApply(78))) });
    const elsewhere = randomUUID();
    await s.hand(
      signedRow(elsewhere, batchOf(refusedApply(77)), { ...at, origin: 'countersign.dev/other', counter: 9 }, own),
      elsewhere,
    );
    await s.emptied(1);
    const verdicts = s.ledger.read.all('apply.refused', 'production').map(({ entry }) => entry.verdict);
    assert.deepEqual(verdicts, [1, 77]);
  });

  test('a row of an earlier term counts for nobody', async () => {
    const s = await setting();
    const own = await enrolled(s);
    const id = randomUUID();
    const row = signedRow(id, batchOf(refusedApply(77)), { origin: ORIGIN, term: await s.term(), counter: 1 }, own);
    const second = await replica(s.url);
    await s.ledger.close();
    await second.record(refusedApply(2));
    await s.hand(row, id);
    await until(
      () => Promise.resolve(second.read.all('record.refused', '').length === 1),
      20_000,
      () => 'nothing is said of it',
    );
    assert.deepEqual(
      second.read.all('apply.refused', 'production').map(({ entry }) => entry.verdict),
      [1, 2],
    );
  });

  test('also an enrolled replica cannot have recorded what cannot be true', async () => {
    const s = await setting();
    const own = await enrolled(s);
    const evidence = evidenceRef({ objects: [] });
    const plan = { sha256: evidence.ref.sha256, bytes: evidence.bytes };
    const judged: EntryBody = {
      type: 'change.judged',
      environment: 'production',
      from: 'a',
      to: 'b',
      tree: 't',
      outcome: 'denied',
      violations: 1,
      evidence: evidence.ref,
    };
    const denied = await s.ledger.record(judged, [evidence]);
    const allowed = await s.ledger.record({ ...judged, outcome: 'allowed', violations: 0 }, [evidence]);
    const intent = {
      type: 'apply.intent',
      environment: 'production',
      revision: 'b',
      previous: 'a',
      verdict: allowed.index,
      purpose: 'apply',
      evidence: evidence.ref,
    } as const;
    const result = {
      type: 'apply.result',
      environment: 'production',
      intent: 1,
      revision: 'b',
      outcome: 'applied',
      applied: 1,
      pruned: 0,
      evidence: evidence.ref,
    } as const;
    const late = new Date(Date.now() + 3_600_000).toISOString();
    const ghost = { sha256: createHash('sha256').update('ghost').digest('hex'), size: 5 };
    const wrong: readonly (readonly [EntryBody | ReturnType<typeof entryOf>, RegExp])[] = [
      [{ ...intent, verdict: denied.index }, /which denies/],
      [{ ...intent, verdict: 1 }, /of type apply\.refused, not change\.judged/],
      [{ ...intent, verdict: 999 }, /does not exist/],
      [{ ...intent, verdict: -1 }, /does not exist/],
      [{ ...intent, environment: 'staging' }, /of a different environment/],
      [{ ...intent, revision: 'c' }, /about a different revision/],
      [{ ...intent, takesOver: 1 }, /`takesOver` names entry 1/],
      [{ ...result }, /`intent` names entry 1, which is of type/],
      [{ ...result, evidence: ghost }, /neither given nor on the ledger/],
      [
        { type: 'breakglass.settled', environment: 'production', uses: [1], user: 'x', reason: 'y' },
        /`uses` names entry 1/,
      ],
      [
        { type: 'report.delivered', issued: 1, to: 'x', kind: 's3', outcome: 'delivered', attempts: 1 },
        /`issued` names entry 1/,
      ],
      [
        {
          type: 'exception.settled',
          environment: 'production',
          exception: 'E999',
          disposition: 'accepted',
          user: 'x',
          reason: 'y',
        },
        /names entry 999/,
      ],
      [{ type: 'checkpoint.anchored', anchor: 'x', size: 1000, root: 'x' }, /`size` is 1000/],
      [{ ...used('2126-12-25T00:00:00.000Z') }, /holdFor/],
      [{ ...used('never') }, /holdFor/],
      [{ ...used(inAnHour()), at: late } as EntryBody, /`at` is in the future/],
      [entryOf(refusedApply(3), late), /its time is in the future/],
      [entryOf(refusedApply(3), 'soon'), /its time is in the future/],
      [{ type: 'key.retired', key: 'k' }, /only the service that signs/],
      [{ type: 'log.opened', origin: 'x' }, /only the service that signs/],
      [{ type: 'replica.enrolled', replica: 'x', key: 'x', statement: 'x' }, /only the service that signs/],
      [{ ...refusedApply(3), more: 1 } as never, /Unrecognized key/],
      [{ ...entryOf(refusedApply(3)), environment: 'staging' }, /filed under/],
      [{ ...entryOf(refusedApply(3)), body: 'nonsense' }, /not JSON/],
      [entryOf({ ...refusedApply(3), error: 'x'.repeat(70_000) } as EntryBody), /larger than/],
    ];
    const { size } = s.ledger.read;
    const { judgeRow } = await import('../../src/ledger/outbox.ts');
    const reasonFor = (content: object, id: string, term: string) => {
      const { read } = s.ledger;
      const judged = judgeRow(
        { id, content },
        {
          origin: ORIGIN,
          term: { nonce: term, since: 0, taken: new Map() },
          keys: [],
          enrolled: () => own.publicKey.toString('base64'),
          known: {
            size: read.size,
            entry: (i) => read.entry(i)?.entry,
            hasEvidence: (d) => read.evidenceBytes(d) !== undefined,
          },
          bounds: { now: Date.now(), holdFor: { production: 3_600_000 } },
        },
      );
      return judged.kind === 'refused' ? judged.reason : judged.kind;
    };
    const term = await s.term();
    let counter = 0;
    for (const [what, reason] of wrong) {
      const entry = 'body' in what ? what : entryOf(what);
      const id = randomUUID();
      const row = signedRow(
        id,
        { entries: [entry], evidence: [], subjects: [] },
        { origin: ORIGIN, term, counter: ++counter },
        own,
      );
      assert.match(reasonFor(row, id, term), reason);
      await s.hand(row, id);
    }
    const other = randomUUID();
    const altered = { entries: [entryOf(intent)], evidence: [{ ...plan, bytes: '{}' }], subjects: [] };
    const row = signedRow(other, altered, { origin: ORIGIN, term, counter: ++counter }, own);
    assert.match(reasonFor(row, other, term), /not match its digest/);
    await s.hand(row, other);
    // A good one after all of them, by the same replica.
    const good = randomUUID();
    await s.hand(
      signedRow(
        good,
        { entries: [entryOf(intent)], evidence: [plan], subjects: [] },
        { origin: ORIGIN, term, counter: ++counter },
        own,
      ),
      good,
    );
    await s.emptied(1);
    const entries = [...s.ledger.read.search({ from: size })].map(({ entry }) => entry.type);
    assert.deepEqual(entries, ['apply.intent', 'record.refused']);
    assert.equal(s.refused()[0]?.replica, own.id);
  });

  test('a flood of bad rows grows the ledger by one entry and holds up nobody', async () => {
    const s = await setting();
    const second = await replica(s.url);
    await second.record(refusedApply(2));
    const before = s.ledger.read.size;
    await s.thief.query(
      "INSERT INTO outbox (id, at, batch) SELECT gen_random_uuid(), '1970-01-01', jsonb_build_object('batch', repeat('x', 1000)) FROM generate_series(1, 5000)",
    );
    const started = Date.now();
    await Promise.all([s.ledger.record(refusedApply(3)), second.record(refusedApply(4))]);
    assert.ok(Date.now() - started < 15_000);
    await s.emptied(1);
    assert.equal(s.ledger.read.size - before, 3);
    assert.equal(s.refused().length, 1);
  });

  test('a row that is too large is not even read', async () => {
    const s = await setting();
    await s.thief.query(
      "INSERT INTO outbox (id, batch) VALUES (gen_random_uuid(), jsonb_build_object('batch', repeat('x', 60000000)))",
    );
    await s.emptied(1);
    await until(
      () => Promise.resolve(s.refused().length === 1),
      10_000,
      () => 'nothing is said of it',
    );
    assert.match(s.refused()[0]?.reason ?? '', /too large/);
  });

  test('rows that the ledger did not sign are not part of it, and stop nothing', async () => {
    const s = await setting();
    await s.thief.query("INSERT INTO entry VALUES (900000000, '\\x00', '{}', 'x', '')");
    await s.thief.query("INSERT INTO checkpoint SELECT n, 'junk' FROM generate_series(900000001, 900000050) n");
    await s.thief.query("INSERT INTO checkpoint VALUES (9000000000000000000, 'junk'), (-1, 'junk'), (4, 'junk')");
    await s.ledger.record(refusedApply(2));
    await s.ledger.record(refusedApply(3));
    const second = await replica(s.url);
    assert.equal((await second.record(refusedApply(4))).entry.type, 'apply.refused');
    const third = await replica(s.url);
    assert.equal(third.read.entry(900000000), undefined);
    assert.equal(third.read.size, second.read.size);
  });

  test('one at the very next number is named, with the way out, and recording goes on once it is gone', async () => {
    const s = await setting();
    const size = s.ledger.read.size;
    await s.thief.query(`INSERT INTO entry VALUES (${size}, '\\x00', '{}', 'x', '')`);
    const thrown = await s.ledger.record(refusedApply(2)).then(
      () => assert.fail('it is recorded'),
      (e: Error & { recover: string; hint: string }) => e,
    );
    assert.equal(thrown.recover, 'retry');
    assert.match(thrown.message, new RegExp(`the next row of the table \`entry\` belongs at ${size}`));
    const [, sql = ''] = /runs `([^`]+)`/.exec(thrown.hint) ?? [];
    await postgres.ask(s.owner, sql);
    assert.equal((await s.ledger.record(refusedApply(2))).index, size);
    await assert.rejects(postgres.ask(s.owner, 'DELETE FROM countersign.entry'), /append-only/, 'the trigger is back');
  });

  test('checkpoints that were deleted are put back by a replica that has its copy', async () => {
    const s = await setting();
    await s.thief.query('DELETE FROM checkpoint');
    await assert
      .rejects(
        replica(s.url).then((l) => l.record(refusedApply(9))),
        { code: 'ledger-inconsistent' },
      )
      .catch(() => {}); // it has no copy: unless the first one was faster, it says that it cannot tell
    await s.ledger.record(refusedApply(2));
    const second = await replica(s.url);
    await second.record(refusedApply(3));
    const verdicts = second.read.all('apply.refused', 'production').map(({ entry }) => entry.verdict);
    assert.deepEqual(
      verdicts.filter((v) => v !== 9),
      [1, 2, 3],
    );
  });

  test('nobody is told that something is recorded because somebody wrote so', async () => {
    const s = await setting();
    const second = await replica(s.url);
    await second.record(refusedApply(2));
    // Whatever waits in `outbox` is said to be taken, and taken away.
    let isOver = false;
    const lying = (async () => {
      while (!isOver) {
        await s.thief.query('INSERT INTO taken (id, first) SELECT id, 1 FROM outbox ON CONFLICT DO NOTHING');
        await s.thief.query('DELETE FROM outbox');
      }
    })();
    const recorded = second.record(refusedApply(3)).then(
      ({ index }) => index,
      (thrown: { recover: string }) => thrown.recover,
    );
    await new Promise((resolve) => setTimeout(resolve, 1500));
    isOver = true;
    await lying;
    const outcome = await recorded;
    const there = s.ledger.read.all('apply.refused', 'production').filter(({ entry }) => entry.verdict === 3);
    if (outcome === 'retry') assert.deepEqual(there, []);
    else
      assert.deepEqual(
        there.map((r) => r.index),
        [outcome],
      );
  });

  test('evidence and names cannot be put in advance under a digest that is not theirs', async () => {
    const s = await setting();
    await assert.rejects(
      s.thief.query("INSERT INTO evidence VALUES ($1, 'other')", ['a'.repeat(64)]),
      /evidence_is_hashed/,
    );
    await assert.rejects(
      s.thief.query("INSERT INTO subject VALUES ($1, '\\x00', 'other')", [`subject:${'a'.repeat(64)}`]),
      /subject_is_hashed/,
    );
  });

  test('a server that never ends its answer, or never gives one, is left', async () => {
    const message = (type: string, body: Buffer) => {
      const head = Buffer.from(`${type}0000`);
      head.writeInt32BE(body.length + 4, 1);
      return Buffer.concat([head, body]);
    };
    const welcome = Buffer.concat([message('R', Buffer.from([0, 0, 0, 0])), message('Z', Buffer.from('I'))]);
    const row = message('D', Buffer.concat([Buffer.from([0, 1, 0, 1, 0, 0]), Buffer.alloc(65_536, 0x78)]));
    const fake = createServer((socket) => {
      socket.on('error', () => {});
      let asked = 0;
      socket.on('data', () => {
        if (asked++ === 0 && isWelcoming) socket.write(welcome);
        else if (isWelcoming) {
          const more = () => {
            while (socket.writable && socket.write(row));
          };
          socket.on('drain', more);
          more();
        }
      });
    }).listen(0, '127.0.0.1');
    let isWelcoming = true;
    open.push({ close: async () => fake.close() });
    await once(fake, 'listening');
    const { port } = fake.address() as { port: number };
    for (isWelcoming of [true, false]) {
      const tables = new PostgresTables(`postgres://gate@127.0.0.1:${port}/x`, () => {});
      const before = process.memoryUsage().rss;
      await assert.rejects(tables.connect(), { code: 'ledger-unusable', recover: 'retry' });
      assert.ok(process.memoryUsage().rss - before < 2_000_000_000);
      await tables.close();
    }
  });

  test('the schema may be run again, and one of an older version is named', async () => {
    const { url, owner } = await postgres.ledger();
    const { postgresSchema } = await import('../../src/ledger/index.ts');
    await postgres.ask(owner, 'DROP TABLE countersign.term');
    await assert.rejects(replica(url), {
      code: 'ledger-unusable',
      message: /from an older version/,
      hint: /ledger schema/,
    });
    for (let i = 0; i < 2; i++) await postgres.ask(owner, postgresSchema('gate'));
    await (await replica(url)).record(refusedApply(1));
  });
});
