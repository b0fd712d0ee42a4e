import { type EnvironmentState, type Gate, usesOf } from '../gate/index.ts';
import {
  ANNOTATION,
  type Comparison,
  CountersignError,
  contentDigest,
  type EntryOf,
  inParallel,
  type ObjectRef,
  type OwnedObject,
  type Recorded,
  type RenderedObject,
  refKey,
} from '../model/index.ts';
import { applyRevision, named } from './apply-revision.ts';
import { DriftGuard } from './drift-guard.ts';
import { isExact, type Scaled, scaledBy } from './exact.ts';
import type { LastGood } from './last-good.ts';
import type { ReconcilePorts } from './ports.ts';
import type { Standing } from './standing.ts';

type Use = Recorded<EntryOf<'breakglass.used'>>;

/** Uses of break-glass whose time is not over, by object, and objects whose time is over, with the ledger entry. */
type BreakGlassUses = {
  readonly standing: ReadonlyMap<string, readonly Use[]>;
  readonly over: ReadonlyMap<string, number>;
};
type Drifted = { readonly owned: OwnedObject; readonly found: Comparison };

const DETAILED = 20;

/** Finds objects that differ from Git, reverts them if the environment says so, and records all of it. */
export class Drift {
  readonly #gate: Gate;
  readonly #ports: ReconcilePorts;
  readonly #standing: Standing;
  readonly #lastGood: LastGood;
  readonly #guard = new DriftGuard();
  // Live digests that differ from the recorded ones only in fields owned by others.
  readonly #foreign = new Map<string, string>();
  #reported = '';

  constructor(gate: Gate, ports: ReconcilePorts, standing: Standing, lastGood: LastGood) {
    this.#gate = gate;
    this.#ports = ports;
    this.#standing = standing;
    this.#lastGood = lastGood;
  }

  get #name(): string {
    return this.#gate.environment.metadata.name;
  }

  get #spec() {
    return this.#gate.environment.spec.drift;
  }

  /** Whether something is known to differ from Git. */
  get stands(): boolean {
    return this.#reported !== '';
  }

  /** Resets contests and knowledge about foreign fields for a new revision. */
  forget(): void {
    this.#foreign.clear();
    this.#guard.forget();
  }

  /** Called after the last good revision was written again: foreign fields are examined again. */
  restored(): void {
    this.#foreign.clear();
  }

  /** Checks what the watches know, records differences from Git, and reverts them. */
  async putRight(): Promise<void> {
    const state = this.#ports.state();
    if (state.open !== undefined || state.inventory.objects.length === 0) return;
    const glass = await this.#breakGlass();
    const drifted = await this.#find(state, glass);
    if (drifted.length === 0) {
      if (this.#reported !== '') {
        this.#reported = '';
        this.#standing.atRest();
      }
      return;
    }
    const refs = drifted.map((d) => d.owned.ref);
    const now = performance.now();
    if (!this.#isKnownDrift(refs)) await this.#recordDrift(state, drifted, glass);
    if (this.#spec.mode === 'report') {
      this.#reported = named(refs);
      this.#standing.report('drifted', `differs from Git: ${this.#reported}`);
      return;
    }
    const free = drifted.filter(
      ({ owned }) => this.#guard.allows(refKey(owned.ref), now) || glass.over.has(refKey(owned.ref)),
    );
    const stays = free.length === 0 ? [] : await this.#correct(state, free, glass, now);
    if (stays.length > 0) {
      this.#reported = named(stays.flatMap((s) => s.refs));
      this.#standing.report('drifted', `cannot be reverted: ${stays[0]?.error ?? this.#reported}`);
    }
    const heldBack = refs.filter((ref) => !free.some(({ owned }) => owned.ref === ref));
    if (heldBack.length === 0) return;
    this.#reported = named(heldBack);
    this.#standing.report(
      'drifted',
      `someone keeps changing objects in Git, so they are reverted less often: ${this.#reported}`,
    );
  }

  /** Returns the milliseconds until an object held back in a contest may be reverted. */
  msUntilNext(): number {
    if (this.#reported === '') return Number.POSITIVE_INFINITY;
    const now = performance.now();
    const next = this.#guard.nextAt([...this.#ports.state().owned.keys()], now);
    return next === undefined ? Number.POSITIVE_INFINITY : next - now;
  }

  // Returns what could not be corrected, and why.
  async #correct(
    state: EnvironmentState,
    drifted: readonly Drifted[],
    glass: BreakGlassUses,
    now: number,
  ): Promise<readonly { readonly refs: readonly ObjectRef[]; readonly error: string | undefined }[]> {
    const refs = drifted.map((d) => d.owned.ref);
    const revision = await this.#lastGood.at(state);
    for (const ref of refs) if (glass.over.has(refKey(ref))) await this.#ports.cluster.takeOver(ref);
    const applied = await applyRevision(revision, 'correct', this.#ports, { force: new Set(refs.map(refKey)) });
    if (applied.outcome === 'failed') {
      await this.#lastGood.restore();
      this.restored();
    }
    // One object that cannot be corrected must not keep the others as they are.
    if (applied.outcome === 'refused' && drifted.length > 1) {
      const half = Math.ceil(drifted.length / 2);
      return [
        ...(await this.#correct(state, drifted.slice(0, half), glass, now)),
        ...(await this.#correct(this.#ports.state(), drifted.slice(half), glass, now)),
      ];
    }
    if (applied.outcome !== 'applied') return [{ refs, error: applied.error }];
    const before = new Set(refs.filter((r) => this.#guard.isContested(refKey(r))).map(refKey));
    for (const ref of refs) this.#guard.corrected(refKey(ref), now);
    await this.#recordCorrected(refs);
    const contested = drifted.filter(
      ({ owned: { ref } }) => this.#guard.isContested(refKey(ref)) && !before.has(refKey(ref)),
    );
    if (contested.length > 0) await this.#tellContest(state, contested);
    return [];
  }

  // Read again: only what is as in Git now was corrected.
  async #recordCorrected(refs: readonly ObjectRef[]): Promise<void> {
    const { ledger, log } = this.#ports;
    const state = this.#ports.state();
    const left = await this.#compareAll(
      refs.flatMap((ref) => state.owned.get(refKey(ref)) ?? []).filter((o) => o.live === undefined),
      state,
    );
    const remains = left.filter(({ found }) => found.kind !== 'same');
    const result = ledger.latest(['apply.result'], this.#name)?.index ?? 0;
    const about = { environment: this.#name, revision: state.revision, result };
    if (remains.length > 0) {
      const objects = remains.map((r) => r.owned.ref);
      const details = remains.slice(0, DETAILED).map(({ owned, found }) => ({
        object: owned.ref,
        fields: found.kind === 'different' ? found.fields.map((f) => f.slice(0, 200).toWellFormed()) : [],
      }));
      await ledger.record({ type: 'drift.remains', ...about, objects: objects.slice(0, 100), details }, []);
      this.#reported = named(objects);
      log.error(
        { environment: this.#name, objects: named(objects), fields: details[0]?.fields.slice(0, 5) },
        'differs from Git although it was reverted: something writes it at once, or it cannot be replaced',
      );
      this.#standing.report('drifted', `differs from Git although it was reverted: ${this.#reported}`);
    } else if (this.#reported !== '') {
      this.#reported = '';
      this.#standing.atRest();
    }
    const corrected = refs.filter((ref) => !remains.some((r) => refKey(r.owned.ref) === refKey(ref)));
    if (corrected.length === 0) return;
    await ledger.record({ type: 'drift.corrected', ...about, objects: corrected.slice(0, 100) }, []);
    log.info({ environment: this.#name, objects: named(corrected) }, 'drift reverted');
    this.#standing.tell('corrected', named(corrected), state.revision, corrected);
  }

  async #tellContest(state: EnvironmentState, contested: readonly Drifted[]): Promise<void> {
    const objects = contested.map((d) => d.owned.ref).slice(0, 100);
    const managers = [...new Set(contested.map(({ found }) => writerOf(found)?.manager ?? ''))]
      .filter((m) => m !== '')
      .slice(0, 20);
    await this.#ports.ledger.record(
      { type: 'drift.contested', environment: this.#name, revision: state.revision, objects, managers },
      [],
    );
    this.#ports.log.error(
      { environment: this.#name, objects: named(objects), managers },
      'someone keeps changing objects in Git: they are reverted less and less often until that stops',
    );
    this.#standing.tell(
      'contested',
      `${named(objects)}, by ${managers.join(', ') || 'an unknown manager'}`,
      state.revision,
      objects,
    );
  }

  async #recordDrift(state: EnvironmentState, drifted: readonly Drifted[], { over }: BreakGlassUses): Promise<void> {
    const details = drifted.slice(0, DETAILED).map(({ owned, found }) => {
      const writer = writerOf(found);
      const fields = found.kind === 'different' ? found.fields : [];
      // Keys of a Secret are not secret; names below them are not reported either.
      const admission = over.get(refKey(owned.ref));
      return {
        object: owned.ref,
        fields: fields.map((f) => f.slice(0, 200).toWellFormed()),
        manager: writer?.manager ?? '',
        at: writer?.time ?? '',
        ...(admission === undefined ? {} : { admission }),
      };
    });
    const objects = drifted.map((d) => d.owned.ref);
    await this.#ports.ledger.record(
      {
        type: 'drift.found',
        environment: this.#name,
        revision: state.revision,
        objects: objects.slice(0, 100),
        details,
      },
      [],
    );
    const by = [...new Set(details.map((d) => d.manager))].filter((m) => m !== '');
    this.#ports.log.warn(
      {
        environment: this.#name,
        objects: named(objects),
        fields: details[0]?.fields.slice(0, 5),
        ...(by.length === 0 ? {} : { by }),
      },
      'drift found',
    );
    this.#standing.tell(
      'drift',
      `${named(objects)}${by.length === 0 ? '' : `, by ${by.join(', ')}`}`,
      state.revision,
      objects,
    );
  }

  // Drift that could not be reverted at the last check is already on the ledger, and is not recorded again at every
  // check.
  #isKnownDrift(drifted: readonly ObjectRef[]): boolean {
    const last = this.#ports.ledger.latest(['drift.found', 'apply.result'], this.#name);
    return (
      last?.entry.type === 'drift.found' &&
      last.entry.objects.map(refKey).join() === drifted.slice(0, 100).map(refKey).join()
    );
  }

  // The watches know every digest; only differences from the recorded ones are examined more closely.
  async #find(state: EnvironmentState, { standing, over }: BreakGlassUses): Promise<Drifted[]> {
    const { cluster } = this.#ports;
    const suspects = state.inventory.objects.filter((o) => {
      const key = refKey(o.ref);
      const digest = cluster.live(o.ref)?.digest;
      return (
        o.hook !== 'ran' &&
        cluster.knows(o.ref) &&
        (over.has(key) || (digest !== o.live && (digest === undefined || digest !== this.#foreign.get(key))))
      );
    });
    const drifted: Drifted[] = [];
    for (const { owned, found, rendered } of await this.#compareAll(suspects, state)) {
      const key = refKey(owned.ref);
      if (await this.#isHeld(owned.ref, found, standing.get(key) ?? [])) continue;
      if (over.has(key)) drifted.push({ owned, found });
      // Since it was compared, someone may have written it again.
      else if (found.kind === 'same') this.#foreign.set(key, found.digest);
      else if (!(found.kind === 'missing' && goesByItself(rendered))) drifted.push({ owned, found });
    }
    return drifted.sort((a, b) => (refKey(a.owned.ref) < refKey(b.owned.ref) ? -1 : 1));
  }

  async #compareAll(
    suspects: readonly OwnedObject[],
    state: EnvironmentState,
  ): Promise<(Drifted & { readonly rendered: RenderedObject })[]> {
    if (suspects.length === 0) return [];
    const { objects } = await this.#lastGood.at(state);
    const wanted = new Map(objects.map((o) => [refKey(o.ref), o]));
    const scaled = scaledBy(objects);
    const compared: (Drifted & { readonly rendered: RenderedObject })[] = [];
    await inParallel(suspects, async (owned) => {
      const key = refKey(owned.ref);
      const rendered = wanted.get(key);
      if (rendered === undefined) return;
      compared.push({ owned, rendered, found: await this.#compare(rendered, owned, scaled.get(key)) });
    });
    return compared;
  }

  async #compare(rendered: RenderedObject, owned: OwnedObject, scaled: Scaled | undefined): Promise<Comparison> {
    try {
      return await this.#ports.cluster.compare(rendered, owned, {
        environment: this.#name,
        force: true,
        ignore: this.#spec.ignore,
        exact: isExact(owned.ref, this.#gate.environment),
        ...(scaled === undefined ? {} : { scaled }),
      });
    } catch (thrown) {
      if (!(thrown instanceof CountersignError) || thrown.recover !== 'wait') throw thrown;
      return { kind: 'different', fields: [] }; // an object whose original the API server rejects differs from Git
    }
  }

  // Changes under break-glass stay until the time is over, or the grant is closed. Then the whole object is reverted,
  // including fields added next to ours. The following `drift.found`, and the result after it, show that this was done.
  async #breakGlass(): Promise<BreakGlassUses> {
    const { ledger } = this.#ports;
    const now = this.#ports.clock().toISOString();
    const uses = usesOf(ledger, this.#name);
    const over = new Map(uses.map((r) => [refKey(r.entry.object), r.index]));
    const settled = ledger.latest(['apply.result'], this.#name)?.index ?? -1;
    for (const found of over.size === 0 ? [] : ledger.all('drift.found', this.#name).filter((r) => r.index < settled)) {
      for (const key of found.entry.objects.map(refKey))
        if ((over.get(key) ?? found.index) < found.index) over.delete(key);
    }
    const current = uses.filter((r) => r.entry.until > now);
    const isClosed = await this.#closed(current);
    const standing = Map.groupBy(
      current.filter((use) => !isClosed(use)),
      (use) => refKey(use.entry.object),
    );
    return { standing, over: new Map([...over].filter(([key]) => !standing.has(key))) };
  }

  // Closing counts once the API server no longer has the reason on the Namespace: the request itself can be forged.
  async #closed(uses: readonly Use[]): Promise<(use: Use) => boolean> {
    const closed = this.#ports.ledger.all('breakglass.closed', this.#name);
    const placeOf = ({ entry: { object } }: Use) => (object.kind === 'Namespace' ? object.name : object.namespace);
    const after = (use: Use) => closed.some((c) => c.index > use.index && c.entry.namespaces.includes(placeOf(use)));
    const reasons = new Map<string, string>();
    for (const namespace of new Set(uses.filter(after).map(placeOf))) {
      const ref = { apiVersion: 'v1', kind: 'Namespace', namespace: '', name: namespace };
      reasons.set(
        namespace,
        (await this.#ports.cluster.read(ref))?.metadata.annotations?.[ANNOTATION.breakGlass] ?? '',
      );
    }
    return (use) => after(use) && reasons.get(placeOf(use))?.trim() !== use.entry.reason;
  }

  // An announced write counts only if the API server has it. Different content is drift.
  async #isHeld(ref: ObjectRef, found: Comparison, uses: readonly Use[]): Promise<boolean> {
    if (uses.length === 0) return false;
    const live = await this.#ports.cluster.read(ref);
    const content = live === undefined ? undefined : contentDigest(live);
    return uses.some(({ entry }) => {
      if (entry.operation === 'DELETE') return live === undefined;
      const part = PARTS[entry.subresource ?? ''];
      if (part !== undefined) return found.kind === 'different' && found.fields.every((f) => f.startsWith(part));
      return entry.content === undefined ? entry.subresource === undefined : entry.content === content;
    });
  }
}

// Fields that a subresource writes.
const PARTS: Readonly<Record<string, string>> = {
  scale: '/spec/replicas',
  ephemeralcontainers: '/spec/ephemeralContainers',
  resize: '/spec/containers',
};

function writerOf(found: Comparison): { readonly manager: string; readonly time: string } | undefined {
  return found.kind === 'different' ? found.writer : undefined;
}

// A Job that Kubernetes itself deletes when finished is not missing; created again, it would run again.
function goesByItself({ object }: RenderedObject): boolean {
  return (
    object.kind === 'Job' &&
    (object['spec'] as { ttlSecondsAfterFinished?: unknown } | undefined)?.ttlSecondsAfterFinished !== undefined
  );
}
