import { stages } from '../../src/cluster/index.ts';
import {
  ANNOTATION,
  type Comparison,
  CountersignError,
  type KubernetesObject,
  LABEL,
  type ObjectRef,
  type OwnedObject,
  type RenderedObject,
  refKey,
  refText,
  type TroubleSeen,
  type Writing,
} from '../../src/model/index.ts';
import type { ClusterPort, LiveState } from '../../src/reconcile/index.ts';

type DryRun = { readonly admitted: string | undefined; readonly template: undefined; readonly existed: boolean };
type Verb = 'dryRun' | 'apply' | 'remove' | 'compare' | 'watch';

/** A fault to inject: it meets the calls of one verb whose object `when` picks, `times` times (once by default). */
export type Fault = {
  readonly verb: Verb;
  readonly when?: (ref: ObjectRef) => boolean;
  /** Only for objects that are replaced as a whole. */
  readonly isExact?: true;
  /** `after`: the write reached the cluster, and only the answer is lost. */
  readonly at?: 'before' | 'after';
  readonly error: CountersignError;
  readonly times?: number;
};

type Stored = {
  digest: string;
  rendered: string;
  generation: number;
  environment: string;
  health: LiveState['health'];
  manager: string;
  uid: string;
  /** Stamps of the write that gave it its content. */
  annotations: Readonly<Record<string, string>>;
};

const HEALTHY: LiveState['health'] = { state: 'current', message: '' };

/**
 * A cluster in memory behind the loop's port. It says yes to everything, so that a refusal in a test comes from the
 * code under test, or from a fault that the test injects.
 */
export class FakeCluster implements ClusterPort {
  readonly objects = new Map<string, Stored>();
  /** Every write in order, as `apply Kind ns/name` or `remove Kind ns/name`. */
  readonly writes: string[] = [];
  /** The health that objects have after a write. */
  health: (ref: ObjectRef) => LiveState['health'] = () => HEALTHY;
  /** Names another owner of an object, if it has one. */
  owner: (ref: ObjectRef) => string | undefined = () => undefined;
  /** Kinds that hold instances, for definitions that are about to be removed. */
  instances: (definition: ObjectRef) => boolean = () => false;
  /** Objects whose namespace or kind is not there until something is written. */
  missing: (ref: ObjectRef) => boolean = () => false;
  connected = true;
  /** Namespaces that hold objects of others. */
  readonly inUse = new Set<string>();
  /** Seen of objects that are not healthy. */
  seen: readonly TroubleSeen[] = [];
  /** Objects whose additions by others come back at once. */
  clings: (ref: ObjectRef) => boolean = () => false;
  readonly #faults: (Fault & { left: number })[] = [];
  #made = 0;
  readonly #unknownKinds = new Set<string>();
  #held: { readonly isHeld: (verb: Verb, ref: ObjectRef) => boolean; readonly until: Promise<void> } | undefined;

  fail(fault: Fault): void {
    this.#faults.push({ ...fault, left: fault.times ?? 1 });
  }

  /** Makes these calls wait until the returned function is called. */
  hold(isHeld: (verb: Verb, ref: ObjectRef) => boolean): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held = { isHeld, until: promise };
    return () => {
      this.#held = undefined;
      resolve();
    };
  }

  /** A change by someone else, as the watch reports it. */
  drift(name: string, manager = 'kubectl-edit'): void {
    for (const [key, stored] of this.objects)
      if (key.endsWith(name)) this.objects.set(key, { ...stored, digest: `${stored.digest}+`, manager });
  }

  /** A deletion by someone else. */
  lose(name: string): void {
    for (const key of [...this.objects.keys()]) if (key.endsWith(name)) this.objects.delete(key);
  }

  /** Names of the objects that are there, sorted. */
  names(): string[] {
    return [...this.objects.keys()].map((key) => key.split(/[/ ]/).at(-1) ?? '').sort();
  }

  async watch(refs: readonly ObjectRef[]): Promise<void> {
    for (const ref of refs)
      await this.#do('watch', ref, async () => {}).catch((thrown) => {
        this.#unknownKinds.add(ref.kind);
        throw thrown;
      });
    for (const ref of refs) this.#unknownKinds.delete(ref.kind);
  }

  live(ref: ObjectRef): LiveState | undefined {
    const stored = this.objects.get(refKey(ref));
    if (stored === undefined) return undefined;
    const { digest, generation } = stored;
    return { digest, generation, leaving: false, health: this.health(ref) };
  }

  /** Uids of objects that were healthy when they went, by name. */
  readonly ended = new Map<string, string>();

  endedWell(ref: ObjectRef): string | undefined {
    return this.ended.get(ref.name);
  }

  knows(ref: ObjectRef): boolean {
    return !this.#unknownKinds.has(ref.kind);
  }

  otherOwner(ref: ObjectRef): string | undefined {
    return this.owner(ref);
  }

  async isReadyFor(ref: ObjectRef): Promise<boolean> {
    return !this.missing(ref);
  }

  dryRun(rendered: RenderedObject, _: OwnedObject, { exact = false }: Writing): Promise<DryRun> {
    return this.#do('dryRun', rendered.ref, async () => this.#dryRun(rendered.ref), exact);
  }

  async dryRunAnew(rendered: RenderedObject): Promise<DryRun> {
    return this.#dryRun(rendered.ref);
  }

  #dryRun(ref: ObjectRef): DryRun {
    return { admitted: undefined, template: undefined, existed: this.objects.has(refKey(ref)) };
  }

  apply(
    rendered: RenderedObject,
    { revision, entry }: OwnedObject,
    { environment, exact = false }: Writing,
  ): Promise<{ live: string | undefined; admitted: undefined }> {
    return this.#do('apply', rendered.ref, async () => {
      const key = refKey(rendered.ref);
      const generation = (this.objects.get(key)?.generation ?? 0) + 1;
      const isForeign = this.objects.get(key)?.digest.endsWith('+') === true && (!exact || this.clings(rendered.ref));
      const digest = `live of ${rendered.digest}${isForeign ? '+' : ''}`;
      this.writes.push(`${exact ? 'replace' : 'apply'} ${refText(rendered.ref)}`);
      this.objects.set(key, {
        digest,
        rendered: rendered.digest,
        generation,
        environment,
        health: HEALTHY,
        manager: 'countersign',
        uid: this.objects.get(key)?.uid ?? `uid-${++this.#made}`,
        annotations: { [ANNOTATION.revision]: revision, [ANNOTATION.entry]: String(entry) },
      });
      return { live: exact && isForeign ? undefined : digest, admitted: undefined };
    });
  }

  compare(rendered: RenderedObject): Promise<Comparison> {
    return this.#do('compare', rendered.ref, async () => {
      const stored = this.objects.get(refKey(rendered.ref));
      if (stored === undefined) return { kind: 'missing' as const };
      if (stored.digest === `live of ${rendered.digest}`) return { kind: 'same' as const, digest: stored.digest };
      const writer = { manager: stored.manager, time: '2030-01-01T00:00:00Z' };
      return { kind: 'different' as const, fields: ['/data/colour'], writer };
    });
  }

  async adoption(rendered: RenderedObject): Promise<readonly string[]> {
    const found = await this.compare(rendered);
    return found.kind === 'different' ? found.fields : [];
  }

  async contents(namespace: string): Promise<{ own: ReadonlySet<string>; others: readonly ObjectRef[] }> {
    const other = { apiVersion: 'v1', kind: 'ConfigMap', namespace, name: 'of-others' };
    return { own: new Set(), others: this.inUse.has(namespace) ? [other] : [] };
  }

  async troubles(refs: readonly ObjectRef[]): Promise<readonly TroubleSeen[]> {
    return this.seen.filter((s) => refs.some((ref) => refKey(ref) === refKey(s.ref)));
  }

  async read(ref: ObjectRef): Promise<KubernetesObject | undefined> {
    const { apiVersion, kind, name, namespace } = ref;
    const stored = this.objects.get(refKey(ref));
    if (stored === undefined) return undefined;
    const { uid, annotations, environment } = stored;
    const labels = { [LABEL]: environment };
    return { apiVersion, kind, metadata: { name, namespace, uid, annotations, labels } };
  }

  async established(): Promise<void> {}

  remove(ref: ObjectRef, _: string, how: { readonly dryRun?: boolean } = {}): Promise<void> {
    if (how.dryRun === true) return this.#do('dryRun', ref, async () => {});
    return this.#do('remove', ref, async () => {
      this.writes.push(`remove ${refText(ref)}`);
      this.objects.delete(refKey(ref));
    });
  }

  async isGone(ref: ObjectRef): Promise<boolean> {
    return !this.objects.has(refKey(ref));
  }

  async hasInstances(definition: ObjectRef): Promise<boolean> {
    return this.instances(definition);
  }

  async takeOver(): Promise<void> {}

  stages<T extends { readonly ref: ObjectRef }>(objects: readonly T[]): T[][] {
    return stages(objects);
  }

  async #do<T>(verb: Verb, ref: ObjectRef, write: () => Promise<T>, isExact = false): Promise<T> {
    if (this.#held?.isHeld(verb, ref) === true) await this.#held.until;
    const fault = this.#faults.find(
      (f) => f.verb === verb && f.left > 0 && (f.when?.(ref) ?? true) && (f.isExact !== true || isExact),
    );
    if (fault === undefined) return write();
    fault.left--;
    if (fault.at === 'after') await write();
    throw fault.error;
  }
}

/** The API server cannot be reached: the loop tries again. */
export function unreachable(): CountersignError {
  return new CountersignError('cluster-unreachable', 'the API server does not answer', { recover: 'retry' });
}

/** The API server refuses the object: only a new commit helps. */
export function refused(): CountersignError {
  return new CountersignError('cluster-refused', 'the field `data` is immutable');
}
