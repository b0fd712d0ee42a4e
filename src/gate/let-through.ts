import { GIVEN_TO_CLAIMS, isPodOrMaker, templateDigest } from '../machinery/index.ts';
import {
  type AdmittedRequest,
  admissionDigest,
  CountersignError,
  contentDigest,
  digestOf,
  type EntryOf,
  type KubernetesObject,
  type ObjectRef,
  type Recorded,
  refKey,
  type StandingContent,
  sha256,
  unbound,
} from '../model/index.ts';
import { DECLARED } from './admission-request.ts';
import type { LedgerView, Recorder } from './ports.ts';
import { scanned } from './rescan.ts';

const CLOCKS_MS = 10_000; // between our clock and the API server's, whose times have no fractions
const AGAIN_MS = 24 * 3_600_000;
// Within which the cluster is read as it is after a write: what is recorded as standing covers no later writes.
const SETTLED_MS = 60_000;
const NONE = sha256('[]');

/** A write of a declared controller or operator, and its place on the ledger. */
type Row = Omit<AdmittedRequest, 'uid' | 'user' | 'groups' | 'subresource'> & { readonly place: number };

/** The content that an object had when it was found to be let through, and the place of that write on the ledger. */
type Known = { readonly object: ObjectRef; readonly content: string; readonly place: number };

const PLACES = 1000; // more than the requests of one entry

/**
 * Knows which objects are exactly as the gate let a declared controller or operator write them. Neither the times nor
 * the field managers of an object count: its writer can choose them. An object must have the content of the last write
 * of it on the ledger. From then on, each new content needs a later write: content that was replaced and is put back
 * has none. What stands is recorded once a day (`admission.standing`), so that a start reads the writes of one day.
 */
export class LetThrough {
  readonly #environment: string;
  readonly #ledger: LedgerView & Recorder;
  readonly #clock: () => Date;
  // By uid: what was found in this reading of the cluster, and in those before.
  #known = new Map<string, Known>();
  #before: ReadonlyMap<string, Known> | undefined;
  // By object: writes of the entries after `floor` that were read, oldest first.
  readonly #rows = new Map<string, Row[]>();
  #read: { floor: number; from: number; to: number } | undefined;
  #standing: { readonly digest: string; readonly at: number } | undefined;
  #covers: number | undefined;

  constructor(environment: string, ledger: LedgerView & Recorder, clock: () => Date) {
    this.#environment = environment;
    this.#ledger = ledger;
    this.#clock = clock;
  }

  /** Begins a full reading of the cluster: what is neither asked about nor kept in it no longer exists. */
  begin(): void {
    this.#before = new Map([...(this.#before ?? this.#stood()), ...this.#known]);
    this.#known = new Map();
    const settled = new Date(this.#clock().getTime() - SETTLED_MS).toISOString();
    this.#covers = this.#latest(this.#ledger.firstAt?.(settled))?.index;
  }

  /** Ends a full reading, and records what stands if that is due. Throws the errors of the ledger. */
  async end(): Promise<void> {
    this.#before = new Map();
    const rows = [...this.#known].map(([uid, { object, content }]): StandingContent => ({ uid, object, content }));
    const evidence = this.#ledger.asEvidence(rows.sort((a, b) => (a.uid < b.uid ? -1 : 1)));
    const now = this.#clock().getTime();
    const isDue = this.#standing === undefined || now - this.#standing.at >= AGAIN_MS;
    const isSame = (this.#standing?.digest ?? NONE) === evidence.ref.sha256;
    // An empty one, too: a start reads no further back than to the last.
    if (!isDue || (isSame && rows.length === 0 && this.#read === undefined)) return;
    const covers = this.#covers === undefined ? {} : { covers: this.#covers };
    const body = { type: 'admission.standing', environment: this.#environment, count: rows.length, ...covers } as const;
    await this.#ledger.record({ ...body, evidence: evidence.ref }, [evidence]);
    this.#standing = { digest: evidence.ref.sha256, at: now };
    this.#drop(this.#covers ?? -1);
  }

  /** Forgets everything, because another replica goes on. */
  forget(): void {
    this.#known.clear();
    this.#rows.clear();
    [this.#before, this.#read, this.#standing] = [undefined, undefined, undefined];
  }

  /** Says that an object is there, and as it was when it was last asked about. */
  keep(uid: string): void {
    const known = this.#known.get(uid) ?? this.#before?.get(uid);
    if (known !== undefined) this.#known.set(uid, known);
  }

  /**
   * Compares an object with what the gate let through: `same`, `other` if it let other content of it through, `none`
   * if it let nothing through. Throws the errors of the ledger.
   */
  compare(object: KubernetesObject): 'same' | 'other' | 'none' {
    const { ref, uid } = scanned(object);
    const content = contentOf(object);
    this.#before ??= this.#stood();
    const known = this.#known.get(uid) ?? this.#before.get(uid);
    if (known?.content === content) {
      this.#known.set(uid, known);
      return 'same';
    }
    const matches = matcher(object);
    const writes = this.#writesOf(object);
    const later = known === undefined ? writes : writes.filter((row) => row.place > known.place);
    // Only the last write counts: someone may have put back what it replaced. A recent one may not be stored yet.
    const isRecent = Date.parse(later.at(-1)?.at ?? '') > this.#clock().getTime() - SETTLED_MS;
    const found = (known !== undefined && isRecent ? later : later.slice(-1)).find(matches);
    if (found === undefined) return known === undefined && writes.length === 0 ? 'none' : 'other';
    this.#known.set(uid, { object: ref, content, place: found.place });
    return 'same';
  }

  // The objects as last recorded, except those written since: their last write counts.
  #stood(): Map<string, Known> {
    const last = this.#ledger.latest(['admission.standing'], this.#environment);
    this.#readOn();
    if (last === undefined) return new Map();
    this.#standing = { digest: last.entry.evidence.sha256, at: Date.parse(last.entry.time) };
    const place = ((last.entry.covers ?? -1) + 1) * PLACES - 1;
    const rows = this.#ledger.evidence(last.entry.evidence) as readonly StandingContent[];
    const isQuiet = ({ object }: StandingContent) =>
      this.#rows.get(refKey(object))?.some(({ operation }) => operation !== 'CREATE') !== true;
    return new Map(rows.filter(isQuiet).map(({ uid, object, content }) => [uid, { object, content, place }]));
  }

  // The writes that can have made an object what it is, oldest first; of older ones, the last. The time of its
  // creation is the API server's own.
  #writesOf(object: KubernetesObject): readonly Row[] {
    const made = Date.parse(String(object.metadata['creationTimestamp']));
    if (Number.isNaN(made)) return [];
    const key = refKey(scanned(object).ref);
    const canBeOfThis = (row: Row) => {
      const at = Date.parse(row.at);
      // The API server asks about a creation before it finds that there is such an object.
      const isPast = row.operation === 'CREATE' && at > made + CLOCKS_MS;
      const isUnderWay = row.operation === 'DELETE' && object.metadata['deletionTimestamp'] !== undefined;
      return at >= made - CLOCKS_MS && !isPast && !isUnderWay;
    };
    this.#readOn();
    const all = () => (this.#rows.get(key) ?? []).filter(canBeOfThis);
    if (all().length === 0) this.#readBack(made - CLOCKS_MS, () => all().length > 0);
    return all();
  }

  // Reads what is new on the ledger; the first time, back to what stood.
  #readOn(): void {
    const stood = this.#ledger.latest(['admission.standing'], this.#environment)?.entry;
    const newest = this.#latest()?.index ?? -1;
    const floor = stood?.covers ?? -1;
    // Without a record of what stood, the writes of all time may count, and are read as they are needed.
    this.#read ??=
      stood === undefined ? { floor, from: newest + 1, to: newest } : { floor, from: floor + 1, to: floor };
    const found: Row[][] = [];
    for (let at = this.#latest(); at !== undefined && at.index > this.#read.to; at = this.#latest(at.index))
      found.push(this.#rowsOf(at));
    for (const row of found.reverse().flat()) this.#of(row).push(row);
    this.#read.to = Math.max(this.#read.to, newest);
  }

  #readBack(earliest: number, isEnough: () => boolean): void {
    const read = this.#read;
    const since = new Date(earliest).toISOString();
    try {
      while (read !== undefined && !isEnough()) {
        const at = this.#latest(read.from, since);
        if (at === undefined || at.index <= read.floor) return;
        for (const row of this.#rowsOf(at).reverse()) this.#of(row).unshift(row);
        read.from = at.index;
      }
    } catch (thrown) {
      // Archived entries are not read, so they are no proof.
      if (!(thrown instanceof CountersignError && thrown.code === 'entry-archived')) throw thrown;
      if (read !== undefined) read.floor = read.from;
    }
  }

  #drop(upTo: number): void {
    for (const [key, rows] of this.#rows) {
      const later = rows.filter(({ place }) => place >= (upTo + 1) * PLACES);
      if (later.length === 0) this.#rows.delete(key);
      else this.#rows.set(key, later);
    }
    if (this.#read !== undefined) this.#read.floor = upTo;
  }

  #of({ object }: Row): Row[] {
    const key = refKey(object);
    const rows = this.#rows.get(key) ?? [];
    this.#rows.set(key, rows);
    return rows;
  }

  #latest(before?: number, since?: string): Recorded<EntryOf<'admission.allowed'>> | undefined {
    return this.#ledger.latest(['admission.allowed'], this.#environment, before, since);
  }

  #rowsOf({ index, entry }: Recorded<EntryOf<'admission.allowed'>>): Row[] {
    const all = this.#ledger.evidence(entry.evidence) as readonly AdmittedRequest[];
    // Kept for long, so without what is not compared.
    return all.flatMap(({ uid: _, user: __, groups: ___, subresource, ...row }, i) =>
      subresource === '' && DECLARED.has(row.as) ? [{ ...row, place: index * PLACES + i }] : [],
    );
  }
}

// Others scale and annotate objects that make pods; the template says what runs.
function contentOf(object: KubernetesObject): string {
  const template = isPodOrMaker(object) ? templateDigest(object) : undefined;
  return template === undefined ? contentDigest(unclaimed(unbound(object))) : `template ${template}`;
}

function matcher(object: KubernetesObject): (row: Row) => boolean {
  const template = isPodOrMaker(object) ? templateDigest(object) : undefined;
  const variants = [object, unbound(object), unclaimed(object)];
  const digests = new Map<string, ReadonlySet<string>>();
  const digestsFor = (operation: string): ReadonlySet<string> => {
    const plain = variants.map((variant) => admissionDigest(alive(variant), operation));
    const all = new Set(plain.flatMap((digest) => [digest, digestOf([digest, object['status'] ?? {}])]));
    digests.set(operation, all);
    return all;
  };
  return (row) => {
    if (template !== undefined && row.template !== undefined) return row.template === template;
    return row.digest !== undefined && (digests.get(row.operation) ?? digestsFor(row.operation)).has(row.digest);
  };
}

function alive({ metadata, ...object }: KubernetesObject): KubernetesObject {
  const { deletionTimestamp: _, deletionGracePeriodSeconds: __, ...rest } = metadata;
  return { ...object, metadata: rest } as KubernetesObject;
}

// Fields that the control plane sets on a claim or a Service after it was made, each by a write of its own that was
// proven.
const FINALIZER = 'service.kubernetes.io/load-balancer-cleanup';

const FILLED_IN = ['token', 'ca.crt', 'namespace'];
const TOKEN_OF = 'kubernetes.io/service-account.uid';

function withoutToken(secret: KubernetesObject): KubernetesObject {
  const { data, ...rest } = secret as KubernetesObject & { data?: Readonly<Record<string, unknown>> };
  const kept = Object.entries(data ?? {}).filter(([key]) => !FILLED_IN.includes(key));
  const { [TOKEN_OF]: _, ...annotations } = secret.metadata.annotations ?? {};
  return {
    ...rest,
    metadata: { ...secret.metadata, annotations },
    ...(kept.length === 0 ? {} : { data: Object.fromEntries(kept) }),
  } as KubernetesObject;
}

function unclaimed(object: KubernetesObject): KubernetesObject {
  const { apiVersion, kind, metadata } = object;
  if (kind === 'Secret' && object['type'] === 'kubernetes.io/service-account-token') return withoutToken(object);
  if (apiVersion !== 'v1' || (kind !== 'PersistentVolumeClaim' && kind !== 'Service')) return object;
  const { annotations = {}, finalizers, ...rest } = metadata as KubernetesObject['metadata'] & { finalizers?: unknown };
  const kept = Object.fromEntries(Object.entries(annotations).filter(([key]) => !GIVEN_TO_CLAIMS.has(key)));
  const others = Array.isArray(finalizers) ? finalizers.filter((f) => f !== FINALIZER) : [];
  const { volumeName: _, ...spec } = (object['spec'] ?? {}) as Readonly<Record<string, unknown>>;
  return {
    ...object,
    metadata: {
      ...rest,
      ...(Object.keys(kept).length === 0 ? {} : { annotations: kept }),
      ...(others.length === 0 ? {} : { finalizers: others }),
    } as KubernetesObject['metadata'],
    spec: kind === 'Service' ? object['spec'] : spec,
  };
}
