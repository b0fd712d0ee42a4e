import type { Configuration } from '../config/index.ts';
import { CountersignError, type Environment } from '../model/index.ts';

/**
 * Returns the configuration of a service in the named cluster: with the environments that name it, or name none.
 * Without a name, all environments are kept. Throws `config-invalid` if two of them name different clusters, and the
 * same connection leads to both: one of the names would be wrong.
 */
export function ofCluster(configuration: Configuration, cluster: string | undefined): Configuration {
  const environments = configuration.environments.filter(
    ({ spec }) => cluster === undefined || spec.target.cluster === undefined || spec.target.cluster === cluster,
  );
  refuseTwoNames(environments);
  return { ...configuration, environments };
}

function refuseTwoNames(environments: readonly Environment[]): void {
  const byConnection = new Map<string, Environment>();
  for (const environment of environments) {
    const { cluster, kubeconfig, context } = environment.spec.target;
    if (cluster === undefined) continue;
    const connection = JSON.stringify([kubeconfig, context]);
    const other = byConnection.get(connection) ?? environment;
    byConnection.set(connection, other);
    if (other.spec.target.cluster === cluster) continue;
    throw new CountersignError(
      'config-invalid',
      `\`${other.metadata.name}\` is in the cluster \`${other.spec.target.cluster}\` and ` +
        `\`${environment.metadata.name}\` in \`${cluster}\`, but the same connection leads to both`,
      { hint: 'say with --cluster in which one this service runs, or give each its own `spec.target.kubeconfig`' },
    );
  }
}
