import { ANNOTATION, type KubernetesObject, pointerKeys } from '../model/index.ts';

type Json = Readonly<Record<string, unknown>>;
type Mutable = Record<string, unknown>;

/**
 * Returns the object that replaces a live one so that everything in it is as Git has it: the wanted content, plus the
 * parts that the API server, a controller or the environment's rules keep on this kind of object. The parts are listed
 * by kind and path in `docs/operations.md`; who wrote them does not count. `left` are JSON pointers to the fields of
 * `spec.drift.ignore`.
 */
export function exactly(wanted: KubernetesObject, live: KubernetesObject, left: readonly string[]): KubernetesObject {
  const body = structuredClone(wanted) as unknown as Mutable;
  const metadata = body['metadata'] as Mutable;
  for (const field of ['resourceVersion', 'uid', 'finalizers'])
    if (live.metadata[field] !== undefined) metadata[field] = live.metadata[field];
  const finalizers = new Set([...listIn(wanted.metadata['finalizers']), ...listIn(live.metadata['finalizers'])]);
  if (finalizers.size > 0) metadata['finalizers'] = [...finalizers];
  for (const field of ['annotations', 'labels'] as const)
    for (const [key, value] of Object.entries(live.metadata[field] ?? {}))
      if (wanted.metadata[field]?.[key] === undefined && isKept(live, field, key, value))
        metadata[field] = { ...(metadata[field] as Json), [key]: value };
  (KEPT[`${wanted.apiVersion.replace(/\/.*/, '')}/${wanted.kind}`] ?? (() => {}))(body, live);
  for (const pointer of left) copy(body, live, pointer);
  return body as unknown as KubernetesObject;
}

// --- metadata

const DIGITS = /^\d{1,10}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
const NETWORK = ['cni.projectcalico.org/', 'k8s.v1.cni.cncf.io/', 'k8s.ovn.org/', 'ovn.kubernetes.io/'];

type Kept = { readonly kind: string; readonly key: RegExp; readonly value: RegExp };
const ANNOTATIONS: readonly Kept[] = [
  { kind: 'Deployment', key: /^deployment\.kubernetes\.io\/revision$/, value: DIGITS },
  { kind: 'DaemonSet', key: /^deprecated\.daemonset\.template\.generation$/, value: DIGITS },
  { kind: 'PersistentVolumeClaim', key: /^pv\.kubernetes\.io\/(bind-completed|bound-by-controller)$/, value: /^yes$/ },
  {
    kind: 'PersistentVolumeClaim',
    key: /^volume(\.beta)?\.kubernetes\.io\/(selected-node|storage-provisioner|storage-resizer)$/,
    value: /^[\w./-]+$/,
  },
  { kind: 'PersistentVolume', key: /^(pv|volume)\.kubernetes\.io\//, value: /./ },
  { kind: 'Secret', key: /^kubernetes\.io\/service-account\.uid$/, value: /^[\w-]+$/ },
  { kind: 'Endpoints', key: /^endpoints\.kubernetes\.io\/last-change-trigger-time$/, value: TIME },
];

function isKept(live: KubernetesObject, field: 'labels' | 'annotations', key: string, value: string): boolean {
  const { kind } = live;
  if (field === 'labels')
    return (
      (kind === 'Namespace' && key === 'kubernetes.io/metadata.name' && value === live.metadata.name) ||
      (kind === 'Pod' && /^topology\.kubernetes\.io\/(zone|region)$/.test(key))
    );
  // who opens break-glass writes it there
  if (kind === 'Namespace' && GRANTS.has(key)) return true;
  if (kind === 'Pod' && NETWORK.some((prefix) => key.startsWith(prefix))) return true;
  return ANNOTATIONS.some((a) => a.kind === kind && a.key.test(key) && a.value.test(value));
}

const GRANTS: ReadonlySet<string> = new Set([
  ANNOTATION.breakGlass,
  ANNOTATION.breakGlassFor,
  ANNOTATION.breakGlassTicket,
  ANNOTATION.breakGlassApproved,
]);

// --- content, by kind

type Keep = (body: Mutable, live: KubernetesObject) => void;

const keep =
  (...pointers: readonly string[]): Keep =>
  (body, live) => {
    for (const pointer of pointers) if (at(body, pointer) === undefined) copy(body, live, pointer);
  };

const KEPT: Readonly<Record<string, Keep>> = {
  'v1/Service': keep('/spec/clusterIP', '/spec/clusterIPs', '/spec/ipFamilies', '/spec/ipFamilyPolicy'),
  'v1/PersistentVolumeClaim': keep('/spec/volumeName', '/spec/storageClassName'),
  'v1/PersistentVolume': keep('/spec/claimRef'),
  'v1/Namespace': keep('/spec'),
  'v1/Pod': (body, live) => {
    const images = new Map(
      ['initContainers', 'containers'].flatMap((list) =>
        listIn(at(body, `/spec/${list}`)).map((c) => [`${list}/${textIn(c, 'name')}`, textIn(c, 'image')] as const),
      ),
    );
    // the rest of a running pod cannot be changed
    const spec = structuredClone(live['spec'] ?? {}) as Mutable;
    for (const list of ['initContainers', 'containers'])
      for (const container of listIn(spec[list]) as Mutable[])
        container['image'] = images.get(`${list}/${textIn(container, 'name')}`) ?? container['image'];
    body['spec'] = spec;
  },
  'v1/Secret': (body, live) => {
    if (body['type'] === 'kubernetes.io/service-account-token')
      keep('/data/token', '/data/ca.crt', '/data/namespace')(body, live);
  },
  'networking.k8s.io/Ingress': keep('/spec/ingressClassName'),
  'batch/Job': (body, live) => {
    keep('/spec/selector')(body, live);
    for (const key of ['controller-uid', 'job-name']) {
      keep(`/spec/template/metadata/labels/${key}`)(body, live);
      keep(`/spec/template/metadata/labels/batch.kubernetes.io~1${key}`)(body, live);
    }
  },
  'apiextensions.k8s.io/CustomResourceDefinition': (body, live) => {
    if (isInjected(body)) keep('/spec/conversion/webhook/clientConfig/caBundle')(body, live);
  },
  'apiregistration.k8s.io/APIService': (body, live) => {
    if (isInjected(body)) keep('/spec/caBundle')(body, live);
  },
  'admissionregistration.k8s.io/ValidatingWebhookConfiguration': keepBundles,
  'admissionregistration.k8s.io/MutatingWebhookConfiguration': keepBundles,
  'rbac.authorization.k8s.io/ClusterRole': (body, live) => {
    if (body['aggregationRule'] !== undefined) body['rules'] = live['rules'];
  },
};

// A certificate authority is public. Git asks for it by an annotation, and the injector fills it in.
function keepBundles(body: Mutable, live: KubernetesObject): void {
  if (!isInjected(body)) return;
  for (const [i, hook] of listIn(body['webhooks']).entries()) {
    const j = listIn(live['webhooks']).findIndex((other) => textIn(other, 'name') === textIn(hook, 'name'));
    const bundle = at(live, `/webhooks/${j}/clientConfig/caBundle`);
    if (at(body, `/webhooks/${i}/clientConfig/caBundle`) === undefined && bundle !== undefined)
      set(body, `/webhooks/${i}/clientConfig/caBundle`, bundle);
  }
}

function isInjected(body: Mutable): boolean {
  const annotations = at(body, '/metadata/annotations');
  return Object.keys((annotations ?? {}) as Json).some((key) =>
    /\/(inject-ca-from(-secret)?|inject-apiserver-ca|inject-cabundle)$/.test(key),
  );
}

// --- pointers (RFC 6901)

function at(object: unknown, pointer: string): unknown {
  return pointerKeys(pointer).reduce<unknown>(
    (value, key) => (typeof value === 'object' && value !== null ? (value as Json)[key] : undefined),
    object,
  );
}

function copy(body: Mutable, live: KubernetesObject, pointer: string): void {
  set(body, pointer, at(live, pointer));
}

// Maps on the way are made where there is a value to set; lists are not.
function set(body: Mutable, pointer: string, value: unknown): void {
  const path = pointerKeys(pointer);
  const last = path.pop() as string;
  let parent: unknown = body;
  for (const key of path) {
    if (typeof parent !== 'object' || parent === null) return;
    const inside = parent as Mutable;
    if (inside[key] === undefined && (value === undefined || Array.isArray(parent))) return;
    inside[key] ??= {};
    parent = inside[key];
  }
  if (typeof parent !== 'object' || parent === null) return;
  if (value !== undefined) (parent as Mutable)[last] = structuredClone(value);
  else if (Array.isArray(parent)) return;
  else delete (parent as Mutable)[last];
}

function listIn(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function textIn(value: unknown, field: string): string {
  return String((value as Json | undefined)?.[field] ?? '');
}
