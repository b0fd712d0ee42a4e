import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Approved, type MachineryFacts, proveChild, templateDigest } from '../../src/machinery/index.ts';
import {
  API_SERVER_PLUGINS,
  type ApiServerPlugin,
  CountersignError,
  type KubernetesObject,
} from '../../src/model/index.ts';

type Json = Readonly<Record<string, unknown>>;
const GPU = 'example.com/gpu';
const REQUESTS = { cpu: '100m', [GPU]: '1' };
const TOLERATED = ['not-ready', 'unreachable'].map((name) => ({
  ...{ key: `node.kubernetes.io/${name}`, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 },
}));
const container = (more: Json = {}) => ({
  ...{ name: 'web', image: 'web:1', imagePullPolicy: 'IfNotPresent' },
  resources: { limits: REQUESTS, requests: REQUESTS },
  ...more,
});
const spec = (more: Json = {}) => ({
  ...{ containers: [container()], nodeSelector: { disk: 'ssd' }, automountServiceAccountToken: false },
  ...more,
});
const WEB = {
  ...{ apiVersion: 'apps/v1', kind: 'StatefulSet' },
  metadata: { name: 'web', namespace: 'shop', uid: 'u' },
  spec: { template: { metadata: {}, spec: spec() } },
} as KubernetesObject;
const NAMESPACE = {
  ...{ apiVersion: 'v1', kind: 'Namespace' },
  metadata: {
    name: 'shop',
    annotations: {
      'scheduler.alpha.kubernetes.io/node-selector': 'team=shop, disk=ssd',
      'scheduler.alpha.kubernetes.io/defaultTolerations': '[{"operator":"Exists","effect":"NoSchedule","key":"shop"}]',
    },
  },
} as KubernetesObject;
const REVISION = {
  ...{ apiVersion: 'apps/v1', kind: 'ControllerRevision' },
  metadata: { name: 'web-1', namespace: 'shop', ownerReferences: [{ uid: 'u' }] },
} as KubernetesObject;

const tolerating = (...more: readonly Json[]) => ({ tolerations: [...TOLERATED, ...more] });
const exists = (key: string) => ({ key, operator: 'Exists', effect: 'NoSchedule' });

/** What each plugin makes of the pod, written down by hand. */
const DONE: Readonly<Record<ApiServerPlugin, Json>> = {
  AlwaysPullImages: { containers: [container({ imagePullPolicy: 'Always' })] },
  PodNodeSelector: { nodeSelector: { disk: 'ssd', team: 'shop' } },
  PodTolerationRestriction: tolerating(exists('shop'), exists('node.kubernetes.io/memory-pressure')),
  ExtendedResourceToleration: tolerating(exists(GPU)),
};

function pod(more: Json): KubernetesObject {
  const revision = { 'controller-revision-hash': 'web-1' };
  const identity = { 'statefulset.kubernetes.io/pod-name': 'web-0', 'apps.kubernetes.io/pod-index': '0' };
  return {
    ...{ apiVersion: 'v1', kind: 'Pod' },
    metadata: {
      ...{ name: 'web-0', namespace: 'shop', labels: { ...revision, ...identity } },
      ownerReferences: [
        {
          apiVersion: 'apps/v1',
          kind: 'StatefulSet',
          name: 'web',
          uid: 'u',
          controller: true,
          blockOwnerDeletion: true,
        },
      ],
    },
    spec: {
      ...spec(tolerating()),
      ...{ hostname: 'web-0', enableServiceLinks: true, serviceAccountName: 'default', serviceAccount: 'default' },
      ...{ priority: 0, preemptionPolicy: 'PreemptLowerPriority' },
      ...more,
    },
  } as KubernetesObject;
}

async function proofOf(more: Json, plugins: readonly ApiServerPlugin[], { away = false } = {}): Promise<string> {
  const isWeb = (o: { kind: string }) => o.kind === 'StatefulSet';
  const approved: Approved = {
    ...{ injected: [], hasOperators: false, isOwned: isWeb, plugins },
    templates: (o) => (isWeb(o) ? [templateDigest(WEB) ?? ''] : undefined),
  };
  const facts: MachineryFacts = {
    get: async ({ kind }) => {
      if (kind === 'Namespace' && away) throw new CountersignError('cluster-unreachable', 'no', { recover: 'retry' });
      return { StatefulSet: WEB, Namespace: NAMESPACE }[kind];
    },
    list: async (_, kind) => (kind === 'ControllerRevision' ? [REVISION] : []),
  };
  const proof = await proveChild(pod(more), approved, facts);
  return proof?.kind === 'unproven' ? proof.reason : String(proof?.kind);
}

test('each plugin that is named switches on its rule, and no other', async () => {
  assert.equal(await proofOf({}, []), 'proven');
  for (const name of API_SERVER_PLUGINS) {
    assert.equal(await proofOf(DONE[name], [name]), 'proven', name);
    assert.equal(await proofOf({}, [name]), 'proven', `${name}: the pod may be older`);
    for (const other of API_SERVER_PLUGINS.filter((p) => p !== name))
      assert.match(
        await proofOf(DONE[name], [other]),
        /it is not what the StatefulSet `web` makes/,
        `${name}, ${other}`,
      );
  }
  const { tolerations } = DONE.PodTolerationRestriction as { tolerations: readonly Json[] };
  const all = {
    ...{ ...DONE.AlwaysPullImages, ...DONE.PodNodeSelector },
    tolerations: [...tolerations, exists(GPU)],
  };
  assert.equal(await proofOf(all, API_SERVER_PLUGINS), 'proven');
});

test('a pod that a plugin explains says which one to name; one that has anything else does not', async () => {
  for (const name of API_SERVER_PLUGINS)
    assert.match(
      await proofOf(DONE[name], []),
      new RegExp(`\`${name}\` of the API server does exactly this: .* name it in \`spec.admission.apiServer\`$`),
    );
  assert.match(
    await proofOf({ ...DONE.AlwaysPullImages, ...DONE.PodNodeSelector }, ['PodNodeSelector']),
    /; `AlwaysPullImages` of the API server does exactly this/,
  );
  for (const more of [
    { containers: [container({ imagePullPolicy: 'Never' })] },
    { containers: [container({ imagePullPolicy: 'Always', command: ['mine'] })] },
    { nodeSelector: { disk: 'ssd', team: 'other' } },
    { nodeSelector: { team: 'shop' } },
    tolerating(exists('other')),
    tolerating({ operator: 'Exists' }),
  ])
    for (const plugins of [[], API_SERVER_PLUGINS])
      assert.doesNotMatch(await proofOf(more, plugins), /proven|exactly this/, JSON.stringify(more));
});

test('a namespace that cannot be read leaves a pod open only where a plugin reads it', async () => {
  assert.equal(await proofOf(DONE.PodNodeSelector, ['PodNodeSelector'], { away: true }), 'unknown');
  assert.match(await proofOf(DONE.PodNodeSelector, [], { away: true }), /`spec.nodeSelector.team` is added/);
  assert.match(await proofOf(DONE.AlwaysPullImages, [], { away: true }), /`AlwaysPullImages` of the API server/);
});
