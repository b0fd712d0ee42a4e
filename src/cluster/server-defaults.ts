import { isDeepStrictEqual } from 'node:util';
import { type KubernetesObject, TOKEN_PATH, TOKEN_SOURCE, TOKEN_VOLUME } from '../model/index.ts';

type Json = Readonly<Record<string, unknown>>;

/** A field that is in an answer and not in Git: the map that has it, the same map in Git, and the whole answer. */
export type Around = {
  readonly key: string;
  readonly map: Json;
  readonly given: Json;
  readonly answered: KubernetesObject;
};

/** Tests whether a value is one that the API server adds by itself. */
type Default = (value: unknown, around: Around) => boolean;

/** Fields that the API server may add to a map of Git, and to the maps in it. Items of a list have the list's shape. */
export type Shape = {
  readonly adds?: Readonly<Record<string, Default>>;
  /** For keys that are not known beforehand, as those of labels. */
  readonly addsAny?: Default;
  readonly inside?: Readonly<Record<string, Shape>>;
  /** Whether fields of which nothing is said here may be added, but for lists. */
  readonly isOpen?: boolean;
  /** Items that the API server may add to a list. */
  readonly gains?: (item: unknown) => boolean;
  /** Whether the values of the map are free texts (`text`), or bytes in base64. */
  readonly values?: 'text' | 'bytes';
};

const is =
  (...values: readonly unknown[]): Default =>
  (value) =>
    values.includes(value);
const isEmptyMap = (value: unknown) => typeof value === 'object' && value !== null && Object.keys(value).length === 0;
const isEmpty: Default = (value) => isEmptyMap(value);
const isText: Default = (value) => typeof value === 'string';
const isNumber: Default = (value) => typeof value === 'number';
const isAnything: Default = () => true;
const never: Default = () => false;
const textsLike =
  (form: RegExp): Default =>
  (value) =>
    Array.isArray(value) && value.every((item) => typeof item === 'string' && form.test(item));

const CLOSED: Shape = {};
const OPEN: Shape = { isOpen: true };
// A map in which Git alone decides which keys there are. A list of that name is no such map.
const KEYED: Shape = { addsAny: never };
const FREE: Shape = { values: 'text' };
const BYTES: Shape = { values: 'bytes' };

// --- metadata

const DIGITS = /^\d{1,10}$/;
const FINALIZERS =
  /^(kubernetes\.io\/(pvc|pv)-protection|foregroundDeletion|orphan|customresourcecleanup\.apiextensions\.k8s\.io)$/;
const ANNOTATIONS: Readonly<Record<string, readonly [RegExp, RegExp]>> = {
  Deployment: [/^deployment\.kubernetes\.io\/revision$/, DIGITS],
  DaemonSet: [/^deprecated\.daemonset\.template\.generation$/, DIGITS],
  PersistentVolumeClaim: [/^(pv|volume)(\.beta)?\.kubernetes\.io\//, /^[\w./-]*$/],
  PersistentVolume: [/^(pv|volume)\.kubernetes\.io\//, /^[\w./-]*$/],
  Secret: [/^kubernetes\.io\/service-account\.uid$/, /^[\w-]+$/],
  Pod: [/^kubernetes\.io\/limit-ranger$/, /./],
  HorizontalPodAutoscaler: [/^autoscaling\.alpha\.kubernetes\.io\/(conditions|current-metrics)$/, /./],
};

const isLabelOfServer: Default = (value, { key, answered: { kind, metadata } }) =>
  kind === 'Namespace' && key === 'kubernetes.io/metadata.name' && value === metadata.name;

const isAnnotationOfServer: Default = (value, { key, answered: { kind } }) => {
  const [keys, values] = ANNOTATIONS[kind] ?? [];
  return keys?.test(key) === true && values?.test(String(value)) === true;
};

const METADATA: Shape = {
  adds: {
    namespace: isText,
    finalizers: textsLike(FINALIZERS),
    deletionTimestamp: isText,
    deletionGracePeriodSeconds: isNumber,
  },
  inside: {
    finalizers: { gains: (item) => FINALIZERS.test(String(item)) },
    labels: { values: 'text', addsAny: isLabelOfServer },
    annotations: { values: 'text', addsAny: isAnnotationOfServer },
  },
};

// The labels that the API server gives the pods of a Job.
const isLabelOfJob: Default = (value, { key, answered: { kind, metadata } }) => {
  const [, name] = /^(?:batch\.kubernetes\.io\/)?(controller-uid|job-name)$/.exec(key) ?? [];
  return kind === 'Job' && name !== undefined && value === metadata[name === 'job-name' ? 'name' : 'uid'];
};
const isSelectorOfJob: Default = (value, { answered: { kind, metadata } }) =>
  kind === 'Job' &&
  JSON.stringify(value) === JSON.stringify({ matchLabels: { 'batch.kubernetes.io/controller-uid': metadata['uid'] } });

// --- pods: pkg/apis/core/v1/defaults.go and zz_generated.defaults.go of Kubernetes 1.34 and 1.37

// Defaults come before webhooks, which may change an image that is left to them.
const ofImage = (field: string): Default => {
  return (value, { map, given }) => value === policyFor(map[field]) || value === policyFor(given[field]);
};

function policyFor(image: unknown): string {
  const [name = '', digest] = String(image ?? '').split('@');
  const tag = /:([^/:]+)$/.exec(name)?.[1] ?? (digest === undefined ? 'latest' : '');
  return tag === 'latest' ? 'Always' : 'IfNotPresent';
}

const VALUE_FROM: Shape = {
  inside: {
    fieldRef: { adds: { apiVersion: is('v1') } },
    resourceFieldRef: { adds: { divisor: is('0') } },
    fileKeyRef: { adds: { optional: is(false) } },
  },
};
const HTTP_GET: Shape = { adds: { path: is('/'), scheme: is('HTTP') } };
const GRPC: Shape = { adds: { service: is('') } };
const PROBE: Shape = {
  adds: { timeoutSeconds: is(1), periodSeconds: is(10), successThreshold: is(1), failureThreshold: is(3) },
  inside: { httpGet: HTTP_GET, grpc: GRPC },
};
const RESOURCES: Shape = { inside: { limits: CLOSED, requests: CLOSED } };

const isHostPort: Default = (value, { map, answered }) =>
  value === map['containerPort'] && podSpecIn(answered)?.['hostNetwork'] === true;

const CONTAINER: Shape = {
  adds: {
    terminationMessagePath: is('/dev/termination-log'),
    terminationMessagePolicy: is('File'),
    imagePullPolicy: ofImage('image'),
    resources: isEmpty,
  },
  inside: {
    ports: { adds: { protocol: is('TCP'), hostPort: isHostPort } },
    env: { inside: { valueFrom: VALUE_FROM } },
    livenessProbe: PROBE,
    readinessProbe: PROBE,
    startupProbe: PROBE,
    lifecycle: { inside: { postStart: { inside: { httpGet: HTTP_GET } }, preStop: { inside: { httpGet: HTTP_GET } } } },
    resources: RESOURCES,
  },
};

const CLAIM_SPEC: Shape = { adds: { volumeMode: is('Filesystem') }, inside: { resources: RESOURCES } };
const FILES: Shape = { adds: { defaultMode: is(420) }, inside: { items: VALUE_FROM } };
const isOnlySource: Default = (value, { map }) => isEmptyMap(value) && Object.keys(map).length === 2;

const VOLUME: Shape = {
  adds: { emptyDir: isOnlySource },
  inside: {
    configMap: FILES,
    secret: FILES,
    downwardAPI: FILES,
    projected: {
      adds: { defaultMode: is(420) },
      inside: {
        sources: { inside: { serviceAccountToken: { adds: { expirationSeconds: is(3600) } }, downwardAPI: FILES } },
      },
    },
    hostPath: { adds: { type: is('') } },
    image: { adds: { pullPolicy: ofImage('reference') } },
    ephemeral: { inside: { volumeClaimTemplate: { adds: { metadata: isEmpty }, inside: { spec: CLAIM_SPEC } } } },
    iscsi: { adds: { iscsiInterface: is('default') } },
    rbd: { adds: { pool: is('rbd'), user: is('admin'), keyring: is('/etc/ceph/keyring') } },
    azureDisk: {
      adds: { cachingMode: is('ReadWrite'), kind: is('Shared'), fsType: is('ext4'), readOnly: is(false) },
    },
    scaleIO: { adds: { storageMode: is('ThinProvisioned'), fsType: is('xfs') } },
  },
};

// One name gives the other.
const isAlias: Default = (value, { map, given }) =>
  value === (given['serviceAccountName'] || given['serviceAccount']) &&
  value === map['serviceAccountName'] &&
  value === map['serviceAccount'];

const POD_SPEC: Shape = {
  adds: {
    restartPolicy: is('Always'),
    dnsPolicy: is('ClusterFirst'),
    schedulerName: is('default-scheduler'),
    terminationGracePeriodSeconds: is(30),
    securityContext: isEmpty,
    serviceAccount: isAlias,
    serviceAccountName: isAlias,
  },
  inside: { containers: CONTAINER, initContainers: CONTAINER, volumes: VOLUME },
};

const TEMPLATE: Shape = {
  adds: { metadata: isEmpty },
  inside: {
    metadata: { inside: { labels: { values: 'text', addsAny: isLabelOfJob }, annotations: FREE } },
    spec: POD_SPEC,
  },
};

// --- pods of Git: admission plugins complete them (ServiceAccount, Priority, DefaultTolerationSeconds, RuntimeClass,
// LimitRanger, AlwaysPullImages), and the API server gives them defaults that templates do not have

const isToken = (rest: Json) => (item: unknown) =>
  isMap(item) && TOKEN_VOLUME.test(String(item['name'])) && isDeepStrictEqual(item, { name: item['name'], ...rest });
const isTokenVolume = isToken({ projected: TOKEN_SOURCE });
const isTokenMount = isToken({ mountPath: TOKEN_PATH, readOnly: true });
const allOf =
  (test: (item: unknown) => boolean): Default =>
  (value) =>
    Array.isArray(value) && value.every(test);
const isAppArmorOfAnnotation: Default = (_, { answered: { metadata } }) =>
  Object.keys(metadata.annotations ?? {}).some((a) => a.startsWith('container.apparmor.security.beta.kubernetes.io/'));

const ANY: Shape = { addsAny: isAnything };
const OF_POD: Shape = {
  adds: {
    ...CONTAINER.adds,
    imagePullPolicy: is('Always', 'IfNotPresent'),
    volumeMounts: allOf(isTokenMount),
    resources: isAnything,
  },
  inside: {
    ...CONTAINER.inside,
    resources: { inside: { limits: ANY, requests: ANY }, adds: { limits: isAnything, requests: isAnything } },
    volumeMounts: { gains: isTokenMount },
    securityContext: { adds: { appArmorProfile: isAppArmorOfAnnotation } },
    ...Object.fromEntries(
      ['livenessProbe', 'readinessProbe', 'startupProbe'].map((probe) => [
        probe,
        { ...PROBE, inside: { ...PROBE.inside, httpGet: { adds: { ...HTTP_GET.adds, protocol: is('HTTP1') } } } },
      ]),
    ),
  },
};

const POD: Shape = {
  adds: {
    ...POD_SPEC.adds,
    enableServiceLinks: is(true),
    imagePullSecrets: isAnything,
    nodeName: isText,
    nodeSelector: isAnything,
    overhead: isAnything,
    preemptionPolicy: isText,
    priority: isNumber,
    priorityClassName: isText,
    serviceAccount: isText,
    serviceAccountName: isText,
    tolerations: isAnything,
    volumes: allOf(isTokenVolume),
  },
  inside: {
    ...POD_SPEC.inside,
    containers: OF_POD,
    initContainers: OF_POD,
    nodeSelector: ANY,
    resources: { inside: { limits: ANY, requests: ANY }, adds: { limits: isAnything, requests: isAnything } },
    tolerations: { gains: () => true },
    volumes: { ...VOLUME, gains: isTokenVolume },
  },
};

// --- what makes pods

const ROLLING: Shape = {
  adds: { type: is('RollingUpdate') },
  inside: { rollingUpdate: { adds: { maxUnavailable: is('25%', 1), maxSurge: is('25%', 0), partition: is(0) } } },
};
const OF_CLAIM: Shape = {
  adds: { apiVersion: is('v1'), kind: is('PersistentVolumeClaim'), status: isAnything },
  inside: { spec: CLAIM_SPEC, metadata: { inside: { labels: FREE, annotations: FREE } } },
};
const JOB: Shape = {
  adds: {
    parallelism: is(1),
    completions: is(1),
    completionMode: is('NonIndexed'),
    backoffLimit: is(6, 2_147_483_647),
    suspend: is(false),
    manualSelector: is(false),
    podReplacementPolicy: is('TerminatingOrFailed', 'Failed'),
    selector: isSelectorOfJob,
  },
  inside: { template: TEMPLATE },
};
const REPLICATED: Shape = {
  adds: { replicas: is(1), revisionHistoryLimit: is(10), progressDeadlineSeconds: is(600) },
  inside: { template: TEMPLATE, strategy: ROLLING, updateStrategy: ROLLING },
};

const spec = (shape: Shape): Shape => ({ inside: { spec: shape } });
const POD_FAILURE: Shape = { inside: { rules: { inside: { onPodConditions: { adds: { status: is('True') } } } } } };
const JOB_SPEC: Shape = { ...JOB, inside: { ...JOB.inside, podFailurePolicy: POD_FAILURE } };

// --- other kinds

const SERVICE_PORT = { inside: { clientConfig: { inside: { service: { adds: { port: is(443) } } } } } };
const RULES: Shape = { adds: { scope: is('*') } };
const WEBHOOKS: Shape = {
  inside: {
    webhooks: {
      adds: {
        failurePolicy: is('Fail'),
        matchPolicy: is('Equivalent'),
        namespaceSelector: isEmpty,
        objectSelector: isEmpty,
        reinvocationPolicy: is('Never'),
        timeoutSeconds: is(10),
      },
      inside: { ...SERVICE_PORT.inside, rules: RULES },
    },
  },
};
const MATCH: Shape = {
  adds: { matchPolicy: is('Equivalent'), namespaceSelector: isEmpty, objectSelector: isEmpty },
  inside: { resourceRules: RULES, excludeResourceRules: RULES },
};
const ADMISSION_POLICY: Shape = spec({
  adds: { failurePolicy: is('Fail'), reinvocationPolicy: is('Never') },
  inside: { matchConstraints: MATCH, matchResources: MATCH },
});

const RBAC = 'rbac.authorization.k8s.io';
const BINDING: Shape = {
  inside: { roleRef: { adds: { apiGroup: is(RBAC) } }, subjects: { adds: { apiGroup: is(RBAC) } } },
};
const isAggregated: Default = (_, { map }) => map['aggregationRule'] !== undefined;

const isPolicyTypes: Default = (value, { given }) => {
  const types = Array.isArray(given['egress']) && given['egress'].length > 0 ? 'Ingress,Egress' : 'Ingress';
  return Array.isArray(value) && value.join() === types;
};
const POLICY_RULES: Shape = { inside: { ports: { adds: { protocol: is('TCP') } } } };

const SERVICE: Shape = spec({
  isOpen: true,
  adds: {
    clusterIPs: textsLike(/^(None|[\da-f.:]+)$/),
    ipFamilies: textsLike(/^IPv[46]$/),
    type: is('ClusterIP'),
    externalName: never,
    loadBalancerIP: never,
    publishNotReadyAddresses: never,
    selector: never,
  },
  inside: {
    ports: { adds: { protocol: is('TCP'), targetPort: (value, { map }) => value === map['port'], nodePort: isNumber } },
    selector: FREE,
  },
});

const DEFINITION: Shape = spec({
  inside: {
    conversion: {
      adds: { strategy: is('None') },
      inside: { webhook: SERVICE_PORT },
    },
    names: {
      adds: {
        singular: (value, { map }) => value === String(map['kind']).toLowerCase(),
        listKind: (value, { map }) => value === `${map['kind']}List`,
      },
    },
  },
});

// Kinds of which nothing is said here may get more fields, but for lists and for the maps in `FREE_MAPS`.
const KINDS: Readonly<Record<string, Shape>> = {
  'v1/ConfigMap': { adds: { data: isEmpty }, inside: { data: FREE, binaryData: BYTES } },
  'v1/Namespace': spec({ isOpen: true, adds: { finalizers: isAnything } }),
  'v1/Pod': spec(POD),
  'v1/PodTemplate': { inside: { template: TEMPLATE } },
  'v1/ReplicationController': spec({
    ...REPLICATED,
    adds: {
      ...REPLICATED.adds,
      selector: (value, { map }) => isDeepStrictEqual(value, labelsOf(map['template'])),
    },
  }),
  'v1/Secret': { adds: { type: is('Opaque') }, inside: { data: BYTES } },
  'v1/Service': SERVICE,
  'v1/ServiceAccount': CLOSED,
  'admissionregistration.k8s.io/MutatingAdmissionPolicy': ADMISSION_POLICY,
  'admissionregistration.k8s.io/MutatingAdmissionPolicyBinding': ADMISSION_POLICY,
  'admissionregistration.k8s.io/MutatingWebhookConfiguration': WEBHOOKS,
  'admissionregistration.k8s.io/ValidatingAdmissionPolicy': ADMISSION_POLICY,
  'admissionregistration.k8s.io/ValidatingAdmissionPolicyBinding': ADMISSION_POLICY,
  'admissionregistration.k8s.io/ValidatingWebhookConfiguration': WEBHOOKS,
  'apiextensions.k8s.io/CustomResourceDefinition': DEFINITION,
  'apiregistration.k8s.io/APIService': spec({ inside: { service: { adds: { port: is(443) } } } }),
  'apps/DaemonSet': spec(REPLICATED),
  'apps/Deployment': spec(REPLICATED),
  'apps/ReplicaSet': spec(REPLICATED),
  'apps/StatefulSet': spec({
    adds: {
      ...REPLICATED.adds,
      podManagementPolicy: is('OrderedReady'),
      persistentVolumeClaimRetentionPolicy: never,
    },
    inside: {
      ...REPLICATED.inside,
      volumeClaimTemplates: OF_CLAIM,
      persistentVolumeClaimRetentionPolicy: { adds: { whenDeleted: is('Retain'), whenScaled: is('Retain') } },
    },
  }),
  'batch/CronJob': spec({
    adds: {
      concurrencyPolicy: is('Allow'),
      suspend: is(false),
      successfulJobsHistoryLimit: is(3),
      failedJobsHistoryLimit: is(1),
    },
    inside: {
      jobTemplate: {
        adds: { metadata: isEmpty },
        inside: { metadata: { inside: { labels: FREE, annotations: FREE } }, spec: JOB_SPEC },
      },
    },
  }),
  'batch/Job': spec(JOB_SPEC),
  'networking.k8s.io/Ingress': spec({ adds: { ingressClassName: isText } }),
  'networking.k8s.io/NetworkPolicy': spec({
    adds: { podSelector: isEmpty, policyTypes: isPolicyTypes },
    inside: { ingress: POLICY_RULES, egress: POLICY_RULES },
  }),
  'networking.k8s.io/IngressClass': spec({ inside: { parameters: { adds: { scope: is('Cluster') } } } }),
  [`${RBAC}/ClusterRole`]: { adds: { rules: isAggregated } },
  [`${RBAC}/ClusterRoleBinding`]: BINDING,
  [`${RBAC}/Role`]: CLOSED,
  [`${RBAC}/RoleBinding`]: BINDING,
  'storage.k8s.io/StorageClass': { isOpen: true, inside: { parameters: FREE } },
};

const LISTS = /^(metrics|policies|volumeLifecycleModes|groups|taints|podCIDRs)$/;
const FREE_MAPS = /^(labels|annotations|matchLabels|nodeSelector|hard|limits|requests)$/;

/** Returns the shape of a built-in kind: all that the API server may add to its objects. */
export function shapeOf({ apiVersion, kind }: KubernetesObject): Shape {
  const shape = KINDS[`${apiVersion.replace(/\/.*/, '')}/${kind}`] ?? OPEN;
  return { ...shape, inside: { ...shape.inside, metadata: METADATA } };
}

/** Returns the shape of a field in a map. */
export function shapeIn(shape: Shape, key: string): Shape {
  if (Object.hasOwn(shape.inside ?? {}, key)) return shape.inside?.[key] ?? CLOSED;
  if (shape.isOpen !== true) return CLOSED;
  return FREE_MAPS.test(key) ? KEYED : OPEN;
}

/** Returns the shape of the items of a list. */
export function shapeOfItems(shape: Shape): Shape {
  return shape === KEYED ? OPEN : shape;
}

/** Tests whether the API server adds this field by itself. Undefined if nothing is said of it. */
export function isDefault(shape: Shape, value: unknown, around: Around): boolean | undefined {
  const rule = shape.addsAny ?? (Object.hasOwn(shape.adds ?? {}, around.key) ? shape.adds?.[around.key] : undefined);
  if (rule !== undefined) return rule(value, around);
  if (shape.isOpen !== true) return undefined;
  if (Array.isArray(value)) return LISTS.test(around.key);
  return FREE_MAPS.test(around.key) ? undefined : true;
}

// --- reading

function isMap(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function podSpecIn(object: KubernetesObject): Json | undefined {
  const of = (map: unknown, key: string) => (isMap(map) ? map[key] : undefined);
  const own = object['spec'];
  const found =
    object.kind === 'Pod'
      ? own
      : object.kind === 'PodTemplate'
        ? of(object['template'], 'spec')
        : of(of(object.kind === 'CronJob' ? of(of(own, 'jobTemplate'), 'spec') : own, 'template'), 'spec');
  return isMap(found) ? found : undefined;
}

function labelsOf(template: unknown): unknown {
  const metadata = isMap(template) ? template['metadata'] : undefined;
  return isMap(metadata) ? metadata['labels'] : undefined;
}
