import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { tool } from '../../scripts/tools.ts';
import { readProcessSettings } from '../../src/config/index.ts';
import { programVersionTrouble } from '../../src/fence/index.ts';
import { assess } from '../../src/gate/index.ts';
import { NO_REVISION } from '../../src/model/index.ts';
import { openRendering } from '../../src/open/index.ts';
import { trustDocument } from '../kit/documents.ts';
import { Fleet, sshPerson } from '../kit/fleet.ts';
import { gateOf } from '../kit/judge.ts';
import { scratch } from '../kit/scratch.ts';

const directory = scratch();

/** A program that states a version of its own, and does everything else as the real one. */
function saying(name: string, version: string, real = '/bin/false'): string {
  const place = join(directory, `${name}-${version}`);
  mkdirSync(place, { recursive: true });
  const file = join(place, name);
  writeFileSync(file, `#!/bin/sh\n[ "$1" = version ] && echo '${version}' && exit\nexec ${real} "$@"\n`);
  chmodSync(file, 0o755);
  return file;
}

test('the helm and kustomize of these tests are of supported versions', async () => {
  for (const name of ['helm', 'kustomize'] as const)
    assert.equal(await programVersionTrouble(name, await tool(name)), undefined);
});

test('a helm or kustomize that is older, newer or says nothing is named', async () => {
  const [old, next, silent] = [saying('helm', 'v2.17.0'), saying('helm', 'v4.99.1'), '/bin/false'];
  assert.match(
    (await programVersionTrouble('helm', old)) ?? '',
    /is Helm 2\.17, older than 3\.19.*: install a newer helm/,
  );
  assert.match((await programVersionTrouble('helm', next)) ?? '', /is Helm 4\.99, newer than .*: upgrade countersign/);
  assert.match((await programVersionTrouble('kustomize', silent)) ?? '', /states no version of Kustomize/);
});

test('rendering with such a program says so once, and goes on', async (t) => {
  const file = saying('kustomize', 'v5.99.0', await tool('kustomize'));
  const said: string[] = [];
  const settings = readProcessSettings();
  const path = [join(file, '..'), settings.path].join(delimiter);
  const rendering = openRendering({ ...settings, path }, undefined, (line) => said.push(line));
  t.after(() => rendering.close());
  const dana = sshPerson(scratch(), 'dana');
  const fleet = new Fleet(scratch());
  fleet.remote(fleet.bare);
  const map = (colour: string) => ({
    'clusters/production/kustomization.yaml': 'resources: [cm.yaml]\n',
    'clusters/production/cm.yaml': `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {colour: ${colour}}\n`,
  });
  const commits = [fleet.commit(dana, 'red', map('red')), fleet.commit(dana, 'blue', map('blue'))];
  fleet.push();
  const trust = trustDocument([dana], { required: 0 });
  const spec = { render: { with: 'kustomize' }, target: { namespaces: ['shop'] } };
  const gate = await gateOf(fleet, [dana], { trust, environment: { namespaces: ['shop'], spec } });
  for (const commit of commits) {
    const { objects } = await assess({ ...gate, ...rendering }, NO_REVISION, commit);
    assert.equal(objects.length, 1);
  }
  assert.equal(said.length, 1);
  assert.match(said[0] ?? '', /kustomize` is Kustomize 5\.99, newer than 5\.8/);
});
