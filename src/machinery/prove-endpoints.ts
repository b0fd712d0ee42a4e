import { groupOf, type KubernetesObject } from '../model/index.ts';
import { list, record } from './approved-template.ts';
import { type Approved, type Case, demand, kindOf, type MachineryFacts, ownerOf, type Proof } from './proof.ts';
import { isApiService } from './prove-foreign.ts';
import { proofFrom } from './prove-write.ts';

type Json = Readonly<Record<string, unknown>>;
type Around = Pick<Case, 'approved' | 'facts'>;

const SERVICE_NAME = 'kubernetes.io/service-name';
const MANAGED_BY = 'endpointslice.kubernetes.io/managed-by';
const CONTROLLER = 'endpointslice-controller.k8s.io';
const MIRRORING = 'endpointslicemirroring-controller.k8s.io';

/** Tests whether an object says where a Service leads: Endpoints or an EndpointSlice. */
export function isEndpoints(object: Pick<KubernetesObject, 'apiVersion' | 'kind'>): boolean {
  const group = groupOf(object.apiVersion);
  return (group === '' && object.kind === 'Endpoints') || (group === SLICES && object.kind === 'EndpointSlice');
}

const SLICES = 'discovery.k8s.io';

/**
 * Proves Endpoints or an EndpointSlice that no commit has, as they are in the cluster: they belong to a Service, and
 * every address is the one of a pod that its selector takes. A slice that mirrors Endpoints has their addresses. Never
 * throws. The controllers are a moment behind the pods, so a proof that fails should be repeated.
 */
export async function proveEndpoints(
  object: KubernetesObject,
  approved: Approved,
  facts: MachineryFacts,
): Promise<Proof> {
  const prove = object.kind === 'Endpoints' ? proveOfService : proveSlice;
  return proofFrom(facts, (by) => prove(object, { approved, facts: by }));
}

async function proveOfService(endpoints: KubernetesObject, of: Around): Promise<void> {
  const { name, namespace = '' } = endpoints.metadata;
  const service = await serviceOf(name, namespace, of);
  demand(service !== undefined, 'no commit has them, and no Service has their name');
  if (isApiService(service)) return;
  await provePlaces(placesOf(endpoints), service, of);
}

async function proveSlice(slice: KubernetesObject, of: Around): Promise<void> {
  const { name, namespace = '', labels = {} } = slice.metadata;
  if (namespace === 'default' && name === 'kubernetes' && labels[SERVICE_NAME] === name) {
    const service = await serviceOf(name, namespace, of);
    if (service !== undefined && isApiService(service)) return;
  }
  const owner = await ownerOf(slice, of.facts);
  const title = `the ${owner.kind} \`${owner.metadata.name}\``;
  demand(['Service', 'Endpoints'].includes(kindOf(owner)), `${title} has no slices`);
  const named = labels[SERVICE_NAME] ?? '';
  demand(named === owner.metadata.name, `its label names the Service \`${named}\`, and ${title} owns it`);
  const wanted = owner.kind === 'Service' ? CONTROLLER : MIRRORING;
  demand(
    labels[MANAGED_BY] === wanted,
    `its label says that \`${labels[MANAGED_BY] ?? ''}\` keeps it, not \`${wanted}\``,
  );
  if (owner.kind === 'Service') await provePlaces(placesOf(slice), owner, of);
  else proveMirrored(placesOf(slice), owner, title);
}

function serviceOf(name: string, namespace: string, { facts }: Around): Promise<KubernetesObject | undefined> {
  return facts.get({ apiVersion: 'v1', kind: 'Service', namespace, name });
}

/** One address with a port, or without any, and the pod that it is said to be of. */
type Place = { readonly address: string; readonly target: Json; readonly port: Json };

function placesOf(object: KubernetesObject): readonly Place[] {
  const parts =
    object.kind === 'Endpoints'
      ? list(object['subsets']).map((subset) => {
          const { addresses, notReadyAddresses, ports } = record(subset);
          const ends = [...list(addresses), ...list(notReadyAddresses)].map(record);
          return { ends: ends.map((e) => ({ address: String(e['ip']), target: record(e['targetRef']) })), ports };
        })
      : [
          {
            ends: list(object['endpoints'])
              .map(record)
              .flatMap((e) =>
                list(e['addresses']).map((address) => ({ address: String(address), target: record(e['targetRef']) })),
              ),
            ports: object['ports'],
          },
        ];
  return parts.flatMap(({ ends, ports }) => {
    const all = list(ports).length === 0 ? [{}] : list(ports).map(record);
    return ends.flatMap((end) => all.map((port) => ({ ...end, port })));
  });
}

async function provePlaces(places: readonly Place[], service: KubernetesObject, { facts }: Around): Promise<void> {
  if (places.length === 0) return;
  const { name, namespace = '' } = service.metadata;
  const title = `the Service \`${name}\``;
  const spec = record(service['spec']);
  const selector = record(spec['selector']);
  demand(Object.keys(selector).length > 0, `${title} has no selector, and no commit says where it leads`);
  const pods = (await facts.list('v1', 'Pod', namespace, false, selector as Readonly<Record<string, string>>)).filter(
    ({ metadata: { labels = {} }, status }) =>
      Object.entries(selector).every(([key, value]) => labels[key] === value) &&
      !['Succeeded', 'Failed'].includes(String(record(status)['phase'])),
  );
  const byUid = new Map(pods.map((pod) => [pod.metadata['uid'], pod]));
  for (const { address, target, port } of places) {
    const pod = byUid.get(target['uid']);
    demand(
      pod !== undefined && addressesOf(pod).includes(address),
      `\`${address}\` is not the address of a pod that ${title} selects`,
    );
    demand(
      isPortOf(port, pod, list(spec['ports']).map(record)),
      `port ${String(port['port'])} of \`${address}\` is not one that ${title} leads to`,
    );
  }
}

function addressesOf(pod: KubernetesObject): readonly unknown[] {
  const { podIP, podIPs } = record(pod['status']);
  return [podIP, ...list(podIPs).map((p) => record(p)['ip'])].filter((ip) => typeof ip === 'string');
}

// A Service without a cluster IP may have no port.
function isPortOf(port: Json, pod: KubernetesObject, ports: readonly Json[]): boolean {
  if (typeof port['port'] !== 'number') return port['port'] === undefined || port['port'] === null;
  return ports.some((p) => {
    const { name = '', protocol = 'TCP', targetPort = p['port'], appProtocol } = p;
    if (name !== (port['name'] ?? '') || protocol !== (port['protocol'] ?? 'TCP')) return false;
    if (port['appProtocol'] !== undefined && port['appProtocol'] !== appProtocol) return false;
    if (typeof targetPort !== 'string') return targetPort === port['port'];
    return portsOf(pod).some(
      (c) => c['name'] === targetPort && c['containerPort'] === port['port'] && (c['protocol'] ?? 'TCP') === protocol,
    );
  });
}

function portsOf(pod: KubernetesObject): readonly Json[] {
  const { containers, initContainers } = record(pod['spec']);
  return [...list(containers), ...list(initContainers)].flatMap((c) => list(record(c)['ports'])).map(record);
}

// The Endpoints are proven by themselves.
function proveMirrored(places: readonly Place[], endpoints: KubernetesObject, title: string): void {
  const own = new Set(placesOf(endpoints).map(({ address, port }) => `${address} ${String(port['port'])}`));
  for (const { address, port } of places)
    demand(
      own.has(`${address} ${String(port['port'])}`),
      `\`${address}\` with port ${String(port['port'])} is not one of ${title}`,
    );
}
