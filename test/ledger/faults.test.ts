import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  createKey,
  LedgerReader,
  openLedger,
  parseVerifiers,
  readSigner,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { prepare, Sequencer } from '../../src/ledger/sequencer.ts';
import { SqliteStore } from '../../src/ledger/sqlite-store.ts';
import { type Batch, CommitUnknown, type Store } from '../../src/ledger/store.ts';
import { CountersignError, type Entry } from '../../src/model/index.ts';
import { run } from '../kit/fleet.ts';
import { inQuickRun } from '../kit/machine.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
let n = 0;
const WRITER = fileURLToPath(new URL('../kit/ledger-writer.ts', import.meta.url));

/** What writers told before they were killed. A line may be cut off, and the next writer goes on behind it. */
type Told = { readonly acknowledged: Map<number, number>; readonly notes: string[] };

function toldIn(file: string): Told {
  const acknowledged = new Map<number, number>();
  const notes: string[] = [];
  for (const line of readFileSync(file, 'utf8').split('\n').slice(0, -1)) {
    if (line.startsWith('note ')) notes.push(...wholeNote(line.slice(5)));
    const [mine, index] = line.split(' ').map(Number);
    if (/^\d+ \d+$/.test(line)) acknowledged.set(mine as number, index as number);
  }
  return { acknowledged, notes };
}

function wholeNote(text: string): string[] {
  try {
    return [JSON.parse(text) as string];
  } catch {
    return [];
  }
}

// Mostly while it writes, now and then while it is still opening the ledger.
async function killedSoon(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.on('close', resolve));
  if (Math.random() < 0.8) await new Promise((resolve) => child.stdout?.once('data', resolve));
  await new Promise((resolve) => setTimeout(resolve, Math.random() * 300));
  child.kill('SIGKILL');
  await ended;
}

const ROUNDS = Number(process.env['COUNTERSIGN_KILLS'] ?? 40); // `npm run test:long`: 200
const AT_ONCE = 4;

test(`kill -9 at ${ROUNDS} random moments under load: nothing acknowledged is lost, nothing is signed twice`, {
  skip: inQuickRun(),
}, async () => {
  const check = async (lane: number) => {
    const at = join(directory, `killed-${lane}`);
    mkdirSync(at);
    const file = join(at, 'told');
    writeFileSync(file, '');
    for (let round = 0; round < ROUNDS / AT_ONCE; round++) {
      const child = spawn(process.execPath, [WRITER, join(at, 'ledger'), file, String(lane * 1000 + round)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await killedSoon(child);
    }
    const { acknowledged, notes } = toldIn(file);
    assert.ok(acknowledged.size > 20, `it wrote in between: ${acknowledged.size}`);
    const ledger = await openLedger(join(at, 'ledger'), 'countersign.dev/test');
    await ledger.close();
    const reader = new LedgerReader(join(at, 'ledger', 'ledger.db'));
    const stored = new Map<number, number>();
    for (const { index, entry } of reader.search({ types: ['apply.refused'] }))
      if (entry.type === 'apply.refused') stored.set(entry.verdict, index);
    for (const [mine, index] of acknowledged)
      assert.equal(stored.get(mine), index, 'what was acknowledged is where it was said to be');
    const roots = new Map<string, string>();
    for (const note of [...notes, ...reader.checkpoints().map((c) => c.note)]) {
      const [, size = '', root = ''] = note.split('\n');
      assert.equal(roots.get(size) ?? root, root, `two roots were signed at ${size} entries`);
      roots.set(size, root);
    }
    const keys = parseVerifiers(readFileSync(join(at, 'ledger', 'ledger.pub'), 'utf8'));
    assert.equal(
      verifyLedger(reader, keys, {
        trusted: [readFileSync(join(at, 'ledger', 'checkpoint'), 'utf8'), ...notes.slice(-20)],
      }).finding,
      undefined,
    );
    reader.close();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, (_, lane) => check(lane)));
});

/** The real store, that fails around a commit as it is told. */
class FailingStore implements Store {
  readonly #store: SqliteStore;
  next: 'before' | 'after' | 'unknown-before' | undefined;

  constructor(store: SqliteStore) {
    this.#store = store;
  }

  async commit(batch: Batch): Promise<void> {
    const how = this.next;
    this.next = undefined;
    if (how === 'before') throw new CountersignError('ledger-unusable', 'the disk is gone', { recover: 'retry' });
    if (how === 'unknown-before') throw new CommitUnknown(new Error('lost'));
    await this.#store.commit(batch);
    if (how === 'after') throw new CommitUnknown(new Error('lost'));
  }

  size = () => this.#store.size();
  entries = (from: number, limit: number) => this.#store.entries(from, limit);
  tile = (level: number, tile: number) => this.#store.tile(level, tile);
  addTiles = (tiles: Batch['tiles']) => this.#store.addTiles(tiles);
  latestCheckpoint = () => this.#store.latestCheckpoint();
  reopen = () => this.#store.reopen();
  close = () => this.#store.close();
}

async function sequencer() {
  const at = join(directory, String(n++));
  mkdirSync(at);
  const file = join(at, 'ledger.db');
  const store = new FailingStore(new SqliteStore(file));
  const signer = readSigner('countersign.dev/test', createKey());
  const options = {
    store,
    name: 'it',
    signers: [signer],
    verifiers: [],
    anchor: join(at, 'checkpoint'),
    clock: () => new Date(),
    warn: () => {},
  } as const;
  const opened = await Sequencer.open({ ...options, signers: [signer] });
  const append = (i: number) => {
    const entry = {
      v: 1,
      time: `2030-01-01T00:00:00.${String(i).padStart(3, '0')}Z`,
      type: 'service.stopped',
      reason: String(i),
    } as Entry;
    return opened.append({ entries: [prepare(entry)], evidence: [], subjects: [] });
  };
  const verify = () => {
    const reader = new LedgerReader(file);
    const result = verifyLedger(reader, [signer], { trusted: [readFileSync(join(at, 'checkpoint'), 'utf8')] });
    reader.close();
    return result;
  };
  return { store, append, verify, file };
}

test('a commit that fails before it takes effect acknowledges nothing, and the next takes its place', async () => {
  const { store, append, verify } = await sequencer();
  await append(1);
  store.next = 'before';
  await assert.rejects(append(2), { code: 'ledger-unusable', recover: 'retry' });
  assert.equal((await append(3)).first, 2);
  assert.deepEqual([verify().finding, verify().size], [undefined, 3]);
  await store.close();
});

test('a commit whose end is not known is asked for: kept, it is acknowledged; not kept, it is not', async () => {
  const { store, append, verify } = await sequencer();
  store.next = 'after';
  assert.equal((await append(1)).first, 1, 'it was kept after all');
  store.next = 'unknown-before';
  await assert.rejects(append(2), { code: 'ledger-unusable', recover: 'retry' });
  assert.equal((await append(3)).first, 2, 'nothing of it was kept');
  assert.deepEqual([verify().finding, verify().size], [undefined, 3]);
  await store.close();
});

test('a commit whose end is not known, after which others stand there, halts', async () => {
  const { store, append, file } = await sequencer();
  await append(1);
  const other = new SqliteStore(file);
  store.next = 'unknown-before';
  const foreign = prepare({
    v: 1,
    time: '2030-01-01T00:00:01.000Z',
    type: 'service.stopped',
    reason: 'foreign',
  } as Entry);
  await other.commit({
    first: 2,
    entries: [foreign],
    evidence: [],
    subjects: [],
    tiles: [],
    checkpoint: { size: 3, note: 'x' },
  });
  await assert.rejects(append(2), { code: 'ledger-inconsistent', recover: 'halt' });
  await other.close();
  await store.close();
});

test('a full disk is told, loses nothing, and is got over', async (t) => {
  const disk = join(directory, 'disk');
  mkdirSync(disk);
  try {
    run('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk]);
  } catch {
    return t.skip('no file system of its own can be mounted here');
  }
  try {
    const ledger = await openLedger(join(disk, 'ledger'), 'countersign.dev/test');
    const entry = (i: number) => ({ type: 'service.stopped', reason: `${i} ${'x'.repeat(50_000)}` }) as const;
    let written = 0;
    const failure = await (async () => {
      for (; ; written++) await ledger.record(entry(written));
    })().catch((thrown: unknown) => thrown);
    assert.ok(failure instanceof CountersignError, String(failure));
    assert.deepEqual([failure.code, failure.recover], ['ledger-unusable', 'retry']);
    assert.match(failure.hint ?? '', /disk is not full/);
    assert.ok(written > 5);
    run('mount', ['-o', 'remount,size=8m', disk]);
    assert.equal((await ledger.record(entry(written))).index, written + 1, 'as soon as there is room it goes on');
    await ledger.close();
    const reader = new LedgerReader(join(disk, 'ledger', 'ledger.db'));
    const keys = parseVerifiers(readFileSync(join(disk, 'ledger', 'ledger.pub'), 'utf8'));
    assert.deepEqual([verifyLedger(reader, keys).finding, reader.size], [undefined, written + 2]);
    reader.close();
  } finally {
    run('umount', ['--lazy', disk]);
  }
});

test('two processes on one file: the second is refused, and without the lock it is noticed', async () => {
  const at = join(directory, String(n++));
  const first = await openLedger(at, 'countersign.dev/test');
  await assert.rejects(openLedger(at, 'countersign.dev/test'), {
    code: 'ledger-held',
    message: /another process holds/,
  });
  rmSync(join(at, 'ledger.lock')); // somebody thought it was in the way
  const second = await openLedger(at, 'countersign.dev/test');
  await second.record({ type: 'service.stopped', reason: 'second' });
  await assert.rejects(first.record({ type: 'service.stopped', reason: 'first' }), {
    code: 'ledger-inconsistent',
    recover: 'halt',
  });
  await assert.rejects(first.record({ type: 'service.stopped', reason: 'first' }), { code: 'ledger-inconsistent' });
  await first.close();
  await second.close();
  const reader = new LedgerReader(join(at, 'ledger.db'));
  assert.equal(verifyLedger(reader, parseVerifiers(readFileSync(join(at, 'ledger.pub'), 'utf8'))).finding, undefined);
  reader.close();
});
