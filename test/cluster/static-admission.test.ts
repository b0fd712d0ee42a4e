import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tool } from '../../scripts/tools.ts';
import type { Answer, ApiServer } from '../../src/cluster/index.ts';
import { actingAs } from '../kit/acting-as.ts';
import { startControlPlane, writeKubeconfig } from '../kit/control-plane.ts';
import { environmentDocument, trustDocument, writeConfiguration } from '../kit/documents.ts';
import { sshPerson } from '../kit/fleet.ts';
import { without } from '../kit/machine.ts';
import { scratch } from '../kit/scratch.ts';
import { countersign } from '../kit/service.ts';
import { Stage } from '../kit/stage.ts';

const NS = 'static';
const CORE = `/api/v1/namespaces/${NS}`;
const SYSTEM = '/api/v1/namespaces/kube-system';
const HOOKS = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations';
const MERGE = 'application/merge-patch+json';
const GLASS = 'countersign.dev/break-glass';
const skip = without('kube-apiserver 1.37');

/** Files for the API server, for an environment that governs one namespace. */
async function writeStatic(directory: string, ...flags: readonly string[]): Promise<string> {
  const configuration = writeConfiguration(join(directory, 'static-config'), [
    environmentDocument({ url: 'https://git.example.test/fleet', namespaces: [NS] }),
    trustDocument([sshPerson(directory, 'sam')]),
  ]);
  const at = join(directory, 'files');
  const users = ['countersign', 'system:serviceaccount:countersign:countersign'];
  const { code, stderr } = await countersign([
    ...['manifests', '--static', at, '--config', configuration, '--applier', ...users, ...flags],
  ]);
  assert.equal(code, 0, stderr);
  return at;
}

const pod = (name: string, annotations: object = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, annotations },
  spec: { containers: [{ name: 'a', image: 'registry.example.test/a:1' }] },
});
const configMap = (name: string, annotations: object = {}) => ({ metadata: { name, annotations } });
const annotate = (who: ApiServer, path: string, value: string | null) =>
  who.request('PATCH', path, { metadata: { annotations: { [GLASS]: value } } }, MERGE);

function assertRefused({ status, body }: Answer, why: RegExp): void {
  assert.match(`${status} ${String(body['message'])}`, why);
  assert.equal(status, 403);
}
function assertDone({ status, body }: Answer): void {
  assert.ok(status >= 200 && status < 300, `${status} ${String(body['message'])}`);
}

test('policies in files of the API server: nobody removes them through it, and on call has a way', {
  skip,
}, async (t) => {
  const directory = scratch();
  const files = await writeStatic(directory, '--fence');
  const stage = await Stage.bare(directory, {
    apiserver: 'kube-apiserver-1.37',
    flags: [`--admission-control-config-file=${join(files, 'admission.yaml')}`],
  });
  t.after(() => stage.close());
  const { admin } = stage;
  const [dev, oncall, gate, manager] = (await Promise.all(
    ['dev', 'oncall', 'countersign', 'manager'].map((who) => stage.as(who)),
  )) as [ApiServer, ApiServer, ApiServer, ApiServer];

  await t.test('the gate works under them: it registers itself, and applies', async () => {
    const { service } = await stage.running(NS);
    assert.deepEqual(await stage.dataOf(NS, 'settings'), { colour: 'blue' });
    await service.stop();
  });

  await t.test('the webhook is removed by nobody, whatever rights they have', async () => {
    const path = `${HOOKS}/countersign`;
    const only = /only the gate changes this/;
    const borrowed = actingAs(stage.controlPlane.url, 'generic-garbage-collector', true);
    for (const who of [admin, dev, borrowed as ApiServer]) {
      assertRefused(await who.request('DELETE', path), only);
      assertRefused(await who.request('PATCH', path, { webhooks: [] }, MERGE), only);
    }
    for (const kind of ['validatingadmissionpolicies', 'validatingadmissionpolicybindings'])
      assertRefused(await admin.request('DELETE', `/apis/admissionregistration.k8s.io/v1/${kind}/countersign`), only);
    await admin.request('DELETE', `${HOOKS}?labelSelector=app.kubernetes.io%2Fmanaged-by%3Dcountersign`);
    assertDone(await admin.request('GET', path));
    const other = { metadata: { name: 'other' }, webhooks: [] };
    assertDone(await dev.request('POST', HOOKS, other));
    assertDone(await dev.request('DELETE', `${HOOKS}/other`));
    const reserved = await admin.request('POST', HOOKS, { metadata: { name: 'a.static.k8s.io' }, webhooks: [] });
    assert.equal(reserved.status, 422, 'the API server keeps such names for files');
  });

  await t.test('on call removes it after writing a reason on it, and changes nothing else of it', async () => {
    const path = `${HOOKS}/countersign`;
    assertRefused(await oncall.request('DELETE', path), /write the annotation countersign\.dev\/break-glass/);
    assertDone(await annotate(dev, `${CORE}/configmaps/nothing`, null).then(() => admin.request('GET', path)));
    assertRefused(await annotate(dev, path, 'I would like to'), /only the gate/);
    assertDone(await annotate(oncall, path, ' '));
    assertRefused(await oncall.request('DELETE', path), /only the gate/);
    assertDone(await annotate(oncall, path, 'INC-17 the gate is dead'));
    assertRefused(await oncall.request('PATCH', path, { webhooks: [] }, MERGE), /only the gate/);
    assertRefused(await dev.request('DELETE', path), /only the gate/);
    assertDone(await oncall.request('DELETE', path));
  });

  await t.test('without any webhook, people write nothing in a governed namespace', async () => {
    const closed = /only approved commits change this namespace/;
    for (const who of [dev, admin, oncall]) {
      assertRefused(await who.request('POST', `${CORE}/pods`, pod('a')), closed);
      assertRefused(await who.request('PATCH', `${CORE}/configmaps/settings`, { data: { a: '1' } }, MERGE), closed);
      assertRefused(await who.request('DELETE', `${CORE}/configmaps/settings`), closed);
      assertRefused(await who.request('DELETE', `/api/v1/namespaces/${NS}`), closed);
    }
    assertDone(await gate.request('POST', `${CORE}/pods`, pod('b')));
    assertRefused(await dev.request('POST', `${CORE}/pods/b/exec?command=ls`), closed);
    assertRefused(await dev.request('PATCH', `${CORE}/pods/b/resize`, { spec: {} }, MERGE), closed);
    assertDone(await dev.request('POST', '/api/v1/namespaces/default/configmaps', configMap('elsewhere')));
    assertDone(await dev.request('POST', `${CORE}/configmaps?dryRun=All`, configMap('not-written')));
    assertDone(await dev.request('PATCH', `${CORE}/pods/b/status`, { status: { phase: 'Running' } }, MERGE));
    const lease = { metadata: { name: 'a' }, spec: {} };
    assertDone(await dev.request('POST', `/apis/coordination.k8s.io/v1/namespaces/${NS}/leases`, lease));
    const event = { metadata: { name: 'a' }, involvedObject: { kind: 'Pod', namespace: NS, name: 'b' } };
    assertDone(await dev.request('POST', `${CORE}/events`, event));
    const binding = { metadata: { name: 'b' }, target: { kind: 'Node', name: 'n' } };
    const annotated = { ...binding, metadata: { name: 'b', annotations: { a: 'b' } } };
    assertRefused(await dev.request('POST', `${CORE}/pods/b/binding`, annotated), closed);
    assertDone(await dev.request('POST', `${CORE}/pods/b/binding`, binding));
    assertDone(await dev.request('POST', `${CORE}/pods/b/eviction`, { metadata: { name: 'b' } }));
    assertDone(await (await stage.as('controller')).request('POST', `${CORE}/configmaps`, configMap('declared')));
  });

  await t.test('a reason opens it for on call, and for nobody else', async () => {
    assertDone(await oncall.request('POST', `${CORE}/configmaps`, configMap('one', { [GLASS]: 'INC-17' })));
    assertRefused(
      await dev.request('POST', `${CORE}/configmaps`, configMap('two', { [GLASS]: 'INC-17' })),
      /only approved/,
    );
    const again = { data: { a: '1' } };
    assertRefused(await oncall.request('PATCH', `${CORE}/configmaps/one`, again, MERGE), /only approved/);
    assertDone(await annotate(oncall, `/api/v1/namespaces/${NS}`, 'INC-17 the gate is dead'));
    await stage.waitFor(
      async () => (await oncall.request('POST', `${CORE}/pods`, pod('c'))).status === 201,
      'the API server has seen the reason',
    );
    assertRefused(await dev.request('POST', `${CORE}/pods`, pod('d')), /only approved/);
    assertRefused(await admin.request('POST', `${CORE}/pods`, pod('d')), /only approved/);
    assertDone(await annotate(oncall, `/api/v1/namespaces/${NS}`, null));
  });

  await t.test('the names of controllers: no borrowed ones, and no tokens for others', async () => {
    const account = { metadata: { name: 'replicaset-controller' } };
    assertDone(await admin.request('POST', `${SYSTEM}/serviceaccounts`, account));
    const borrowed = actingAs(stage.controlPlane.url, 'replicaset-controller', true);
    assertRefused((await borrowed.request('POST', `${CORE}/pods`, pod('e'))) as Answer, /only borrows its name/);
    assertRefused((await borrowed.request('DELETE', `${CORE}/pods/c`)) as Answer, /only borrows its name/);
    const mint = (who: ApiServer, ns = 'kube-system', name = 'replicaset-controller') =>
      who.request('POST', `/api/v1/namespaces/${ns}/serviceaccounts/${name}/token`, { spec: {} });
    const only = /only the controller manager and nodes get tokens/;
    assertDone(await admin.request('POST', '/api/v1/namespaces', { metadata: { name: 'countersign' } }));
    for (const [ns, name] of [
      ['countersign', 'countersign'],
      ['kube-system', 'another'],
      ['countersign', 'another'],
    ])
      assertDone(await admin.request('POST', `/api/v1/namespaces/${ns}/serviceaccounts`, { metadata: { name } }));
    for (const who of [dev, admin, oncall, gate]) {
      assertRefused(await mint(who), only);
      assertRefused(await mint(who, 'countersign', 'countersign'), only);
    }
    assertDone(await mint(dev, 'kube-system', 'another'));
    assertDone(await mint(dev, 'countersign', 'another'));
    const secret = (name: string, of: string, type = 'kubernetes.io/service-account-token') => ({
      type,
      metadata: { name, annotations: { 'kubernetes.io/service-account.name': of } },
    });
    assertRefused(await dev.request('POST', `${SYSTEM}/secrets`, secret('t', 'replicaset-controller')), only);
    assertDone(await dev.request('POST', `${SYSTEM}/secrets`, secret('t', 'another')));
    assertDone(await manager.request('POST', `${SYSTEM}/secrets`, secret('own', 'replicaset-controller')));
    assertDone(await dev.request('PATCH', `${SYSTEM}/secrets/own`, { metadata: { labels: { a: 'b' } } }, MERGE));
    const toOther = { metadata: { annotations: { 'kubernetes.io/service-account.name': 'replicaset-controller' } } };
    assertRefused(await dev.request('PATCH', `${SYSTEM}/secrets/t`, toOther, MERGE), only);
    assertDone(await dev.request('POST', `${SYSTEM}/secrets`, secret('plain', 'replicaset-controller', 'Opaque')));
    assertDone(await dev.request('POST', `${SYSTEM}/secrets`, { metadata: { name: 'ordinary' } }));
    const minted = await mint(manager);
    assertDone(minted);
    const { token } = minted.body['status'] as { token: string };
    writeKubeconfig(stage.controlPlane.directory, stage.controlPlane.url, 'genuine', token);
    assertDone(await (await stage.as('genuine')).request('POST', `${CORE}/pods`, pod('f')));
    assertDone(await annotate(oncall, SYSTEM, 'INC-17'));
    await stage.waitFor(async () => (await mint(oncall)).status === 201, 'the API server has seen the reason');
    assertRefused(await mint(dev), only);
    assertDone(await annotate(oncall, SYSTEM, null));
  });

  await t.test(
    'the probe says which files are in force; they are read again, and a broken one changes nothing',
    async () => {
      const probe = async () =>
        String(
          (
            await dev.request(
              'POST',
              '/api/v1/namespaces/default/configmaps?dryRun=All',
              configMap('countersign-static-probe'),
            )
          ).body['message'],
        );
      assert.match(await probe(), /countersign static sha256:[0-9a-f]{64} own,names,fence/);
      const write = () => dev.request('POST', `${CORE}/configmaps`, configMap('people'));
      writeFileSync(join(files, 'policies', '99-broken.yaml'), 'kind: Nonsense\n');
      const log = join(stage.controlPlane.directory, 'kube-apiserver.log');
      await stage.waitFor(
        async () => readFileSync(log, 'utf8').includes('99-broken.yaml'),
        'a look at the broken file',
      );
      assertRefused(await write(), /only approved/);
      rmSync(join(files, 'policies', '99-broken.yaml'));
      await writeStatic(directory);
      await stage.waitFor(async () => /sha256:[0-9a-f]{64} own,names"?$/.test((await probe()).trim()), 'new files');
      await stage.waitFor(async () => (await write()).status === 201, 'the fence is gone');
      await writeStatic(directory, '--fence');
      await stage.waitFor(async () => /own,names,fence/.test(await probe()), 'the fence is back');
      assertRefused(await dev.request('DELETE', `${CORE}/configmaps/people`), /only approved/);
    },
  );
});

test('an API server does not start on files that the check refuses', { skip }, async () => {
  const directory = scratch();
  const files = await writeStatic(directory);
  const policies = join(files, 'policies');
  mkdirSync(policies, { recursive: true });
  writeFileSync(join(policies, '99-other.yaml'), JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap' }));
  const configuration = join(directory, 'static-config');
  const checked = await countersign(['manifests', '--static', files, '--config', configuration, '--check']);
  assert.equal(checked.code, 1);
  assert.match(checked.stdout, /`99-other\.yaml`: it may only hold a ValidatingAdmissionPolicy/);
  const [etcd, apiserver] = [await tool('etcd'), await tool('kube-apiserver-1.37')];
  const flags = [`--admission-control-config-file=${join(files, 'admission.yaml')}`];
  await assert.rejects(startControlPlane({ etcd, apiserver }, undefined, flags), /ended/);
});
