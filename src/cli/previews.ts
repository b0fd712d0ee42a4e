import { type ApiServer, Cluster, connect } from '../cluster/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import { placementOf, renderedAt } from '../gate/index.ts';
import { sourceRepository } from '../git/index.ts';
import {
  CountersignError,
  type Environment,
  inParallel,
  type KubernetesObject,
  messageOf,
  type ObjectRef,
  type RenderedObject,
  refKey,
} from '../model/index.ts';
import {
  chooseEnvironment,
  gitProgram,
  openCheckout,
  openConfiguration,
  opener,
  openGate,
  openRendering,
} from '../open/index.ts';
import { isExact, scaledBy } from '../reconcile/index.ts';
import { type Io, paint, plain } from '../terminal/index.ts';
import type { DiffOptions } from './check-commands.ts';

/** An object of Git beside the live one, or why the API server refuses it. */
type Preview = { readonly rendered: RenderedObject } & (
  | { readonly live: KubernetesObject | undefined; readonly wanted: KubernetesObject }
  | { readonly refused: string }
);

/** A revision beside the cluster. */
export type Previewed = {
  readonly environment: Environment;
  readonly commit: string;
  readonly server: ApiServer;
  /** By kind and name. */
  readonly objects: readonly Preview[];
  /** Hooks, which are not compared. */
  readonly hooks: readonly ObjectRef[];
};

/**
 * Compares each object of a revision of a checkout with the cluster, by the API server's own dry run, and passes the
 * result on. Violations are printed as warnings. Throws if the cluster cannot be asked.
 */
export async function withPreviews<T>(
  options: Omit<DiffOptions, 'output'>,
  settings: ProcessSettings,
  io: Io,
  then: (found: Previewed) => Promise<T>,
): Promise<T> {
  const configuration = openConfiguration(options);
  const environment = chooseEnvironment(configuration, options.environment);
  const { target } = environment.spec;
  const { server, user } = await connect({
    kubeconfig: target.kubeconfig ?? options.kubeconfig ?? settings.kubeconfig,
    context: target.context ?? options.context,
    serviceAccount: target.serviceAccount,
    namedBy: target.kubeconfig === undefined ? 'operator' : 'document',
  });
  const checkout = await openCheckout(options.repo, settings);
  const cluster = new Cluster(server, user, '', { warn: () => {} });
  try {
    const commit = await checkout.user.commit(options.revision);
    const rendering = openRendering(settings);
    const { gate, close } = await openGate(
      configuration,
      environment,
      sourceRepository(checkout.repository),
      () => new Date(),
      { git: gitProgram(settings), ...rendering, untrusted: 'rendered' },
    );
    try {
      const { objects: all, violations } = await renderedAt(
        { ...gate, servedScope: (kind) => cluster.scopeOf(kind) },
        commit,
      );
      for (const v of violations) io.err(`${paint(io, 'yellow', 'warning:')} ${plain(v.message)}\n`);
      const objects = all.filter((o) => placementOf(o).hook === undefined);
      const hooks = all.filter((o) => !objects.includes(o)).map((o) => o.ref);
      const found = await previewed(objects, environment, cluster);
      return await then({ environment, commit, server, objects: found, hooks });
    } finally {
      await close();
      rendering.close();
    }
  } finally {
    checkout.repository.close();
    cluster.close();
  }
}

async function previewed(
  objects: readonly RenderedObject[],
  environment: Environment,
  cluster: Cluster,
): Promise<readonly Preview[]> {
  const open = opener(environment);
  const scaling = scaledBy(objects);
  const found: Preview[] = [];
  await inParallel(objects, async (rendered) => {
    const scaled = scaling.get(refKey(rendered.ref));
    const writing = {
      environment: environment.metadata.name,
      ignore: environment.spec.drift.ignore,
      exact: isExact(rendered.ref, environment),
      ...(scaled === undefined ? {} : { scaled }),
    };
    const preview = async () => cluster.preview(await open(rendered), writing);
    found.push({ rendered, ...(await preview().catch(refusal)) });
  });
  return found.sort((a, b) => (refKey(a.rendered.ref) < refKey(b.rendered.ref) ? -1 : 1));
}

// Only an answer about the object is a result; everything else means that the cluster could not be asked.
function refusal(thrown: unknown): { readonly refused: string } {
  if (
    !(thrown instanceof CountersignError) ||
    (thrown.recover !== 'wait' && thrown.code !== 'decryption-failed') ||
    thrown.code === 'cluster-forbidden'
  )
    throw thrown;
  return { refused: messageOf(thrown) };
}
