import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildBundle } from '../src/bundle/index.ts';
import { sha256 } from '../src/model/index.ts';
import { tool } from './tools.ts';

// Compiles policies/rules into policies/dist/bundle.tar.gz; nothing is done when the sources are those it was made
// from.
const root = fileURLToPath(new URL('..', import.meta.url));
const under = (directory: string, pattern: RegExp) =>
  readdirSync(join(root, directory), { recursive: true })
    .map((f) => join(directory, String(f)))
    .filter((f) => pattern.test(f))
    .sort();
const sources = [...under('policies/rules', /\.rego$/), 'policies/capabilities.json', ...under('src/bundle', /\.ts$/)];
const digest = sha256(sources.map((f) => `${f}\0${readFileSync(join(root, f), 'utf8')}\0`).join(''));
const stamp = join(root, 'policies/dist/sources.sha256');
const bundle = join(root, 'policies/dist/bundle.tar.gz');
if (!existsSync(bundle) || !existsSync(stamp) || readFileSync(stamp, 'utf8') !== digest) {
  const built = await buildBundle({ opa: await tool('opa'), roots: [join(root, 'policies/rules')] });
  mkdirSync(join(root, 'policies/dist'), { recursive: true });
  writeFileSync(bundle, built.archive);
  writeFileSync(stamp, digest);
  process.stderr.write(`policies: compiled ${built.manifest.rules.length} rules\n`);
}
