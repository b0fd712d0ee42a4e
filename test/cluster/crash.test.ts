import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { tool } from '../../scripts/tools.ts';
import { buildBundle } from '../../src/bundle/index.ts';
import { LedgerReader, parseVerifiers, verifyLedger } from '../../src/ledger/index.ts';
import type { Fleet } from '../kit/fleet.ts';
import { configMap, deployment, namespace } from '../kit/manifests.ts';
import { filesIn } from '../kit/rules.ts';
import { scratch } from '../kit/scratch.ts';
import { Stage } from '../kit/stage.ts';

const PATH = 'clusters/production';
const directory = scratch();
let stage: Stage;
let fleet: Fleet;
let configuration = '';
let n = 0;

before(async () => {
  stage = await Stage.open(directory);
  fleet = stage.fleet('fleet');
  // The shipped rules would not let a Secret into the repository at all; here one shall be lost half-way.
  const bundle = join(directory, 'rules.tar.gz');
  const root = filesIn({
    'r.rego': 'package countersign.object\ndeny contains "never" if input.object.kind == "Never"',
  });
  writeFileSync(bundle, (await buildBundle({ opa: await tool('opa'), roots: [root] })).archive);
  configuration = stage.configuration('crash', [
    { url: fleet.url, namespaces: ['crash'], policies: { bundles: [{ file: bundle }] } },
  ]);
  const first = await stage.change(fleet, 'first', {
    [`${PATH}/ns.yaml`]: namespace('crash'),
    [`${PATH}/web.yaml`]: deployment('crash', 'web'),
    [`${PATH}/cm.yaml`]: configMap('crash', 'settings', { k: '0' }),
    [`${PATH}/old-0.yaml`]: configMap('crash', 'old-0', { k: 'x' }),
  });
  const service = await stage.serve(configuration, 'crash');
  await service.entry('apply.result', 'production', (e) => e.revision === first);
  await service.stop();
});
afterEach(() => stage.stopServices());
after(() => stage.close());

// An entry is signed for a moment after it can be read.
async function checkSigned(): Promise<void> {
  await stage.waitFor(async () => findingOf() === undefined, 'a checkpoint that covers everything');
}

function checkLedger(): void {
  assert.equal(findingOf(), undefined);
}

function findingOf(): ReturnType<typeof verifyLedger>['finding'] {
  const reader = new LedgerReader(join(stage.data('crash'), 'ledger.db'));
  const { finding } = verifyLedger(
    reader,
    parseVerifiers(readFileSync(join(stage.data('crash'), 'ledger.pub'), 'utf8')),
    {
      trusted: [readFileSync(join(stage.data('crash'), 'checkpoint'), 'utf8')],
    },
  );
  reader.close();
  return finding;
}

describe('kill -9 between two steps, then a restart: the change is completed and the ledger says so; killed when', () => {
  // The service that completes one change is the one that is killed in the next.
  let running: Awaited<ReturnType<Stage['killable']>> | undefined;
  after(() => running?.service.stop());
  for (const step of [
    'fetched',
    'judged',
    'dry-run',
    'intended',
    'first-write',
    'written',
    'healthy',
    'pruned',
    'recorded',
  ] as const) {
    test(step, async () => {
      const i = ++n;
      running ??= await begun();
      const { service: killed, killAt } = running;
      killAt(step);
      const commit = await stage.change(fleet, `change ${i}`, {
        [`${PATH}/cm.yaml`]: configMap('crash', 'settings', { k: String(i) }),
        [`${PATH}/new-${i}.yaml`]: configMap('crash', `old-${i}`, { k: 'x' }),
        [i === 1 ? `${PATH}/old-0.yaml` : `${PATH}/new-${i - 1}.yaml`]: undefined,
      });
      await killed.killed(step);
      checkLedger();
      const intents = killed.entries('apply.intent', 'production').filter((e) => e.entry.revision === commit);
      assert.equal(
        intents.length > 0,
        ['intended', 'first-write', 'written', 'healthy', 'pruned', 'recorded'].includes(step),
        'nothing is written before its intent is on record',
      );
      if (intents.length === 0) assert.deepEqual(await stage.dataOf('crash', 'settings'), { k: String(i - 1) });

      running = await begun();
      const { service } = running;
      await service.entry('apply.result', 'production', (e) => e.revision === commit && e.outcome === 'applied');
      await stage.waitFor(async () => (await stage.dataOf('crash', `old-${i - 1}`)) === undefined, 'the removal');
      assert.deepEqual(await stage.dataOf('crash', 'settings'), { k: String(i) });
      assert.notEqual(await stage.dataOf('crash', `old-${i}`), undefined);
      const interrupted = ['intended', 'first-write', 'written', 'healthy', 'pruned'].includes(step);
      const takesOver = service
        .entries('apply.intent', 'production')
        .filter((e) => e.entry.revision === commit && e.entry.takesOver !== undefined);
      assert.deepEqual(
        takesOver.map((e) => e.entry.takesOver),
        interrupted ? [intents[0]?.index] : [],
        'the ledger names the intent that was taken over',
      );
      await checkSigned();
      // A result can be read a moment before its step is over, at which the next kill would come too early.
      await service.looksAgain(1);
    });
  }

  async function begun(): Promise<Awaited<ReturnType<Stage['killable']>>> {
    const killable = await stage.killable(configuration, 'crash');
    stage.keep(killable.service);
    await killable.service.says('countersign is running');
    return killable;
  }
});

/** Refuses the real write of one name and lets its dry run pass: the failure no dry run can foresee. */
async function refuseWritesOf(name: string): Promise<() => Promise<void>> {
  const group = '/apis/admissionregistration.k8s.io/v1';
  const policy = {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingAdmissionPolicy',
    metadata: { name },
    spec: {
      failurePolicy: 'Fail',
      matchConstraints: {
        resourceRules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['configmaps'] }],
      },
      validations: [{ expression: `request.dryRun || object.metadata.name != "${name}"`, message: 'not today' }],
    },
  };
  const binding = {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingAdmissionPolicyBinding',
    metadata: { name },
    spec: { policyName: name, validationActions: ['Deny'] },
  };
  assert.equal((await stage.admin.request('POST', `${group}/validatingadmissionpolicies`, policy)).status, 201);
  assert.equal((await stage.admin.request('POST', `${group}/validatingadmissionpolicybindings`, binding)).status, 201);
  const probe = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name } };
  await stage.waitFor(async () => {
    if ((await stage.admin.request('POST', '/api/v1/namespaces/default/configmaps', probe)).status === 422) return true;
    await stage.admin.request('DELETE', `/api/v1/namespaces/default/configmaps/${name}`);
    return false;
  }, 'the refusal');
  return async () => {
    await stage.admin.request('DELETE', `${group}/validatingadmissionpolicybindings/${name}`);
    await stage.admin.request('DELETE', `${group}/validatingadmissionpolicies/${name}`);
  };
}

const secret = (value: string) =>
  `apiVersion: v1\nkind: Secret\nmetadata: {name: first, namespace: crash}\nstringData: {password: ${value}}\n`;

test('a change the cluster refuses half-way is undone, both are recorded, and the next commit goes on', async () => {
  const allow = await refuseWritesOf('refused');
  const service = await stage.serve(configuration, 'crash');
  const good = fleet.head();
  const bad = await stage.change(fleet, 'half', {
    [`${PATH}/a.yaml`]: secret('hunter2'),
    [`${PATH}/refused.yaml`]: configMap('crash', 'refused', {}),
  });
  const failed = await service.entry('apply.result', 'production', (e) => e.outcome === 'failed');
  assert.match(failed.entry.error ?? '', /not today/);
  const restore = await service.entry('apply.intent', 'production', (e) => e.purpose === 'restore');
  await service.entry(
    'apply.result',
    'production',
    (e) => e.intent === restore.index && e.revision === good && e.outcome === 'applied',
  );
  assert.equal(
    (await stage.get('/api/v1/namespaces/crash/secrets/first')).status,
    404,
    'what the change had written is gone',
  );
  await service.looksAgain();
  assert.equal(
    service.entries('apply.intent', 'production').filter((e) => e.entry.revision === bad).length,
    1,
    'it is not tried again until a commit changes it',
  );
  const next = await stage.change(fleet, 'without', {
    [`${PATH}/refused.yaml`]: undefined,
    [`${PATH}/a.yaml`]: undefined,
    [`${PATH}/b.yaml`]: configMap('crash', 'b', {}),
  });
  await service.entry('apply.result', 'production', (e) => e.revision === next && e.outcome === 'applied');
  await service.stop();
  await allow();
});

test('a killed change that the cluster then refuses is undone on restart', async () => {
  const allow = await refuseWritesOf('refused');
  const good = fleet.head();
  await stage.change(fleet, 'half and killed', {
    [`${PATH}/a.yaml`]: secret('hunter2'),
    [`${PATH}/refused.yaml`]: configMap('crash', 'refused', {}),
  });
  await stage.serveUntil('first-write', configuration, 'crash');
  assert.equal((await stage.get('/api/v1/namespaces/crash/secrets/first')).status, 200, 'it was half-way');
  const service = await stage.serve(configuration, 'crash');
  const restore = await service.entry(
    'apply.intent',
    'production',
    (e) => e.purpose === 'restore' && e.revision === good,
  );
  await service.entry('apply.result', 'production', (e) => e.intent === restore.index && e.outcome === 'applied');
  assert.equal((await stage.get('/api/v1/namespaces/crash/secrets/first')).status, 404);
  await service.stop();
  await allow();
  checkLedger();
  assert.doesNotMatch(
    readFileSync(join(stage.data('crash'), 'ledger.db'), 'latin1') + service.log,
    /hunter2/,
    'no value of a Secret is kept or told',
  );
});
