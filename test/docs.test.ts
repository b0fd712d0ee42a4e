import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { configurationPage } from '../scripts/configuration-page.ts';
import { rulePages } from '../scripts/rule-pages.ts';
import { violationPage } from '../scripts/violation-page.ts';
import { CompactRange, checkReceipt, leafHash, openCheckpoint, parseVerifiers } from '../src/ledger/index.ts';
import { canonicalJson, ENTRY_TYPES, entryProblem } from '../src/model/index.ts';
import { countersign } from './kit/service.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
const pages = [
  'README.md',
  'SECURITY.md',
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((f) => f.endsWith('.md'))
    .map((f) => join('docs', f)),
];

test('docs/configuration.md is what the schema says', () =>
  assert.equal(read('docs/configuration.md'), configurationPage(), 'run `npm run docs`'));

test('docs/violations.md is what the model says', () =>
  assert.equal(read('docs/violations.md'), violationPage(), 'run `npm run docs`'));

test('there is a page for every rule, and it is what its METADATA says', async () => {
  const pages = await rulePages();
  for (const [name, text] of pages) assert.equal(read(`docs/rules/${name}`), text, 'run `npm run docs`');
  assert.deepEqual(readdirSync(join(ROOT, 'docs/rules')).sort(), [...pages.keys()].sort());
});

test('every link in the pages leads somewhere', () => {
  for (const page of pages) {
    for (const [, target] of read(page).matchAll(/\]\((?!https?:)([^)#]+)\)/g))
      assert.ok(existsSync(join(ROOT, dirname(page), target ?? '')), `${page} links to ${target}`);
  }
});

test('every test the threat model names is there', () => {
  for (const [, file] of read('docs/threat-model.md').matchAll(/`(test\/[^`]+)`/g))
    assert.ok(existsSync(join(ROOT, file ?? '')), file);
});

test('every test that docs/regressions.md names is there, by its file and its name', () => {
  const rows = [...read('docs/regressions.md').matchAll(/^\|.*`(test\/[^`]+)`: (.+?) +\|$/gm)];
  assert.ok(rows.length > 45);
  for (const [, file = '', name = ''] of rows) assert.ok(read(file).includes(name), `${file}: ${name}`);
});

test('the scripts and commands the README names are there', async () => {
  const scripts = (JSON.parse(read('package.json')) as { scripts: Record<string, string> }).scripts;
  for (const [, script] of read('README.md').matchAll(/npm run ([a-z:]+)/g))
    assert.ok(scripts[script ?? ''] !== undefined, script);
  const commands = new Set(
    [...read('README.md').matchAll(/^ {4}(?:\$ )?countersign ([a-z]+(?: verify)?)/gm)].map((m) => m[1] ?? ''),
  );
  assert.ok(commands.size >= 8);
  for (const command of commands) assert.equal((await countersign([...command.split(' '), '--help'])).code, 0, command);
});

test('docs/ledger-format.md is what the ledger writes: its types, and every byte of its example', () => {
  const page = read('docs/ledger-format.md');
  const types = page.slice(page.indexOf('## Types'));
  assert.deepEqual(
    [...types.matchAll(/^\| `([a-z.]+)` \|/gm)].map((m) => m[1]),
    ENTRY_TYPES,
  );
  const lines = page
    .split('\n')
    .filter((line) => line.startsWith('    '))
    .map((line) => line.slice(4));
  const entries = lines.filter((line) => line.startsWith('{"'));
  const leaves = entries.map(leafHash);
  for (const [i, leaf] of leaves.entries()) assert.ok(page.includes(`${i}: \`${leaf.toString('hex')}\``));
  const range = new CompactRange();
  for (const leaf of leaves) range.append(leaf);
  assert.ok(page.includes(range.root().toString('hex')));
  for (const entry of entries) {
    const { v, time, ...body } = JSON.parse(entry) as { v: number; time: string; type: string };
    assert.deepEqual([canonicalJson({ v, time, ...body }), entryProblem(body)], [entry, undefined]);
  }
  const key = parseVerifiers(lines.find((line) => /^\S+\+[0-9a-f]{8}\+/.test(line)) ?? '');
  const block = (from: string) => {
    const rest = page.slice(page.indexOf(`\n\n    ${from}`) + 2).split('\n');
    const end = rest.findIndex((line) => line !== '' && !line.startsWith('    '));
    return `${rest.slice(0, end).join('\n').replaceAll(/^ {4}/gm, '').trimEnd()}\n`;
  };
  const checkpoint = openCheckpoint(block('countersign.dev/cluster'), key);
  assert.deepEqual([checkpoint?.size, checkpoint?.root], [3, range.root()]);
  assert.deepEqual(checkReceipt(block('c2sp.org/tlog-proof'), Buffer.from(entries[1] ?? ''), key), {
    index: 1,
    origin: key[0]?.name,
    size: 3,
  });
});
