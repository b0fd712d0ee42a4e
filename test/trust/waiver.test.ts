import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { trustPolicySchema, type WaiverDocument } from '../../src/model/index.ts';
import { openTrustStore, signedBytes, verifyWaiver, waiverStatement } from '../../src/trust/index.ts';
import { trustDocument } from '../kit/documents.ts';
import { run, sshPerson } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
const lee = sshPerson(directory, 'lee');
const URL = 'https://git.example.com/fleet.git';
const NOW = Date.parse('2026-06-01T12:00:00Z');

function signed(spec: Partial<WaiverDocument['spec']> = {}): WaiverDocument {
  const document = {
    apiVersion: 'countersign.dev/v1alpha1' as const,
    kind: 'Waiver' as const,
    metadata: { name: 'w' },
    spec: {
      rule: 'privileged',
      environments: ['production'],
      subjects: [{ name: 'web' }],
      reason: 'old driver',
      ticket: 'OPS-1',
      issuedAt: '2026-06-01T11:00:00Z',
      until: '2026-07-01',
      ...spec,
    },
  };
  const file = join(directory, 'statement');
  writeFileSync(file, signedBytes('waiver', waiverStatement(document, URL)));
  return { ...document, signature: sign(file) };
}

function sign(file: string): string {
  rmSync(`${file}.sig`, { force: true });
  run('ssh-keygen', ['-q', '-Y', 'sign', '-n', 'git', '-f', lee.signingKey, file]);
  return readFileSync(`${file}.sig`, 'utf8');
}

async function verdict(
  document: WaiverDocument,
  change: (trust: ReturnType<typeof trustPolicySchema.parse>) => void = () => {},
) {
  const policy = trustPolicySchema.parse(trustDocument([lee], { waivers: { from: ['developers'] } }));
  const copy = structuredClone(policy);
  change(copy);
  const result = await verifyWaiver(document, URL, await openTrustStore(copy), NOW);
  return result.kind === 'verified' ? 'verified' : result.code;
}

test('a waiver by someone who may is verified', async () => assert.equal(await verdict(signed()), 'verified'));

test('a waiver that is dated ahead does not count: it would run longer than it may', async () =>
  assert.equal(await verdict(signed({ issuedAt: '2026-06-20T00:00:00Z' })), 'waiver-from-the-future'));

test('a bot waives nothing, whoever its group is', async () =>
  assert.equal(
    await verdict(signed(), (trust) => {
      Object.assign(trust.spec.principals[0] as object, { kind: 'bot' });
    }),
    'waiver-by-platform',
  ));

test('a signature over another kind of statement is none over a waiver', async () => {
  const document = signed();
  writeFileSync(join(directory, 'bundle'), signedBytes('bundle', waiverStatement(document, URL)));
  assert.equal(await verdict({ ...document, signature: sign(join(directory, 'bundle')) }), 'bad-signature');
});
