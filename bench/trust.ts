import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { readTrustPolicy, readWaiver } from '../src/config/index.ts';
import { assess, type Gate } from '../src/gate/index.ts';
import { NativeRepository, sourceRepository } from '../src/git/index.ts';
import { environmentSchema, NO_REVISION, Turns } from '../src/model/index.ts';
import { renderFile } from '../src/render/index.ts';
import { examineSignature } from '../src/trust/examine-signature.ts';
import { examineHistory, KnownHistory, openTrustStore, type TrustStore } from '../src/trust/index.ts';
import { SignatureThreads } from '../src/trust/signature-threads.ts';
import { environmentDocument } from '../test/kit/documents.ts';
import { shippedRules } from '../test/kit/judge.ts';
import { median, print, range, round0 } from './kit/figures.ts';
import { openPgpSigner, type SignCommit, sshSigner, writeHistory } from './kit/signed-history.ts';

// Signatures against `git verify-commit` on the same commits, turn by turn in one run; then a whole history.
const ROUNDS = 5;
const HISTORY = Number(process.argv.find((a) => /^\d+$/.test(a)) ?? 30_000);
const PEER = 200; // commits for git, which makes some hundred a second
const OWN = 3000; // commits for us in a round
const git = { file: 'git', path: process.env['PATH'] ?? '' };
const directory = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
try {
  const ssh = sshSigner();
  const pgp = await openPgpSigner();
  await verifying('SSH ed25519', 40, ssh.sign, policy(ssh.line), allowedSigners(ssh.line));
  await verifying('OpenPGP ed25519', 15, pgp.sign, policy(undefined, pgp.publicKey), keyring(pgp.publicKey));
  await wholeHistory(ssh.sign, policy(ssh.line));
} finally {
  rmSync(directory, { recursive: true, force: true });
}

async function verifying(
  what: string,
  bar: number,
  sign: SignCommit,
  trust: string,
  config: readonly string[],
): Promise<void> {
  const bare = join(directory, what.replaceAll(' ', '-'));
  const ids = await writeHistory(bare, OWN, sign, 20);
  const store = await openTrustStore(readTrustPolicy(trust, 'trust.yaml'));
  const repository = new NativeRepository(bare, git);
  const read = await sourceRepository(repository).commits(ids);
  repository.close();
  const commits = read.flatMap((r) => (r.kind === 'commit' ? r.commit : []));
  const own: number[] = [];
  const peer: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const started = performance.now();
    for (const commit of commits) {
      const fact = await examineSignature(store, commit.payload, commit.signature);
      if (fact.kind !== 'good') throw new Error(JSON.stringify(fact));
    }
    own.push((commits.length / (performance.now() - started)) * 1000);
    const before = performance.now();
    const result = spawnSync('git', [...config.flatMap((c) => ['-c', c]), 'verify-commit', ...ids.slice(0, PEER)], {
      cwd: bare,
      env: { ...process.env, GNUPGHOME: join(directory, 'gnupg') },
    });
    if (result.status !== 0) throw new Error(result.stderr.toString().slice(-300));
    peer.push((PEER / (performance.now() - before)) * 1000);
  }
  const ratio = median(own) / median(peer);
  print(
    `${what}, one thread: ${round0(median(own))}/s (${range(own)}); git verify-commit: ${round0(median(peer))}/s (${range(peer)})`,
  );
  print(`  ratio ${ratio.toFixed(0)}, bar ${bar}: ${ratio >= bar ? 'reached' : 'MISSED'}`);
}

async function wholeHistory(sign: SignCommit, trust: string): Promise<void> {
  const bare = join(directory, 'history');
  const ids = await writeHistory(bare, HISTORY, sign);
  const store = await openTrustStore(readTrustPolicy(trust, 'trust.yaml'));
  await scaling(bare, ids, store);
  await threads(bare, ids, store);
  const file = join(directory, 'trust.yaml');
  writeFileSync(file, trust);
  for (const share of [1 / 3, 2 / 3, 1]) {
    const n = Math.round(HISTORY * share);
    const { seconds, mib } = provenance(bare, ids[n - 1] ?? '', file);
    print(
      `provenance of ${n} commits from nothing: ${seconds.toFixed(2)} s, peak memory ${mib.toFixed(0)} MiB (bar for 30,000: 20 s, 400 MB)`,
    );
  }
  await looks(bare, ids, store);
}

// The cryptography alone, without reading and splitting, which one thread does for all.
async function scaling(bare: string, ids: readonly string[], store: TrustStore): Promise<void> {
  const repository = new NativeRepository(bare, git);
  const items = (await sourceRepository(repository).commits(ids.slice(0, 10_000))).flatMap((r) =>
    r.kind === 'commit' ? r.commit : [],
  );
  repository.close();
  const rows = new Map<number, number[]>();
  for (let round = 0; round < 3; round++)
    for (let count = 1; count <= availableParallelism(); count *= 2) {
      const pool = new SignatureThreads(store.policy, count);
      await Promise.all(Array.from({ length: count }, () => pool.examine(items.slice(0, 500)))); // started and warm
      const started = performance.now();
      const batches = Array.from({ length: 20 }, (_, i) => pool.examine(items.slice(i * 500, i * 500 + 500)));
      for (const facts of await Promise.all(batches))
        if (facts.some((f) => f.kind !== 'good')) throw new Error('not good');
      rows.set(count, [...(rows.get(count) ?? []), (items.length / (performance.now() - started)) * 1000]);
      await pool.close();
    }
  const alone = median(rows.get(1) ?? []);
  for (const [count, values] of rows)
    print(
      `examine ${items.length} signatures in ${count} thread(s): ${round0(median(values))}/s (${range(values)}), ${(median(values) / alone).toFixed(2)} times one`,
    );
}

async function threads(bare: string, ids: readonly string[], store: TrustStore): Promise<void> {
  const rows = new Map<number, number[]>();
  for (let round = 0; round < 3; round++)
    for (const count of [0, ...Array.from({ length: Math.min(4, availableParallelism()) }, (_, i) => i + 1)]) {
      const repository = new NativeRepository(bare, git);
      const source = sourceRepository(repository);
      const started = performance.now();
      let seen = 0;
      for await (const examined of examineHistory(
        { ids: source.commitIds, read: source.commits },
        { from: NO_REVISION, to: ids.at(-1) ?? '' },
        store,
        { threads: count },
      )) {
        if (examined.kind !== 'facts' || examined.facts.signature.kind !== 'good') throw new Error('not good');
        seen++;
      }
      repository.close();
      rows.set(count, [...(rows.get(count) ?? []), (seen / (performance.now() - started)) * 1000]);
    }
  for (const [count, values] of rows)
    print(
      `read, hash, split and examine ${ids.length} commits, ${count} thread(s) beside the reading one: ${round0(median(values))}/s (${range(values)})`,
    );
}

function provenance(bare: string, tip: string, trust: string): { seconds: number; mib: number } {
  const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));
  const runs = Array.from({ length: 3 }, () => {
    const started = performance.now();
    const result = spawnSync(
      '/usr/bin/env',
      [
        '-i',
        `PATH=${process.env['PATH'] ?? ''}`,
        process.execPath,
        '--import',
        `data:text/javascript,import{readFileSync}from'node:fs';process.on('exit',()=>process.stderr.write(readFileSync('/proc/self/status','utf8')))`,
        main,
        'provenance',
        tip,
        '--repo',
        bare,
        '--trust',
        trust,
        '--output',
        'jsonl',
      ],
      {
        maxBuffer: 1 << 30,
      },
    );
    if (result.status !== 0) throw new Error(result.stderr.toString().slice(-500));
    return {
      seconds: (performance.now() - started) / 1000,
      mib: Number(/VmHWM:\s+(\d+)/.exec(result.stderr.toString())?.[1] ?? 0) / 1024,
    };
  });
  return { seconds: median(runs.map((r) => r.seconds)), mib: median(runs.map((r) => r.mib)) };
}

// The whole gate, as the service's first look at a repository and its second at the same with one commit more.
async function looks(bare: string, ids: readonly string[], store: TrustStore): Promise<void> {
  const repository = new NativeRepository(bare, git);
  const gate: Gate = {
    environment: environmentSchema.parse(environmentDocument({ url: bare, namespaces: ['shop'], path: 'clusters' })),
    repository: sourceRepository(repository),
    trust: store,
    rules: shippedRules,
    make: () => Promise.reject(new Error('nothing is made here')),
    read: async (files, _, substitute) => files.map((file) => renderFile(file, substitute)),
    untrusted: 'refused',
    turns: new Turns(),
    openWaiver: readWaiver,
    recorder: undefined,
    clock: () => new Date(),
    openPolicy: async (text, file) => openTrustStore(readTrustPolicy(text, file)),
    known: new KnownHistory(),
  };
  const look = async (to: string) => {
    const started = performance.now();
    const { verdict } = await assess(gate, NO_REVISION, to);
    if (verdict.commits.some((c) => c.outcome !== 'verified')) throw new Error('refused');
    return (performance.now() - started) / 1000;
  };
  const first = await look(ids.at(-2) ?? '');
  const second = await look(ids.at(-1) ?? '');
  print(
    `the gate's first look at ${ids.length - 1} commits: ${first.toFixed(2)} s; its second, one commit later: ${second.toFixed(2)} s`,
  );
  repository.close();
}

function policy(ssh: string | undefined, openpgp?: string): string {
  return JSON.stringify({
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'TrustPolicy',
    metadata: { name: 'team' },
    spec: {
      principals: [{ name: 'dana', emails: ['dana@example.test'], keys: [ssh === undefined ? { openpgp } : { ssh }] }],
      groups: [],
      rules: [{ name: 'everything', signers: ['dana'], approvals: { required: 0 } }],
    },
  });
}

function allowedSigners(line: string): string[] {
  const file = join(directory, 'allowed_signers');
  writeFileSync(file, `dana@example.test ${line}\n`);
  return ['gpg.format=ssh', `gpg.ssh.allowedSignersFile=${file}`];
}

function keyring(armored: string): string[] {
  mkdirSync(join(directory, 'gnupg'), { mode: 0o700, recursive: true });
  spawnSync('gpg', ['--batch', '--quiet', '--import'], {
    input: armored,
    env: { ...process.env, GNUPGHOME: join(directory, 'gnupg') },
  });
  return ['gpg.format=openpgp'];
}
