import assert from 'node:assert/strict';
import { test } from 'node:test';
import { scratch } from '../kit/scratch.ts';
import { openStage } from '../kit/test-stage.ts';

// Definitions of kinds that move on to another version.
const PATH = 'clusters/production';
const stage = await openStage(scratch());

type Version = { readonly name: string; readonly served?: boolean; readonly fields: readonly string[] };

function definition(group: string, storage: string, versions: readonly Version[]): string {
  const schema = (fields: readonly string[]) => ({
    openAPIV3Schema: {
      type: 'object',
      properties: {
        spec: { type: 'object', properties: Object.fromEntries(fields.map((f) => [f, { type: 'string' }])) },
      },
    },
  });
  return JSON.stringify({
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `gears.${group}` },
    spec: {
      ...{ group, scope: 'Namespaced', names: { kind: 'Gear', plural: 'gears' } },
      versions: versions.map(({ name, served = true, fields }) => ({
        ...{ name, served, storage: name === storage },
        schema: schema(fields),
      })),
    },
  });
}
const gear = (group: string, version: string, ns: string, spec: object) =>
  JSON.stringify({ apiVersion: `${group}/${version}`, kind: 'Gear', metadata: { name: 'gear', namespace: ns }, spec });

async function opened(ns: string, environment: object = {}, fields: readonly string[] = ['size'], more: object = {}) {
  const group = `${ns}.example.test`;
  const { fleet, service } = await stage.running(
    ns,
    {},
    {
      files: {
        [`${PATH}/crd.yaml`]: definition(group, 'v1', [{ name: 'v1', fields }]),
        [`${PATH}/gear.yaml`]: gear(group, 'v1', ns, { size: '1', ...more }),
      },
      environment: {
        clusterScoped: ['Namespace', { kind: 'CustomResourceDefinition', names: [`gears.${group}`] }],
        ...environment,
      },
    },
  );
  const live = async (version: string) =>
    (await stage.get(`/apis/${group}/${version}/namespaces/${ns}/gears/gear`)).body['spec'];
  return { group, fleet, service, live };
}

const ALLOW = (group: string) => `\n\nCountersign-Allow: store CustomResourceDefinition gears.${group}`;

test('a definition and its object move to a new version in one commit, and go back with that version kept', async () => {
  const ns = 'versions-on';
  const { group, fleet, service, live } = await opened(ns);
  const v1 = { name: 'v1', fields: ['size'] };
  const v2 = { name: 'v2', fields: ['size', 'colour'] };
  const files = {
    [`${PATH}/crd.yaml`]: definition(group, 'v2', [v1, v2]),
    [`${PATH}/gear.yaml`]: gear(group, 'v2', ns, { size: '1', colour: 'red' }),
  };
  const unsaid = await stage.change(fleet, 'v2', files);
  const { entry: first } = await service.entry('apply.refused', 'production', (e) => e.revision === unsaid);
  assert.match(first.error, /would store its objects in another version, which it then has to keep/);
  assert.deepEqual(await live('v1'), { size: '1' });
  const next = await stage.change(fleet, `v2, meant${ALLOW(group)}`, { [`${PATH}/note.txt`]: 'x' });
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  assert.deepEqual(await live('v2'), { size: '1', colour: 'red' });
  const old = gear(group, 'v1', ns, { size: '2' });
  const revert = await stage.change(fleet, 'back', {
    [`${PATH}/crd.yaml`]: definition(group, 'v1', [v1]),
    [`${PATH}/gear.yaml`]: old,
  });
  const { entry: refused } = await service.entry('apply.refused', 'production', (e) => e.revision === revert);
  assert.match(refused.error, /"v2": missing from spec\.versions/);
  await service.says('keep it in `spec.versions`, with `served: false`');
  assert.deepEqual(await live('v2'), { size: '1', colour: 'red' }, 'nothing was written');
  const kept = await stage.change(fleet, 'back, v2 kept', {
    [`${PATH}/crd.yaml`]: definition(group, 'v1', [v1, { ...v2, served: false }]),
    [`${PATH}/gear.yaml`]: old,
  });
  await service.entry('apply.result', 'production', (e) => e.revision === kept && e.outcome === 'applied');
  assert.deepEqual(await live('v1'), { size: '2' });
  assert.deepEqual(service.entries('drift.found', 'production'), []);
});

test('a version that is no longer served does not keep its object from moving on', async () => {
  const ns = 'versions-over';
  const { group, fleet, service, live } = await opened(ns);
  const next = await stage.change(fleet, `v2 alone${ALLOW(group)}`, {
    [`${PATH}/crd.yaml`]: definition(group, 'v2', [
      { name: 'v1', served: false, fields: ['size'] },
      { name: 'v2', fields: ['size', 'colour'] },
    ]),
    [`${PATH}/gear.yaml`]: gear(group, 'v2', ns, { size: '1', colour: 'red' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  assert.deepEqual(await live('v2'), { size: '1', colour: 'red' });
  assert.deepEqual(service.entries('drift.found', 'production'), []);
});

test('a field that Git drops goes with the move, also where an operator may write to the object', async () => {
  const ns = 'versions-drop';
  const operators = { admission: { operators: ['user:operator'] } };
  const { group, fleet, service, live } = await opened(ns, operators, ['size', 'extra'], { extra: 'old' });
  const next = await stage.change(fleet, `v2${ALLOW(group)}`, {
    [`${PATH}/crd.yaml`]: definition(group, 'v2', [
      { name: 'v1', fields: ['size', 'extra'] },
      { name: 'v2', fields: ['size', 'extra', 'colour'] },
    ]),
    [`${PATH}/gear.yaml`]: gear(group, 'v2', ns, { size: '1', colour: 'red' }),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  assert.deepEqual(await live('v2'), { size: '1', colour: 'red' });
});
