import assert from 'node:assert/strict';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createKey } from '../../src/ledger/index.ts';
import { freePorts } from '../kit/control-plane.ts';
import { startGitServer } from '../kit/git-server.ts';
import { without } from '../kit/machine.ts';
import { configMap, deployment, namespace } from '../kit/manifests.ts';
import { Postgres } from '../kit/postgres.ts';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// Break-glass needs the API server and one replica: neither Git, nor a clone, nor the ledger's database.
const PATH = 'clusters/production';
const NS = 'alone';
const WRITES = Number(process.env['COUNTERSIGN_BREAK_GLASS'] ?? 20);
const directory = scratch();
const stage = await openStage(directory);

test('a replica that starts with nothing but the API server lets break-glass and controllers through, and records them later', {
  skip: without('PostgreSQL'),
}, async () => {
  const postgres = await Postgres.start();
  const [gitPort, http] = (await freePorts(2)) as [number, number];
  const git = await startGitServer(directory, gitPort);
  let gitAgain: typeof git | undefined;
  try {
    const { url } = await postgres.ledger();
    const key = join(directory, 'shared.key');
    writeFileSync(key, createKey(), { mode: 0o600 });
    const fleet = stage.fleet(NS);
    fleet.remote(`http://127.0.0.1:${gitPort}/${NS}.git`);
    const configuration = stage.configuration(NS, [
      { url: fleet.url, namespaces: [NS], admission: { policy: { namespaces: [], mode: 'enforce' } } },
    ]);
    await stage.change(fleet, 'first', {
      [`${PATH}/ns.yaml`]: namespace(NS),
      [`${PATH}/cm.yaml`]: configMap(NS, 'settings', { colour: 'blue' }),
      [`${PATH}/web.yaml`]: deployment(NS, 'web', { replicas: 1 }),
    });
    const args = await stage.arguments(configuration);
    const more = ['--ledger', url, '--ledger-key', key, '--http', `127.0.0.1:${http}`];
    const before = stage.start(args, NS, more);
    await before.says('countersign is running');
    await before.entry('apply.result', 'production', (e) => e.outcome === 'applied');
    const pods = `/api/v1/namespaces/${NS}/pods`;
    const namesOf = async () =>
      ((await stage.get(pods)).body['items'] as { metadata: { name: string } }[]).map((p) => p.metadata.name);
    await stage.waitFor(async () => (await namesOf()).length === 1, 'the pod');
    process.kill(before.pid, 'SIGKILL');
    await before.ended;
    await postgres.kill();
    await git.stop();
    rmSync(join(before.data, 'git'), { recursive: true });

    const service = stage.start(args, NS, more);
    await service.says('answers admission by its copy of the ledger');
    const ready = await fetch(`http://127.0.0.1:${http}/readyz`);
    assert.equal(ready.status === 200 || /the rules of/.test(await ready.text()), true);
    const [dev, oncall] = [await stage.as('dev'), await stage.as('oncall')];
    const post = (who: typeof dev, name: string, annotations: object) =>
      who.request('POST', `/api/v1/namespaces/${NS}/configmaps`, {
        ...{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, annotations } },
      });
    for (let i = 0; i < WRITES; i++) {
      const answer = await post(oncall, `glass-${i}`, { 'countersign.dev/break-glass': `INC-${i}` });
      assert.equal(answer.status, 201, String(answer.body['message']));
    }
    assert.equal((await post(dev, 'dev', {})).status, 403);
    const [pod = ''] = await namesOf();
    assert.equal((await stage.admin.request('DELETE', `${pods}/${pod}`)).status, 403);
    const evict = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name: pod, namespace: NS } };
    assert.equal((await stage.admin.request('POST', `${pods}/${pod}/eviction`, evict)).status, 201);
    await stage.waitFor(async () => {
      const names = await namesOf();
      return names.length === 1 && names[0] !== pod;
    }, 'another pod in its place');
    const next = await stage.prepare(fleet, 'next', {
      [`${PATH}/cm.yaml`]: configMap(NS, 'settings', { colour: 'green' }),
    });

    gitAgain = await startGitServer(directory, gitPort);
    fleet.push();
    await postgres.up();
    await service.says('countersign is running');
    await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
    const used = () => service.entries('breakglass.used', 'production').map(({ entry }) => entry.object.name);
    await stage.waitFor(async () => used().length === WRITES, 'every use on the ledger');
    assert.equal(new Set(used()).size, WRITES);
    assert.equal(service.entries('service.started', '').length, 2);
    assert.ok(readdirSync(service.data).includes('git'));
  } finally {
    await gitAgain?.stop();
    await postgres.stop();
  }
});
