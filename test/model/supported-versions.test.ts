import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SUPPORTED, supportedRange, type Versioned, versionTrouble } from '../../src/model/index.ts';

const WHERE = 'the API server at `https://a.example.test`';
const kubernetes = (version: string) => versionTrouble('Kubernetes', version, WHERE);

test('a version older than the oldest supported one is told to upgrade the cluster', () => {
  assert.equal(
    kubernetes('1.33'),
    `${WHERE} is Kubernetes 1.33, older than 1.34, the oldest supported version: ` +
      'upgrade the cluster (docs/supported-versions.md)',
  );
  assert.match(kubernetes('1.4') ?? '', /Kubernetes 1\.4, older/, 'versions are numbers, not texts');
  assert.match(kubernetes('0.99') ?? '', /older/);
});

test('a version newer than the newest tested one is told to upgrade Countersign', () => {
  assert.equal(
    kubernetes('1.38'),
    `${WHERE} is Kubernetes 1.38, newer than 1.37, the newest version that this release was tested with: ` +
      'upgrade countersign (docs/supported-versions.md)',
  );
  for (const version of ['1.100', '2.0', '1.38+', 'v1.38.0-gke.100']) assert.match(kubernetes(version) ?? '', /newer/);
});

test('a version that cannot be read is not taken for a supported one', () => {
  for (const version of ['', 'undefined.undefined', '(devel)', '1', 'x1.35', 'latest 1.35', '1.'])
    assert.match(kubernetes(version) ?? '', /states no version of Kubernetes .*use one from 1\.34 to 1\.37$/, version);
});

test('every version that is tried, and what lies between, is supported', () => {
  for (const program of Object.keys(SUPPORTED) as Versioned[])
    for (const [minor, release] of Object.entries(SUPPORTED[program]))
      for (const version of [minor, release, `v${release}`, `${minor}+`, `v${release}+g1234567`])
        assert.equal(versionTrouble(program, version, 'it'), undefined, `${program} ${version}`);
  assert.equal(versionTrouble('Helm', 'v3.22.0', 'it'), undefined);
  assert.match(
    versionTrouble('Helm', 'v3.18.6', '`helm`') ?? '',
    /^`helm` is Helm 3\.18, older.*: install a newer helm/,
  );
  assert.match(versionTrouble('Kustomize', 'v5.9.0', 'it') ?? '', /Kustomize 5\.9, newer/);
});

test('versions stand in the table from the oldest to the newest', () => {
  for (const program of Object.keys(SUPPORTED) as Versioned[]) {
    const minors = Object.keys(SUPPORTED[program]);
    const number = (minor: string) => minor.split('.').reduce((sum, part) => sum * 1000 + Number(part), 0);
    assert.deepEqual(
      minors.toSorted((a, b) => number(a) - number(b)),
      minors,
    );
    assert.deepEqual(supportedRange(program), { oldest: minors[0], newest: minors.at(-1) });
  }
});
