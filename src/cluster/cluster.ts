import { setTimeout as wait } from 'node:timers/promises';
import {
  ADMITS,
  ANNOTATION,
  type Comparison,
  CountersignError,
  controllerOf,
  FIELD_MANAGER,
  type IgnoreRule,
  inParallel,
  isStamp,
  type KindScope,
  type KubernetesObject,
  LABEL,
  type Metadata,
  type ObjectRef,
  type OwnedObject,
  type OwnerReference,
  objectDigest,
  Recent,
  type RenderedObject,
  refKey,
  refText,
  similar,
  type TroubleSeen,
  type Writing,
  within,
} from '../model/index.ts';
import { adoptionChanges } from './adoption.ts';
import { type Answer, type ApiServer, apiPath, METADATA_ONLY } from './api-server.ts';
import { type Contents, contentsOf } from './contents.ts';
import { exactly } from './exactly.ts';
import { differences, lastWriter, type ManagedFields, mergeFields, withValuesOf } from './fields.ts';
import type { HealthRule } from './health.ts';
import { Lineage } from './lineage.ts';
import { type LiveListener, type LiveObject, LiveView } from './live-view.ts';
import { mutatorsOf } from './mutators.ts';
import { withoutStringData } from './normal-forms.ts';
import { ObjectEvents } from './object-events.ts';
import { foreignOwner } from './owners.ts';
import { isRecord, listAt, objectIn, textAt } from './read-answer.ts';
import { alteration, isAcrossVersions, isPassing, mistakesIn, refusal, unfit } from './refusal.ts';
import { StandingRefusals } from './standing-refusals.ts';
import { troubleSeen } from './trouble-seen.ts';
import { alterations } from './unaltered.ts';
import { located } from './unfit.ts';

/**
 * Result of applying an object: its digest as stored, and the digest that our admission webhook admits. `live` is
 * undefined if others added something that could not be removed.
 */
export type AppliedObject = { readonly live: string | undefined; readonly admitted: string | undefined };

/** Digests that our admission webhook sees in a dry run: of the object, and of the template in it, if it has one. */
export type DryRun = {
  readonly admitted: string | undefined;
  readonly template: string | undefined;
  /** Digest of that template without the fields that are left to others, if there are any. */
  readonly left?: string | undefined;
  /** Whether the object existed before. */
  readonly existed: boolean;
};

type Made = DryRun & { readonly object: KubernetesObject };

type How = {
  readonly dryRun: boolean;
  /** The object as it is now, if that was read. */
  readonly live?: KubernetesObject | undefined;
  /** Only shown to people: it may be different from what was sent. */
  readonly isShown?: boolean;
};

const ESTABLISH_MS = 20_000;
const ATTEMPTS = 4;
const EXPLAIN_MS = 5000;
const PAUSE_MS = 100;
const MAX_PAUSE_MS = 2000;
const LABELS_MS = 10_000;

type Kind = { readonly plural: string; readonly namespaced: boolean };

// The fields read from a CustomResourceDefinition; `served` has the names of the versions that are.
type Definition = {
  readonly group: string;
  readonly kind: string;
  readonly plural: string;
  readonly served: readonly string[];
};

function definitionIn(body: unknown): Definition {
  const [group, kind] = [textAt(body, 'spec', 'group'), textAt(body, 'spec', 'names', 'kind')];
  const plural = textAt(body, 'spec', 'names', 'plural');
  if (group === undefined || kind === undefined || plural === undefined)
    throw new CountersignError('cluster-unreachable', 'the API server answered without a CustomResourceDefinition', {
      recover: 'retry',
    });
  const served = listAt(body, 'spec', 'versions').flatMap((version) => {
    const name = textAt(version, 'name');
    return name !== undefined && isRecord(version) && version['served'] === true ? [name] : [];
  });
  return { group, kind, plural, served };
}

/** One cluster as used by the reconciler, through one account. */
export class Cluster {
  readonly user: string;
  readonly view: LiveView;
  readonly events: ObjectEvents;
  readonly #server: ApiServer;
  /** The ledger's name, stamped on every object. */
  readonly #ledger: string;
  readonly #kinds = new Map<string, Promise<Map<string, Kind>>>();
  /** Pointers to fields that objects had beside Git's in their last dry run, by `refKey`. */
  readonly #beside = new Recent<readonly string[]>(10_000);
  readonly #standing = new StandingRefusals(() => this.#isWell());
  readonly #owners = new Recent<{ readonly owner: OwnerReference | undefined }>(10_000);
  readonly #labels = new Recent<{
    readonly at: number;
    readonly labels: Promise<Readonly<Record<string, string>> | undefined>;
  }>(1000);

  constructor(server: ApiServer, user: string, ledger: string, log: { warn(fields: object, message: string): void }) {
    this.#server = server;
    this.#ledger = ledger;
    this.user = user;
    this.view = new LiveView(server, log);
    this.events = new ObjectEvents(server, log);
  }

  /** Subscribes to every difference in an environment's objects. */
  listen(environment: string, listener: LiveListener, rule?: HealthRule): void {
    this.view.listen(environment, listener, rule);
  }

  /** Watches the kinds of these objects. Kinds the cluster does not have (yet) are skipped. */
  async watch(refs: readonly ObjectRef[], namespaces: readonly string[]): Promise<void> {
    const kinds = new Map(refs.map((r) => [`${r.apiVersion} ${r.kind}`, r]));
    await inParallel([...kinds.values()], async ({ apiVersion, kind }) => {
      const known = await this.#kind(apiVersion, kind);
      if (known !== undefined) await this.view.watch({ apiVersion, kind, ...known }, namespaces);
    });
  }

  get connected(): boolean {
    return this.view.connected;
  }

  /** Tests whether an object's kind was listed, so that objects missing from `live` do not exist. */
  knows(ref: ObjectRef): boolean {
    return this.view.knows(ref);
  }

  /** Returns one of our objects as seen by the watch. */
  live(ref: ObjectRef): LiveObject | undefined {
    return this.view.get(ref);
  }

  /** Returns the uid of the last object of this name that was healthy when it went, as far as the watch saw it. */
  endedWell(ref: ObjectRef): string | undefined {
    return this.view.endedWell(ref);
  }

  /**
   * Returns the owner of an object with the label of a different environment, or with ours but a different ledger.
   * Returns undefined if no one else owns it. `anyLedger`: our environment's objects are ours under any ledger.
   */
  otherOwner(ref: ObjectRef, environment: string, anyLedger = false): string | undefined {
    const live = this.view.get(ref);
    if (live === undefined) return undefined;
    if (live.environment !== environment) return `the environment \`${live.environment}\``;
    return anyLedger || live.ledger === this.#ledger || live.ledger === ''
      ? undefined
      : `another Countersign, with the ledger \`${live.ledger}\``;
  }

  /**
   * Tests whether the API server knows the object's kind and has its namespace; only then can it be dry-run. Throws if
   * it does not say.
   */
  async isReadyFor(ref: ObjectRef): Promise<boolean> {
    if ((await this.#kind(ref.apiVersion, ref.kind)) === undefined) return false;
    if (ref.namespace === '') return true;
    const place = { apiVersion: 'v1', kind: 'Namespace', namespace: '', name: ref.namespace };
    const answer = await this.#ask('GET', `/api/v1/namespaces/${encodeURIComponent(ref.namespace)}`);
    if (answer.status === 404) return false;
    succeed(answer, 'read', place);
    return true;
  }

  /**
   * Runs a server-side dry run; nothing is written. Throws `cluster-conflict` naming the owner of the object or its
   * fields, `cluster-altered` if the result is not what was sent, `cluster-immutable`, `cluster-refused`, `-forbidden`
   * or `-unreachable`, each with the object's name.
   */
  async dryRun(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<DryRun> {
    if (writing.exact === true) {
      const { object: _, ...made } = await this.#replace(rendered, owned, writing, { dryRun: true });
      return made;
    }
    const { object, ...made } = await this.#apply(rendered, owned, writing, { dryRun: true });
    const owner = writing.force ? undefined : foreignOwner(object, rendered.object);
    if (owner !== undefined)
      throw new CountersignError('cluster-conflict', `${refText(rendered.ref)} belongs to ${owner}`, {
        hint: 'remove it from one of them, or set `spec.apply.conflicts: takeOver` to take ownership',
      });
    return made;
  }

  /**
   * Applies an object server-side under our field manager, stamped with environment, ledger, revision and ledger entry.
   */
  async apply(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<AppliedObject> {
    const replaced =
      writing.exact === true ? await this.#replace(rendered, owned, writing, { dryRun: false }) : undefined;
    // After a replacement this changes nothing, but makes us the owner of Git's fields.
    const force = writing.exact === true || writing.force;
    const how = { dryRun: false, live: replaced?.object };
    const { object, admitted } = await this.#apply(rendered, owned, { ...writing, force }, how);
    const live = objectDigest(object);
    this.view.put(rendered.ref, object, live);
    if (writing.exact !== true) return { live, admitted };
    await this.#disown(rendered.ref);
    const found = await this.compare(rendered, owned, writing);
    return { live: found.kind === 'same' ? live : undefined, admitted };
  }

  /**
   * Tests whether a rendered object could be created if it did not exist: a dry run of its creation under a different
   * name.
   */
  async dryRunAnew(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<DryRun> {
    const name = `${rendered.ref.name.slice(0, 40)}-countersign-dry-run`;
    const other = { ...rendered.object, metadata: { ...rendered.object.metadata, name } };
    const ref = { ...rendered.ref, name };
    const body = this.#stamped(other, owned, writing.environment);
    const answer = await this.#ask(
      'PATCH',
      `${await this.#path(ref)}?fieldManager=${FIELD_MANAGER}&dryRun=All`,
      body,
      APPLY,
    );
    await this.#succeed(answer, 'dry-run the replacement of', rendered.ref, rendered);
    const altered = alterations(body, objectIn(answer), ignored(rendered.ref, writing.ignore));
    if (altered.length > 0) throw await this.#alteration(rendered.ref, altered);
    // the name is another, so the digest of the object is of no use
    return { ...admittedIn(answer, rendered.ref), admitted: undefined, existed: true };
  }

  /**
   * Compares the live object with the rendered one, field by field, by the API server's own dry run. With `exact`, also
   * what others added beside Git's fields is different.
   */
  async compare(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<Comparison> {
    for (let attempt = 1; ; attempt++) {
      const live = await this.read(rendered.ref);
      if (live === undefined) return { kind: 'missing' };
      const { fields, version } = await this.#differences(rendered, owned, writing, live);
      if (fields.length === 0) return { kind: 'same', digest: objectDigest(live) };
      // someone wrote it in between: the dry run is about another object than the one that was read
      if (version !== live.metadata['resourceVersion'] && attempt < ATTEMPTS) continue;
      const writer = lastWriter(live, FIELD_MANAGER);
      return { kind: 'different', fields, ...(writer === undefined ? {} : { writer }) };
    }
  }

  async #differences(
    rendered: RenderedObject,
    owned: OwnedObject,
    writing: Writing,
    live: KubernetesObject,
  ): Promise<{ readonly fields: readonly string[]; readonly version: unknown }> {
    const how = { dryRun: true, live };
    try {
      const { object: wanted } =
        writing.exact === true
          ? await this.#replace(rendered, owned, writing, how)
          : await this.#apply(rendered, owned, { ...writing, force: true }, how);
      return { fields: differences(live, wanted), version: wanted.metadata['resourceVersion'] };
    } catch (thrown) {
      if (!(thrown instanceof CountersignError) || thrown.code !== 'cluster-altered') throw thrown;
      // The API server does not tell what Git's object would be. The live one is compared as its answers are.
      const left = pointersOf(rendered.ref, writing, live);
      const sent = this.#stamped(rendered.object, owned, writing.environment);
      const fields = alterations(writing.exact === true ? exactly(sent, live, left) : sent, live, left);
      return { fields, version: live.metadata['resourceVersion'] };
    }
  }

  /**
   * Compares a live object with what taking it over would make of it, by the API server's own dry run. Returns JSON
   * pointers to what would change, without the marks of tools; none if there is no such object.
   */
  async adoption(rendered: RenderedObject, owned: OwnedObject, writing: Writing): Promise<readonly string[]> {
    const live = await this.read(rendered.ref);
    if (live === undefined) return [];
    const how = { dryRun: true, live };
    const { object: wanted } =
      writing.exact === true
        ? await this.#replace(rendered, owned, writing, how)
        : await this.#apply(rendered, owned, { ...writing, force: true }, how);
    return adoptionChanges(live, wanted, rendered.object);
  }

  /**
   * Returns an object as it is, and as it would be after applying a rendered one by force; nothing is written. With
   * `exact`, without what others added, if the object can be replaced as a whole.
   */
  async preview(
    rendered: RenderedObject,
    wish: Omit<Writing, 'force'>,
  ): Promise<{ readonly live: KubernetesObject | undefined; readonly wanted: KubernetesObject }> {
    const live = await this.read(rendered.ref);
    const owned = {
      ref: rendered.ref,
      rendered: rendered.digest,
      revision: '',
      entry: 0,
      file: rendered.source.file,
      line: rendered.source.line,
    };
    const writing = { ...wish, force: true };
    const how = { dryRun: true, live, isShown: true };
    const exact = live === undefined || wish.exact !== true ? undefined : this.#replace(rendered, owned, writing, how);
    // An object that cannot be replaced as a whole is shown without what others added.
    const { object } = await (exact ?? Promise.reject(new Error('new'))).catch(() =>
      this.#apply(rendered, owned, writing, how),
    );
    const { labels, annotations, ...others } = object.metadata;
    const metadata = {
      ...others,
      ...stampedAs('labels', labels, live?.metadata.labels),
      ...stampedAs('annotations', annotations, live?.metadata.annotations),
    };
    return { live, wanted: { ...object, metadata } };
  }

  /** Waits until the API server serves a CustomResourceDefinition's kind. */
  async established(ref: ObjectRef): Promise<void> {
    const path = await this.#path(ref);
    for (const end = performance.now() + ESTABLISH_MS; ; ) {
      const { body } = await this.#ask('GET', path);
      const definition = definitionIn(body);
      const established = listAt(body, 'status', 'conditions').some(
        (c) => textAt(c, 'type') === 'Established' && textAt(c, 'status') === 'True',
      );
      // The API server reports this shortly before it serves the kind; an object applied in between would fail.
      if (established && (await this.#serves(definition))) return;
      if (performance.now() > end)
        throw new CountersignError(
          'cluster-refused',
          `${refText(ref)} was not established within ${ESTABLISH_MS / 1000} s`,
        );
      await wait(100);
    }
  }

  async #serves({ group, kind, served }: Definition): Promise<boolean> {
    this.#kinds.clear();
    for (const version of served) if ((await this.#kind(`${group}/${version}`, kind)) === undefined) return false;
    return true;
  }

  /**
   * Makes us the owner of every field of an object, so that the next apply removes fields that are not in Git. Does not
   * change content. Fields of subresources such as `status` stay with their owners.
   */
  async takeOver(ref: ObjectRef): Promise<void> {
    const path = await this.#path(ref);
    const live = await this.read(ref);
    if (live === undefined) return;
    const { resourceVersion, managedFields } = live.metadata as {
      resourceVersion?: string;
      managedFields?: ManagedFields[];
    };
    const [whole, others] = [
      managedFields?.filter((m) => !m.subresource) ?? [],
      managedFields?.filter((m) => m.subresource) ?? [],
    ];
    const fieldsV1 = whole.reduce<ManagedFields['fieldsV1']>((union, m) => mergeFields(union, m.fieldsV1), {});
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
      await this.#server.request(
        'PATCH',
        `${path}?fieldManager=${FIELD_MANAGER}`,
        patch,
        'application/json-patch+json',
      ),
      'take over',
      ref,
    );
  }

  /**
   * Deletes one of our objects. An object that is gone counts as deleted. An object that no longer has our label is not
   * ours to delete, and stays. `foreground` keeps the object until its dependents are gone.
   */
  async remove(
    ref: ObjectRef,
    environment: string,
    how: { readonly dryRun?: boolean; readonly foreground?: boolean } = {},
  ): Promise<void> {
    if ((await this.#kind(ref.apiVersion, ref.kind)) === undefined) return; // the objects were deleted with their kind
    const path = await this.#path(ref);
    const there = await this.#ask('GET', path);
    if (there.status === 404) return;
    succeed(there, 'read', ref);
    const { metadata } = objectIn(there);
    if (metadata.labels?.[LABEL] !== environment) return;
    // All options go into the body: if there is a body, the API server ignores the query, and a dry run would delete.
    const body = {
      apiVersion: 'v1',
      kind: 'DeleteOptions',
      propagationPolicy: how.foreground === true ? 'Foreground' : 'Background',
      ...(how.dryRun === true ? { dryRun: ['All'] } : {}),
      // a different object that took this name meanwhile must not be deleted
      preconditions: { uid: metadata['uid'] },
    };
    const answer = await this.#ask('DELETE', path, body);
    if (answer.status !== 404 && answer.status !== 202 && answer.status !== 409)
      await this.#succeed(answer, 'delete', ref);
  }

  /** Returns whether a kind is in namespaces, as the API server serves it; undefined if it does not serve it. */
  async scopeOf(kind: Pick<ObjectRef, 'apiVersion' | 'kind'>): Promise<KindScope | undefined> {
    const served = await this.servedAs(kind);
    if (served === undefined) return undefined;
    return served.namespaced ? 'Namespaced' : 'Cluster';
  }

  /** Returns how the API server serves a kind; undefined if it does not serve it. */
  servedAs({ apiVersion, kind }: Pick<ObjectRef, 'apiVersion' | 'kind'>): Promise<Kind | undefined> {
    return this.#kind(apiVersion, kind);
  }

  /**
   * Checks that the object with this name has that uid, and returns its controller. Cached, because neither ever
   * changes.
   */
  async owner(ref: ObjectRef, uid: string): Promise<{ readonly owner: OwnerReference | undefined } | undefined> {
    const known = this.#owners.get(uid);
    if (known !== undefined) return known;
    // A reference does not say whether its kind is namespaced.
    const kind = await this.#kind(ref.apiVersion, ref.kind);
    if (kind === undefined) return undefined;
    const answer = await this.#ask(
      'GET',
      await this.#path(kind.namespaced ? ref : { ...ref, namespace: '' }),
      undefined,
      undefined,
      METADATA_ONLY.object,
    );
    if (answer.status === 404) return undefined;
    succeed(answer, 'read', ref);
    const object = objectIn(answer);
    if (object.metadata['uid'] !== uid) return undefined;
    const found = { owner: controllerOf(object) };
    this.#owners.set(uid, found);
    return found;
  }

  /** Returns the labels of a namespace, at most ten seconds old; undefined if it does not exist. Throws otherwise. */
  async labelsOf(namespace: string): Promise<Readonly<Record<string, string>> | undefined> {
    const known = this.#labels.get(namespace);
    if (known !== undefined && performance.now() - known.at < LABELS_MS) return known.labels;
    const labels = this.#server
      .request('GET', `/api/v1/namespaces/${encodeURIComponent(namespace)}`, undefined, undefined, METADATA_ONLY.object)
      .then((answer) => {
        if (answer.status === 404) return undefined;
        succeed(answer, 'read', { apiVersion: 'v1', kind: 'Namespace', namespace: '', name: namespace });
        return objectIn(answer).metadata.labels ?? {};
      });
    this.#labels.set(namespace, { at: performance.now(), labels });
    labels.catch(() => this.#labels.delete(namespace));
    return labels;
  }

  /**
   * Returns an object as it is now, read from the API server; undefined if there is none. Any other answer is thrown as
   * the error that it is, never taken for a missing object.
   */
  async read(ref: ObjectRef): Promise<KubernetesObject | undefined> {
    const answer = await this.#ask('GET', await this.#path(ref));
    if (answer.status === 404) return undefined;
    succeed(answer, 'read', ref);
    return objectIn(answer);
  }

  /**
   * Returns what a namespace holds: objects of an environment among these keys (`refKey`), with what controllers made
   * of them, and everything else. `known`: uids of objects that were ours before, and may be deleted by now.
   */
  contents(
    namespace: string,
    environment: string,
    keys: ReadonlySet<string>,
    known: ReadonlySet<string> = new Set(),
  ): Promise<Contents> {
    const isOurs = (object: KubernetesObject) =>
      object.metadata.labels?.[LABEL] === environment &&
      object.metadata.annotations?.[ANNOTATION.ledger] === this.#ledger &&
      keys.has(refKey(refIn(object)));
    return contentsOf(this.#server, namespace, isOurs, known);
  }

  /** Returns what can be seen of objects that are not healthy. Never throws; takes five seconds at most. */
  async troubles(refs: readonly ObjectRef[]): Promise<readonly TroubleSeen[]> {
    const seen: TroubleSeen[] = [];
    const reading = inParallel(refs, async (ref) => {
      const live = await this.read(ref).catch(() => undefined);
      seen.push(await troubleSeen(ref, live, (method, path) => this.#server.request(method, path)));
    });
    await within(EXPLAIN_MS, reading, () => {}).catch(() => {});
    return [...seen];
  }

  /** Tests whether the object no longer exists. */
  async isGone(ref: ObjectRef): Promise<boolean> {
    if ((await this.#kind(ref.apiVersion, ref.kind)) === undefined) return true;
    return (await this.read(ref)) === undefined;
  }

  /** Tests whether objects of a CustomResourceDefinition's kind exist, which would be deleted with it. */
  async hasInstances(ref: ObjectRef): Promise<boolean> {
    const { status, body } = await this.#ask('GET', await this.#path(ref));
    if (status === 404) return false;
    const { group, plural, served } = definitionIn(body);
    if (served[0] === undefined) return true;
    const found = await this.#ask('GET', `/apis/${group}/${served[0]}/${plural}?limit=1`);
    const { items } = found.body;
    // An answer that is not a list does not say that there are none.
    return found.status !== 200 || (items !== null && (!Array.isArray(items) || items.length > 0));
  }

  /** Returns the objects from which others are made in some namespaces. */
  lineage(namespaces: readonly string[], log: { warn(fields: object, message: string): void }): Lineage {
    return new Lineage(this.#server, namespaces, (apiVersion, kind) => this.#kind(apiVersion, kind), log);
  }

  close(): void {
    this.view.close();
    this.#server.close();
  }

  /**
   * Replaces an object by exactly Git's content, and what the API server or a controller keeps on its kind. If it does
   * not exist, it is applied.
   */
  async #replace(rendered: RenderedObject, owned: OwnedObject, writing: Writing, how: How): Promise<Made> {
    const path = await this.#path(rendered.ref);
    for (let attempt = 1; ; attempt++) {
      const live = attempt === 1 && how.live !== undefined ? how.live : await this.read(rendered.ref);
      if (live === undefined) return this.#apply(rendered, owned, writing, how);
      const body = exactly(
        this.#stamped(rendered.object, owned, writing.environment),
        live,
        pointersOf(rendered.ref, writing, live),
      );
      const query = `fieldManager=${FIELD_MANAGER}${how.dryRun ? '&dryRun=All' : ''}`;
      const answer = await this.#ask('PUT', `${path}?${query}`, body);
      if (attempt < ATTEMPTS && (await this.#renewed(answer, rendered.ref, how))) continue;
      // someone else wrote it in between
      if (answer.status === 409 && attempt < ATTEMPTS) continue;
      await this.#succeed(answer, how.dryRun ? 'dry-run' : 'replace', rendered.ref, rendered);
      const object = objectIn(answer);
      const altered = how.isShown === true ? [] : alterations(body, object, pointersOf(rendered.ref, writing, object));
      if (altered.length > 0) throw await this.#alteration(rendered.ref, altered);
      return { object, ...admittedIn(answer, rendered.ref), existed: true };
    }
  }

  // A replacement makes us the owner of what it changed by `Update`, too, and leaves others the owners of what they had
  // written. Those fields would stay when Git drops them. Values that `drift.ignore` leaves to others stay, without
  // owners.
  async #disown(ref: ObjectRef): Promise<void> {
    const path = await this.#path(ref);
    const live = await this.read(ref);
    const managers = (live?.metadata['managedFields'] ?? []) as readonly ManagedFields[];
    const kept = managers.filter((m) =>
      m.manager === FIELD_MANAGER ? m.operation !== 'Update' : m.subresource !== undefined,
    );
    if (live === undefined || kept.length === managers.length) return;
    const patch = [
      { op: 'test', path: '/metadata/resourceVersion', value: live.metadata['resourceVersion'] },
      { op: 'replace', path: '/metadata/managedFields', value: kept },
    ];
    // If it fails, the next comparison finds what stayed.
    await this.#server
      .request('PATCH', `${path}?fieldManager=${FIELD_MANAGER}`, patch, 'application/json-patch+json')
      .catch(() => {});
  }

  async #apply(rendered: RenderedObject, owned: OwnedObject, writing: Writing, how: How): Promise<Made> {
    const path = await this.#path(rendered.ref);
    const { environment, force } = writing;
    const isLeft = writing.scaled !== undefined || ignored(rendered.ref, writing.ignore).length > 0;
    const live = isLeft ? (how.live ?? (await this.read(rendered.ref))) : how.live;
    const pointers = live === undefined ? [] : pointersOf(rendered.ref, writing, live);
    const wanted = live === undefined ? rendered.object : withValuesOf(rendered.object, live, pointers);
    const query = `fieldManager=${FIELD_MANAGER}${force ? '&force=true' : ''}${how.dryRun ? '&dryRun=All' : ''}`;
    const body = this.#stamped(wanted, owned, environment);
    let answer = await this.#ask('PATCH', `${path}?${query}`, body, APPLY);
    if (await this.#renewed(answer, rendered.ref, how))
      answer = await this.#ask('PATCH', `${path}?${query}`, body, APPLY);
    await this.#succeed(answer, how.dryRun ? 'dry-run' : 'apply', rendered.ref, rendered);
    const made = { object: objectIn(answer), ...admittedIn(answer, rendered.ref), existed: answer.status === 200 };
    if (how.isShown !== true) await this.#refuseAltered(rendered.ref, body, made, writing, { ...how, live });
    return made;
  }

  // Renews the records of who owns which field, if they are of another version and in the way: the same fields, under
  // this version. Returns false if they were not in the way. Nothing else of the object changes.
  async #renewed(answer: Answer, ref: ObjectRef, { isShown }: How): Promise<boolean> {
    if (!isAcrossVersions(answer) || isShown === true) return false;
    const live = await this.read(ref);
    const managers = (live?.metadata['managedFields'] ?? []) as readonly ManagedFields[];
    if (live === undefined) return false;
    const patch = [
      { op: 'test', path: '/metadata/resourceVersion', value: live.metadata['resourceVersion'] },
      {
        op: 'replace',
        path: '/metadata/managedFields',
        value: managers.map((m) => ({ ...m, apiVersion: ref.apiVersion })),
      },
    ];
    const path = `${await this.#path(ref)}?fieldManager=${FIELD_MANAGER}`;
    const { status } = await this.#server.request('PATCH', path, patch, 'application/json-patch+json');
    return status === 200;
  }

  // An apply leaves what others have beside Git's fields. Only the object before can tell that from an alteration. It
  // is read if there is something to tell.
  async #refuseAltered(
    ref: ObjectRef,
    sent: KubernetesObject,
    { object, existed }: Made,
    writing: Writing,
    how: How,
  ): Promise<void> {
    const left = pointersOf(ref, writing, object);
    const found = alterations(sent, object, left, how.live);
    if (found.length === 0) return;
    const isUnknown = existed && how.live === undefined;
    const before = isUnknown && how.dryRun ? await this.read(ref) : undefined;
    const beside = isUnknown && !how.dryRun ? (this.#beside.get(refKey(ref)) ?? []) : [];
    const foreign = before === undefined ? found : alterations(sent, object, left, before);
    const altered = foreign.filter((pointer) => !beside.includes(pointer));
    if (altered.length > 0) throw await this.#alteration(ref, altered);
    if (before !== undefined) this.#beside.set(refKey(ref), found);
  }

  async #alteration(ref: ObjectRef, pointers: readonly string[]): Promise<CountersignError> {
    const { plural = '' } = (await this.#kind(ref.apiVersion, ref.kind)) ?? {};
    return alteration(ref, pointers, await mutatorsOf(this.#server, ref, plural));
  }

  #stamped(object: KubernetesObject, owned: OwnedObject, environment: string): KubernetesObject {
    const { metadata } = object;
    const annotations = {
      ...metadata.annotations,
      [ANNOTATION.ledger]: this.#ledger,
      [ANNOTATION.revision]: owned.revision,
      [ANNOTATION.entry]: String(owned.entry),
    };
    // Of `stringData`, a server-side apply would keep what Git drops (kubernetes/kubernetes#108008).
    const sent = withoutStringData(object);
    return { ...sent, metadata: { ...metadata, labels: { ...metadata.labels, [LABEL]: environment }, annotations } };
  }

  async #isWell(): Promise<boolean> {
    return this.#server.request('GET', '/version').then(
      ({ status }) => status === 200,
      () => false,
    );
  }

  async #succeed(answer: Answer, verb: string, ref: ObjectRef, rendered?: RenderedObject): Promise<void> {
    const mistakes = rendered && mistakesIn(answer);
    if (rendered !== undefined && mistakes !== undefined) {
      const places = await located(mistakes, rendered, (path) => this.#server.request('GET', path));
      throw unfit(places, verb, refText(ref));
    }
    const request = `${verb} ${refKey(ref)}`;
    try {
      succeed(answer, verb, ref);
      this.#standing.forget(request);
    } catch (thrown) {
      throw thrown instanceof CountersignError ? await this.#standing.judge(request, answer, thrown) : thrown;
    }
  }

  // Retries a few times: a busy or restarting server is no reason to repeat a run over thousands of objects. All our
  // requests can be sent twice, because applying or deleting again changes nothing.
  async #ask(method: string, path: string, body?: unknown, contentType?: string, accept?: string): Promise<Answer> {
    for (let attempt = 1; ; attempt++) {
      const last = attempt === ATTEMPTS;
      const answer = await this.#server.request(method, path, body, contentType, accept).catch((thrown: unknown) => {
        if (last) throw thrown;
        return undefined;
      });
      if (answer !== undefined && (last || !isPassing(answer))) return answer;
      const asked = (answer?.retryAfter ?? 0) * 1000;
      await wait(Math.min(MAX_PAUSE_MS, Math.max(asked, PAUSE_MS * 2 ** attempt)) * (0.75 + Math.random() / 2));
    }
  }

  async #path(ref: ObjectRef): Promise<string> {
    const kind = await this.#kind(ref.apiVersion, ref.kind);
    if (kind === undefined)
      throw new CountersignError(
        'cluster-refused',
        `${refText(ref)}: the cluster has no kind \`${ref.kind}\` in \`${ref.apiVersion}\`${await this.#meant(ref)}`,
        {
          hint: 'add its CustomResourceDefinition to the repository, or correct `kind` or `apiVersion`',
        },
      );
    if (kind.namespaced !== (ref.namespace !== ''))
      throw new CountersignError(
        'cluster-refused',
        `${refText(ref)}: the kind \`${ref.kind}\` is ` +
          `${kind.namespaced ? 'namespaced: set `metadata.namespace`' : 'cluster-scoped: remove `metadata.namespace`'}`,
      );
    return `${apiPath(ref.apiVersion, ref.namespace)}/${kind.plural}/${encodeURIComponent(ref.name)}`;
  }

  async #meant({ apiVersion, kind }: ObjectRef): Promise<string> {
    const kinds = await this.#discover(apiVersion).catch(() => new Map<string, Kind>());
    const meant = similar(kind, [...kinds.keys()]);
    return meant === undefined ? '' : `; did you mean \`${meant}\`?`;
  }

  // Queried once per group version, even for concurrent callers. A kind that does not exist is queried again.
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
    const answer = await this.#ask('GET', apiPath(apiVersion, ''));
    if (answer.status === 404) return new Map();
    if (answer.status >= 300) throw refusal(answer, 'discover', `the kinds of \`${apiVersion}\``, false);
    if (answer.body['kind'] !== 'APIResourceList' || !Array.isArray(answer.body['resources']))
      throw new CountersignError('cluster-unreachable', `the API server did not list the kinds of \`${apiVersion}\``, {
        recover: 'retry',
      });
    return new Map(
      listAt(answer.body, 'resources').flatMap((resource): [string, Kind][] => {
        const [kind, plural] = [textAt(resource, 'kind'), textAt(resource, 'name')];
        if (kind === undefined || plural === undefined || plural.includes('/')) return [];
        return [[kind, { plural, namespaced: isRecord(resource) && resource['namespaced'] === true }]];
      }),
    );
  }
}

const APPLY = 'application/apply-patch+yaml';

// Any webhook can give warnings. Two that name a digest cannot both be ours.
function admittedIn({ warnings }: Answer, ref: ObjectRef): Omit<DryRun, 'existed'> {
  const [said, ...others] = warnings.filter((w) => w.startsWith(ADMITS));
  if (others.length > 0)
    throw new CountersignError('cluster-refused', `${refText(ref)}: another webhook answers in the gate’s name`, {
      recover: 'wait',
      hint: `find the webhook whose warnings begin with \`${ADMITS}\`, and remove it`,
    });
  const [admitted, template, left] = said?.slice(ADMITS.length).trim().split(' ') ?? [];
  return { admitted, template, ...(left === undefined ? {} : { left }) };
}

// Keeps the existing stamps, which no one wants to see in a comparison.
function stampedAs(
  field: 'labels' | 'annotations',
  now: Metadata['labels'],
  live: Metadata['labels'],
): Partial<Metadata> {
  const kept = [
    ...Object.entries(now ?? {}).filter(([key]) => !isStamp(key)),
    ...Object.entries(live ?? {}).filter(([key]) => isStamp(key)),
  ];
  return kept.length === 0 && live === undefined ? {} : { [field]: Object.fromEntries(kept) };
}

function ignored(ref: ObjectRef, rules: readonly IgnoreRule[]): string[] {
  return rules
    .filter((r) => r.kind === ref.kind && (r.name === undefined || r.name === ref.name))
    .flatMap((r) => r.fields);
}

// Returns fields left to others: those of the rules, and a scale within the bounds of Git's autoscaler.
function pointersOf(ref: ObjectRef, { ignore, scaled }: Writing, live: KubernetesObject): readonly string[] {
  const { replicas } = (live['spec'] ?? {}) as { readonly replicas?: unknown };
  const isScaled =
    scaled !== undefined && typeof replicas === 'number' && replicas >= scaled.min && replicas <= scaled.max;
  return [...ignored(ref, ignore), ...(isScaled ? ['/spec/replicas'] : [])];
}

function succeed(answer: Answer, verb: string, ref: ObjectRef): void {
  if (answer.status >= 300) throw refusal(answer, verb, refText(ref), ref.kind === 'Secret');
}

function refIn({ apiVersion, kind, metadata }: KubernetesObject): ObjectRef {
  return { apiVersion, kind, namespace: metadata.namespace ?? '', name: metadata.name };
}
