import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { rememberedState } from '../../src/gate/index.ts';
import {
  createKey,
  evidenceRef,
  LedgerReader,
  openLedger,
  parseVerifier,
  readSigner,
  verifierText,
  verifyLedger,
} from '../../src/ledger/index.ts';
import { prepare, Sequencer } from '../../src/ledger/sequencer.ts';
import { SqliteStore } from '../../src/ledger/sqlite-store.ts';
import type { EntryBody } from '../../src/model/index.ts';
import { recorderAt } from '../kit/recorder.ts';
import { commitId, recordChange } from '../kit/report-ledger.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const evidence = evidenceRef({ objects: [], leaving: [] });
const result = (intent: number): EntryBody => ({
  type: 'apply.result',
  environment: 'production',
  intent,
  revision: commitId(9),
  outcome: 'applied',
  applied: 1,
  pruned: 0,
  evidence: evidence.ref,
});

test('an entry that refers to nothing is not recorded, also by the service itself, and the next one is', async () => {
  const ledger = await openLedger(join(directory, 'own'), 'countersign.dev/test', {
    holdFor: { production: 3_600_000 },
  });
  await assert.rejects(ledger.record(result(0), [evidence]), /`intent` names entry 0, which is of type log\.opened/);
  await assert.rejects(ledger.record(result(7), [evidence]), /`intent` names entry 7, which does not exist/);
  await assert.rejects(ledger.record(result(0), []), /neither given nor on the ledger/);
  const use = {
    type: 'breakglass.opened',
    environment: 'production',
    user: 'x',
    reason: 'y',
    ticket: '',
    until: new Date(Date.now() + 7_200_000).toISOString(),
  } as const;
  await assert.rejects(ledger.record(use), /`until` is more than 3600 s \(holdFor\) after it/);
  assert.equal((await ledger.record({ ...use, until: new Date(Date.now() + 3_600_000).toISOString() })).index, 1);
  await ledger.close();
});

test('one that an older version let in is named by `ledger verify`, and the environment goes on from its last true result', async () => {
  const at = join(directory, 'older');
  const { ledger, recorder } = await recorderAt(at);
  await recordChange(ledger, commitId(1));
  assert.equal(rememberedState(recorder, 'production')().revision, commitId(1));
  await ledger.close();

  const bare = join(directory, 'bare');
  mkdirSync(bare);
  const signer = readSigner('countersign.dev/test', createKey());
  const store = new SqliteStore(join(bare, 'ledger.db'));
  const sequencer = await Sequencer.open({
    store,
    name: 'it',
    signers: [signer],
    verifiers: [],
    anchor: join(bare, 'checkpoint'),
    clock: () => new Date(),
    warn: () => {},
  });
  const time = new Date(Date.now() + 1000).toISOString();
  const row = { sha256: evidence.ref.sha256, bytes: evidence.bytes };
  await sequencer.append({ entries: [prepare({ v: 1, time, ...result(0) })], evidence: [row], subjects: [] });
  await store.close();
  const reader = new LedgerReader(join(bare, 'ledger.db'));
  const { finding, notes } = verifyLedger(reader, [parseVerifier(verifierText(signer))]);
  assert.equal(finding, undefined, 'it was signed');
  assert.match(notes.join(), /entry 1 \(apply\.result\) cannot be true: `intent` names entry 0/);
  const view = {
    evidence: reader.evidence.bind(reader),
    latest: reader.latest.bind(reader),
    all: reader.all.bind(reader),
    entry: reader.entry.bind(reader),
  };
  assert.equal(rememberedState(view, 'production')().settled, -1, 'nothing follows from it');
  reader.close();
});
