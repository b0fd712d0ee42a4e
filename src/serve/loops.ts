import { join, resolve } from 'node:path';
import { type Cluster, healthExpressions, stages } from '../cluster/index.ts';
import { type Gate, type KnownFile, rememberedState, SealedSecrets } from '../gate/index.ts';
import {
  APPROVALS_REF,
  openRepository,
  type Repository,
  RunBeside,
  redactUrl,
  sourceRef,
  sourceRepository,
} from '../git/index.ts';
import {
  CountersignError,
  type Environment,
  Recent,
  type RenderedObject,
  refKey,
  sha256,
  type Told,
  Turns,
} from '../model/index.ts';
import { decrypting, gitProgram, openGate, openRendering, SharedRules, sourceAccess } from '../open/index.ts';
import { type ReconcilePorts, Reconciler } from '../reconcile/index.ts';
import { KnownHistory } from '../trust/index.ts';
import { atMost } from './at-most.ts';
import { BranchNews } from './branch-news.ts';
import { type Hold, whileHeld } from './hold.ts';
import { type ClusterLink, linkOf, type Serving } from './open-serving.ts';
import type { ServeHooks } from './options.ts';

/** An environment with its gate and its repository. */
export type OpenGate = {
  readonly environment: Environment;
  readonly gate: Gate & { readonly recorder: NonNullable<Gate['recorder']> };
  readonly repository: Repository;
  /**
   * Fetches the branch and the approvals, unless that was begun since a moment (`performance.now()`); environments on
   * one branch share it. Returns what they point to now. Throws `git-ref-missing` and the errors of `fetch`.
   */
  readonly look: (since: number) => Promise<{ readonly tip: string; readonly approvals: string }>;
  /** Calls back when a fetch, by any environment, brings a tip with changes below this environment's directory. */
  readonly onChanges: (wake: () => void) => void;
};

/** Opens the gates of all environments, including those run elsewhere: admission covers each of them. */
export async function openGates(
  { configuration, recorder, options, settings, closing, clock, ledger, log }: Serving,
  turns = new Turns(),
): Promise<readonly OpenGate[]> {
  const shared = new SharedRules();
  const rendering = openRendering(settings, join(resolve(options.data), 'rendered'), (line) => log.warn({}, line));
  closing.push(rendering.close);
  const repositories = new Map<string, Repository>();
  const sources = new Map<string, ReturnType<typeof sourceRepository>>();
  const branches = new Map<string, BranchNews>();
  const program = gitProgram(settings);
  const once = sharing<{ readonly tip: string; readonly approvals: string }>();
  const beside = new RunBeside();
  closing.push(() => beside.close());
  return Promise.all(
    configuration.environments.map(async (environment) => {
      const { url, branch } = environment.spec.source;
      const directory = join(resolve(options.data), 'git', sha256(`${url} ${branch}`).slice(0, 16));
      const repository =
        repositories.get(directory) ??
        openRepository(directory, program === undefined ? undefined : { ...program, run: beside.run });
      if (!repositories.has(directory)) closing.push(() => repository.close());
      repositories.set(directory, repository);
      const source = sources.get(directory) ?? sourceRepository(repository, turns);
      sources.set(directory, source);
      const opened = await openGate(configuration, environment, source, () => new Date(), {
        git: program,
        shared,
        ...rendering,
        untrusted: 'refused',
        turns,
      });
      closing.push(opened.close);
      const gate: OpenGate['gate'] = {
        ...opened.gate,
        recorder,
        clockOffset: () => clock.offset(ledger),
        known: new KnownHistory(),
        rendered: new Recent<KnownFile>(1000),
        findings: new Recent(1000),
      };
      const access = sourceAccess(environment.spec.source.credentials);
      const news = branches.get(directory) ?? new BranchNews(source);
      branches.set(directory, news);
      const look: OpenGate['look'] = (since) =>
        once(directory, since, async () => {
          const found = await fetched(repository, environment.spec.source, access);
          await news.isAt(found.tip);
          return found;
        });
      const onChanges: OpenGate['onChanges'] = (wake) => news.listen(environment.spec.source.path, wake);
      return { environment, gate, repository, look, onChanges };
    }),
  );
}

type Running = {
  readonly atOnce?: () => number;
  /** This replica's Leases, by environment. */
  readonly holds?: ReadonlyMap<string, Hold>;
};

async function fetched(
  repository: Repository,
  { url, branch }: Environment['spec']['source'],
  access: ReturnType<typeof sourceAccess>,
): Promise<{ readonly tip: string; readonly approvals: string }> {
  await repository.fetch(url, branch, await access());
  const tip = await repository.resolve(sourceRef(branch));
  if (tip === undefined)
    throw new CountersignError('git-ref-missing', `\`${redactUrl(url)}\` has no branch \`${branch}\``, {
      recover: 'retry',
    });
  return { tip, approvals: (await repository.resolve(APPROVALS_REF)) ?? '' };
}

/** Opens a loop for each environment this service runs, with its view of the cluster. */
export function openLoops(
  { configuration, links, recorder, options, log, metrics, notifications, trace, closing, clock: witness }: Serving,
  gates: readonly OpenGate[],
  clusters: ReadonlyMap<ClusterLink, Cluster>,
  hooks: ServeHooks,
  { atOnce, holds = new Map() }: Running = {},
): Reconciler[] {
  const turn = atMost(JUDGED_AT_ONCE);
  const loops = new Map<string, Reconciler>();
  const secrets = new SealedSecrets(recorder);
  const wanted = new Set(selected(configuration.environments, options.selector));
  for (const { environment, gate, look, onChanges } of gates.filter((g) => wanted.has(g.environment))) {
    const cluster = clusters.get(linkOf(links, environment.metadata.name)) as Cluster;
    const port = Object.assign(cluster, { stages });
    const state = rememberedState(recorder, environment.metadata.name);
    const isApplied = ({ ref, digest }: RenderedObject) => state().owned.get(refKey(ref))?.rendered === digest;
    const ports: ReconcilePorts = {
      environment,
      cluster: environment.spec.decryption === undefined ? port : decrypting(port, environment, { secrets, isApplied }),
      ledger: recorder,
      state,
      log,
      clock: () => witness.now(),
      turns: gate.turns,
      look,
      turn,
      atOnce,
      trace,
      tell: teller(metrics, notifications, cluster),
      took: (kind, seconds) => metrics.took(environment.metadata.name, kind, seconds),
      ...(hooks.onStep === undefined ? {} : { onStep: hooks.onStep }),
    };
    const hold = holds.get(environment.metadata.name);
    const held = hold === undefined ? ports : whileHeld(ports, hold);
    const asking: Gate = { ...gate, servedScope: (kind) => cluster.scopeOf(kind) };
    const loop = new Reconciler(asking, held, (name) => loops.get(name)?.status);
    cluster.listen(
      environment.metadata.name,
      () => loop.stir(),
      healthExpressions(environment.spec.health.expressions),
    );
    onChanges(() => loop.hurry());
    loops.set(environment.metadata.name, loop);
  }
  closing.push(() => {
    for (const cluster of clusters.values()) cluster.view.close();
  });
  return [...loops.values()];
}

/** Distributes events: metrics, notifications, and Kubernetes Events on the objects. */
export function teller(
  metrics: Serving['metrics'],
  notifications: Serving['notifications'],
  cluster: Cluster,
): (told: Told) => void {
  return (told) => {
    metrics.happened(told.environment, told.event);
    notifications.tell(told);
    cluster.events.tell(told);
  };
}

// Returns the environments that have all the requested labels.
function selected(environments: readonly Environment[], selector: string | undefined): readonly Environment[] {
  const pairs = parseSelector(selector);
  const found = environments.filter(({ metadata }) => pairs.every(([key, value]) => metadata.labels?.[key] === value));
  if (found.length === 0) throw new CountersignError('usage', `no environment has the labels \`${selector}\``);
  return found;
}

/** Parses the labels of `--selector`. Throws `usage`. */
export function parseSelector(selector: string | undefined): readonly (readonly [string, string | undefined])[] {
  const wanted = (selector ?? '').split(',').filter((part) => part !== '');
  const pairs = wanted.map((part) => part.split('=') as [string, string | undefined]);
  const wrong = pairs.find(([key, value, ...more]) => key === '' || value === undefined || more.length > 0);
  if (wrong !== undefined)
    throw new CountersignError('usage', `\`${selector}\` selects nothing`, {
      hint: 'give labels as `key=value`, separated by commas',
    });
  return pairs;
}

const JUDGED_AT_ONCE = 4; // more would only compete for cores, and each holds its objects meanwhile (Flux 685)

// Environments on one branch share a fetch if it is recent enough.
function sharing<T>(): (key: string, since: number, task: () => Promise<T>) => Promise<T> {
  const newest = new Map<string, { readonly begun: number; readonly done: Promise<T> }>();
  return (key, since, task) => {
    const last = newest.get(key);
    if (last !== undefined && last.begun >= since) return last.done;
    // One after the other: two concurrent fetches would wait for each other's locks.
    const begun = performance.now();
    const done = (last?.done ?? Promise.resolve()).then(task, task);
    const mine = { begun, done };
    newest.set(key, mine);
    done.catch(() => {
      if (newest.get(key) === mine) newest.delete(key); // the next caller tries again
    });
    return done;
  };
}
