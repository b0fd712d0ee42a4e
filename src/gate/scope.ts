import {
  type ClusterScope,
  clusterScopes,
  type Environment,
  INSTALLED,
  isInScope,
  isInstallation,
  isOfKind,
  type RenderedObject,
  refText,
  scopeText,
  type Violation,
  type ViolationCode,
} from '../model/index.ts';
import { kindText, type ScopeOf, withoutNamespace } from './place-objects.ts';

/**
 * Refuses an object outside of the namespaces and cluster-scoped objects of its environment; nothing else in a commit
 * reaches the cluster.
 */
export function outOfScope(environment: Environment, object: RenderedObject, scopeOf: ScopeOf): Violation[] {
  const { ref } = object;
  const unplaced = withoutNamespace(object, scopeOf, howToPlace(environment));
  if (unplaced !== undefined) return [{ ...unplaced, hint: unplaced.hint + otherwise(unplaced) }];
  const { namespaces, clusterScoped } = environment.spec.target;
  const outside = ref.namespace === '' ? outOfClusterScope(object, clusterScopes(clusterScoped)) : undefined;
  if (outside !== undefined) return [outside];
  const namespace = ref.kind === 'Namespace' && ref.apiVersion === 'v1' ? ref.name : ref.namespace;
  if (namespace === '' || namespaces.includes(namespace)) return [];
  return [
    refuse(
      object,
      'namespace-not-governed',
      `${refText(ref)} is outside of this environment’s namespaces ${namespaces.map(quoted).join(', ')}`,
      'move it, or add the namespace to `spec.target.namespaces`',
    ),
  ];
}

function howToPlace({ metadata, spec }: Environment): string {
  const target = `or \`spec.target.namespace\` of the Environment \`${metadata.name}\``;
  return spec.render.with === 'kustomize' ? `\`namespace\` in the kustomization, ${target}` : target;
}

function otherwise({ code, object }: Violation): string {
  if (code !== 'scope-unknown' || object === undefined) return '';
  return `; if it is cluster-scoped, add \`${kindText(object)}\` to \`spec.target.clusterScoped\``;
}

function outOfClusterScope(object: RenderedObject, scopes: readonly ClusterScope[]): Violation | undefined {
  const { ref } = object;
  const ofKind = scopes.filter((scope) => isOfKind(scope, ref));
  const code = 'kind-not-governed';
  if (ofKind.length === 0)
    return refuse(
      object,
      code,
      `${refText(ref)} is cluster-scoped, and ` +
        (scopes.length === 0
          ? 'this environment may own no cluster-scoped object'
          : 'the only cluster-scoped objects this environment may own are ' +
            scopes.map(scopeText).map(quoted).join(', ')),
      `remove it, or add \`${ref.kind}\` to \`spec.target.clusterScoped\``,
    );
  const naming = ofKind.filter((scope) => isInScope(scope, ref));
  const where = `\`names\` of \`${ref.kind}\` in \`spec.target.clusterScoped\``;
  if (naming.length === 0)
    return refuse(
      object,
      code,
      `${refText(ref)} is not among the ${ref.kind} names that this environment may own: ` +
        ofKind.flatMap((scope) => scope.names.map(quoted)).join(', '),
      `rename it, or add its name to ${where}`,
    );
  // Rights over a kind must not become rights over the gate by the way.
  if (isInstallation(ref) && !naming.some((scope) => scope.names.some((name) => name.includes(INSTALLED))))
    return refuse(
      object,
      code,
      `${refText(ref)} is part of Countersign’s own installation, which this environment does not name`,
      `remove it, or let the environment that installs Countersign name it: add \`${ref.name}\` to ${where}`,
    );
  return undefined;
}

function refuse(
  { ref, source, lineOf }: RenderedObject,
  code: ViolationCode,
  message: string,
  hint: string,
): Violation {
  return { object: ref, source: { file: source.file, line: lineOf(['metadata', 'namespace']) }, code, message, hint };
}

function quoted(text: string): string {
  return `\`${text}\``;
}
