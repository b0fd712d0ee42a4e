import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  CompactRange,
  createKey,
  evidenceRef,
  LedgerReader,
  leafHash,
  openCheckpoint,
  openLedger,
  openNote,
  parseVerifier,
  parseVerifiers,
  readSigner,
  signCheckpoint,
  signNote,
  verifierText,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
let n = 0;
const ORIGIN = 'countersign.dev/test';
const body = (i: number) =>
  ({ type: 'apply.refused', environment: 'production', revision: 'r', verdict: i, error: `error ${i}` }) as const;

async function filled(entries = 5): Promise<string> {
  const at = join(directory, String(n++));
  const ledger = await openLedger(at, ORIGIN);
  for (let i = 0; i < entries; i++) {
    const evidence = evidenceRef({ i, long: 'x'.repeat(100) });
    await ledger.record(
      {
        type: 'change.judged',
        environment: 'production',
        from: '0',
        to: String(i),
        tree: 't',
        outcome: 'denied',
        violations: 1,
        evidence: evidence.ref,
      },
      [evidence],
    );
  }
  await ledger.close();
  return at;
}

function verify(at: string, trusted: string[] = []) {
  const reader = new LedgerReader(join(at, 'ledger.db'));
  try {
    return verifyLedger(reader, parseVerifiers(readFileSync(join(at, 'ledger.pub'), 'utf8')), { trusted });
  } finally {
    reader.close();
  }
}

/** Edits a copy behind the ledger's back, with the guards against it taken off. */
function tamper(at: string, sql: string): string {
  const copy = join(directory, String(n++));
  cpSync(at, copy, { recursive: true });
  const db = new DatabaseSync(join(copy, 'ledger.db'));
  for (const trigger of ['entry_is_kept', 'entry_is_fixed', 'evidence_is_kept', 'evidence_is_fixed'])
    db.exec(`DROP TRIGGER ${trigger}`);
  db.exec(sql);
  db.close();
  return copy;
}

test('what is recorded is durable, in order and under a signed checkpoint', async () => {
  const at = await filled();
  const result = verify(at);
  assert.deepEqual([result.finding, result.size], [undefined, 6]);
  const again = await openLedger(at, 'another name');
  const { index } = await again.record(body(7));
  assert.equal(index, 6);
  assert.equal(again.verifier.name, ORIGIN, 'a ledger keeps its name');
  await again.close();
  assert.equal(verify(at).size, 7);
});

test('entries that wait together share a commit and keep their order', async () => {
  const ledger = await openLedger(join(directory, String(n++)), ORIGIN);
  const recorded = await Promise.all(Array.from({ length: 200 }, (_, i) => ledger.record(body(i))));
  assert.deepEqual(
    recorded.map((r) => r.index),
    Array.from({ length: 200 }, (_, i) => i + 1),
  );
  assert.ok(ledger.read.checkpoints().length < 20);
  await ledger.close();
});

test('the database itself refuses to change or remove an entry', async () => {
  const at = await filled();
  const db = new DatabaseSync(join(at, 'ledger.db'));
  for (const sql of [
    "UPDATE entry SET body = 'x' WHERE seq = 1",
    'DELETE FROM entry WHERE seq = 1',
    'DELETE FROM evidence',
    "UPDATE evidence SET bytes = 'x'",
  ])
    assert.throws(() => db.exec(sql), /append-only/);
  db.close();
});

for (const [what, sql, index, message] of [
  [
    'an altered entry',
    "UPDATE entry SET body = replace(body, 'denied', 'allowed') WHERE seq = 3",
    3,
    /entry 3 was altered/,
  ],
  ['a removed entry', 'DELETE FROM entry WHERE seq = 2', 2, /entry 2 is missing/],
  ['a tail cut off', 'DELETE FROM entry WHERE seq >= 4', 4, /entry 4 is missing/],
  [
    'a tail cut off with its checkpoints',
    'DELETE FROM entry WHERE seq >= 4; DELETE FROM checkpoint WHERE size > 4',
    undefined,
    /missing/,
  ],
  [
    'an entry filed under another type',
    "UPDATE entry SET type = 'drift.found' WHERE seq = 2",
    2,
    /type or environment.* differs from the one it is filed under/,
  ],
  ['altered evidence', "UPDATE evidence SET bytes = replace(bytes, 'x', 'y')", 1, /evidence of entry 1 was altered/],
  ['removed evidence', 'DELETE FROM evidence', 1, /evidence of entry 1 is missing/],
  [
    'swapped entries',
    'UPDATE entry SET seq = 100 WHERE seq = 2; UPDATE entry SET seq = 2 WHERE seq = 3; UPDATE entry SET seq = 3 WHERE seq = 100',
    2,
    /has an earlier time than entry/,
  ],
  [
    'a checkpoint of another root',
    'UPDATE checkpoint SET note = (SELECT note FROM checkpoint WHERE size = 1) WHERE size = 6',
    undefined,
    /./,
  ],
] as const) {
  test(`${what} is found, and where`, async () => {
    const copy = tamper(await filled(), sql);
    const anchor = readFileSync(join(copy, 'checkpoint'), 'utf8');
    const { finding } = verify(copy, [anchor]);
    assert.match(finding?.message ?? 'nothing found', message);
    if (index !== undefined) assert.equal(finding?.index, index);
    if (!/evidence|type or env/.test(String(message)))
      await assert.rejects(
        openLedger(copy, ORIGIN),
        { code: 'ledger-inconsistent', recover: 'halt' },
        'and it is not written to again',
      );
  });
}

test('an altered entry with its leaf made to fit is found by the signed root', async () => {
  const at = await filled();
  const reader = new LedgerReader(join(at, 'ledger.db'));
  const altered = [...reader.stored()][3]?.body.replace('denied', 'allowed') ?? '';
  reader.close();
  const copy = tamper(
    at,
    `UPDATE entry SET body = '${altered}', leaf = x'${leafHash(Buffer.from(altered)).toString('hex')}' WHERE seq = 3`,
  );
  assert.deepEqual(verify(copy).finding, {
    index: 1,
    message: 'an entry from 1 to 5 is not what was signed: the root differs from the stored checkpoint of 6 entries',
  });
});

test('a store put back to an older state is not extended', async () => {
  const at = await filled(2);
  const old = join(directory, String(n++));
  cpSync(at, old, { recursive: true });
  const ledger = await openLedger(at, ORIGIN);
  await ledger.record(body(1));
  await ledger.close();
  for (const file of ['ledger.db', 'ledger.db-wal', 'ledger.db-shm']) rmSync(join(at, file), { force: true });
  cpSync(join(old, 'ledger.db'), join(at, 'ledger.db'));
  await assert.rejects(openLedger(at, ORIGIN), /rolled back to an older state/);
});

test('a missing key is said, and no new one made', async () => {
  const at = await filled(1);
  rmSync(join(at, 'ledger.key'));
  await assert.rejects(openLedger(at, ORIGIN), { code: 'key-missing', hint: /backup/ });
});

test('another key’s checkpoint is not trusted', async () => {
  const at = await filled(1);
  const forged = signCheckpoint(2, Buffer.alloc(32), readSigner(ORIGIN, createKey()));
  assert.match(verify(at, [forged]).finding?.message ?? '', /to verify against is not signed by a key of this ledger/);
  writeFileSync(join(at, 'checkpoint'), forged);
  await assert.rejects(openLedger(at, ORIGIN), { code: 'ledger-inconsistent' });
});

test('a second process is told that the ledger is held', async () => {
  const at = await filled(1);
  const first = await openLedger(at, ORIGIN);
  await assert.rejects(openLedger(at, ORIGIN), { code: 'ledger-held', message: /another process holds/ });
  await first.close();
  await (await openLedger(at, ORIGIN)).close();
});

test('writes behind the back of an open ledger stop it', async () => {
  const at = await filled(1);
  const ledger = await openLedger(at, ORIGIN);
  const db = new DatabaseSync(join(at, 'ledger.db'));
  db.exec("INSERT INTO entry VALUES (2, x'00', '{}', 'x', '')");
  db.close();
  await assert.rejects(ledger.record(body(1)), { code: 'ledger-inconsistent', recover: 'halt' });
  await assert.rejects(ledger.record(body(1)), { code: 'ledger-inconsistent' });
  await ledger.close();
});

test('an anchor that cannot be written is told, and what was recorded stays recorded', async () => {
  const at = await filled(1);
  const told: string[] = [];
  const ledger = await openLedger(at, ORIGIN, { warn: (message) => told.push(message) });
  rmSync(join(at, 'checkpoint'));
  mkdirSync(join(at, 'checkpoint'));
  assert.equal((await ledger.record(body(1))).index, 2);
  assert.match(told.join(), /cannot write the ledger’s anchor .*checkpoint/);
  await ledger.close();
});

test('an entry that is too large is refused, and the rest goes on', async () => {
  const ledger = await openLedger(join(directory, String(n++)), ORIGIN);
  await assert.rejects(ledger.record({ ...body(1), error: 'x'.repeat(70_000) }), { code: 'ledger-unusable' });
  assert.equal((await ledger.record(body(2))).index, 1);
  await ledger.close();
});

// RFC 6962 section 2.1, written the slow way it is defined there.
function rootByDefinition(leaves: readonly Buffer[]): Buffer {
  if (leaves.length <= 1) return leaves[0] ?? createHash('sha256').digest();
  let k = 1;
  while (k * 2 < leaves.length) k *= 2;
  return createHash('sha256')
    .update(Buffer.from([1]))
    .update(rootByDefinition(leaves.slice(0, k)))
    .update(rootByDefinition(leaves.slice(k)))
    .digest();
}

test('the root is that of RFC 6962, and a range goes on from its nodes', () => {
  fc.assert(
    fc.property(fc.nat(70), fc.nat(70), (size, cut) => {
      const leaves = Array.from({ length: size }, (_, i) => leafHash(Buffer.from(String(i))));
      const before = new CompactRange();
      for (const leaf of leaves.slice(0, cut)) before.append(leaf);
      const after = new CompactRange(before.size, before.nodes);
      for (const leaf of leaves.slice(cut)) after.append(leaf);
      assert.deepEqual(after.root(), rootByDefinition(leaves));
      assert.equal(after.size, size);
    }),
  );
  assert.throws(() => new CompactRange(3, [Buffer.alloc(32)]), RangeError);
});

test('a bad signature by a key that is known makes the whole note bad, whatever stands beside it', () => {
  const [one, two] = [readSigner('a.example/log', createKey()), readSigner('a.example/log', createKey())];
  const note = signCheckpoint(7, Buffer.alloc(32, 1), one, two);
  assert.equal(openCheckpoint(note, [one, two])?.by.length, 2);
  const lines = note.split('\n');
  const last = lines.length - 2;
  lines[last] = (lines[last] as string).replace(/.{8}$/, 'AAAAAAA=');
  const altered = lines.join('\n');
  assert.equal(openCheckpoint(altered, [one, two]), undefined);
  assert.equal(
    openCheckpoint(altered, [one])?.by.length,
    1,
    'what is signed by a key that is not known is passed over',
  );
});

test('notes and keys read back equal, and altered ones do not', () => {
  const signer = readSigner('a.example/log', createKey());
  const verifier = parseVerifier(verifierText(signer));
  assert.deepEqual(verifier.publicKey, signer.publicKey);
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'ab \n') }), (text) => {
      const note = signNote(`${text}\n`, signer);
      assert.equal(openNote(note, verifier), `${text}\n`);
    }),
  );
  const note = signCheckpoint(7, Buffer.alloc(32, 1), signer);
  assert.equal(openCheckpoint(note, verifier)?.size, 7);
  for (let i = 0; i < note.length; i++) {
    const altered = note.slice(0, i) + (note[i] === 'A' ? 'B' : 'A') + note.slice(i + 1);
    const read = openCheckpoint(altered, verifier);
    assert.ok(read === undefined, `a note altered at ${i} was read`);
  }
});
