import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Logger } from 'pino';
import { type Condition, ConfigurationObjects, connect } from '../cluster/index.ts';
import {
  type Configuration,
  type ConfigurationObject,
  keyOfObject,
  loadWithObjects,
  type ProcessSettings,
} from '../config/index.ts';
import { count, messageOf } from '../model/index.ts';
import type { Reconciler, ReconcilerStatus } from '../reconcile/index.ts';
import { ofCluster } from './of-cluster.ts';
import type { ServeOptions } from './options.ts';

/** The configuration of a service, and a signal for when it changes. */
export type Documents = {
  readonly configuration: Configuration;
  /** Aborts once this configuration is outdated. */
  readonly changed: AbortSignal;
  /** Writes the state of these loops into the status of their documents. */
  readonly tellOf: (loops: readonly Reconciler[]) => void;
};

const DESCRIBING: ReadonlySet<string> = new Set(['Environment', 'EnvironmentSet']);
const LOOK_MS = 1000;
const AT_LEAST_MS = 60_000; // between two status writes in which only times changed
const SETTLE_MS = 300; // several documents are often applied together

/**
 * Documents from files, which are fixed while the service runs, and from objects in a cluster, which are followed. An
 * invalid object reports that in its status. Its previous valid version stays in force, even after a restart.
 */
export class ServedDocuments {
  readonly #options: ServeOptions;
  readonly #log: Logger;
  readonly #objects: ConfigurationObjects | undefined;
  readonly #valid: ValidBefore;
  #current: Documents & { readonly change: AbortController };
  #refused: ReadonlyMap<string, string> = new Map();
  #loops: readonly Reconciler[] = [];
  readonly #told = new Map<string, { text: string; times: string; at: number }>();
  #timer: NodeJS.Timeout | undefined;
  #settling: NodeJS.Timeout | undefined;
  #telling: Promise<void> = Promise.resolve();

  private constructor(options: ServeOptions, log: Logger, objects: ConfigurationObjects | undefined) {
    this.#options = options;
    this.#log = log;
    this.#objects = objects;
    this.#valid = new ValidBefore(join(resolve(options.data), 'documents.json'));
    this.#current = this.#made(this.#load());
  }

  /** Throws `config-invalid` for problems in files. Followed objects have all been read once when it resolves. */
  static async open(options: ServeOptions, settings: ProcessSettings, log: Logger): Promise<ServedDocuments> {
    const namespaces = options.configNamespace ?? [];
    if (namespaces.length === 0) return new ServedDocuments(options, log, undefined);
    const { server } = await connect(
      { kubeconfig: options.kubeconfig ?? settings.kubeconfig, context: options.context, namedBy: 'operator' },
      { aside: true },
    );
    const objects = new ConfigurationObjects(server, namespaces, log);
    let self: ServedDocuments | undefined;
    try {
      await objects.begin(() => self?.changed());
      self = new ServedDocuments(options, log, objects);
    } catch (thrown) {
      objects.close();
      throw thrown;
    }
    self.#timer = setInterval(() => self?.tell(), LOOK_MS);
    return self;
  }

  get current(): Documents {
    return this.#current;
  }

  /** Whether documents can arrive later, so that starting without any is not a mistake. */
  get follows(): boolean {
    return this.#objects !== undefined;
  }

  /** Called when a document changed: after a quiet moment, all are read again. */
  changed(): void {
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => {
      try {
        const configuration = this.#load();
        if (configuration.digest !== this.#current.configuration.digest) {
          const before = this.#current;
          this.#current = this.#made(configuration);
          before.change.abort();
        }
      } catch (thrown) {
        this.#log.error({}, `cannot read the documents again, the previous ones stay in force: ${messageOf(thrown)}`);
      }
      this.tell();
    }, SETTLE_MS);
  }

  /** Writes news into the status of the documents. */
  tell(): void {
    this.#telling = this.#telling.then(() => this.#tell()).catch((thrown) => this.#log.warn({}, messageOf(thrown)));
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    clearTimeout(this.#settling);
    await this.#telling;
    this.#objects?.close();
  }

  #made(configuration: Configuration): Documents & { readonly change: AbortController } {
    const change = new AbortController();
    return { configuration, change, changed: change.signal, tellOf: (loops) => this.#tellOf(loops) };
  }

  #tellOf(loops: readonly Reconciler[]): void {
    this.#loops = loops;
    this.tell();
  }

  #load(): Configuration {
    const { config, configFiles, allowCrossNamespace } = this.#options;
    const options = { files: configFiles, crossNamespace: allowCrossNamespace === true };
    const newest: readonly ConfigurationObject[] = this.#objects?.documents ?? [];
    const refused = new Map<string, string>();
    let objects = [...newest];
    for (;;) {
      const { configuration, invalid } = loadWithObjects(config, objects, options);
      // Documents that others need are restored first: with the previous valid TrustPolicy, its environments are valid
      // again.
      const old = (kinds: (kind: string) => boolean) =>
        objects.filter(
          (o) =>
            kinds(o.kind) &&
            invalid.has(keyOfObject(o)) &&
            !refused.has(keyOfObject(o)) &&
            this.#valid.of(o) !== undefined,
        );
      const needed = old((kind) => !DESCRIBING.has(kind));
      const replaced = needed.length > 0 ? needed : old((kind) => DESCRIBING.has(kind));
      for (const o of replaced)
        refused.set(keyOfObject(o), `${invalid.get(keyOfObject(o))?.join('; ')}; the previous version stays in force`);
      if (replaced.length > 0) {
        objects = objects.map((o) => (replaced.includes(o) ? (this.#valid.of(o) as ConfigurationObject) : o));
        continue;
      }
      for (const [key, problems] of invalid) {
        const before = refused.get(key);
        refused.set(key, before ?? problems.join('; '));
        if (this.#refused.get(key) !== refused.get(key))
          this.#log.error({ document: key }, `is not valid: ${refused.get(key)}`);
      }
      this.#refused = refused;
      this.#valid.keep(objects.filter((o) => !invalid.has(keyOfObject(o))));
      return ofCluster(configuration, this.#options.cluster);
    }
  }

  // Its environments are no objects: `countersign status` has each of them.
  #statusOfSet({ namespace, name }: ConfigurationObject, problem: string | undefined): Told {
    const { environmentSets } = this.#current.configuration;
    const names = new Set(environmentSets.find((s) => s.namespace === namespace && s.name === name)?.environments);
    const running = this.#loops.filter((l) => names.has(l.name) && l.status.state !== 'standby');
    const conditions = running.map((l) => ({ name: l.name, condition: statusOf(undefined, l.status).conditions[0] }));
    const unready = conditions.filter(({ condition }) => condition?.status !== 'True');
    const status = { environments: names.size, ready: running.length - unready.length };
    if (problem !== undefined) return { status, times: {}, conditions: [readyCondition('False', 'Invalid', problem)] };
    const [first] = unready;
    const condition =
      first?.condition === undefined
        ? readyCondition('True', 'Healthy', `${count(running.length, 'environment')} applied and healthy`)
        : { ...first.condition, message: `\`${first.name}\`: ${first.condition.message}` };
    return { status, times: {}, conditions: [condition] };
  }

  async #tell(): Promise<void> {
    for (const document of this.#objects?.documents ?? []) {
      const key = keyOfObject(document);
      const problem = this.#refused.get(key);
      const loop =
        document.kind === 'Environment' ? this.#loops.find((l) => l.name === document.name)?.status : undefined;
      if (document.kind === 'Environment' && problem === undefined && (loop === undefined || loop.state === 'standby'))
        continue;
      const { status, times, conditions } =
        document.kind === 'EnvironmentSet' ? this.#statusOfSet(document, problem) : statusOf(problem, loop);
      const text = JSON.stringify([document.generation, status, conditions]);
      const told = this.#told.get(key);
      const isOld = told === undefined || told.text !== text;
      if (!isOld && (told.times === JSON.stringify(times) || performance.now() - told.at < AT_LEAST_MS)) continue;
      if (await (this.#objects as ConfigurationObjects).writeStatus(document, { ...status, ...times }, conditions))
        this.#told.set(key, { text, times: JSON.stringify(times), at: performance.now() });
    }
  }
}

type Told = {
  readonly status: Readonly<Record<string, unknown>>;
  readonly times: Readonly<Record<string, string>>;
  readonly conditions: readonly Condition[];
};

function readyCondition(status: Condition['status'], reason: string, message: string): Condition {
  return { type: 'Ready', status, reason, message };
}

function statusOf(problem: string | undefined, loop: ReconcilerStatus | undefined): Told {
  const times =
    loop === undefined || loop.looked === '' ? {} : { lastCheckTime: loop.looked, nextCheckTime: loop.next };
  const { trouble: _, ...objects } = loop?.health ?? { trouble: [] };
  const status =
    loop === undefined
      ? {}
      : { state: loop.state, lastAppliedRevision: loop.revision, lastAttemptedRevision: loop.tip, objects };
  if (problem !== undefined) return { status, times, conditions: [readyCondition('False', 'Invalid', problem)] };
  if (loop === undefined) return { status, times, conditions: [readyCondition('True', 'Valid', 'in force')] };
  const { progressing, failed, missing, trouble } = loop.health;
  const isWell = loop.state === 'applied' && progressing + failed + missing === 0;
  const reason = `${loop.state.charAt(0).toUpperCase()}${loop.state.slice(1)}`;
  const message = isWell || loop.state !== 'applied' ? loop.message : (trouble[0] ?? loop.message);
  const isUnknown = loop.state === 'starting' || loop.state === 'applying' || loop.state === 'waiting';
  return {
    status,
    times,
    conditions: [
      readyCondition(
        isWell ? 'True' : isUnknown ? 'Unknown' : 'False',
        isWell || loop.state !== 'applied' ? reason : 'Unhealthy',
        message,
      ),
    ],
  };
}

/** The last valid version of each document, kept across restarts: a mistake in one must not disable the gate. */
class ValidBefore {
  readonly #file: string;
  #versions: Readonly<Record<string, ConfigurationObject>>;

  constructor(file: string) {
    this.#file = file;
    try {
      this.#versions = JSON.parse(readFileSync(file, 'utf8')) as Record<string, ConfigurationObject>;
    } catch {
      this.#versions = {}; // none yet
    }
  }

  of(object: ConfigurationObject): ConfigurationObject | undefined {
    const before = this.#versions[keyOfObject(object)];
    return before === undefined || uidOf(before) !== uidOf(object) ? undefined : before;
  }

  /** Keeps the objects now in force; all others are gone. */
  keep(objects: readonly ConfigurationObject[]): void {
    const versions = Object.fromEntries(
      objects.map((o): [string, ConfigurationObject] => {
        const { status: _, ...object } = o.object;
        return [keyOfObject(o), { kind: o.kind, namespace: o.namespace, name: o.name, object }];
      }),
    );
    if (JSON.stringify(versions) === JSON.stringify(this.#versions)) return;
    this.#versions = versions;
    mkdirSync(join(this.#file, '..'), { recursive: true, mode: 0o700 });
    writeFileSync(`${this.#file}.new`, JSON.stringify(versions), { mode: 0o600 });
    renameSync(`${this.#file}.new`, this.#file);
  }
}

function uidOf({ object }: ConfigurationObject): string | undefined {
  return (object['metadata'] as { uid?: string } | undefined)?.uid;
}
