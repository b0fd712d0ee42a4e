import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after } from 'node:test';
import { tool } from '../../scripts/tools.ts';
import { buildBundle, type PolicyBundle, readBundle } from '../../src/bundle/index.ts';
import { evaluateObjects, type Found, PolicyPool, type PoolOptions } from '../../src/policy/index.ts';
import { render } from '../../src/render/index.ts';
import { scratch } from './scratch.ts';

const directory = scratch();
let n = 0;

/** Writes files into a fresh directory and gives its path. */
export function filesIn(files: Readonly<Record<string, string>>): string {
  const root = join(directory, `root${n++}`, 'policies');
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
  return root;
}

/** Builds a bundle from files, as `countersign policy build` does. */
export async function bundleOf(files: Readonly<Record<string, string>>): Promise<PolicyBundle> {
  const { archive } = await buildBundle({ opa: await tool('opa'), roots: [filesIn(files)] });
  return readBundle(archive, 'test');
}

/** Rules on one thread, ended with the test file. */
export async function rulesOf(files: Readonly<Record<string, string>>, options: PoolOptions = {}): Promise<PolicyPool> {
  const pool = new PolicyPool([await bundleOf(files)], { threads: 1, deadline: 20_000, ...options });
  after(() => pool.close());
  return pool;
}

/** What rules say of manifests in one file. */
export async function ask(pool: PolicyPool, yaml: string, parameters: Record<string, unknown> = {}): Promise<Found> {
  const { objects } = render([{ path: 'clusters/production/web.yaml', mode: '100644', content: Buffer.from(yaml) }]);
  return evaluateObjects(pool, objects, {
    environment: 'production',
    parameters,
    now: new Date('2026-06-01T12:00:00Z'),
  });
}

/** Rules and messages of violations, for comparing. */
export function said(found: Found): string[] {
  return found.violations.map((v) => `${v.rule}: ${v.message}`);
}
