import { Cluster, connect } from '../cluster/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import { learnInjection } from '../machinery/index.ts';
import { CountersignError, type KubernetesObject } from '../model/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import { printYaml } from '../yaml/index.ts';
import type { AdmissionLearnOptions } from './admission-commands.ts';

/**
 * Implements `countersign admission learn`: prints the declaration of what is injected into the pods of namespaces.
 * Exit code 0 if it covers all of them, 1 if not, 2 if there are none.
 */
export async function admissionLearn(
  options: AdmissionLearnOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const place = { kubeconfig: options.kubeconfig ?? settings.kubeconfig, context: options.context };
  const { server, user } = await connect({ ...place, namedBy: 'operator' });
  const silent = { warn: () => {} };
  const cluster = new Cluster(server, user, '', silent);
  try {
    const facts = cluster.lineage(options.namespace, silent);
    const pods: KubernetesObject[] = [];
    for (const namespace of options.namespace) pods.push(...(await facts.list('v1', 'Pod', namespace)));
    const learned = await learnInjection(options.name, pods, facts);
    const where = options.namespace.map(plain).join(', ');
    if (learned.pods === 0)
      throw new CountersignError('usage', `no pod in ${where} has a controller with a template`, {
        hint: 'name a namespace in which such pods run',
      });
    const count = `${learned.pods} ${learned.pods === 1 ? 'pod' : 'pods'}`;
    if (learned.declaration === undefined) io.out(`# nothing is injected into the ${count} in ${where}\n`);
    else {
      io.out(`# ${count} in ${where}; for spec.admission of an Environment\n`);
      io.out(printYaml({ injected: [learned.declaration] }));
    }
    for (const { pod, reason } of learned.uncovered)
      io.err(`${paint(io, 'yellow', 'not covered:')} pod \`${plain(pod)}\`: ${plain(reason)}\n`);
    return learned.uncovered.length === 0 ? EXIT.yes : EXIT.no;
  } finally {
    cluster.close();
  }
}
