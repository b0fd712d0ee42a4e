import assert from 'node:assert/strict';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createKey, evidenceRef, readSigner } from '../../src/ledger/index.ts';
import { type Handed, type JudgeParts, judgeRow, signedRow } from '../../src/ledger/outbox.ts';
import { enrolmentOf, type HandedClaim, openReplicaKey, signHanded } from '../../src/ledger/replica-key.ts';
import { commitmentOf } from '../../src/ledger/store.ts';
import { CountersignError, canonicalJson, MAX_ENTRY, sha256 } from '../../src/model/index.ts';
import { scratch } from '../kit/scratch.ts';

// What the replica that signs makes of one row of `outbox`, without a database.
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
const NOW = Date.parse('2026-06-01T12:00:00.000Z');
const keyIn = (name: string) => {
  mkdirSync(join(directory, name));
  return openReplicaKey(join(directory, name));
};
const [key, stranger] = [keyIn('one'), keyIn('stranger')];
const signer = readSigner(ORIGIN, createKey());
const term = { nonce: 'the term', since: NOW - 60_000, taken: new Map<string, number>() };
const parts: JudgeParts = {
  origin: ORIGIN,
  term,
  keys: [signer],
  enrolled: (replica) => (replica === key.id ? key.publicKey.toString('base64') : undefined),
  known: { size: 1, entry: () => undefined, hasEvidence: () => false },
  bounds: { now: NOW },
};
const fields = { type: 'apply.refused', environment: 'production', revision: 'r', verdict: 0, error: 'x' };
const entryOf = (more: object = {}, filed: object = {}) => {
  const entry = { v: 1, time: '2026-06-01T12:00:00.000Z', ...fields, ...more };
  return { body: canonicalJson(entry), type: entry.type, environment: entry.environment, ...filed };
};
const batchOf = (more: Partial<Handed> = {}): Handed => ({ entries: [entryOf()], evidence: [], subjects: [], ...more });
const at = { origin: ORIGIN, term: term.nonce, counter: 1 };
const signed = (handed: Handed, more: Partial<typeof at> = {}, by = key) => {
  const id = randomUUID();
  return { id, content: signedRow(id, handed, { ...at, ...more }, by) as Record<string, unknown> };
};
const judge = (row: { id: string; content: unknown }, more: Partial<JudgeParts> = {}) =>
  judgeRow(row, { ...parts, ...more });
const reasonOf = (row: { id: string; content: unknown }, more: Partial<JudgeParts> = {}) => {
  const judged = judge(row, more);
  return judged.kind === 'refused'
    ? `${judged.replica === key.id ? 'replica' : judged.replica}: ${judged.reason}`
    : judged.kind;
};
/** Signed by the replica over whatever the batch is. */
const over = (batch: string, more: Partial<HandedClaim> = {}) => {
  const id = randomUUID();
  const claim = { ...at, id, run: key.run, replica: key.id, batch, ...more };
  const { origin: _, id: __, ...content } = claim;
  return { id, content: { ...content, signature: signHanded(claim, key) } };
};
const text = (handed: object) => canonicalJson({ entries: [entryOf()], evidence: [], subjects: [], ...handed });

test('what an enrolled replica signed for this term is a batch', () => {
  assert.equal(judge(signed(batchOf())).kind, 'batch');
  assert.equal(judge(over(text({}))).kind, 'batch');
});

test('a row without a signature, or with another’s, is nobody’s', () => {
  const row = signed(batchOf());
  const as = (more: object) => reasonOf({ id: row.id, content: { ...row.content, ...more } });
  for (const content of [
    null,
    7,
    'text',
    [],
    {},
    { ...row.content, signature: 7 },
    { ...row.content, counter: '1' },
    { ...row.content, counter: 1.5 },
  ])
    assert.equal(reasonOf({ id: row.id, content }), 'unauthenticated: it is not signed');
  assert.match(
    reasonOf(signed(batchOf(), {}, stranger)),
    /unauthenticated: the replica that signed it is not enrolled/,
  );
  const wrong = /unauthenticated: its signature is not by the replica it names/;
  assert.match(as({ signature: `${row.content['signature']}=` }), wrong);
  assert.match(as({ signature: Buffer.alloc(64).toString('base64') }), wrong);
  assert.match(as({ counter: 2 }), wrong);
  assert.match(as({ run: 'another' }), wrong);
  assert.match(as({ term: 'another' }), wrong);
  assert.match(as({ batch: text({ entries: [entryOf({ error: 'y' })] }) }), wrong);
  assert.match(reasonOf({ id: randomUUID(), content: row.content }), wrong);
  assert.match(reasonOf(row, { origin: 'another' }), wrong);
  assert.match(
    reasonOf(
      { ...row, content: { ...row.content, replica: stranger.id } },
      { enrolled: () => stranger.publicKey.toString('base64') },
    ),
    wrong,
  );
});

test('one of another term, or that was taken, is not taken; one of the term before is waited for a moment', () => {
  assert.equal(reasonOf(signed(batchOf(), { term: 'before' })), 'replica: it was signed for an earlier term');
  assert.equal(judge(signed(batchOf(), { term: 'before' }), { term: { ...term, since: NOW - 1000 } }).kind, 'early');
  const taken = new Map([[`${key.id} ${key.run}`, 2]]);
  assert.equal(
    reasonOf(signed(batchOf(), { counter: 2 }), { term: { ...term, taken } }),
    'replica: it was already handed over',
  );
  assert.equal(judge(signed(batchOf(), { counter: 3 }), { term: { ...term, taken } }).kind, 'batch');
});

test('what is signed, and is no batch of entries, is refused', () => {
  const entry = entryOf();
  for (const batch of [
    'not JSON',
    '7',
    'null',
    text({ entries: [] }),
    text({ entries: {} }),
    text({ evidence: {} }),
    text({ subjects: {} }),
    text({ entries: [{ ...entry, body: 7 }] }),
    text({ entries: [null] }),
    text({ evidence: [{ sha256: 'a' }] }),
    text({ subjects: [{ commitment: 'a', salt: '' }] }),
  ])
    assert.equal(reasonOf(over(batch)), 'replica: it is not a batch of entries', batch);
});

test('a batch whose parts are not what they say is refused', () => {
  const { ref, bytes } = evidenceRef({ a: 1 });
  assert.equal(judge(signed(batchOf({ evidence: [{ sha256: ref.sha256, bytes }] }))).kind, 'batch');
  assert.match(reasonOf(signed(batchOf({ evidence: [{ sha256: 'f'.repeat(64), bytes }] }))), /not match its digest/);
  const loose = { sha256: sha256('{"a": 1}'), bytes: '{"a": 1}' };
  assert.match(
    reasonOf(signed(batchOf({ evidence: [loose] }))),
    /not match its digest/,
    'bytes that are not canonical',
  );
  const salt = Buffer.alloc(16, 7);
  const subject = { commitment: commitmentOf(salt, 'Dana'), salt, text: 'Dana' };
  assert.equal(judge(signed(batchOf({ subjects: [subject] }))).kind, 'batch');
  assert.match(
    reasonOf(signed(batchOf({ subjects: [{ ...subject, text: 'Lee' }] }))),
    /commitment in it does not match its text/,
  );
});

test('an entry that is filed wrongly, too large, reserved, or not one, is refused', () => {
  const refusal = (...entries: Handed['entries']) => reasonOf(signed(batchOf({ entries })));
  assert.match(refusal(entryOf({ error: 'x'.repeat(MAX_ENTRY) })), /it is larger than/);
  for (const type of ['log.opened', 'epoch.opened', 'key.rotated', 'key.retired', 'replica.enrolled'])
    assert.match(refusal(entryOf({}, { type })), /only the service that signs/, type);
  assert.match(refusal(entryOf({ v: 2 })), /lacks a version or time/);
  assert.match(refusal(entryOf({ time: 7 })), /lacks a version or time/);
  assert.match(
    refusal(entryOf({ type: 'log.opened' }, { type: 'apply.refused' })),
    /type or environment.* differs from the one it is filed under/,
  );
  assert.match(
    refusal(entryOf({}, { environment: 'staging' })),
    /type or environment.* differs from the one it is filed under/,
  );
  assert.match(refusal(entryOf({ more: 1 })), /more/);
  assert.match(refusal(entryOf({}, { body: '{' })), /it is not JSON/);
  assert.match(refusal(entryOf({}, { body: 'null' })), /it is not JSON/);
  assert.match(refusal(entryOf(), entryOf({ time: '2026-06-02T12:00:00.000Z' })), /its time is in the future/);
});

test('evidence that comes with an entry counts for it', () => {
  const { ref, bytes } = evidenceRef({ a: 1 });
  const seen = { type: 'commits.seen', environment: 'production', ref: 'r', tip: 't', count: 1, evidence: ref };
  const body = canonicalJson({ v: 1, time: '2026-06-01T12:00:00.000Z', ...seen });
  const entries = [{ body, type: seen.type, environment: seen.environment }];
  assert.equal(judge(signed(batchOf({ entries, evidence: [{ sha256: ref.sha256, bytes }] }))).kind, 'batch');
  assert.match(reasonOf(signed(batchOf({ entries }))), /neither given nor on the ledger/);
  // A ledger that cannot be read says nothing about the row.
  const hasEvidence = () => {
    throw new CountersignError('ledger-unusable', 'away', { recover: 'retry' });
  };
  assert.throws(() => judge(signed(batchOf({ entries })), { known: { ...parts.known, hasEvidence } }), {
    code: 'ledger-unusable',
  });
});

test('only the ledger’s key enrols a replica, under this ledger’s name', () => {
  const row = (enrolment: string) => ({ id: randomUUID(), content: { enrolment } });
  assert.equal(judge(row(enrolmentOf(stranger, signer))).kind, 'enrolment');
  for (const statement of [
    enrolmentOf(stranger, readSigner(ORIGIN, createKey())),
    enrolmentOf(stranger, { ...signer, name: 'another' }),
    enrolmentOf({ ...stranger, id: key.id }, signer),
    'junk',
  ])
    assert.match(reasonOf(row(statement)), /unauthenticated: its enrolment statement is not signed/);
  assert.match(reasonOf(row(enrolmentOf(stranger, signer)), { origin: 'another' }), /not signed/);
});

test('a replica’s key is an Ed25519 key of its own file, which only this account reads', () => {
  const at = join(directory, 'keys');
  mkdirSync(at);
  const { id } = openReplicaKey(at);
  assert.equal(openReplicaKey(at).id, id, 'it stays');
  assert.equal(statSync(join(at, 'replica.key')).mode & 0o777, 0o600);
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' });
  for (const content of [other, 'junk', '']) {
    writeFileSync(join(at, 'replica.key'), content);
    assert.throws(() => openReplicaKey(at), { code: 'key-unusable', message: /replica\.key/ });
  }
});
