import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Approved,
  learnInjection,
  type MachineryFacts,
  proveChild,
  sampleDigest,
  templateDigest,
} from '../../src/machinery/index.ts';
import { type Injection, injectionSchema, type KubernetesObject } from '../../src/model/index.ts';
import { changesOf } from '../kit/changes-of.ts';

type Json = Record<string, unknown>;
type Container = Json & { name: string };
type PodSpec = Json & { containers: Container[]; initContainers: Container[]; volumes: Json[] };
type Pod = KubernetesObject & { spec: PodSpec };

const PROXY = `registry.example.test/istio/proxyv2@sha256:${'a'.repeat(64)}`;
const TOKEN_MOUNT = {
  name: 'kube-api-access-b4d7x',
  readOnly: true,
  mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
};
const always = { terminationMessagePath: '/dev/termination-log', terminationMessagePolicy: 'File' };

const template = {
  metadata: { labels: { app: 'web' }, annotations: { note: '1' } },
  spec: {
    containers: [
      {
        name: 'web',
        image: 'registry.example.test/shop/web:1.0.0',
        imagePullPolicy: 'IfNotPresent',
        env: [{ name: 'MODE', value: 'shop' }],
        livenessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 10 },
        readinessProbe: { httpGet: { path: '/ready', port: 8080, scheme: 'HTTP' }, periodSeconds: 5 },
        volumeMounts: [{ name: 'cache', mountPath: '/cache' }],
        ...always,
      },
    ],
    volumes: [
      { name: 'cache', emptyDir: {} },
      { name: 'keys', secret: { secretName: 'keys', defaultMode: 420 } },
    ],
    restartPolicy: 'Always',
    securityContext: {},
  },
};
const deployment: KubernetesObject = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'web', namespace: 'shop', uid: 'u-deployment' },
  spec: { replicas: 1, selector: { matchLabels: { app: 'web' } }, template },
};
const hashed = { ...template, metadata: { ...template.metadata, labels: { app: 'web', 'pod-template-hash': '5f8' } } };
const set: KubernetesObject = {
  apiVersion: 'apps/v1',
  kind: 'ReplicaSet',
  metadata: {
    name: 'web-5f8',
    namespace: 'shop',
    uid: 'u-set',
    labels: hashed.metadata.labels,
    ownerReferences: [
      { apiVersion: 'apps/v1', kind: 'Deployment', name: 'web', uid: 'u-deployment', controller: true },
    ],
  },
  spec: { replicas: 1, template: hashed },
};

// As the sidecar injector of Istio leaves a pod, made shorter.
function injectedPod(): Pod {
  const [web] = structuredClone(template.spec.containers) as Container[];
  const [cache, keys] = template.spec.volumes;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: 'web-5f8-b4d7x',
      namespace: 'shop',
      labels: { ...hashed.metadata.labels, 'security.istio.io/tlsMode': 'istio' },
      annotations: { note: '1', 'sidecar.istio.io/status': '{"revision":"1-27"}' },
      ownerReferences: [
        {
          apiVersion: 'apps/v1',
          kind: 'ReplicaSet',
          name: 'web-5f8',
          uid: 'u-set',
          controller: true,
          blockOwnerDeletion: true,
        },
      ],
    },
    spec: {
      initContainers: [
        {
          name: 'istio-init',
          image: PROXY,
          args: ['istio-iptables', '-p', '15001'],
          resources: { limits: { cpu: '2' }, requests: { cpu: '10m' } },
          securityContext: {
            allowPrivilegeEscalation: false,
            capabilities: { add: ['NET_ADMIN', 'NET_RAW'], drop: ['ALL'] },
            privileged: false,
            readOnlyRootFilesystem: false,
            runAsGroup: 0,
            runAsNonRoot: false,
            runAsUser: 0,
          },
          volumeMounts: [TOKEN_MOUNT],
          ...always,
        },
      ],
      containers: [
        {
          ...(web as Container),
          env: [
            { name: 'MODE', value: 'shop' },
            { name: 'DD_AGENT_HOST', valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'status.hostIP' } } },
          ],
          livenessProbe: { httpGet: { path: '/app-health/web/livez', port: 15020, scheme: 'HTTP' }, periodSeconds: 10 },
          readinessProbe: {
            httpGet: { path: '/app-health/web/readyz', port: 15020, scheme: 'HTTP' },
            periodSeconds: 5,
          },
          volumeMounts: [
            { name: 'cache', mountPath: '/cache' },
            { name: 'mesh-secrets', mountPath: '/mesh/secrets' },
            TOKEN_MOUNT,
          ],
        },
        {
          name: 'istio-proxy',
          image: PROXY,
          imagePullPolicy: 'IfNotPresent',
          args: ['proxy', 'sidecar'],
          env: [
            { name: 'ISTIO_META_NAME', value: 'web' },
            { name: 'MODE', value: 'mesh' },
          ],
          ports: [{ containerPort: 15090, name: 'http-envoy-prom', protocol: 'TCP' }],
          readinessProbe: { httpGet: { path: '/healthz/ready', port: 15021, scheme: 'HTTP' }, periodSeconds: 15 },
          resources: { limits: { cpu: '2' }, requests: { cpu: '100m' } },
          securityContext: { capabilities: { drop: ['ALL'] }, runAsUser: 1337, runAsGroup: 1337, privileged: false },
          volumeMounts: [
            { name: 'istio-envoy', mountPath: '/etc/istio/proxy' },
            { name: 'istio-token', mountPath: '/var/run/secrets/tokens' },
            TOKEN_MOUNT,
          ],
          ...always,
        },
      ],
      volumes: [
        { name: 'istio-envoy', emptyDir: { medium: 'Memory' } },
        { name: 'mesh-secrets', emptyDir: {} },
        {
          name: 'istio-token',
          projected: {
            defaultMode: 420,
            sources: [{ serviceAccountToken: { audience: 'istio-ca', expirationSeconds: 43200, path: 'istio-token' } }],
          },
        },
        { name: 'istiod-ca-cert', configMap: { name: 'istio-ca-root-cert', defaultMode: 420 } },
        cache as Json,
        keys as Json,
        {
          name: TOKEN_MOUNT.name,
          projected: {
            defaultMode: 420,
            sources: [
              { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
              { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
              {
                downwardAPI: {
                  items: [{ path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } }],
                },
              },
            ],
          },
        },
      ],
      restartPolicy: 'Always',
      securityContext: {},
      serviceAccountName: 'default',
      serviceAccount: 'default',
      enableServiceLinks: true,
      priority: 0,
      preemptionPolicy: 'PreemptLowerPriority',
      nodeName: 'node-a',
      tolerations: ['not-ready', 'unreachable'].map((taint) => ({
        key: `node.kubernetes.io/${taint}`,
        operator: 'Exists',
        effect: 'NoExecute',
        tolerationSeconds: 300,
      })),
    },
  } as unknown as Pod;
}

const istio = injectionSchema.parse({
  name: 'istio',
  containers: [
    { name: 'istio-proxy', image: 'registry.example.test/istio/proxyv2@sha256:*' },
    { name: 'istio-init', image: PROXY, as: ['init'], capabilities: ['NET_ADMIN', 'NET_RAW'], root: true },
  ],
  volumes: [
    { name: 'istio-envoy', emptyDir: {} },
    { name: 'mesh-secrets', emptyDir: {} },
    { name: 'istio-token', tokenFor: 'istio-ca' },
    { name: 'istiod-ca-cert', configMap: 'istio-ca-root-cert' },
  ],
  labels: ['security.istio.io/tlsMode'],
  annotations: ['sidecar.istio.io/status'],
  rewrites: { probes: 15020, mounts: [{ volume: 'mesh-secrets', mountPath: '/mesh/secrets' }], env: ['DD_*'] },
});

const objects = [deployment, set];
const facts: MachineryFacts = {
  get: async ({ kind, name }) => objects.find((o) => o.kind === kind && o.metadata.name === name),
  list: async () => [],
};

async function prove(pod: KubernetesObject, injected: readonly Injection[] = [istio]): Promise<string> {
  const approved: Approved = {
    isOwned: (ref) => ref.kind === 'Deployment' && ref.name === 'web',
    templates: (o) => (o.kind === 'Deployment' ? [templateDigest(deployment) ?? ''] : undefined),
    injected,
    hasOperators: false,
  };
  const proof = await proveChild(pod, approved, facts);
  return proof?.kind === 'proven' ? 'proven' : ((proof as { reason: string }).reason ?? '');
}

const containerOf = ({ spec }: Pod, name: string): Container & { volumeMounts: Json[]; env: Json[] } =>
  [...spec.initContainers, ...spec.containers].find((c) => c.name === name) as never;

test('a declared sidecar is taken out before the pod is compared; an undeclared one is named', async () => {
  assert.equal(await prove(injectedPod()), 'proven');
  const reason = await prove(injectedPod(), []);
  assert.match(reason, /^it is not what the ReplicaSet `web-5f8` makes of its template: /);
  assert.match(reason, /`metadata.labels.security.istio.io\/tlsMode` is added/);
});

type Change = (pod: Pod) => void;
const proxy =
  (change: (c: ReturnType<typeof containerOf>) => void): Change =>
  (pod) =>
    change(containerOf(pod, 'istio-proxy'));
const web =
  (change: (c: ReturnType<typeof containerOf>) => void): Change =>
  (pod) =>
    change(containerOf(pod, 'web'));
const volume =
  (name: string, source: Json): Change =>
  ({ spec }) => {
    spec.volumes = [...spec.volumes.filter((v) => v['name'] !== name), { name, ...source }];
  };
const context = (more: Json) =>
  proxy((c) => {
    c['securityContext'] = { ...(c['securityContext'] as Json), ...more };
  });

const refused: Readonly<Record<string, [Change, RegExp]>> = {
  'another image': [
    proxy((c) => {
      c['image'] = 'evil.example.net/x:1';
    }),
    /without its image `evil.example.net\/x:1`/,
  ],
  'an image behind its name': [
    proxy((c) => {
      c['image'] = `${PROXY}@evil.example.net/x`;
    }),
    /its image/,
  ],
  'a tag where a digest is declared': [
    proxy((c) => {
      c['image'] = 'registry.example.test/istio/proxyv2:1';
    }),
    /its image/,
  ],
  privileged: [context({ privileged: true }), /without its `securityContext`/],
  'a capability': [context({ capabilities: { add: ['NET_ADMIN'] } }), /its `securityContext`/],
  root: [context({ runAsUser: 0 }), /its `securityContext`/],
  'the root group': [context({ runAsGroup: 0 }), /its `securityContext`/],
  'no seccomp': [context({ seccompProfile: { type: 'Unconfined' } }), /its `securityContext`/],
  'all of /proc': [context({ procMount: 'Unmasked' }), /its `securityContext`/],
  'SELinux options': [context({ seLinuxOptions: { type: 'spc_t' } }), /its `securityContext`/],
  'a Secret as variables': [
    proxy((c) => {
      c['envFrom'] = [{ secretRef: { name: 'keys' } }];
    }),
    /its `envFrom`/,
  ],
  'a Secret as a variable': [
    proxy((c) => void c.env.push({ name: 'K', valueFrom: { secretKeyRef: { name: 'keys', key: 'k' } } })),
    /its `env`/,
  ],
  'a hook that runs a command': [
    proxy((c) => {
      c['lifecycle'] = { preStop: { exec: { command: ['sh'] } } };
    }),
    /its `lifecycle`/,
  ],
  'a probe that runs a command': [
    proxy((c) => {
      c['livenessProbe'] = { exec: { command: ['sh'] } };
    }),
    /its `livenessProbe`/,
  ],
  'a probe of another host': [
    proxy((c) => {
      c['livenessProbe'] = { httpGet: { host: '10.0.0.1', port: 80 } };
    }),
    /its `livenessProbe`/,
  ],
  'a port of the host': [
    proxy((c) => {
      c['ports'] = [{ containerPort: 1, hostPort: 22 }];
    }),
    /its `ports`/,
  ],
  'a device': [
    proxy((c) => {
      c['volumeDevices'] = [{ name: 'd', devicePath: '/dev/x' }];
    }),
    /its `volumeDevices`/,
  ],
  'a claim of resources': [
    proxy((c) => {
      c['resources'] = { claims: [{ name: 'gpu' }] };
    }),
    /its `resources`/,
  ],
  'a field of a later version': [
    proxy((c) => {
      c['unheardOf'] = true;
    }),
    /its `unheardOf`/,
  ],
  'a Secret of Git in the sidecar': [
    proxy((c) => void c.volumeMounts.push({ name: 'keys', mountPath: '/keys' })),
    /its `volumeMounts`/,
  ],
  'a writable token': [
    proxy((c) => {
      c.volumeMounts[2] = { ...TOKEN_MOUNT, readOnly: false };
    }),
    /its `volumeMounts`/,
  ],
  'a mount that reaches the host': [
    proxy((c) => void c.volumeMounts.push({ name: 'istio-envoy', mountPath: '/x', mountPropagation: 'Bidirectional' })),
    /its `volumeMounts`/,
  ],
  'as an init container': [
    ({ spec }) => {
      spec.initContainers.push(...spec.containers.splice(1));
    },
    /its place as `init`/,
  ],
  'a third container': [
    ({ spec }) => void spec.containers.push({ name: 'more', image: PROXY }),
    /`spec.containers\[more\]` is added/,
  ],
  'the host’s files under a declared name': [
    volume('istio-envoy', { hostPath: { path: '/' } }),
    /declares no volume `istio-envoy` like that/,
  ],
  'two sources': [volume('istio-envoy', { emptyDir: {}, secret: { secretName: 'keys' } }), /`istio-envoy` like that/],
  'another ConfigMap': [volume('istiod-ca-cert', { configMap: { name: 'x' } }), /`istiod-ca-cert` like that/],
  'a token for the API server': [
    volume('istio-token', { projected: { sources: [{ serviceAccountToken: { path: 'istio-token' } }] } }),
    /`istio-token` like that/,
  ],
  'a Secret beside the token': [
    volume('istio-token', {
      projected: {
        sources: [{ serviceAccountToken: { audience: 'istio-ca', path: 't' } }, { secret: { name: 'keys' } }],
      },
    }),
    /`istio-token` like that/,
  ],
  'an undeclared volume': [volume('more', { emptyDir: {} }), /`spec.volumes/],
  'a file over one of Git’s container': [
    web((c) => void c.volumeMounts.push({ name: 'mesh-secrets', mountPath: '/etc/ld.so.preload', subPath: 'x' })),
    /spec.containers\[web\].volumeMounts/,
  ],
  'a declared mount at another path': [
    web((c) => void c.volumeMounts.push({ name: 'mesh-secrets', mountPath: '/bin' })),
    /spec.containers\[web\].volumeMounts/,
  ],
  'a variable of Git': [
    web((c) => {
      c.env[0] = { name: 'MODE', value: 'evil' };
    }),
    /spec.containers\[web\].env\[MODE\]/,
  ],
  'an undeclared variable': [
    web((c) => void c.env.push({ name: 'LD_PRELOAD', value: '/x.so' })),
    /spec.containers\[web\].env/,
  ],
  'a declared variable from a Secret': [
    web((c) => void c.env.push({ name: 'DD_KEY', valueFrom: { secretKeyRef: { name: 'keys', key: 'k' } } })),
    /spec.containers\[web\].env/,
  ],
  'a probe of another port': [
    web((c) => {
      c['livenessProbe'] = { httpGet: { path: '/app-health/web/livez', port: 15021 }, periodSeconds: 10 };
    }),
    /spec.containers\[web\].livenessProbe/,
  ],
  'a probe at other times': [
    web((c) => {
      c['livenessProbe'] = { ...(c['livenessProbe'] as Json), periodSeconds: 9999 };
    }),
    /spec.containers\[web\].livenessProbe.periodSeconds/,
  ],
  'the processes of all containers': [
    ({ spec }) => {
      spec['shareProcessNamespace'] = true;
    },
    /shareProcessNamespace/,
  ],
  'the network of the host': [
    ({ spec }) => {
      spec['hostNetwork'] = true;
    },
    /hostNetwork/,
  ],
  'an undeclared annotation': [
    ({ metadata }) => void Object.assign(metadata.annotations as object, { 'sidecar.istio.io/proxyImage': 'evil' }),
    /annotations.sidecar.istio.io\/proxyImage/,
  ],
  'a label of Git': [
    ({ metadata }) => void Object.assign(metadata.labels as object, { app: 'other' }),
    /metadata.labels.app/,
  ],
};
for (const [what, [change, expected]] of Object.entries(refused))
  test(`a declared sidecar does not cover ${what}`, async () => {
    const pod = injectedPod();
    change(pod);
    assert.match(await prove(pod), expected);
  });

test('a name that the template has is not the injector’s', async () => {
  const broad = injectionSchema.parse({
    name: 'broad',
    containers: [{ name: 'web', image: 'evil.example.net/x:*' }],
    volumes: [{ name: 'keys', emptyDir: {} }],
    labels: ['app'],
    rewrites: { env: ['MODE'] },
  });
  const changed = (change: Change) => {
    const pod = injectedPod();
    change(pod);
    return prove(pod, [istio, broad]);
  };
  assert.equal(await changed(() => {}), 'proven');
  assert.match(
    await changed(
      web((c) => {
        c['image'] = 'evil.example.net/x:1';
      }),
    ),
    /containers\[web\].image/,
  );
  assert.match(await changed(volume('keys', { emptyDir: {} })), /spec.volumes/);
  assert.match(
    await changed(({ metadata }) => void Object.assign(metadata.labels as object, { app: 'b' })),
    /labels.app/,
  );
  assert.match(
    await changed(
      web((c) => {
        c.env[0] = { name: 'MODE', value: 'evil' };
      }),
    ),
    /env\[MODE\]/,
  );
});

test('a sample holds what a sidecar does, but for variables that differ by pod', async () => {
  const [declared, init] = istio.containers as [Injection['containers'][number], Injection['containers'][number]];
  const varies = ['ISTIO_META_*'];
  const sample = sampleDigest(containerOf(injectedPod(), 'istio-proxy'), varies);
  const sampled = { ...istio, containers: [{ ...declared, sample, varies }, init] };
  const changed = (change: (c: ReturnType<typeof containerOf>) => void) => {
    const pod = injectedPod();
    change(containerOf(pod, 'istio-proxy'));
    return prove(pod, [sampled]);
  };
  assert.equal(
    await changed((c) => {
      c.env[0] = { name: 'ISTIO_META_NAME', value: 'other' };
    }),
    'proven',
  );
  assert.equal(
    await changed((c) => {
      c['resources'] = {};
    }),
    'proven',
  );
  for (const change of [
    (c: Json) => {
      c['args'] = ['sh'];
    },
    (c: Json) => {
      c['command'] = ['sh'];
    },
    (c: Json) => {
      c['env'] = [{ name: 'LD_PRELOAD', value: '/x.so' }];
    },
    (c: Json) => {
      c['workingDir'] = '/';
    },
    (c: Json) => void delete c['readinessProbe'],
  ])
    assert.match(await changed(change), /without the command, arguments, variables, probes and hooks/);
});

test('a container with the image `auto` is the injector’s where that is declared', async () => {
  const gateway = {
    ...(deployment.spec as Json),
    template: {
      ...template,
      spec: { ...template.spec, containers: [...template.spec.containers, { name: 'istio-proxy', image: 'auto' }] },
    },
  };
  const root = { ...deployment, spec: gateway } as KubernetesObject;
  const replicaSet = { ...set, spec: { replicas: 1, template: { ...gateway.template, metadata: hashed.metadata } } };
  const approved = (injected: readonly Injection[]): Approved => ({
    isOwned: (ref) => ref.kind === 'Deployment',
    templates: (o) => (o.kind === 'Deployment' ? [templateDigest(root) ?? ''] : undefined),
    injected,
    hasOperators: false,
  });
  const known: MachineryFacts = {
    get: async ({ kind }) => [root, replicaSet].find((o) => o.kind === kind) as KubernetesObject | undefined,
    list: async () => [],
  };
  const auto = { ...istio, rewrites: { ...istio.rewrites, autoImage: true } };
  assert.equal((await proveChild(injectedPod(), approved([auto]), known))?.kind, 'proven');
  assert.equal((await proveChild(injectedPod(), approved([istio]), known))?.kind, 'unproven');
  const evil = injectedPod();
  containerOf(evil, 'istio-proxy')['image'] = 'evil.example.net/x:1';
  assert.equal((await proveChild(evil, approved([auto]), known))?.kind, 'unproven');
});

test('what runs is learned as a declaration that covers it, and says what none can cover', async () => {
  const other = injectedPod();
  (other.metadata as { name: string }).name = 'web-5f8-c5f9z';
  containerOf(other, 'istio-proxy').env[0] = { name: 'ISTIO_META_NAME', value: 'other' };
  const { declaration, pods, uncovered } = await learnInjection('istio', [injectedPod(), other], facts);
  assert.deepEqual([pods, uncovered], [2, []]);
  const { sample, ...proxyDeclared } = ((declaration as Json)['containers'] as Json[])[1] as Json;
  assert.match(String(sample), /^sha256:/);
  assert.deepEqual(proxyDeclared, { name: 'istio-proxy', image: PROXY, varies: ['ISTIO_META_NAME'] });
  assert.deepEqual(
    { ...declaration, containers: 2 },
    {
      name: 'istio',
      containers: 2,
      volumes: [
        { name: 'istio-envoy', emptyDir: {} },
        { name: 'mesh-secrets', emptyDir: {} },
        { name: 'istio-token', tokenFor: 'istio-ca' },
        { name: 'istiod-ca-cert', configMap: 'istio-ca-root-cert' },
      ],
      labels: ['security.istio.io/tlsMode'],
      annotations: ['sidecar.istio.io/status'],
      rewrites: {
        probes: 15020,
        mounts: [{ volume: 'mesh-secrets', mountPath: '/mesh/secrets' }],
        env: ['DD_AGENT_HOST'],
      },
    },
  );
  const evil = injectedPod();
  context({ privileged: true })(evil);
  const found = await learnInjection('istio', [evil], facts);
  assert.match(found.uncovered[0]?.reason ?? '', /without its `securityContext`/);
  const plain = { ...injectedPod(), metadata: { name: 'alone', namespace: 'shop' } };
  assert.deepEqual(await learnInjection('istio', [plain], facts), { declaration: undefined, pods: 0, uncovered: [] });
});

test('images of one repository are learned with what differs left open', async () => {
  const other = injectedPod();
  (other.metadata as { name: string }).name = 'web-5f8-c5f9z';
  const next = PROXY.replaceAll('a'.repeat(64), 'b'.repeat(64));
  containerOf(other, 'istio-proxy')['image'] = next;
  const { declaration, uncovered } = await learnInjection('istio', [injectedPod(), other], facts);
  assert.deepEqual(uncovered, []);
  assert.equal(
    ((declaration as Json)['containers'] as Json[])[1]?.['image'],
    'registry.example.test/istio/proxyv2@sha256:*',
  );
});

// Each leaf, changed in every way. These changes leave the pod proven, and do no harm: where it runs, the order of
// lists, what the API server refuses or drops, what is missing, and how a declared thing is set up. Without `sample`,
// the last includes what an allowed image is called with.
const HARMLESS = [
  /^(changed|removed|doubled|backwards) spec\.(initContainers|containers)\.(name|args|env|resources|ports)/,
  /^(changed|removed|doubled|backwards) spec\.(initContainers|containers)\.(securityContext|volumeMounts)/,
  /^(changed|removed) spec\.(initContainers|containers)\.(readinessProbe|imagePullPolicy|terminationMessage)/,
  /^added spec\.containers\.resources\.(limits|requests)$|^added spec\.initContainers\.resources\.(limits|requests)$/,
  /^(changed|removed) spec\.volumes\.(emptyDir\.medium|\w+\.defaultMode)$/,
  /^(changed|removed) spec\.volumes\.projected\.sources\.serviceAccountToken\.(expirationSeconds|path)$/,
  /^(changed|removed) metadata\.(annotations\.sidecar\.istio\.io\/status|labels\.security\.istio\.io\/tlsMode)$/,
  /^backwards spec\.(containers|tolerations|volumes)$|^doubled spec\.(initContainers|volumes)$/,
  /^removed spec\.(containers|initContainers|volumes|nodeName|containers\.livenessProbe\.httpGet\.scheme)$/,
  /^changed spec\.nodeName$|^added metadata$/,
];

test('a declaration covers what it says and nothing more', async () => {
  const still = new Set<string>();
  let count = 0;
  for (const [what, changed] of changesOf(injectedPod())) {
    count++;
    if ((await prove(changed)) === 'proven') still.add(what);
  }
  assert.ok(count > 300, String(count));
  const more = [...still].filter((what) => !HARMLESS.some((pattern) => pattern.test(what)));
  assert.deepEqual(more, []);
});
