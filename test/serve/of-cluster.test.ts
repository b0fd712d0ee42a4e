import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { loadConfiguration } from '../../src/config/index.ts';
import { ofCluster } from '../../src/serve/index.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { sshPerson } from '../kit/fleet.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();
let n = 0;

function configured(targets: Readonly<Record<string, object>>) {
  const environments = Object.entries(targets).map(([name, target]) =>
    environmentDocument({
      name,
      url: 'https://git.example.test/fleet.git',
      namespaces: ['shop'],
      spec: { target: { namespaces: ['shop'], ...target } },
    }),
  );
  const trust = trustDocument([sshPerson(directory, 'dana')], { required: 0 });
  return loadConfiguration([writeConfiguration(join(directory, String(n++)), [...environments, trust])]);
}

const names = ({ environments }: ReturnType<typeof configured>) => environments.map((e) => e.metadata.name);

test('a service in a named cluster runs the environments of that cluster, and those that name none', () => {
  const whole = configured({ eu: { cluster: 'eu' }, us: { cluster: 'us' }, here: { namespaces: ['tools'] } });
  assert.deepEqual(names(ofCluster(whole, 'us')), ['us', 'here']);
  assert.deepEqual(names(ofCluster(whole, 'asia')), ['here']);
  assert.equal(ofCluster(whole, 'us').digest, whole.digest);
});

test('one connection does not lead to two clusters', () => {
  const whole = configured({ eu: { cluster: 'eu' }, us: { cluster: 'us' } });
  assert.throws(() => ofCluster(whole, undefined), {
    code: 'config-invalid',
    message: '`eu` is in the cluster `eu` and `us` in `us`, but the same connection leads to both',
    hint: /--cluster/,
  });
  const apart = configured({ eu: { cluster: 'eu', context: 'eu' }, us: { cluster: 'us', context: 'us' } });
  assert.deepEqual(names(ofCluster(apart, undefined)), ['eu', 'us']);
});
