import {
  ADMITS,
  ANNOTATION,
  CountersignError,
  inParallel,
  type KubernetesObject,
  type ObjectRef,
  type OwnedObject,
  objectDigest,
  type RenderedObject,
  refKey,
  refText,
} from '../model/index.ts';
import type { Answer, ApiServer } from './api-server.ts';

/** What the API server made of an object: its digest as stored, and the digest its admission webhook admits. */
export type AppliedObject = { readonly live: string; readonly admitted: string | undefined };

const FIELD_MANAGER = 'countersign';
const ESTABLISH_MS = 20_000;

type FieldSet = { readonly [field: string]: FieldSet };
type ManagedFields = {
  readonly manager: string;
  readonly operation: string;
  readonly subresource?: string;
  readonly fieldsV1: FieldSet;
  readonly [field: string]: unknown;
};

type Kind = { readonly plural: string; readonly namespaced: boolean };

// What is read of a CustomResourceDefinition.
type Definition = {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: readonly { readonly name: string; readonly served: boolean }[];
  };
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
};

/** One cluster as the reconciler uses it. */
export class Cluster {
  readonly user: string;
  readonly #server: ApiServer;
  readonly #kinds = new Map<string, Promise<Map<string, Kind>>>();

  constructor(server: ApiServer, user: string) {
    this.#server = server;
    this.user = user;
  }

  /** Whether the API server knows the object's kind and has its namespace: only then can it be dry-run. */
  async isReadyFor(ref: ObjectRef): Promise<boolean> {
    if ((await this.#kind(ref.apiVersion, ref.kind)) === undefined) return false;
    if (ref.namespace === '') return true;
    return (await this.#server.request('GET', `/api/v1/namespaces/${encodeURIComponent(ref.namespace)}`)).status === 200;
  }

  /** Server-side dry run: nothing is written. Throws `cluster-refused` (or `-forbidden`, `-unreachable`) with the object's name. */
  dryRun(rendered: RenderedObject, owned: OwnedObject, environment: string): Promise<AppliedObject> {
    return this.#apply(rendered, owned, environment, true);
  }

  /** Server-side apply under our field manager, stamped with revision and ledger entry. */
  apply(rendered: RenderedObject, owned: OwnedObject, environment: string): Promise<AppliedObject> {
    return this.#apply(rendered, owned, environment, false);
  }

  /** Waits until the API server serves a CustomResourceDefinition's kind. */
  async established(ref: ObjectRef): Promise<void> {
    const path = await this.#path(ref);
    for (const end = Date.now() + ESTABLISH_MS; ; ) {
      const { body } = await this.#server.request('GET', path);
      const definition = body as unknown as Definition;
      const established = definition.status?.conditions?.some((c) => c.type === 'Established' && c.status === 'True') === true;
      // The API server says so a moment before it serves the kind; an object that came in between would find nothing.
      if (established && (await this.#serves(definition))) return;
      if (Date.now() > end)
        throw new CountersignError('cluster-refused', `${refText(ref)} was not established within ${ESTABLISH_MS / 1000} s`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async #serves({ spec }: Definition): Promise<boolean> {
    this.#kinds.clear();
    for (const version of spec.versions.filter((v) => v.served))
      if ((await this.#kind(`${spec.group}/${version.name}`, spec.names.kind)) === undefined) return false;
    return true;
  }

  /**
   * Makes us the owner of every field of an object, so that the next apply removes what is not in Git. Changes no content.
   * Fields of subresources such as `status` stay with their owners.
   */
  async takeOver(ref: ObjectRef): Promise<void> {
    const path = await this.#path(ref);
    const { status, body } = await this.#server.request('GET', path);
    if (status === 404) return;
    const { resourceVersion, managedFields } = body['metadata'] as { resourceVersion: string; managedFields?: ManagedFields[] };
    const [whole, others] = [managedFields?.filter((m) => !m.subresource) ?? [], managedFields?.filter((m) => m.subresource) ?? []];
    const fieldsV1 = whole.reduce<FieldSet>((union, m) => mergeFields(union, m.fieldsV1), {});
    const ours: ManagedFields = {
      manager: FIELD_MANAGER,
      operation: 'Apply',
      apiVersion: ref.apiVersion,
      fieldsType: 'FieldsV1',
      time: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
      fieldsV1,
    };
    const patch = [
      { op: 'test', path: '/metadata/resourceVersion', value: resourceVersion },
      { op: 'replace', path: '/metadata/managedFields', value: [ours, ...others] },
    ];
    succeed(
      await this.#server.request('PATCH', `${path}?fieldManager=${FIELD_MANAGER}`, patch, 'application/json-patch+json'),
      'take over',
      ref,
    );
  }

  /** Removes an object; one that is gone already counts as removed. */
  async remove(ref: ObjectRef): Promise<void> {
    const answer = await this.#server.request('DELETE', `${await this.#path(ref)}?propagationPolicy=Background`);
    if (answer.status !== 404 && answer.status !== 202) succeed(answer, 'remove', ref);
  }

  /** The live digest of each object, one list per kind and namespace; objects that are not there are left out. */
  async liveDigests(refs: readonly ObjectRef[]): Promise<Map<string, string>> {
    const groups = Map.groupBy(refs, (r) => `${r.apiVersion} ${r.kind} ${r.namespace}`);
    const digests = new Map<string, string>();
    await inParallel([...groups.values()], async (group) => {
      const first = group[0] as ObjectRef;
      const kind = await this.#kind(first.apiVersion, first.kind);
      if (kind === undefined) return;
      const answer = await this.#server.request('GET', `${prefixOf(first)}/${kind.plural}`);
      if (answer.status === 404) return;
      succeed(answer, 'list', first);
      const wanted = new Set(group.map(refKey));
      for (const item of (answer.body as { items?: KubernetesObject[] }).items ?? []) {
        const object = { ...item, apiVersion: first.apiVersion, kind: first.kind };
        const key = refKey({ ...first, name: item.metadata.name });
        if (wanted.has(key)) digests.set(key, objectDigest(object));
      }
    });
    return digests;
  }

  close(): void {
    this.#server.close();
  }

  async #apply(rendered: RenderedObject, owned: OwnedObject, environment: string, dryRun: boolean): Promise<AppliedObject> {
    const path = await this.#path(rendered.ref);
    const query = `fieldManager=${FIELD_MANAGER}&force=true${dryRun ? '&dryRun=All' : ''}`;
    const answer = await this.#server.request(
      'PATCH',
      `${path}?${query}`,
      stamped(rendered.object, owned, environment),
      'application/apply-patch+yaml',
    );
    succeed(answer, dryRun ? 'dry-run' : 'apply', rendered.ref);
    const admitted = answer.warnings
      .find((w) => w.startsWith(ADMITS))
      ?.slice(ADMITS.length)
      .trim();
    return { live: objectDigest(answer.body as unknown as KubernetesObject), admitted };
  }

  async #path(ref: ObjectRef): Promise<string> {
    const kind = await this.#kind(ref.apiVersion, ref.kind);
    if (kind === undefined)
      throw new CountersignError('cluster-refused', `${refText(ref)}: the cluster has no kind \`${ref.kind}\` in \`${ref.apiVersion}\``, {
        hint: 'add its CustomResourceDefinition to the repository, or correct `apiVersion`',
      });
    if (kind.namespaced !== (ref.namespace !== ''))
      throw new CountersignError(
        'cluster-refused',
        `${refText(ref)}: the kind \`${ref.kind}\` is ${kind.namespaced ? 'namespaced, and `metadata.namespace` is needed' : 'cluster-scoped, and `metadata.namespace` must go'}`,
      );
    return `${prefixOf(ref)}/${kind.plural}/${encodeURIComponent(ref.name)}`;
  }

  // Asked once per group version, however many ask at the same time; a kind that is not there is asked for again.
  async #kind(apiVersion: string, kind: string): Promise<Kind | undefined> {
    const cached = this.#kinds.get(apiVersion) ?? this.#discover(apiVersion);
    this.#kinds.set(apiVersion, cached);
    const found = (
      await cached.catch((thrown) => {
        this.#kinds.delete(apiVersion);
        throw thrown;
      })
    ).get(kind);
    if (found === undefined) this.#kinds.delete(apiVersion);
    return found;
  }

  async #discover(apiVersion: string): Promise<Map<string, Kind>> {
    const answer = await this.#server.request('GET', apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`);
    if (answer.status === 404) return new Map();
    if (answer.status >= 300) throw refusal(answer, 'discover', `the kinds of \`${apiVersion}\``, false);
    const resources = (answer.body as { resources?: { name: string; kind: string; namespaced: boolean }[] }).resources ?? [];
    return new Map(resources.filter((r) => !r.name.includes('/')).map((r) => [r.kind, { plural: r.name, namespaced: r.namespaced }]));
  }
}

function stamped(object: KubernetesObject, owned: OwnedObject, environment: string): KubernetesObject {
  const annotations = {
    ...object.metadata.annotations,
    [ANNOTATION.environment]: environment,
    [ANNOTATION.revision]: owned.revision,
    [ANNOTATION.entry]: String(owned.entry),
  };
  return { ...object, metadata: { ...object.metadata, annotations } };
}

function prefixOf(ref: ObjectRef): string {
  const base = ref.apiVersion.includes('/') ? `/apis/${ref.apiVersion}` : `/api/${ref.apiVersion}`;
  return ref.namespace === '' ? base : `${base}/namespaces/${encodeURIComponent(ref.namespace)}`;
}

function succeed(answer: Answer, verb: string, ref: ObjectRef): void {
  if (answer.status >= 300) throw refusal(answer, verb, refText(ref), ref.kind === 'Secret');
}

// The API server repeats values in its complaints; of a Secret nothing but the status is told.
function refusal(answer: Answer, verb: string, what: string, secret: boolean): CountersignError {
  const said = String(answer.body['message'] ?? '').slice(0, 1000);
  const message = `cannot ${verb} ${what}: ${secret ? `the API server answered ${answer.status} (its text is withheld, it may hold values)` : said || answer.status}`;
  if (answer.status === 401 || (answer.status === 403 && /is forbidden: User/.test(said)))
    return new CountersignError('cluster-forbidden', message, {
      hint: 'give the service’s account this right (docs/operations.md lists all it needs)',
    });
  // Our own webhook refuses what changed since the dry run: another dry run settles that.
  const ownWebhook = said.includes('gate.countersign.dev');
  const passing = answer.status === 429 || answer.status >= 500 || ownWebhook;
  return new CountersignError(passing ? 'cluster-unreachable' : 'cluster-refused', message, {
    recover: passing ? 'retry' : 'wait',
    ...(passing ? {} : { hint: 'correct the manifest in the repository' }),
  });
}

function mergeFields(a: FieldSet, b: FieldSet): FieldSet {
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return Object.fromEntries([...keys].map((key) => [key, mergeFields(a[key] ?? {}, b[key] ?? {})]));
}
