import { accountRights } from '../cluster/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import { CountersignError, isCidr } from '../model/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';
import type { ManifestsOptions } from './serve-commands.ts';

const LABELS = { 'app.kubernetes.io/name': 'countersign', 'app.kubernetes.io/managed-by': 'countersign' };
const SELECTOR = { 'app.kubernetes.io/name': 'countersign' };
const WEBHOOK = 9443;
const HTTP = 8080;
const DASHBOARD = 8090; // only inside the pod: `kubectl port-forward` reaches it and authenticates the user

/**
 * Implements `countersign manifests`: everything the service needs in a cluster, as one List. With a PostgreSQL
 * (`--ledger-secret`) that is several replicas, spread out and never all unavailable; without, a single one with a
 * volume.
 */
export async function manifests(options: ManifestsOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const { image, static: directory } = options;
  refuseFlags(options);
  if (directory !== undefined)
    return (await import('./static-manifests.ts')).staticManifests({ ...options, static: directory }, io);
  if (options.rightsOnly) return printed(await rights(options, settings, io), io);
  if (image === undefined)
    throw new CountersignError('usage', 'the container image is missing', {
      hint: 'add --image, with a tag or digest; or --rights-only for nothing but the rights',
    });
  const workload = workloadOf({ ...options, image });
  return printed([...account(options), ...(await rights(options, settings, io)), ...workload], io);
}

// A flag that is not heeded would be taken for rights that were narrowed.
function refuseFlags(options: ManifestsOptions): void {
  const { static: directory, rights: which } = options;
  if (directory === undefined && (options.fence || options.check))
    throw new CountersignError('usage', '--fence and --check are for files', { hint: 'add --static DIR' });
  if (directory !== undefined && (which === 'derived' || options.rightsOnly))
    throw new CountersignError('usage', '--static writes policies, which give no rights', {
      hint: 'leave out --rights and --rights-only',
    });
  const given = [
    options.revision === undefined ? undefined : '--revision',
    options.kubeconfig === undefined ? undefined : '--kubeconfig',
    options.cluster === undefined ? undefined : '--cluster',
  ].find((flag) => flag !== undefined);
  if (which !== 'derived' && given !== undefined)
    throw new CountersignError('usage', `\`${given}\` is for rights that are derived`, {
      hint: 'add --rights derived',
    });
}

function printed(items: readonly object[], io: Io): number {
  io.out(`${JSON.stringify({ apiVersion: 'v1', kind: 'List', items }, null, 2)}\n`);
  return EXIT.yes;
}

type WithImage = ManifestsOptions & { readonly image: string };

function workloadOf(options: WithImage): readonly object[] {
  const replicas = Number(options.replicas);
  const { ledgerSecret, keySecret } = options;
  if (!Number.isSafeInteger(replicas) || replicas < 1 || replicas > 20)
    throw new CountersignError('usage', `\`${options.replicas}\` is not a number of replicas`, {
      hint: 'from 1 to 20',
    });
  if ((ledgerSecret === undefined) !== (keySecret === undefined))
    throw new CountersignError('usage', 'replicas must share a PostgreSQL and a key', {
      hint: 'give --ledger-secret with the URL (key `url`) and --key-secret with the key (key `ledger.key`)',
    });
  const wrong = options.apiServerCidr?.find((cidr) => !isCidr(cidr));
  if (wrong !== undefined)
    throw new CountersignError('usage', `\`${wrong}\` is not a range of addresses`, {
      hint: 'give one such as 10.0.0.0/24 or fd00::/64 with --api-server-cidr',
    });
  if (!/^[^\s@]+(:[^\s@]+|@sha256:[0-9a-f]{64})$/.test(options.image) || options.image.endsWith(':latest'))
    throw new CountersignError('usage', `\`${options.image}\` has no tag or digest`, {
      hint: 'give a tag or, better, a digest',
    });
  return [
    ...(ledgerSecret === undefined ? single(options) : several(options, replicas)),
    service(options),
    networkPolicy(options),
  ];
}

const RBAC = 'rbac.authorization.k8s.io';

function account({ namespace }: ManifestsOptions): object[] {
  return [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { ...LABELS, 'pod-security.kubernetes.io/enforce': 'restricted' } },
    },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'countersign', namespace, labels: LABELS } },
    {
      apiVersion: 'scheduling.k8s.io/v1',
      kind: 'PriorityClass',
      metadata: { name: 'countersign', labels: LABELS },
      value: 1_000_000_000, // below the cluster's own, above everything that needs the gate
      description: 'The gate restarts before the workloads that need it.',
    },
  ];
}

async function rights(options: ManifestsOptions, settings: ProcessSettings, io: Io): Promise<readonly object[]> {
  if (options.rights === 'all') return allRights(options);
  const { deriveRights } = await import('./derive-rights.ts');
  const { grants, ...derived } = await deriveRights(options, settings, io);
  const { namespace, webhookName: webhook } = options;
  return accountRights({ ...derived, namespace, webhook, grants: options.grantRoles ? grants : undefined });
}

function allRights({ namespace, grantRoles }: ManifestsOptions): readonly object[] {
  const rbac = `${RBAC}/v1`;
  const all = ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete'];
  return [
    {
      apiVersion: rbac,
      kind: 'ClusterRole',
      metadata: { name: 'countersign', labels: LABELS },
      rules: [
        { apiGroups: ['*'], resources: ['*'], verbs: all },
        { apiGroups: [''], resources: ['serviceaccounts'], verbs: ['impersonate'] },
        ...(grantRoles
          ? [{ apiGroups: [RBAC], resources: ['roles', 'clusterroles'], verbs: ['escalate', 'bind'] }]
          : []),
      ],
    },
    {
      apiVersion: rbac,
      kind: 'ClusterRoleBinding',
      metadata: { name: 'countersign', labels: LABELS },
      roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: 'countersign' },
      subjects: [{ kind: 'ServiceAccount', name: 'countersign', namespace }],
    },
  ];
}

function service({ namespace }: ManifestsOptions): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'countersign', namespace, labels: LABELS },
    spec: {
      selector: SELECTOR,
      ports: [
        { name: 'webhook', port: 443, targetPort: 'webhook' },
        { name: 'http', port: 80, targetPort: 'http' },
      ],
    },
  };
}

// A review that the API server did not send changes nothing, but may as well not arrive.
function networkPolicy({ namespace, apiServerCidr }: ManifestsOptions): object {
  const from = (apiServerCidr ?? []).map((cidr) => ({ ipBlock: { cidr } }));
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'countersign', namespace, labels: LABELS },
    spec: {
      podSelector: { matchLabels: SELECTOR },
      policyTypes: ['Ingress'],
      ingress: [
        { ...(from.length === 0 ? {} : { from }), ports: [{ protocol: 'TCP', port: 'webhook' }] },
        { ports: [{ protocol: 'TCP', port: 'http' }] },
      ],
    },
  };
}

function single(options: WithImage): object[] {
  const { namespace, storage } = options;
  return [
    {
      apiVersion: 'apps/v1',
      kind: 'StatefulSet',
      metadata: { name: 'countersign', namespace, labels: LABELS },
      spec: {
        replicas: 1,
        serviceName: 'countersign',
        selector: { matchLabels: SELECTOR },
        template: template(options, []),
        volumeClaimTemplates: [
          {
            metadata: { name: 'data' },
            spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage } } },
          },
        ],
      },
    },
  ];
}

function several(options: WithImage, replicas: number): object[] {
  const { namespace, ledgerSecret, keySecret } = options;
  const spread = (topologyKey: string, whenUnsatisfiable: string) => ({
    maxSkew: 1,
    topologyKey,
    whenUnsatisfiable,
    labelSelector: { matchLabels: SELECTOR },
  });
  const pod = template(options, [
    '--ledger',
    '$(LEDGER_URL)',
    '--ledger-key',
    '/etc/countersign/key/ledger.key',
    '--lease',
    namespace,
  ]);
  const [container] = pod.spec.containers;
  const spec = {
    ...pod.spec,
    topologySpreadConstraints: [
      spread('kubernetes.io/hostname', 'DoNotSchedule'),
      spread('topology.kubernetes.io/zone', 'ScheduleAnyway'),
    ],
    containers: [
      {
        ...container,
        env: [
          ...(container?.env ?? []),
          { name: 'LEDGER_URL', valueFrom: { secretKeyRef: { name: ledgerSecret, key: 'url' } } },
        ],
        volumeMounts: [
          ...(container?.volumeMounts ?? []),
          { name: 'key', mountPath: '/etc/countersign/key', readOnly: true },
        ],
      },
    ],
    volumes: [
      ...pod.spec.volumes,
      { name: 'data', emptyDir: {} },
      { name: 'key', secret: { secretName: keySecret, defaultMode: 0o440 } },
    ],
  };
  return [
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'countersign', namespace, labels: LABELS },
      spec: {
        replicas,
        selector: { matchLabels: SELECTOR },
        strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
        template: { ...pod, spec },
      },
    },
    {
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      metadata: { name: 'countersign', namespace, labels: LABELS },
      spec: { minAvailable: 1, selector: { matchLabels: SELECTOR }, unhealthyPodEvictionPolicy: 'AlwaysAllow' },
    },
  ];
}

function template({ namespace, image }: WithImage, more: readonly string[]) {
  const args = [
    ...[
      'serve',
      '--data',
      '/var/lib/countersign',
      '--config-namespace',
      namespace,
      '--config-files',
      '/etc/countersign/files',
    ],
    ...['--webhook', `0.0.0.0:${WEBHOOK}`, '--webhook-service', `${namespace}/countersign`],
    ...['--webhook-tls', `secret:${namespace}/countersign-webhook`, '--http', `0.0.0.0:${HTTP}`],
    ...['--dashboard', `127.0.0.1:${DASHBOARD}`, ...more],
  ];
  const probe = (path: string) => ({ httpGet: { path, port: 'http' }, periodSeconds: 5 });
  return {
    metadata: { labels: LABELS },
    spec: {
      serviceAccountName: 'countersign',
      priorityClassName: 'countersign',
      terminationGracePeriodSeconds: 60,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 1000,
        runAsGroup: 1000,
        fsGroup: 1000,
        seccompProfile: { type: 'RuntimeDefault' },
      },
      containers: [
        {
          name: 'countersign',
          image,
          args,
          env: [{ name: 'POD_NAMESPACE', valueFrom: { fieldRef: { fieldPath: 'metadata.namespace' } } }],
          ports: [
            { name: 'webhook', containerPort: WEBHOOK },
            { name: 'http', containerPort: HTTP },
          ],
          startupProbe: { ...probe('/healthz'), failureThreshold: 60 },
          readinessProbe: probe('/readyz'),
          // A process that hangs costs each write of the cluster's controllers a second until it is ended.
          livenessProbe: { ...probe('/healthz'), periodSeconds: 3, timeoutSeconds: 3, failureThreshold: 4 },
          // The API server may keep sending requests for a moment after the pod was told to stop.
          lifecycle: { preStop: { sleep: { seconds: 5 } } },
          resources: { requests: { cpu: '250m', memory: '512Mi' }, limits: { memory: '1Gi' } },
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          },
          volumeMounts: [
            { name: 'data', mountPath: '/var/lib/countersign' },
            { name: 'tmp', mountPath: '/tmp' },
            { name: 'files', mountPath: `/etc/countersign/files/${namespace}`, readOnly: true },
          ],
        },
      ],
      volumes: [
        { name: 'tmp', emptyDir: {} },
        { name: 'files', secret: { secretName: 'countersign-files', optional: true } },
      ] as object[],
    },
  };
}
