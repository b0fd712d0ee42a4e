import { isEndpoints, isPodOrMaker, type Proof } from '../machinery/index.ts';
import { contentDigest, controllerOf, type KubernetesObject, type ObjectRef, refKey, unbound } from '../model/index.ts';
import { usesOf } from './break-glass.ts';
import { LetThrough } from './let-through.ts';
import type { LedgerView, Recorder } from './ports.ts';
import { scanned } from './rescan.ts';

/** An object whose content is not proven, and why. */
type Unproven = {
  readonly ref: ObjectRef;
  readonly uid: string;
  readonly owner: string | undefined;
  readonly reason: string;
  readonly manager: string;
  readonly since: string;
  readonly isIdle: boolean;
  /** Whether a different reason is worth an entry of its own: it says what runs. */
  readonly isByReason: boolean;
};

type Standing = { readonly index: number; readonly uid: string; readonly reason: string; readonly object: ObjectRef };

/** An object whose proof failed, which may only be late: since when, and since when for each reason. */
type Doubt = {
  readonly ref: ObjectRef;
  readonly uid: string;
  readonly since: number;
  readonly reasons: Map<string, number>;
  /** The version in which it was last proven. */
  readonly proven: string | undefined;
};

const PROVEN: Proof = { kind: 'proven' };
const LATE_MS = 5000; // by which controllers may be behind: endpoints follow pods, garbage follows its owner
// For an object that fails for one reason after the other, or that no one has written since it was proven.
const RESTLESS_MS = 60_000;
const MAX_REASONS = 100;
const MADE_MS = 5000; // between the answer of the webhook and the time on the object; clocks differ

/**
 * Keeps on the ledger which objects in an environment's namespaces do not follow from what is approved: an entry when
 * one is found, and one when it is gone, proven or scaled to zero.
 */
export class ContentAccount {
  readonly #environment: string;
  readonly #ledger: LedgerView & Recorder;
  readonly #prove: (object: KubernetesObject) => Promise<Proof | undefined>;
  readonly #basis: () => string;
  readonly #clock: () => Date;
  // Where anyone may write, an entry for each object would fill the ledger: `cluster.scanned` lists them.
  readonly #isEnforced: boolean;
  readonly #seen = new Map<string, Unproven>();
  // Uids of objects that could not be proven or disproven this time.
  readonly #open = new Set<string>();
  // Version of each object that was proven, by its uid: since the last full reading began, and before.
  #proven = new Map<string, string>();
  #before: ReadonlyMap<string, string> = new Map();
  // The same as of the last full reading, on any basis.
  #earlier: ReadonlyMap<string, string> = new Map();
  readonly #doubts = new Map<string, Doubt>();
  readonly #letThrough: LetThrough;
  #isWhole = false;
  #last = '';
  #standing: Map<string, Standing> | undefined;
  // Uids of ReplicaSets that are on the ledger and were scaled to zero.
  readonly #idle = new Set<string>();

  /**
   * `prove` is `proveChild` with what is approved now; `basis` names what that is. Unless writes are refused
   * (`isEnforced`), objects that make no pods get no entries.
   */
  constructor(
    environment: string,
    ledger: LedgerView & Recorder,
    prove: (object: KubernetesObject) => Promise<Proof | undefined>,
    basis: () => string,
    clock: () => Date,
    isEnforced = true,
  ) {
    this.#clock = clock;
    this.#isEnforced = isEnforced;
    this.#environment = environment;
    this.#ledger = ledger;
    this.#prove = prove;
    this.#basis = basis;
    this.#letThrough = new LetThrough(environment, ledger, clock);
  }

  /** Forgets what was seen, because another replica goes on. */
  forget(): void {
    this.#letThrough.forget();
    [this.#proven, this.#before, this.#earlier] = [new Map(), new Map(), new Map()];
    [this.#last, this.#standing] = ['', undefined];
  }

  /** Begins a full reading: everything that is not seen again is gone. Proofs hold for as long as their basis does. */
  begin(): void {
    this.#letThrough.begin();
    this.#isWhole = true;
    this.#seen.clear();
    this.#open.clear();
    this.#standing = undefined;
    this.#earlier = new Map([...this.#before, ...this.#proven]);
    const basis = this.#basis();
    this.#before = basis === this.#last ? this.#proven : new Map();
    [this.#proven, this.#last] = [new Map(), basis];
  }

  /** Proves objects, and remembers those that are not. Never throws. */
  async see(objects: readonly KubernetesObject[]): Promise<void> {
    for (const object of objects) {
      const { ref, uid: given, owner, manager, since } = scanned(object);
      const uid = given === '' ? refKey(ref) : given; // an API server beside kube-apiserver may give none
      const version = String(object.metadata['resourceVersion'] ?? '');
      const isKnown = version !== '' && (this.#before.get(uid) === version || this.#proven.get(uid) === version);
      const proof = isKnown ? PROVEN : await this.#prove(object);
      if (proof?.kind === 'proven') this.#proven.set(uid, version);
      if (isKnown) this.#letThrough.keep(uid);
      if (proof?.kind !== 'unproven') this.#doubts.delete(refKey(ref));
      this.#seen.delete(refKey(ref));
      this.#open.delete(uid);
      if (proof?.kind === 'unknown') this.#open.add(uid);
      if (proof?.kind !== 'unproven' || this.#isExcused(object)) continue;
      const mayBe = !isPodOrMaker(object) || proof.isOfOperator === true;
      const letThrough = mayBe ? this.#letThrough.compare(object) : 'none';
      if (letThrough === 'same') {
        this.#proven.set(uid, version);
        this.#doubts.delete(refKey(ref));
        continue;
      }
      if (!this.#isEnforced && !isPodOrMaker(object) && !isEndpoints(object)) continue;
      // The record of a write may come a moment after the object, or the object after the record.
      const isRecordLate = letThrough === 'other' || proof.isOfOperator === true;
      const { reason, lateMs = isRecordLate || mayBeLate(object) ? LATE_MS : 0 } = proof;
      if (lateMs > 0 && !this.#isConfirmed({ ref, uid, version, reason, lateMs })) this.#open.add(uid);
      else
        this.#seen.set(refKey(ref), {
          ...{ ref, uid, owner, reason, manager, since },
          ...{ isIdle: isIdle(object), isByReason: isPodOrMaker(object) },
        });
    }
  }

  /** Returns the objects that should be looked at again soon: their proof failed, and may only be late. */
  doubted(): readonly ObjectRef[] {
    return [...this.#doubts].filter(([key]) => !this.#seen.has(key)).map(([, { ref }]) => ref);
  }

  /** Forgets an object that no longer exists. */
  gone(ref: ObjectRef): void {
    this.#seen.delete(refKey(ref));
    this.#doubts.delete(refKey(ref));
  }

  /** Records what changed. Returns the newly found objects. Throws the errors of the ledger. */
  async settle(): Promise<readonly Unproven[]> {
    if (this.#isWhole) await this.#letThrough.end();
    this.#isWhole = false;
    this.#standing ??= this.#read();
    const found = [...this.#seen.values()];
    const byUid = new Map(found.map((f) => [f.uid, f]));
    const roots = found.filter((f) => !isToldWithOwner(f, byUid));
    const fresh: Unproven[] = [];
    for (const one of roots) {
      const known = this.#standing.get(one.uid);
      if (known?.reason === one.reason || (known !== undefined && !one.isByReason)) continue;
      if (one.isIdle && (known !== undefined || this.#idle.has(one.uid))) continue;
      const { ref: object, uid, reason, manager, since } = one;
      const { index } = await this.#ledger.record(
        { type: 'content.unproven', environment: this.#environment, object, uid, reason, manager, since },
        [],
      );
      // A changed reason replaces the earlier entry.
      if (known !== undefined) await this.#resolve(known, 'changed');
      this.#standing.set(uid, { index, uid, reason, object });
      fresh.push(one);
    }
    for (const known of [...this.#standing.values()]) {
      const now = this.#seen.get(refKey(known.object));
      if (this.#open.has(known.uid)) continue;
      if (now === undefined || now.uid !== known.uid) await this.#resolve(known, 'proven or gone');
      else if (now.isIdle) {
        await this.#resolve(known, 'idle');
        this.#idle.add(known.uid);
      } else continue;
      this.#standing.delete(known.uid);
    }
    return fresh;
  }

  async #resolve({ index, object }: Standing, how: 'proven or gone' | 'idle' | 'changed'): Promise<void> {
    await this.#ledger.record(
      { type: 'content.resolved', environment: this.#environment, object, found: index, how },
      [],
    );
  }

  #read(): Map<string, Standing> {
    const ended = new Map(
      this.#ledger.all('content.resolved', this.#environment).map(({ entry }) => [entry.found, entry.how]),
    );
    const standing = new Map<string, Standing>();
    for (const { index, entry } of this.#ledger.all('content.unproven', this.#environment)) {
      const { uid, reason, object } = entry;
      const how = ended.get(index);
      if (how === undefined) standing.set(uid, { index, uid, reason, object });
      if (how === 'idle') this.#idle.add(uid);
    }
    return standing;
  }

  #isConfirmed(now: { ref: ObjectRef; uid: string; version: string; reason: string; lateMs: number }): boolean {
    const moment = this.#clock().getTime();
    const { ref, uid, version, reason, lateMs } = now;
    const before = this.#doubts.get(refKey(ref));
    const doubt: Doubt =
      before?.uid === uid ? before : { ref, uid, since: moment, reasons: new Map(), proven: this.#earlier.get(uid) };
    this.#doubts.set(refKey(ref), doubt);
    const first = doubt.reasons.get(reason) ?? moment;
    if (doubt.reasons.size < MAX_REASONS) doubt.reasons.set(reason, first);
    const isAsProven = version !== '' && doubt.proven === version;
    return moment - first >= (isAsProven ? RESTLESS_MS : lateMs) || moment - doubt.since >= RESTLESS_MS;
  }

  // Made through break-glass: that use is an exception of its own. It must have this content, not only this name.
  #isExcused(object: KubernetesObject): boolean {
    const { apiVersion, kind, metadata } = object;
    const key = refKey({ apiVersion, kind, namespace: metadata.namespace ?? '', name: metadata.name });
    const uses = usesOf(this.#ledger, this.#environment).filter(({ entry }) => refKey(entry.object) === key);
    if (uses.length === 0) return false;
    const content = contentDigest(unbound(object));
    const isStanding = (until: string) => until > this.#clock().toISOString();
    const made = Date.parse(String(metadata['creationTimestamp']));
    return uses.some(({ entry: { operation, subresource = '', until, ...use } }) => {
      // A forged request cannot know the uid of what is made later, and comes too late for what is there.
      const isThis = use.made === metadata['uid'] && Math.abs(Date.parse(use.at ?? use.time) - made) < MADE_MS;
      if (use.content !== undefined)
        return use.content === content && (operation === 'CREATE' ? isThis : isStanding(until));
      return IN_PLACE.has(subresource) && isStanding(until);
    });
  }
}

// Endpoints follow their pods. What has a controller goes a moment after it.
function mayBeLate(object: KubernetesObject): boolean {
  return isEndpoints(object) || (!isPodOrMaker(object) && controllerOf(object) !== undefined);
}

// An unproven object is told with everything that it makes. One without replicas makes nothing, and a reference can
// also lead back to where it began.
function isToldWithOwner(one: Unproven, byUid: ReadonlyMap<string, Unproven>): boolean {
  const passed = new Set([one.uid]);
  let at = byUid.get(one.owner ?? '');
  if (at === undefined || at.isIdle) return false;
  for (; at !== undefined; at = byUid.get(at.owner ?? '')) {
    if (passed.has(at.uid)) return false;
    passed.add(at.uid);
  }
  return true;
}

// A use of these has no content of its own.
const IN_PLACE: ReadonlySet<string> = new Set(['ephemeralcontainers', 'resize']);

// It has a controller, and runs nothing.
function isIdle(object: KubernetesObject): boolean {
  const { replicas } = (object['spec'] ?? {}) as { replicas?: unknown };
  const { replicas: running = 0 } = (object['status'] ?? {}) as { replicas?: unknown };
  return object.kind === 'ReplicaSet' && controllerOf(object) !== undefined && replicas === 0 && running === 0;
}
