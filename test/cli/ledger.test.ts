import assert from 'node:assert/strict';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { evidenceRef, openLedger } from '../../src/ledger/index.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';

const data = join(scratch(), 'data');
const COMMIT = '3f2a91c0000000000000000000000000000000aa';
const ref = (name: string) => ({ apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name });

before(async () => {
  let now = Date.parse('2026-03-01T00:00:00Z');
  const ledger = await openLedger(data, 'countersign.dev/test', { clock: () => new Date(now) });
  const day = () => {
    now += 86_400_000;
  };
  const evidence = evidenceRef([COMMIT]);
  await ledger.record(
    {
      type: 'commits.seen',
      environment: 'production',
      ref: 'refs/heads/main',
      tip: COMMIT,
      count: 1,
      evidence: evidence.ref,
    },
    [evidence],
  );
  day();
  await ledger.record({
    type: 'apply.refused',
    environment: 'staging',
    revision: COMMIT,
    verdict: 1,
    error: 'no\u001b[31m colour',
  });
  day();
  await ledger.record({ type: 'drift.found', environment: 'production', revision: COMMIT, objects: [ref('web')] });
  const user = ledger.subject('dana@example.com');
  await ledger.record({
    type: 'admission.denied',
    environment: 'production',
    user,
    operation: 'UPDATE',
    object: ref('web-2'),
    mode: 'enforce',
    reason: 'x'.repeat(5000),
  });
  await ledger.record({
    type: 'commit.verified',
    environment: 'production',
    commit: COMMIT,
    principal: 'dana',
    key: 'k',
    format: 'ssh',
    payload: 'p',
  });
  await ledger.close();
});

async function indexes(...args: string[]): Promise<number[]> {
  const { code, stdout, stderr } = await countersign(['ledger', 'show', '--data', data, '--output', 'jsonl', ...args]);
  assert.equal(code, 0, stderr);
  return stdout
    .split('\n')
    .slice(0, -1)
    .map((line) => (JSON.parse(line) as { index: number }).index);
}

test('entries are shown by type, family, environment, time, person, commit, object and number', async () => {
  assert.deepEqual(await indexes(), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(await indexes('--type', 'apply.refused', 'drift'), [2, 3]);
  assert.deepEqual(await indexes('--type', 'commit'), [5], 'a family is what stands before the dot');
  assert.deepEqual(await indexes('--environment', 'staging'), [2]);
  assert.deepEqual(await indexes('--since', '2026-03-02'), [2, 3, 4, 5]);
  assert.deepEqual(await indexes('--until', '2026-03-02'), [0, 1]);
  assert.deepEqual(await indexes('--since', '2026-03-02', '--until', '2026-03-03'), [2]);
  assert.deepEqual(await indexes('--principal', 'dana'), [5], 'whole names only');
  assert.deepEqual(await indexes('--principal', 'dana@example.com'), [4], 'also where only a commitment is recorded');
  assert.deepEqual(await indexes('--commit', '3f2a91c'), [1, 2, 3, 5]);
  assert.deepEqual(await indexes('--commit', 'f2a91c0'), [], 'from the first digit');
  assert.deepEqual(await indexes('--object', 'web'), [3], 'not web-2');
  assert.deepEqual(await indexes('--object', 'web', '--environment', 'staging'), []);
  assert.deepEqual(await indexes('--last', '2'), [4, 5]);
  assert.deepEqual(await indexes('3'), [3]);
});

test('as text they fit 80 columns, keep control characters from the terminal, and bring their evidence when asked', async () => {
  const { stdout } = await countersign(['ledger', 'show', '--data', data]);
  for (const line of stdout.split('\n').filter((l) => !l.includes('xxx'))) assert.ok(line.length <= 80, line);
  assert.match(stdout, / {5}2 {2}2026-03-02 00:00:00 {2}apply\.refused staging\n/);
  assert.match(stdout, /no<U\+001B>\[31m colour/);
  assert.ok(stdout.length < 2500, 'what is very long is cut');
  assert.match(
    (await countersign(['ledger', 'show', '1', '--data', data, '--evidence'])).stdout,
    new RegExp(`\\[\\n +"${COMMIT}"\\n +\\]`),
  );
  const json = JSON.parse(
    (await countersign(['ledger', 'show', '1', '--data', data, '--evidence', '--output', 'json'])).stdout,
  ) as object[];
  assert.deepEqual(
    json.map((e) => (e as { evidenceContent: unknown }).evidenceContent),
    [[COMMIT]],
  );
});

test('a receipt is made and checked, and that the ledger extends an older checkpoint is proven', async () => {
  const key = join(data, 'ledger.pub');
  const out = join(data, '..', 'receipts');
  const made = await countersign(['ledger', 'prove', '3', '--data', data, '--out', out]);
  assert.equal(made.code, 0, made.stderr);
  const receipt = join(out, '3.tlog-proof');
  const proven = await countersign(['ledger', 'prove', '--check', receipt, '--key', key]);
  assert.match(proven.stdout, /proven: it is entry 3 of the first 6 of countersign\.dev\/test/);
  writeFileSync(join(out, '3.json'), readFileSync(join(out, '3.json'), 'utf8').replace('web', 'wob'));
  const altered = await countersign(['ledger', 'prove', '--check', receipt, '--key', key]);
  assert.deepEqual([altered.code, /does not lead from this entry/.test(altered.stdout)], [1, true]);

  const older = join(out, 'older');
  cpSync(join(data, 'checkpoint'), older);
  const ledger = await openLedger(data, 'countersign.dev/test');
  await ledger.record({ type: 'service.stopped', reason: 'x' });
  await ledger.close();
  const extended = await countersign(['ledger', 'prove', '--since', older, '--data', data, '--output', 'json']);
  assert.deepEqual([extended.code, (JSON.parse(extended.stdout) as { holds: boolean }).holds], [0, true]);
  const other = await openLedger(join(data, '..', 'other'), 'countersign.dev/test');
  await other.close();
  const foreign = await countersign([
    'ledger',
    'prove',
    '--since',
    join(data, '..', 'other', 'checkpoint'),
    '--data',
    data,
  ]);
  assert.deepEqual([foreign.code, /does not extend/.test(foreign.stdout)], [1, true]);
});

test('what is not there, or cannot be asked, is said', async () => {
  for (const [args, code, said] of [
    [['show', '9'], 1, /there is no entry 9/],
    [['show', 'nine'], 2, /`nine` is not the index of an entry/],
    [['show', '--type', 'nothing'], 2, /there is no entry type `nothing`/],
    [['show', '--since', 'soon'], 2, /`soon` is not a time/],
    [['show', '--environment', 'none'], 0, /no entry matches/],
    [['prove', '9'], 2, /there is no entry 9/],
    [['prove'], 2, /no entry is given/],
    [['prove', '--check', 'x.tlog-proof'], 2, /a key from another source/],
    [['verify', '--from', '9'], 2, /no entries from 9/],
    [['export', data], 2, /is not empty/],
    [['rotate-key', '--drop-old'], 2, /there is no old key to drop/],
  ] as const) {
    const result = await countersign(['ledger', ...args, '--data', data]);
    assert.equal(result.code, code, `${args.join(' ')}: ${result.stderr}`);
    assert.match(result.stderr, said);
  }
});

test('a flag behind a subcommand of `report` belongs to the subcommand', async () => {
  const { code, stdout, stderr } = await countersign(['report', 'list', '--data', data]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^0 reports$/m);
});
