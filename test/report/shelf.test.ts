import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openLedger } from '../../src/ledger/index.ts';
import { canonicalJson, canonicalPieces } from '../../src/model/index.ts';
import { fileShelf } from '../../src/report/index.ts';
import { memoryShelf } from '../../src/report/shelf.ts';
import { commitId, recordChange } from '../kit/report-ledger.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
// Characters of one to four bytes, so that some lie across the ends of what is read at once.
const line = (n: number) => `{"n":${n},"text":"${'a'.repeat(n % 7)}é山🔏${'x'.repeat(n % 1013)}"}`;

test('lines in a file are those that were added, in order, however often and however interleaved they are read', () => {
  const file = join(directory, 'shelf');
  const [kept, put] = [memoryShelf(), fileShelf(file)];
  assert.deepEqual([...put.lines()], []);
  for (let n = 0; n < 5000; n++) for (const shelf of [kept, put]) shelf.add(line(n));
  assert.deepEqual([...put.lines()], [...kept.lines()]);
  const [one, other] = [put.lines()[Symbol.iterator](), put.lines()[Symbol.iterator]()];
  for (let n = 0; n < 3000; n++) assert.equal(one.next().value, line(n));
  assert.equal(other.next().value, line(0));
  put.add('last');
  assert.equal([...put.lines()].at(-1), 'last');
  put.close();
  assert.ok(!existsSync(file), 'nothing of it stays');
});

test('a file that somebody cut short is noticed', () => {
  const file = join(directory, 'cut');
  const shelf = fileShelf(file);
  for (let n = 0; n < 5000; n++) shelf.add(line(n));
  const lines = shelf.lines()[Symbol.iterator]();
  lines.next();
  truncateSync(file, 1000);
  assert.throws(() => {
    for (let next = lines.next(); next.done !== true; next = lines.next());
  }, /shorter than it was/);
  shelf.close();
});

test('a list whose items come as canonical JSON gives the bytes of the whole', () => {
  const object = { z: 1, a: [1, { c: 1, b: 2 }], m: 'x', none: undefined };
  const list = [{ id: 'C1' }, { id: 'C2' }];
  const pieces = (items: readonly object[]) => [
    ...canonicalPieces(object, new Map([['changes', items.map((i) => canonicalJson(i))]]), '\n'),
  ];
  assert.equal(pieces(list).join(''), `${canonicalJson({ ...object, changes: list })}\n`);
  assert.equal(pieces([]).join(''), `${canonicalJson({ ...object, changes: [] })}\n`);
});

test('a disk that fills while a report is written leaves the one that was there, whole, and nothing half-done', async () => {
  const [data, out] = [join(directory, 'data'), join(directory, 'out')];
  const ledger = await openLedger(data, 'countersign.dev/test');
  for (let n = 0; n < 300; n++) await recordChange(ledger, commitId(n), { from: commitId(n - 1) });
  await ledger.close();
  // In blocks of 1 KiB, as a file may grow to: enough for some of the files only.
  const report = (limit: string) => {
    const command = `trap '' XFSZ; ulimit -f ${limit}; exec "$0" "$@"`;
    const args = ['bin/countersign.mjs', 'report', '--data', data, '--out', out, '--to', '2100-01-01'];
    return spawnSync('bash', ['-c', command, process.execPath, ...args], {
      encoding: 'utf8',
      cwd: new URL('../..', import.meta.url),
    });
  };
  const contents = () => readdirSync(out).map((name) => [name, readFileSync(join(out, name)).toString('base64')]);
  const first = report('unlimited');
  assert.equal(first.status, 0, first.stderr);
  const before = contents();
  for (const limit of ['64', '100', '330', '400']) {
    const full = report(limit);
    assert.equal(full.status, 2, full.stderr);
    assert.match(full.stderr, /^error: cannot write the report to `[^`]+`: EFBIG.*\n.*free some space/m);
    assert.deepEqual(contents(), before);
  }
});
