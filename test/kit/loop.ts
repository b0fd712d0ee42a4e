import { type Gate, rememberedState } from '../../src/gate/index.ts';
import type { EntryBody, EntryOf, EntryType, Environment, EvidenceRef, Told } from '../../src/model/index.ts';
import { untraced } from '../../src/model/index.ts';
import { type Peers, type ReconcilePorts, Reconciler, type Step } from '../../src/reconcile/index.ts';
import { trustDocument } from './documents.ts';
import { FakeCluster } from './fake-cluster.ts';
import { Fleet, type Person, sshPerson } from './fleet.ts';
import { gateOf } from './judge.ts';
import { memoryRecorder } from './memory-recorder.ts';

/** A signed history that all loops of a test file share. */
export type History = {
  readonly fleet: Fleet;
  readonly people: readonly [Person, Person];
  /** Commits that the loop reads below `clusters/production`; gives the id. */
  readonly commit: (message: string, files: Readonly<Record<string, string | undefined>>) => string;
  readonly push: () => void;
  /** The gate over it. It is closed after the test, or the file, that the history was made in. */
  readonly gate: Gate;
};

/** Starts a history by the first of two people, either of whom may commit without approvals. */
export async function signedHistory(directory: string, name = 'history'): Promise<History> {
  const [dana, lee] = [sshPerson(directory, `dana-${name}`), sshPerson(directory, `lee-${name}`)];
  const fleet = new Fleet(directory, name);
  fleet.remote(fleet.bare);
  const gate = await gateOf(fleet, [dana, lee], { trust: trustDocument([dana, lee], { required: 0 }) });
  const under = (files: Readonly<Record<string, string | undefined>>) =>
    Object.fromEntries(Object.entries(files).map(([path, text]) => [`clusters/production/${path}`, text]));
  return {
    fleet,
    people: [dana, lee],
    commit: (message, files) => fleet.commit(dana, message, under(files)),
    push: () => fleet.push(),
    gate,
  };
}

/** A crash of the process at a step, for tests that start another loop on the same ledger. */
export class Crash extends Error {}

type LoopOptions = {
  readonly spec?: Partial<Environment['spec']>;
  readonly peers?: Peers;
  readonly name?: string;
};

/** One environment's loop on a real gate, with a ledger in memory and a cluster, a branch and a clock that the test moves. */
export class Loop {
  readonly cluster: FakeCluster;
  readonly told: Told[] = [];
  readonly name: string;
  now: Date;
  tip = '';
  approvals = '';
  crashAt: Step | undefined;
  /** Runs before a change is judged. */
  judging: () => Promise<void> = async () => {};
  reconciler: Reconciler;
  readonly #make: () => Reconciler;
  readonly #all: <T extends EntryType>(type: T) => readonly EntryOf<T>[];
  readonly #record: (body: EntryBody) => Promise<unknown>;
  /** Returns the evidence of an entry. */
  readonly evidence: (ref: EvidenceRef | undefined) => unknown;

  private constructor(parts: {
    readonly name: string;
    readonly cluster: FakeCluster;
    readonly now: Date;
    readonly make: (loop: Loop) => Reconciler;
    readonly all: Loop['entries'];
    readonly record: (body: EntryBody) => Promise<unknown>;
    readonly evidence: Loop['evidence'];
  }) {
    this.name = parts.name;
    this.cluster = parts.cluster;
    this.now = parts.now;
    this.#all = parts.all;
    this.#record = parts.record;
    this.evidence = parts.evidence;
    this.#make = () => parts.make(this);
    this.reconciler = this.#make();
  }

  static open(history: History, options: LoopOptions = {}): Loop {
    const name = options.name ?? 'production';
    const cluster = new FakeCluster();
    const start = new Date('2030-01-01T11:00:00Z');
    let loop: Loop | undefined;
    const clock = () => loop?.now ?? start;
    const recorder = memoryRecorder(clock);
    const base = history.gate;
    const spec = { ...base.environment.spec, ...options.spec };
    const environment = { ...base.environment, metadata: { ...base.environment.metadata, name }, spec };
    const gate = { ...base, recorder, clock, environment };
    const quiet = { info: () => {}, warn: () => {}, error: () => {} };
    loop = new Loop({
      name,
      cluster,
      now: start,
      all: (type) => recorder.all(type, name).map((r) => r.entry),
      record: (body) => recorder.record(body, []),
      evidence: (ref) => (ref === undefined ? undefined : recorder.evidence(ref)),
      make: (made) => {
        const ports: ReconcilePorts = {
          environment,
          cluster,
          ledger: recorder,
          state: rememberedState(recorder, name),
          log: quiet,
          clock,
          turns: gate.turns,
          look: async () => ({ tip: made.tip, approvals: made.approvals }),
          tell: (told) => made.told.push(told),
          trace: untraced,
          turn: async (task) => {
            await made.judging();
            return task();
          },
          onStep: (step) => {
            if (made.crashAt !== step) return;
            made.crashAt = undefined;
            throw new Crash(step);
          },
        };
        return new Reconciler(gate, ports, options.peers);
      },
    });
    return loop;
  }

  get status() {
    return this.reconciler.status;
  }

  entries<T extends EntryType>(type: T): readonly EntryOf<T>[] {
    return this.#all(type);
  }

  /** Puts an entry on the ledger, as another door of the service would. */
  async record(body: EntryBody): Promise<void> {
    await this.#record(body);
  }

  /** Looks once, with the branch at a commit. */
  async at(tip: string): Promise<void> {
    this.tip = tip;
    await this.reconciler.pass();
  }

  /** Ends this process in mind and starts another on the same ledger and cluster. */
  restart(): void {
    this.reconciler = this.#make();
  }
}
