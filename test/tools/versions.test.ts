import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { demandVersion, readVersions } from '../../scripts/versions.ts';
import { SUPPORTED, type Versioned } from '../../src/model/index.ts';
import { TOOLS } from '../../src/tools/index.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');

// --- one table: the Go modules, the page and the programs say the same

test('each Go module builds the release that the catalogue states', () => {
  const modules: Readonly<Record<string, string>> = {
    ...{ 'kube-apiserver': 'k8s.io/kubernetes', 'kube-controller-manager': 'k8s.io/kubernetes' },
    ...{ kubectl: 'k8s.io/kubernetes', kustomize: 'sigs.k8s.io/kustomize/kustomize/v5', helm: 'helm.sh/helm/v3' },
    'helm-4.3': 'helm.sh/helm/v4',
  };
  for (const [name, { version, go }] of Object.entries(TOOLS)) {
    const module = modules[name] ?? modules[name.replace(/-\d+\.\d+$/, '')];
    if (module === undefined) continue;
    const required = new RegExp(`^(?:require )?\\s*${module.replaceAll('.', '\\.')} v(\\S+)`, 'm');
    assert.equal(required.exec(read(`${go.module}/go.mod`))?.[1], version, `${go.module}/go.mod: ${module}`);
  }
});

test('docs/supported-versions.md has a row for each version, with the release that is tried', () => {
  const page = read('docs/supported-versions.md');
  for (const program of Object.keys(SUPPORTED) as Versioned[])
    for (const [minor, release] of Object.entries(SUPPORTED[program]))
      assert.match(page, new RegExp(`^\\| ${program} \\| ${minor} \\| ${release} \\|`.replaceAll('.', '\\.'), 'm'));
  const rows = [...page.matchAll(/^\| (Kubernetes|Helm|Kustomize) \| (\S+) \|/gm)].map(
    ([, p, minor]) => `${p} ${minor}`,
  );
  const known = Object.entries(SUPPORTED).flatMap(([p, minors]) => Object.keys(minors).map((minor) => `${p} ${minor}`));
  assert.deepEqual(rows, known);
});

// --- how a run chooses

test('versions are chosen by number, or as the oldest or newest, and an unknown one is refused with the list', () => {
  assert.deepEqual(readVersions('kubernetes=1.36'), ['Kubernetes', ['1.36']]);
  assert.deepEqual(readVersions('kubernetes=oldest,newest'), ['Kubernetes', ['1.34', '1.37']]);
  assert.throws(() => readVersions('kubernetes=1.33'), /give 1\.34, 1\.35, 1\.36, 1\.37, oldest or newest/);
  assert.throws(() => readVersions('kubernetes'), /give 1\.34/);
  assert.throws(() => readVersions('etcd=3'), /give kubernetes=VERSION/);
});

test('a program that says another version than the chosen one ends the run', () => {
  for (const said of ['Kubernetes v1.36.3', 'v1.36', 'v1.36.0+g1234567']) demandVersion('1.36', '/bin/echo', [said]);
  for (const said of ['Kubernetes v1.34.4', 'v1.3', 'v1.360.0', '(devel)'])
    assert.throws(() => demandVersion('1.36', '/bin/echo', [said]), /`\/bin\/echo` is not 1\.36, it says/, said);
});
