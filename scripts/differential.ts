import { execFileSync } from 'node:child_process';
import { loadConfiguration } from '../src/config/index.ts';
import { NativeRepository } from '../src/git/index.ts';
import { trustPolicySchema } from '../src/model/index.ts';
import { openTrustStore } from '../src/trust/index.ts';
import { differential } from '../test/kit/differential.ts';

// Every commit object of a repository, read by Git and by us: `node scripts/differential.ts GITDIR [TRUSTPOLICY]`.
const [directory, trust] = process.argv.slice(2);
if (directory === undefined) throw new Error('name a Git directory');
const nobody = {
  apiVersion: 'countersign.dev/v1alpha1',
  kind: 'TrustPolicy',
  metadata: { name: 'nobody' },
  spec: {
    principals: [{ name: 'nobody', keys: [] }],
    rules: [{ name: 'none', signers: ['nobody'], approvals: { required: 0 } }],
  },
};
const policy = trust === undefined ? trustPolicySchema.parse(nobody) : loadConfiguration([trust]).trustPolicies[0];
if (policy === undefined) throw new Error(`no TrustPolicy in ${trust}`);
const listed = execFileSync('git', ['cat-file', '--batch-all-objects', '--batch-check=%(objectname) %(objecttype)'], {
  cwd: directory,
  maxBuffer: 1 << 30,
}).toString();
const ids = listed.split('\n').flatMap((line) => (line.endsWith(' commit') ? [line.split(' ')[0] ?? ''] : []));
const repository = new NativeRepository(directory, { file: 'git', path: process.env['PATH'] ?? '' });
const result = await differential(directory, repository, await openTrustStore(policy), ids);
repository.close();
process.stdout.write(`${result.commits} commits\n`);
for (const [code, n] of Object.entries(result.malformed))
  process.stdout.write(`  refused to take apart, ${code}: ${n}\n`);
for (const [pair, n] of Object.entries(result.verdicts).sort()) process.stdout.write(`  ${pair}: ${n}\n`);
process.stdout.write(`  fields read otherwise than git: ${result.fields.length}\n`);
for (const field of result.fields.slice(0, 20)) process.stdout.write(`    ${field}\n`);
