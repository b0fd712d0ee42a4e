import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, copyFileSync, cpSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openLedger } from '../src/ledger/index.ts';
import { leafHash } from '../src/ledger/merkle.ts';
import { readSigner } from '../src/ledger/note.ts';
import { Sequencer } from '../src/ledger/sequencer.ts';
import { SqliteStore } from '../src/ledger/sqlite-store.ts';
import { scratch } from './kit/scratch.ts';
import { countersign } from './kit/service.ts';

// Follows docs/recovery.md: each section's commands, in its situation, as they are printed there.
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const page = readFileSync(join(ROOT, 'docs/recovery.md'), 'utf8');
const directory = scratch();
const ORIGIN = 'countersign.dev/test';
let serial = 0;

async function add(at: string, entries: number): Promise<void> {
  const ledger = await openLedger(at, ORIGIN);
  for (let i = 0; i < entries; i++) await ledger.record({ type: 'service.stopped', reason: String(i) });
  await ledger.close();
}

type Situation = { readonly words: Record<string, string>; readonly data: string };

const place = () => join(directory, String(serial++));

/** A data directory, and one that was copied from it before more was recorded. */
async function twice(): Promise<{ readonly newer: string; readonly older: string }> {
  const [newer, older] = [place(), place()];
  await add(newer, 3);
  cpSync(newer, older, { recursive: true });
  await add(newer, 5);
  return { newer, older };
}

/** The situation of each section whose commands can be followed without a cluster. */
const situations: Record<string, () => Promise<Situation>> = {
  'A restored backup, or an anchor that knows more': async () => {
    const { newer, older } = await twice();
    copyFileSync(join(newer, 'checkpoint'), join(older, 'newer-checkpoint'));
    return { data: older, words: { DIR: older } };
  },
  'The ledger’s file is damaged or missing': async () => {
    const data = place();
    await add(data, 40);
    const file = openSync(join(data, 'ledger.db'), 'r+');
    writeSync(file, Buffer.alloc(512, 0x5a), 0, 512, 8192 * 2); // the index over the entries
    closeSync(file);
    await assert.rejects(openLedger(data, ORIGIN), { code: 'store-damaged', hint: /ledger verify/ });
    return { data, words: { DIR: data, EXPORT: place() } };
  },
  'Before that day': async () => {
    const data = place();
    await add(data, 3);
    return { data, words: { DIR: data, EXPORT: place() } };
  },
  'The data directory is lost': async () => {
    const [before, data, exported] = [place(), place(), place()];
    await add(before, 3);
    assert.equal((await countersign(['ledger', 'export', exported, '--data', before])).code, 0);
    const words = { DIR: data, EXPORT: exported, PUB: join(before, 'ledger.pub'), KEY: join(before, 'ledger.key') };
    return { data, words };
  },
  'The ledger’s key is changed or was stolen': async () => {
    const data = place();
    await add(data, 3);
    return { data, words: { DIR: data, NEW: place() } };
  },
  'Two histories': async () => {
    const { newer, older } = await twice();
    return { data: newer, words: { DIR: newer, OTHER: older } };
  },
};

/** Sections that need a cluster or a full disk: the tests that follow them. */
const elsewhere: Record<string, { readonly file: string; readonly name: string }> = {
  'The disk is full': { file: 'ledger/disk-full.test.ts', name: 'when every place is full, the request is refused' },
  'The clock is wrong': { file: 'cluster/clock.test.ts', name: 'a certificate from a clock three days ahead' },
  'The gate itself is broken': {
    file: 'cluster/admission.test.ts',
    name: 'what they do reach is put back and recorded',
  },
};

function sections(): Map<string, string> {
  return new Map(
    page
      .split(/^## /m)
      .slice(1)
      .map((text) => [text.slice(0, text.indexOf('\n')).replaceAll("'", '’'), text] as const),
  );
}

function commandsIn(text: string, words: Record<string, string>): string[][] {
  const lines = text.split('\n').filter((line) => /^ {4,6}(countersign|cp|chmod|openssl) /.test(line));
  return lines.map((line) =>
    [...line.trim().matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, word = '']) =>
      (quoted ?? word).replaceAll(/\b(?:DIR|EXPORT|PUB|KEY|NEW|OTHER)\b/g, (name) => words[name] ?? name),
    ),
  );
}

test('every section of docs/recovery.md is followed by a test, and the table lists each', () => {
  for (const heading of sections().keys()) {
    const named = elsewhere[heading];
    assert.ok(situations[heading] !== undefined || named !== undefined, heading);
    if (named !== undefined)
      assert.ok(readFileSync(join(ROOT, 'test', named.file), 'utf8').includes(named.name), heading);
  }
  const rows = [...page.matchAll(/^\| \[[^\]]+\]\(#([^)]+)\)/gm)].map(([, anchor]) => anchor);
  const anchors = [...sections().keys()].map((h) =>
    h
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
  assert.deepEqual(rows, anchors);
});

for (const [heading, situation] of Object.entries(situations))
  test(`docs/recovery.md, ${heading}: the commands as they are printed mend it`, async () => {
    const { data, words } = await situation();
    const commands = commandsIn(sections().get(heading) ?? '', words);
    assert.notEqual(commands.length, 0);
    for (const [program, ...args] of commands) {
      if (program !== 'countersign') {
        execFileSync(program ?? '', args, { stdio: 'ignore' });
        continue;
      }
      const { code, stdout, stderr } = await countersign(args);
      const isQuestion = args[1] === 'verify';
      assert.ok(code === 0 || isQuestion, `${args.join(' ')}\n${stdout}${stderr}`);
    }
    await add(data, 1);
    const verified = await countersign(['ledger', 'verify', '--data', data]);
    assert.equal(verified.code, 0, verified.stdout);
  });

test('docs/upgrading.md: a ledger with an entry of a type that this version does not know is read, verified and continued', async () => {
  const data = place();
  await add(data, 2);
  const signer = readSigner(ORIGIN, readFileSync(join(data, 'ledger.key'), 'utf8'));
  const store = new SqliteStore(join(data, 'ledger.db'));
  const anchor = join(data, 'checkpoint');
  const options = { store, name: 'it', verifiers: [], anchor, clock: () => new Date(), warn: () => {} };
  const sequencer = await Sequencer.open({ ...options, signers: [signer] });
  const body = `{"time":"${new Date().toISOString()}","type":"later.kind","v":1,"what":"x"}`;
  const entry = { body, leaf: leafHash(body), type: 'later.kind', environment: '' };
  await sequencer.append({ entries: [entry], evidence: [], subjects: [] });
  await store.close();
  await add(data, 1);
  assert.equal((await countersign(['ledger', 'verify', '--data', data])).code, 0);
  assert.match((await countersign(['ledger', 'show', '--data', data])).stdout, /later\.kind/);
});
