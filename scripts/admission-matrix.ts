import type { ApiServer } from '../src/cluster/index.ts';

/** A resource of an API server, or a part of one, as its discovery lists it. */
export type Pair = {
  readonly group: string;
  readonly version: string;
  readonly resource: string;
  readonly subresource: string;
  readonly kind: string;
  readonly scope: 'Namespaced' | 'Cluster';
  readonly verbs: readonly string[];
  /** Whether OpenAPI says that requests connect to something. Discovery does not tell. */
  readonly connects: boolean;
};

export type PairClass = 'connect' | 'read only' | 'question' | 'status' | 'scale' | 'part' | 'stored';

/** Classes of pairs: the rule that puts a pair into one, and the answer to anyone without a right in a namespace. */
const CLASSES: Readonly<Record<PairClass, { readonly rule: string; readonly answer: string }>> = {
  connect: { rule: 'OpenAPI calls the operation `connect`', answer: 'no' },
  'read only': { rule: 'it has no verb that writes', answer: 'not asked' },
  question: { rule: 'it can be created but not read, because nothing is stored', answer: 'not asked' },
  status: { rule: 'the subresource is `status` or `finalize`', answer: 'no, if metadata changes' },
  scale: { rule: 'the subresource is `scale`', answer: 'no' },
  part: { rule: 'it is any other subresource', answer: 'no' },
  stored: { rule: 'no other rule fits', answer: 'no' },
};

/** Pairs whose answer is not the one of their class, each with its group. */
const EXCEPTIONS: Readonly<Record<string, { readonly answer: string; readonly why: string }>> = {
  'coordination.k8s.io/leases': {
    answer: 'not asked',
    why: 'elections and nodes must continue while the gate is away',
  },
  events: { answer: 'not asked', why: 'controllers only report in them' },
  'events.k8s.io/events': { answer: 'not asked', why: 'controllers only report in them' },
  'openreports.io/reports': { answer: 'not asked', why: 'findings of tools, including ours' },
  'wgpolicyk8s.io/policyreports': { answer: 'not asked', why: 'findings of tools' },
  bindings: { answer: 'no', why: 'it is an order, not a question; schedulers use `pods/binding`' },
  'pods/binding': { answer: 'no, if it has metadata', why: 'without metadata it only chooses a node' },
  'pods/eviction': { answer: 'yes', why: 'the pod comes back, and nodes must be drained; it is recorded' },
  'serviceaccounts/token': { answer: 'not asked', why: 'every node needs it' },
  namespaces: { answer: 'no', why: 'a governed Namespace belongs to itself' },
  'namespaces/status': { answer: 'no, if metadata changes', why: 'labels of a Namespace switch protections off' },
  'namespaces/finalize': { answer: 'no, if metadata changes', why: 'labels of a Namespace switch protections off' },
  'nodes/proxy': { answer: 'no, by its path', why: 'paths that only read, or lead elsewhere, are not asked about' },
};

/** Returns the answer to anyone who has no right of their own. */
export function answerOf(pair: Pair): string {
  const exception = EXCEPTIONS[nameOf(pair)];
  const pairClass = classOf(pair);
  if (exception !== undefined) return exception.answer;
  if (pair.scope === 'Namespaced') return CLASSES[pairClass].answer;
  return pairClass === 'stored' ? 'no, if the kind is governed' : 'not asked';
}

const WRITES = ['create', 'update', 'patch', 'delete', 'deletecollection'];

/** Returns every pair of the API server's discovery, sorted. Throws if it does not answer as an API server does. */
export async function pairsOf(server: ApiServer): Promise<readonly Pair[]> {
  const connecting = await connectionsOf(server);
  const pairs = new Map<string, Pair>();
  for (const root of ['/api', '/apis'])
    for (const group of items((await read(server, root, AGGREGATED))['items']))
      for (const { version, resources } of items(group['versions']) as readonly Version[])
        for (const resource of resources ?? [])
          for (const part of [undefined, ...(resource.subresources ?? [])]) {
            const pair: Pair = {
              group: String((group['metadata'] as { name?: string } | undefined)?.name ?? ''),
              version,
              resource: resource.resource,
              subresource: part?.subresource ?? '',
              kind: (part ?? resource).responseKind?.kind ?? '',
              scope: resource.scope,
              verbs: (part ?? resource).verbs,
              connects: false,
            };
            // the first version is the preferred one
            if (!pairs.has(nameOf(pair))) pairs.set(nameOf(pair), { ...pair, connects: connecting.has(nameOf(pair)) });
          }
  return [...pairs.values()].sort(byName);
}

type Resource = {
  readonly resource: string;
  readonly scope: Pair['scope'];
  readonly verbs: readonly string[];
  readonly responseKind?: { readonly kind?: string };
  readonly subresources?: readonly (Pick<Resource, 'verbs' | 'responseKind'> & { readonly subresource: string })[];
};
type Version = { readonly version: string; readonly resources?: readonly Resource[] };

const AGGREGATED = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';

async function connectionsOf(server: ApiServer): Promise<ReadonlySet<string>> {
  const { paths } = (await read(server, '/openapi/v3')) as {
    paths: Record<string, { readonly serverRelativeURL: string }>;
  };
  const found = new Set<string>();
  for (const [name, { serverRelativeURL }] of Object.entries(paths)) {
    if (!/^apis?\//.test(name)) continue;
    const document = (await read(server, serverRelativeURL)) as { paths?: Record<string, Record<string, unknown>> };
    for (const [path, operations] of Object.entries(document.paths ?? {}))
      for (const operation of Object.values(operations))
        if ((operation as { 'x-kubernetes-action'?: string })?.['x-kubernetes-action'] === 'connect')
          found.add(nameInPath(path));
  }
  return found;
}

// `/api/v1/namespaces/{namespace}/pods/{name}/exec` is `pods/exec`.
function nameInPath(path: string): string {
  const [, group = '', rest = ''] =
    /^\/apis?\/(?:([^/]+)\/)?v[^/]+\/(?:namespaces\/\{namespace\}\/)?(.+)$/.exec(path) ?? [];
  const plain = rest.replace('/{name}', '').replace('/{path}', '');
  return group === '' ? plain : `${group}/${plain}`;
}

async function read(server: ApiServer, path: string, accept?: string): Promise<Record<string, unknown>> {
  const { status, body } = await server.request('GET', path, undefined, undefined, accept);
  if (status !== 200) throw new Error(`${path}: the API server answers ${status}`);
  return body;
}

function items(value: unknown): readonly Record<string, unknown>[] {
  return Array.isArray(value) ? value : [];
}

/** Returns `pods`, `apps/deployments/scale` and so on. */
export function nameOf({ group, resource, subresource }: Pick<Pair, 'group' | 'resource' | 'subresource'>): string {
  return [group, resource, subresource].filter((part) => part !== '').join('/');
}

/** Returns the class of a pair. No rule knows a name, so a new pair that fits no other is stored. */
export function classOf({ subresource, verbs, connects }: Pair): PairClass {
  const writes = verbs.filter((verb) => WRITES.includes(verb));
  if (connects) return 'connect';
  if (writes.length === 0) return 'read only';
  if (subresource === 'status' || subresource === 'finalize') return 'status';
  if (subresource === 'scale') return 'scale';
  if (subresource !== '') return 'part';
  return writes.join() === 'create' && !verbs.includes('get') ? 'question' : 'stored';
}

/** Tests whether a pair is part of Kubernetes. Definitions of custom kinds add others. */
export function isBuiltIn({ group }: Pair): boolean {
  return !group.includes('.') || group.endsWith('.k8s.io');
}

const HEAD = `<!-- Made by \`npm run docs:admission\` from the API server's discovery. -->

# Every resource at admission

This page lists every resource and subresource that Kubernetes VERSIONS serve, with the gate's answer in an
environment with \`spec.admission.mode: enforce\`. The answer is the one to anyone without a right of their own;
[Admission](admission.md) has the answers to everyone else. \`test/cluster/admission-resources.test.ts\` compares this
page with a running API server and tries the rows.

A rule puts each of them into a class. No rule knows a name, so a resource that a later version adds is "stored", and
refused. Custom kinds are classed in the same way.

`;

/** Returns docs/admission-resources.md. `byVersion` has the pairs of each minor version of Kubernetes, oldest first. */
export function admissionPage(byVersion: ReadonlyMap<string, readonly Pair[]>): string {
  const versions = [...byVersion.keys()];
  const pairs = new Map([...byVersion.values()].flat().map((pair) => [nameOf(pair), pair]));
  const rows = [...pairs.values()].filter(isBuiltIn).sort(byName);
  const servedBy = (pair: Pair) => {
    const serving = versions.filter((v) => byVersion.get(v)?.some((p) => nameOf(p) === nameOf(pair)));
    return serving.length === versions.length ? 'all' : serving.join(', ');
  };
  return [
    HEAD.replace('VERSIONS', `${versions[0]} to ${versions.at(-1)}`),
    '| class | rule, the first that fits | answer, in a governed namespace |\n| --- | --- | --- |\n',
    ...Object.entries(CLASSES).map(([name, { rule, answer }]) => `| ${name} | ${rule} | ${answer} |\n`),
    '\nSome have an answer of their own:\n\n| resource | answer | why |\n| --- | --- | --- |\n',
    ...Object.entries(EXCEPTIONS).map(([name, { answer, why }]) => `| \`${name}\` | ${answer} | ${why} |\n`),
    '\n**No, if the kind is governed** means that `spec.target.clusterScoped` of an environment has the kind.\n',
    ...(['Namespaced', 'Cluster'] as const).flatMap((scope) => [
      scope === 'Namespaced' ? '\n## With a namespace\n\n' : '\n## Without a namespace\n\n',
      '| resource | class | answer | Kubernetes |\n| --- | --- | --- | --- |\n',
      ...rows
        .filter((pair) => pair.scope === scope)
        .map((p) => `| \`${nameOf(p)}\` | ${classOf(p)} | ${answerOf(p)} | ${servedBy(p)} |\n`),
    ]),
  ].join('');
}

function byName(a: Pair, b: Pair): number {
  return nameOf(a) < nameOf(b) ? -1 : 1;
}

/** Returns the minor version of an API server, such as `1.34`. */
export async function minorOf(server: ApiServer): Promise<string> {
  const { major, minor } = await read(server, '/version');
  return `${major}.${String(minor).replace(/\D.*$/, '')}`;
}
