import { readFileSync } from 'node:fs';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type PolicyBundle, readBundle } from '../../src/bundle/index.ts';
import { readTrustPolicy, readWaiver } from '../../src/config/index.ts';
import { assess, type Gate } from '../../src/gate/index.ts';
import { NativeRepository, sourceRepository } from '../../src/git/index.ts';
import { environmentSchema, NO_REVISION, Turns, trustPolicySchema, type Verdict } from '../../src/model/index.ts';
import { PolicyPool } from '../../src/policy/index.ts';
import { renderFile } from '../../src/render/index.ts';
import { openTrustStore } from '../../src/trust/index.ts';
import { type EnvironmentOptions, environmentDocument, trustDocument } from './documents.ts';
import type { Fleet, Person } from './fleet.ts';

let shipped: Promise<PolicyPool> | undefined;

/** The shipped rules, on threads that all tests of a file share. */
export function shippedRules(): Promise<PolicyPool> {
  shipped ??= shippedBundle().then((bundle) => new PolicyPool([bundle], { threads: 1, deadline: 20_000 }));
  return shipped;
}

/** The shipped bundle. */
export function shippedBundle(): Promise<PolicyBundle> {
  return readBundle(
    readFileSync(fileURLToPath(new URL('../../policies/dist/bundle.tar.gz', import.meta.url))),
    'shipped',
  );
}

export type JudgeOptions = {
  readonly from?: string;
  readonly at?: Date;
  readonly trust?: object;
  readonly rules?: PolicyPool;
  readonly environment?: Partial<EnvironmentOptions>;
};

/** The gate of an environment over a fleet's bare repository. */
export async function gateOf(fleet: Fleet, people: readonly Person[], options: JudgeOptions = {}): Promise<Gate> {
  const environment = environmentSchema.parse(
    environmentDocument({ url: fleet.url, namespaces: ['shop'], ...options.environment }),
  );
  const trust = await openTrustStore(trustPolicySchema.parse(options.trust ?? trustDocument(people)));
  const repository = new NativeRepository(fleet.bare, { file: 'git', path: process.env['PATH'] ?? '' });
  after(() => repository.close());
  return {
    environment,
    trust,
    repository: sourceRepository(repository),
    rules: options.rules === undefined ? shippedRules : async () => options.rules as PolicyPool,
    recorder: undefined,
    clock: () => options.at ?? new Date(),
    turns: new Turns(),
    openPolicy: async (text, file) => openTrustStore(readTrustPolicy(text, file)),
    openWaiver: readWaiver,
    make: () => Promise.reject(new Error('nothing is made here')),
    read: async (files, _, substitute) => files.map((file) => renderFile(file, substitute)),
    untrusted: 'rendered',
  };
}

/** The verdict on what is on the branch, from nothing or from a commit. */
export async function judge(
  fleet: Fleet,
  people: readonly Person[],
  to: string,
  options: JudgeOptions = {},
): Promise<Verdict> {
  const gate = await gateOf(fleet, people, options);
  return (await assess(gate, options.from ?? NO_REVISION, to)).verdict;
}

/** The codes of a verdict's violations, sorted. */
export function codes(verdict: Verdict): string[] {
  return [...new Set(verdict.violations.map((v) => v.rule ?? v.code))].sort();
}
