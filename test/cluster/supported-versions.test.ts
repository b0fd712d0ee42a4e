import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serverVersionTrouble } from '../../src/cluster/index.ts';
import { startApiProxy } from '../kit/api-proxy.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { openStage } from '../kit/test-stage.ts';

const stage = await openStage(scratch());

test('the API server of these tests is of a supported version', async () => {
  assert.equal(await serverVersionTrouble(stage.admin), undefined);
});

test('log and `status` name an API server that is newer than what was tested', async (t) => {
  const proxy = await startApiProxy(stage.controlPlane, 'countersign');
  t.after(() => proxy.stop());
  proxy.fault = ({ path }) => (path === '/version' ? { status: 200, body: { major: '1', minor: '99' } } : 'pass');
  const { service } = await stage.running('supported-versions', {}, { kubeconfig: proxy.kubeconfig });
  const newer = 'is Kubernetes 1.99, newer than 1.37, the newest version that this release was tested with';
  await service.says(newer);
  const { stdout } = await countersign(['status', '--data', service.data]);
  assert.ok(stdout.includes(`${newer}: upgrade countersign (docs/supported-versions.md)`), stdout);
});
