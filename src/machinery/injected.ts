import {
  canonicalJson,
  digestOf,
  type Injection,
  imageMatches,
  type KubernetesObject,
  TOKEN_PATH,
  TOKEN_VOLUME,
  wildcardMatches,
} from '../model/index.ts';
import { list, type PodTemplate, record } from './approved-template.ts';

type Json = Readonly<Record<string, unknown>>;
type Declared = Injection['containers'][number];
type Place = 'containers' | 'initContainers';

/** A pod without what declared injectors added to it. */
export type Uninjected = {
  readonly pod: KubernetesObject;
  /** The template without the containers of Git that an injector replaced. */
  readonly template: PodTemplate;
  /** Whether an injected container mounts the token of the pod's ServiceAccount. */
  readonly usesToken: boolean;
  /** Why a container or volume that bears a declared name was left in the pod; whole sentences without a full stop. */
  readonly reasons: readonly string[];
};

const PLACES: readonly Place[] = ['initContainers', 'containers'];

/**
 * Removes from a pod what `spec.admission.injected` declares. A declaration says what an injected container may consist
 * of; what it does not name, or what the template has itself, stays in the pod and is compared.
 */
export function withoutInjected(
  pod: KubernetesObject,
  template: PodTemplate,
  injections: readonly Injection[],
): Uninjected {
  let result: Uninjected = { pod, template, usesToken: false, reasons: [] };
  for (const injection of injections) result = withoutOne(result, injection);
  return result;
}

/** Returns the digest of the parts of a container that `sample` holds, without the values of some variables. */
export function sampleDigest(container: Json, varies: readonly string[]): string {
  const { command, args, lifecycle, livenessProbe, readinessProbe, startupProbe, workingDir } = container;
  const env = list(container['env']).map((e) => {
    const name = String(record(e)['name']);
    return varies.some((pattern) => wildcardMatches(pattern, name)) ? { name } : e;
  });
  const probes = { livenessProbe, readinessProbe, startupProbe };
  return `sha256:${digestOf({ command, args, env, lifecycle, ...probes, workingDir })}`;
}

function withoutOne({ pod, template, usesToken, reasons }: Uninjected, injection: Injection): Uninjected {
  const spec = record(pod['spec']);
  const plain = withoutReplaced(template, injection);
  const said: string[] = [];
  const volumes = injectedVolumes(spec, record(template.spec), injection, said);
  const own = new Set(volumes.map((v) => String(v['name'])));
  const containers = injectedContainers(spec, record(plain.spec), injection, own, said);
  const rest = Object.fromEntries(
    PLACES.filter((place) => spec[place] !== undefined).map((place) => [
      place,
      list(spec[place])
        .map(record)
        .filter((c) => !containers.has(c))
        .map((c) => withoutRewrites(c, templateOf(c, record(plain.spec)[place]), injection, own)),
    ]),
  );
  const others = list(spec['volumes']).filter((v) => !volumes.includes(record(v)));
  return {
    pod: {
      ...pod,
      metadata: withoutMetadata(pod, template, injection),
      spec: withoutEmpty({ ...spec, ...rest, volumes: others }),
    },
    template: plain,
    usesToken: usesToken || [...containers].some((c) => list(c['volumeMounts']).some((m) => isToken(record(m)))),
    reasons: [...reasons, ...said],
  };
}

function injectedVolumes(spec: Json, given: Json, { name: injector, volumes }: Injection, said: string[]): Json[] {
  const ofGit = new Set(list(given['volumes']).map((v) => record(v)['name']));
  return list(spec['volumes'])
    .map(record)
    .filter((volume) => {
      const declared = volumes.find(({ name }) => name === volume['name']);
      if (declared === undefined || ofGit.has(declared.name)) return false;
      const isCovered = isAsDeclared(volume, declared);
      if (!isCovered) said.push(`\`${injector}\` declares no volume \`${declared.name}\` like that`);
      return isCovered;
    });
}

function injectedContainers(
  spec: Json,
  given: Json,
  { name: injector, containers }: Injection,
  own: ReadonlySet<string>,
  said: string[],
): ReadonlySet<Json> {
  const ofGit = new Set(PLACES.flatMap((place) => list(given[place]).map((c) => record(c)['name'])));
  const found = new Set<Json>();
  for (const place of PLACES)
    for (const container of list(spec[place]).map(record)) {
      const declared = containers.find(({ name }) => name === container['name']);
      if (declared === undefined || ofGit.has(declared.name)) continue;
      const faults = faultsOf(container, { declared, place, own, hostNetwork: spec['hostNetwork'] === true });
      if (faults.length === 0) found.add(container);
      else said.push(`\`${injector}\` declares the container \`${declared.name}\` without ${faults.join(', ')}`);
    }
  return found;
}

function templateOf({ name }: Json, templates: unknown): Json | undefined {
  return list(templates)
    .map(record)
    .find((t) => t['name'] === name);
}

// A pod has no such list if nothing else is in it.
function withoutEmpty(spec: Json): Json {
  const isEmpty = (key: string) => (key === 'initContainers' || key === 'volumes') && list(spec[key]).length === 0;
  return Object.fromEntries(Object.entries(spec).filter(([key]) => !isEmpty(key)));
}

// A gateway of Istio is the container `istio-proxy` with the image `auto` in Git.
function withoutReplaced(template: PodTemplate, { rewrites, containers }: Injection): PodTemplate {
  if (!rewrites.autoImage) return template;
  const isReplaced = ({ name, image }: Json) => image === 'auto' && containers.some((c) => c.name === name);
  const spec = record(template.spec);
  const kept = PLACES.filter((place) => spec[place] !== undefined).map((place) => [
    place,
    list(spec[place]).filter((c) => !isReplaced(record(c))),
  ]);
  return { ...template, spec: { ...spec, ...Object.fromEntries(kept) } };
}

function withoutMetadata(
  { metadata }: KubernetesObject,
  { metadata: given = {} }: PodTemplate,
  injection: Injection,
): KubernetesObject['metadata'] {
  const left = (of: 'labels' | 'annotations') =>
    Object.fromEntries(
      Object.entries(metadata[of] ?? {}).filter(
        ([key]) => Object.hasOwn(given[of] ?? {}, key) || !injection[of].some((p) => wildcardMatches(p, key)),
      ),
    );
  return {
    ...metadata,
    ...(metadata.labels === undefined ? {} : { labels: left('labels') }),
    ...(metadata.annotations === undefined ? {} : { annotations: left('annotations') }),
  };
}

// --- volumes

// Fields of each source of a volume that an injected one may have.
const SOURCES: Readonly<Record<string, readonly string[]>> = {
  emptyDir: ['medium', 'sizeLimit'],
  downwardAPI: ['items', 'defaultMode'],
  configMap: ['name', 'items', 'defaultMode', 'optional'],
  secret: ['secretName', 'items', 'defaultMode', 'optional'],
  projected: ['sources', 'defaultMode'],
};

function isAsDeclared(volume: Json, declared: Injection['volumes'][number]): boolean {
  const [found, ...others] = Object.entries(volume).filter(([key]) => key !== 'name');
  if (found === undefined || others.length > 0 || !Object.hasOwn(SOURCES, found[0])) return false;
  const [kind, source] = [found[0], record(found[1])];
  if (!hasOnly(source, SOURCES[kind] ?? [])) return false;
  if (declared.emptyDir !== undefined) return kind === 'emptyDir';
  if (declared.downwardAPI !== undefined) return kind === 'downwardAPI';
  if (declared.configMap !== undefined) return kind === 'configMap' && source['name'] === declared.configMap;
  if (declared.secret !== undefined) return kind === 'secret' && source['secretName'] === declared.secret;
  const [first, ...more] = list(source['sources']).map(record);
  const { serviceAccountToken: token, ...beside } = first ?? {};
  return (
    kind === 'projected' &&
    more.length === 0 &&
    hasOnly(beside, []) &&
    hasOnly(token, ['audience', 'expirationSeconds', 'path']) &&
    record(token)['audience'] === declared.tokenFor
  );
}

// --- containers

type Around = {
  readonly declared: Declared;
  readonly place: Place;
  /** Names of the volumes of the same injector. */
  readonly own: ReadonlySet<string>;
  readonly hostNetwork: boolean;
};

// Fields that an injected container may have, and what may be in them. All others are not covered.
const FIELDS: Readonly<Record<string, (value: unknown, around: Around) => boolean>> = {
  name: () => true,
  image: (image, { declared }) => typeof image === 'string' && imageMatches(declared.image, image),
  imagePullPolicy: () => true,
  command: () => true,
  args: () => true,
  workingDir: () => true,
  env: (env) => list(env).every(isPlainVariable),
  ports: (ports, { hostNetwork }) => list(ports).every((p) => isInsidePort(record(p), hostNetwork)),
  resources: (resources) => hasOnly(resources, ['limits', 'requests']),
  livenessProbe: isProbe,
  readinessProbe: isProbe,
  startupProbe: isProbe,
  lifecycle: (hooks, around) =>
    hasOnly(hooks, ['postStart', 'preStop', 'stopSignal']) &&
    ['postStart', 'preStop'].every((hook) => isProbe(record(hooks)[hook] ?? {}, around)),
  restartPolicy: (policy) => policy === 'Always',
  securityContext: isConfined,
  terminationMessagePath: () => true,
  terminationMessagePolicy: () => true,
  volumeMounts: (mounts, { own }) => list(mounts).every((m) => isToken(record(m)) || isOwnMount(record(m), own)),
};

function faultsOf(container: Json, around: Around): readonly string[] {
  const { declared, place } = around;
  const isSidecar = container['restartPolicy'] === 'Always';
  const as = place === 'containers' ? 'container' : isSidecar ? 'sidecar' : 'init';
  const faults = Object.entries(container)
    .filter(([field, value]) => !Object.hasOwn(FIELDS, field) || FIELDS[field]?.(value, around) !== true)
    .map(([field]) => (field === 'image' ? `its image \`${String(container['image'])}\`` : `its \`${field}\``));
  if (container['image'] === undefined) faults.push('no image');
  if (!declared.as.includes(as)) faults.push(`its place as \`${as}\``);
  if (declared.sample !== undefined && sampleDigest(container, declared.varies) !== declared.sample)
    faults.push('the command, arguments, variables, probes and hooks that it has');
  return faults;
}

function isPlainVariable(variable: unknown): boolean {
  if (!hasOnly(variable, ['name', 'value', 'valueFrom'])) return false;
  const { valueFrom = {} } = record(variable);
  const { fieldRef = {}, resourceFieldRef = {} } = record(valueFrom);
  return (
    hasOnly(valueFrom, ['fieldRef', 'resourceFieldRef']) &&
    hasOnly(fieldRef, ['apiVersion', 'fieldPath']) &&
    hasOnly(resourceFieldRef, ['containerName', 'resource', 'divisor'])
  );
}

// Under `hostNetwork`, the API server gives every port its own number on the host.
function isInsidePort(port: Json, hostNetwork: boolean): boolean {
  const { hostPort, containerPort } = port;
  const isInside = hostPort === undefined || (hostNetwork && hostPort === containerPort);
  return isInside && hasOnly(port, ['name', 'containerPort', 'protocol', 'hostPort']);
}

// A probe or hook that asks the pod itself.
function isProbe(probe: unknown, { declared }: Around): boolean {
  const { exec, httpGet = {}, tcpSocket = {} } = record(probe);
  const isInside = hasOnly(httpGet, ['path', 'port', 'scheme', 'httpHeaders']) && hasOnly(tcpSocket, ['port']);
  return hasOnly(probe, PROBE) && isInside && (exec === undefined || declared.exec);
}

const HANDLERS = ['httpGet', 'tcpSocket', 'grpc'];
const PROBE = [
  ...HANDLERS,
  'exec',
  'sleep',
  'initialDelaySeconds',
  'timeoutSeconds',
  'periodSeconds',
  'successThreshold',
  'failureThreshold',
  'terminationGracePeriodSeconds',
];

function isConfined(context: unknown, { declared }: Around): boolean {
  const { capabilities, seccompProfile, appArmorProfile, privileged, procMount, runAsUser, runAsGroup } =
    record(context);
  const isDefault = (profile: unknown) =>
    profile === undefined || canonicalJson(profile) === '{"type":"RuntimeDefault"}';
  return (
    hasOnly(context, CONTEXT) &&
    hasOnly(capabilities ?? {}, ['add', 'drop']) &&
    list(record(capabilities)['add']).every((c) => declared.capabilities.includes(String(c))) &&
    (privileged ?? false) === false &&
    (procMount ?? 'Default') === 'Default' &&
    isDefault(seccompProfile) &&
    isDefault(appArmorProfile) &&
    (declared.root || (runAsUser !== 0 && runAsGroup !== 0))
  );
}

const CONTEXT = [
  'allowPrivilegeEscalation',
  'appArmorProfile',
  'capabilities',
  'privileged',
  'procMount',
  'readOnlyRootFilesystem',
  'runAsGroup',
  'runAsNonRoot',
  'runAsUser',
  'seccompProfile',
];

// The mount that the ServiceAccount plugin gives to every container.
function isToken(mount: Json): boolean {
  return (
    hasOnly(mount, ['name', 'mountPath', 'readOnly']) &&
    TOKEN_VOLUME.test(String(mount['name'])) &&
    mount['mountPath'] === TOKEN_PATH &&
    mount['readOnly'] === true
  );
}

function isOwnMount(mount: Json, own: ReadonlySet<string>): boolean {
  const fields = ['name', 'mountPath', 'readOnly', 'recursiveReadOnly', 'subPath', 'subPathExpr'];
  return hasOnly(mount, fields) && own.has(String(mount['name']));
}

function hasOnly(value: unknown, fields: readonly string[]): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).every((key) => fields.includes(key));
}

// --- what an injector may change in Git's containers

function withoutRewrites(
  container: Json,
  template: Json | undefined,
  { rewrites }: Injection,
  own: ReadonlySet<string>,
): Json {
  if (template === undefined) return container;
  const result: Record<string, unknown> = { ...container };
  const { probes, mounts, env } = rewrites;
  if (probes !== undefined)
    for (const field of ['livenessProbe', 'readinessProbe', 'startupProbe'])
      if (isRedirected(record(container[field]), probes, String(container['name'])) && template[field] !== undefined)
        result[field] = withHandlerOf(record(container[field]), record(template[field]));
  const isDeclaredMount = (m: Json) =>
    hasOnly(m, ['name', 'mountPath', 'readOnly']) &&
    own.has(String(m['name'])) &&
    mounts.some(({ volume, mountPath }) => volume === m['name'] && mountPath === m['mountPath']);
  const given = new Set(list(template['env']).map((e) => record(e)['name']));
  const isDeclaredVariable = (e: Json) =>
    isPlainVariable(e) && !given.has(e['name']) && env.some((pattern) => wildcardMatches(pattern, String(e['name'])));
  filter(result, 'volumeMounts', (m) => !isDeclaredMount(m));
  filter(result, 'env', (e) => !isDeclaredVariable(e));
  return result;
}

// The agent of Istio asks the container in place of the kubelet, at these paths (pkg/kube/inject/app_probe.go).
function isRedirected({ httpGet }: Json, port: number, container: string): boolean {
  const { path, port: to, scheme = 'HTTP' } = record(httpGet);
  const [, app, name, kind, ...rest] = String(path).split('/');
  return (
    hasOnly(httpGet, ['path', 'port', 'scheme']) &&
    [app, name, ...rest].join() === `app-health,${container}` &&
    ['livez', 'readyz', 'startupz'].includes(kind ?? '') &&
    to === port &&
    scheme === 'HTTP'
  );
}

function withHandlerOf(probe: Json, template: Json): Json {
  const handler = HANDLERS.find((h) => template[h] !== undefined);
  const { httpGet: _, ...rest } = probe;
  return handler === undefined ? probe : { ...rest, [handler]: template[handler] };
}

function filter(container: Record<string, unknown>, field: string, isLeft: (item: Json) => boolean): void {
  if (!Array.isArray(container[field])) return;
  const left = list(container[field]).filter((item) => isLeft(record(item)));
  if (left.length > 0) container[field] = left;
  else delete container[field];
}
