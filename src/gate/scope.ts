import { type Environment, type RenderedObject, refText, type Violation, type ViolationCode } from '../model/index.ts';

/**
 * Refuses an object outside of the namespaces and cluster-scoped kinds of its environment; nothing else in a commit
 * reaches the cluster.
 */
export function outOfScope(environment: Environment, { ref, source, lineOf }: RenderedObject): Violation[] {
  const { namespaces, clusterScoped } = environment.spec.target;
  const refuse = (code: ViolationCode, message: string, hint: string): Violation[] => [
    { object: ref, source: { file: source.file, line: lineOf(['metadata', 'namespace']) }, code, message, hint },
  ];
  if (ref.namespace === '' && !clusterScoped.includes(ref.kind))
    return refuse(
      'kind-not-governed',
      `${refText(ref)} has no namespace, but the only cluster-scoped ` +
        `kinds this environment may own are ${clusterScoped.join(', ')}`,
      'add `metadata.namespace`, or the kind to `spec.target.clusterScoped`',
    );
  const namespace = ref.kind === 'Namespace' && ref.apiVersion === 'v1' ? ref.name : ref.namespace;
  if (namespace === '' || namespaces.includes(namespace)) return [];
  return refuse(
    'namespace-not-governed',
    `${refText(ref)} is outside of this environment’s namespaces ${namespaces.map((n) => `\`${n}\``).join(', ')}`,
    'move it, or add the namespace to `spec.target.namespaces`',
  );
}
