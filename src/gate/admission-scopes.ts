import {
  type AdmissionMode,
  areInOneCluster,
  type ClusterScope,
  clusterScopes,
  isInScope,
  LABEL,
  refKey,
  rulesMode,
  wildcardMatches,
} from '../model/index.ts';
import { type AdmissionDecision, type AdmissionRequest, isIntoNode, namespaceOf } from './admission-request.ts';
import { type AdmissionScope, admit, admitByRules } from './admit.ts';
import { admissible } from './environment-state.ts';

/** Where a request is decided: an environment that governs it, or one whose rules apply there. */
export type Door = {
  readonly environment: string;
  /** Whether undecidable requests are refused. */
  readonly enforces: boolean;
  readonly decide: (request: AdmissionRequest) => Promise<AdmissionDecision>;
  /** Called when the answer that allowed a request did not arrive in time: the request was refused. */
  readonly refused: (request: AdmissionRequest, decision: AdmissionDecision) => void;
};

/** All environments of a service; finds the one for a request. */
export class AdmissionScopes {
  readonly #byNamespace = new Map<string, AdmissionScope>();
  readonly #byName: { readonly scope: AdmissionScope; readonly objects: readonly ClusterScope[] }[] = [];
  readonly #strictestFirst: readonly AdmissionScope[];
  readonly #byRules: { readonly scope: AdmissionScope; readonly matches: (namespace: string) => boolean }[] = [];

  constructor(scopes: readonly AdmissionScope[]) {
    const strictness = ({ environment }: AdmissionScope) => STRICTNESS.indexOf(environment.spec.admission.mode);
    this.#strictestFirst = scopes.toSorted((a, b) => strictness(a) - strictness(b));
    for (const scope of scopes) {
      const { target, admission } = scope.environment.spec;
      for (const namespace of target.namespaces) this.#byNamespace.set(namespace, scope);
      this.#byName.push({ scope, objects: clusterScopes(target.clusterScoped) });
      for (const glob of admission.policy.namespaces)
        this.#byRules.push({ scope, matches: (namespace) => wildcardMatches(glob, namespace) });
    }
  }

  /** Returns undefined if no environment governs the request. In a governed namespace, rules alone never decide. */
  find(request: AdmissionRequest): Door | undefined {
    const namespace = namespaceOf(request);
    const governing = namespace === '' ? this.#clusterScoped(request) : this.#byNamespace.get(namespace);
    if (governing !== undefined) {
      const { metadata, spec } = governing.environment;
      return {
        environment: metadata.name,
        enforces: spec.admission.mode === 'enforce',
        decide: (r) => admit(r, governing),
        refused: (r, { use }) => {
          if (use !== undefined) void governing.breakGlass.refuse(r, use).catch(() => {});
        },
      };
    }
    const ruling = namespace === '' ? undefined : this.#byRules.find((r) => r.matches(namespace))?.scope;
    if (ruling === undefined) return undefined;
    const { environment } = ruling;
    return {
      environment: environment.metadata.name,
      enforces: rulesMode(environment) === 'enforce',
      decide: (r) => admitByRules(r, ruling),
      refused: () => {},
    };
  }

  // Finds the environment that governs a cluster-scoped object. Documents that overlap are refused, except where two of
  // them spell one cluster in different ways: then it is the one that has the object, that its label names, or the
  // first.
  #clusterScoped(request: AdmissionRequest): AdmissionScope | undefined {
    if (isIntoNode(request)) return this.#strictestFirst[0];
    const { ref, operation, object, oldObject } = request;
    const key = refKey(ref);
    const scopes = this.#byName.filter(({ objects }) => objects.some((o) => isInScope(o, ref))).map((s) => s.scope);
    if (scopes.length === 0) return undefined;
    const label = (oldObject ?? object)?.metadata?.labels?.[LABEL];
    return (
      (operation === 'DELETE' ? this.#leaving(key, scopes[0] as AdmissionScope) : undefined) ??
      scopes.find((s) => s.state().owned.has(key)) ??
      scopes.find((s) => admissible(s.state()).planned.has(key)) ??
      scopes.find((s) => s.environment.metadata.name === label) ??
      scopes[0]
    );
  }

  // An object whose name moved to another environment is removed by the one that had it, whose intent says so.
  #leaving(key: string, governing: AdmissionScope): AdmissionScope | undefined {
    const { target } = governing.environment.spec;
    return this.#byName.find(
      ({ scope }) =>
        areInOneCluster(scope.environment.spec.target, target) && admissible(scope.state()).removable.has(key),
    )?.scope;
  }
}

const STRICTNESS: readonly AdmissionMode[] = ['enforce', 'warn', 'audit', 'off'];
