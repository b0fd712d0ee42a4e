import assert from 'node:assert/strict';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeCertificates } from '../../src/webhook/certificates.ts';
import { trustDocument, writeConfiguration } from '../kit/documents.ts';
import { sshPerson } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';
import { countersignProcess } from '../kit/service.ts';

// What nobody can mend by waiting is refused at the start, also while the API server is away.
const directory = scratch();
const environment = {
  apiVersion: 'countersign.dev/v1alpha1',
  kind: 'Environment',
  metadata: { name: 'production' },
  spec: { source: { url: directory }, target: { namespaces: ['shop'] }, trust: 'team' },
};
const config = writeConfiguration(join(directory, 'config'), [
  trustDocument([sshPerson(directory, 'dana')]),
  environment,
]);
const dead = join(directory, 'kubeconfig');
writeFileSync(
  dead,
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'c', cluster: { server: 'http://127.0.0.1:9' } }],
    users: [{ name: 'u', user: { token: 't' } }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  }),
);
const serve = (...more: string[]) =>
  countersignProcess([
    'serve',
    '--config',
    config,
    '--http',
    'off',
    '--webhook',
    'off',
    '--data',
    join(directory, 'data'),
    ...more,
  ]);

for (const [flag, value, expected] of [
  ['--ledger', 'mysql://x', /--ledger: the address of the ledger’s database cannot be used/],
  ['--ledger-key', join(directory, 'none.key'), /--ledger-key: the ledger’s key `.*none\.key` is missing/],
  ['--anchor', 'foo:bar', /--anchor: `foo:bar` is not an anchor/],
  ['--anchor', 'configmap:a', /--anchor: `a` does not name a ConfigMap/],
  ['--anchor', 'witness:https://w.example#junk', /--anchor: this is not a witness key/],
  ['--anchor-every', '5', /`5` is not a duration for --anchor-every/],
  ['--heartbeat', '1ms', /`1ms` is not a duration for --heartbeat/],
  ['--selector', 'shard', /--selector: `shard` selects nothing/],
  ['--http-name', 'http://x', /--http-name: `http:\/\/x` is not a host name/],
] as const)
  test(`serve ${flag} ${value.replace(directory, '')} is refused before the cluster is asked`, async () => {
    const { code, stderr } = await serve('--kubeconfig', dead, flag, value);
    assert.equal(code, 2, stderr);
    assert.match(stderr, expected);
    assert.doesNotMatch(stderr, /127\.0\.0\.1:9/);
  });

test('without a kubeconfig and outside of a pod, the service says so and ends', async () => {
  const { code, stderr } = await serve();
  assert.equal(code, 2, stderr);
  assert.match(
    stderr,
    /there is no kubeconfig: `KUBECONFIG` is not set and this is not a pod\nfix: name one with --kubeconfig\n/,
  );
});

test('the first file in a new data directory leaves it private', async () => {
  const data = join(directory, 'new', 'data');
  await makeCertificates(join(data, 'webhook'), '127.0.0.1', new Date());
  assert.equal(statSync(data).mode & 0o777, 0o700);
});
