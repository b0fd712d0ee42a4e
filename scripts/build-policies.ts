import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { sha256 } from '../src/model/index.ts';
import { tool } from './tools.ts';

// Compiles policies/rules into policies/dist/bundle.tar.gz; nothing is done when the sources are those it was made from.
const root = fileURLToPath(new URL('..', import.meta.url));
const rules = readdirSync(`${root}policies/rules`)
  .filter((f) => f.endsWith('.rego'))
  .sort();
const digest = sha256(rules.map((f) => `${f}\0${readFileSync(`${root}policies/rules/${f}`, 'utf8')}\0`).join(''));
const stamp = `${root}policies/dist/sources.sha256`;
const bundle = `${root}policies/dist/bundle.tar.gz`;
if (!existsSync(bundle) || !existsSync(stamp) || readFileSync(stamp, 'utf8') !== digest) {
  const opa = await tool('opa');
  mkdirSync(`${root}policies/dist`, { recursive: true });
  const entrypoints = ['object/deny', 'object/warn', 'change/deny', 'change/warn'].flatMap((e) => ['-e', `countersign/${e}`]);
  execFileSync(opa, ['build', '-t', 'wasm', ...entrypoints, '-o', 'policies/dist/bundle.tar.gz', 'policies/rules'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  writeFileSync(stamp, digest);
  process.stderr.write(`policies: compiled ${rules.length} files\n`);
}
