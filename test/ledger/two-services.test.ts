import assert from 'node:assert/strict';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  AnchorKeeper,
  fileAnchor,
  type Ledger,
  openCheckpoint,
  openLedger,
  parseVerifier,
  verifierText,
} from '../../src/ledger/index.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

// One key, two services: a data directory that was copied.
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
let serial = 0;
const body = (i: number) =>
  ({ type: 'apply.refused', environment: 'production', revision: 'r', verdict: i, error: 'x' }) as const;

/** A ledger of five entries, and a copy of its directory. */
async function copied(): Promise<{ one: string; other: string }> {
  const [one, other] = [join(directory, `one-${serial}`), join(directory, `other-${serial++}`)];
  const ledger = await openLedger(one, ORIGIN);
  for (let i = 0; i < 4; i++) await ledger.record(body(i));
  await ledger.close();
  cpSync(one, other, { recursive: true });
  return { one, other };
}

function keeper(ledger: Ledger, data: string, place: string, said: string[]): AnchorKeeper {
  return new AnchorKeeper({
    ledger,
    keyText: readFileSync(join(data, 'ledger.pub'), 'utf8'),
    anchors: [fileAnchor(place)],
    clock: () => new Date(),
    warn: (m) => said.push(m),
  });
}

test('a checkpoint says which process made it, and since when; one without is read as before', async () => {
  const { one } = await copied();
  const [first, second] = [await openLedger(one, ORIGIN), undefined];
  await first.record(body(5));
  const instanceOf = (ledger: Ledger) =>
    openCheckpoint(ledger.read.latestCheckpoint() ?? '', ledger.verifier)?.instance;
  const mine = instanceOf(first);
  assert.match(mine?.id ?? '', /^[0-9a-f]{32}$/);
  assert.ok(Math.abs(Date.parse(mine?.since ?? '') - Date.now()) < 60_000);
  await first.record(body(6));
  assert.deepEqual(instanceOf(first), mine);
  await first.close();
  const again = second ?? (await openLedger(one, ORIGIN));
  await again.record(body(7));
  assert.notDeepEqual(instanceOf(again), mine);
  await again.close();
});

test('while two of them sign, the one that finds the other’s checkpoint at an anchor signs nothing more', async () => {
  const { one, other } = await copied();
  const place = join(directory, `anchor-${serial}`);
  const said: string[] = [];
  const [a, b] = [await openLedger(one, ORIGIN), await openLedger(other, ORIGIN)];
  const [ofA, ofB] = [keeper(a, one, place, said), keeper(b, other, place, said)];
  await a.record(body(5));
  await ofA.check();
  await ofA.keep();
  await b.record(body(5));
  await b.record(body(6));
  await ofB.keep();
  assert.match(said.join(), /a different ledger|another service signs this ledger/);
  await assert.rejects(b.record(body(7)), { code: 'ledger-inconsistent', recover: 'halt' });
  assert.equal((await a.record(body(8))).index, 7, 'the first one goes on');
  await a.close();
  await b.close();
});

test('also where neither has another history yet', async () => {
  const { one, other } = await copied();
  const place = join(directory, `anchor-${serial}`);
  const said: string[] = [];
  const a = await openLedger(one, ORIGIN);
  const ofA = keeper(a, one, place, said);
  await ofA.check();
  // The same entries at the same times would give the same root: only the process is another.
  await a.record(body(5));
  await ofA.keep();
  await a.close();
  cpSync(one, other, { recursive: true, force: true });
  const [c, d] = [await openLedger(one, ORIGIN), await openLedger(other, ORIGIN)];
  const [ofC, ofD] = [keeper(c, one, place, said), keeper(d, other, place, said)];
  await ofC.check();
  await ofD.check();
  await d.record(body(6));
  await d.record(body(7));
  await ofD.keep();
  assert.deepEqual(said, []);
  await c.record(body(6));
  await c.record(body(7));
  await c.record(body(8));
  await c.record(body(9));
  await ofC.keep();
  assert.match(said.join(), /a different ledger|another service signs this ledger: instance [0-9a-f]{32} since 2/);
  await c.close();
  await d.close();
});

test('a replica that shares its ledger takes turns with others, and is not one too many', async () => {
  const { one } = await copied();
  const place = join(directory, `anchor-${serial}`);
  const a = await openLedger(one, ORIGIN);
  const said: string[] = [];
  const shared = new AnchorKeeper({
    ledger: a,
    keyText: verifierText(a.verifier),
    anchors: [fileAnchor(place)],
    clock: () => new Date(),
    warn: (m) => said.push(m),
    isShared: true,
  });
  await shared.check();
  await a.record(body(5));
  await shared.keep();
  await shared.keep();
  assert.deepEqual(said, []);
  await a.close();
});

test('`ledger verify --against` says where two copies part', async () => {
  const { one, other } = await copied();
  const against = (...more: string[]) => countersign(['ledger', 'verify', '--data', one, '--against', ...more]);
  assert.match((await against(other)).stdout, /the other copy is identical: 5 entries/);
  const b = await openLedger(other, ORIGIN);
  await b.record(body(5));
  await b.record(body(6));
  await b.close();
  const longer = await against(other);
  assert.equal(longer.code, 0);
  assert.match(longer.stdout, /the other copy continues this one: 7 entries, 2 more/);
  const a = await openLedger(one, ORIGIN);
  await a.record(body(7));
  await a.record(body(8));
  await a.record(body(9));
  await a.close();
  for (const place of [other, join(other, 'ledger.db')]) {
    const { code, stdout } = await against(place);
    assert.equal(code, 1);
    assert.match(stdout, /fork: the copies diverge at entry 5; this one has 8 entries, the other 7/);
  }
  const note = await against(join(other, 'checkpoint'));
  assert.equal(note.code, 1);
  assert.match(note.stdout, /fork/);
  assert.match(note.stdout, /instance [0-9a-f]{32} since/);
  const own = await against(join(one, 'checkpoint'));
  assert.deepEqual([own.code, /the other copy is identical: 8 entries/.test(own.stdout)], [0, true]);
  const stranger = join(directory, `stranger-${serial}`);
  await (await openLedger(stranger, ORIGIN)).close();
  const notOurs = await against(stranger);
  assert.equal(notOurs.code, 2);
  assert.match(notOurs.stderr, /not signed by this ledger’s key/);
  assert.equal(parseVerifier(readFileSync(join(one, 'ledger.pub'), 'utf8').trim()).name, ORIGIN);
});
