import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { configurationPage } from '../scripts/configuration-page.ts';
import { rulePages } from '../scripts/rule-pages.ts';
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
  for (const [, file] of read('docs/threat-model.md').matchAll(/`(test\/[^`]+)`/g)) assert.ok(existsSync(join(ROOT, file ?? '')), file);
});

test('the scripts and commands the README names are there', async () => {
  const scripts = (JSON.parse(read('package.json')) as { scripts: Record<string, string> }).scripts;
  for (const [, script] of read('README.md').matchAll(/npm run ([a-z:]+)/g)) assert.ok(scripts[script ?? ''] !== undefined, script);
  const commands = new Set([...read('README.md').matchAll(/^ {4}(?:\$ )?countersign ([a-z]+(?: verify)?)/gm)].map((m) => m[1] ?? ''));
  assert.ok(commands.size >= 8);
  for (const command of commands) assert.equal((await countersign([...command.split(' '), '--help'])).code, 0, command);
});
