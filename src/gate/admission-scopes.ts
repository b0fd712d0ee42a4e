import { type AdmissionMode, LABEL, refKey, rulesMode, wildcardMatches } from '../model/index.ts';
import { type AdmissionDecision, type AdmissionRequest, isIntoNode, namespaceOf } from './admission-request.ts';
import { type AdmissionScope, admit, admitByRules } from './admit.ts';
import { admissible } from './environment-state.ts';

/** Where a request is decided: an environment that governs it, or one whose rules apply there. */
export type Door = {
  readonly environment: string;
  /** Whether undecidable requests are refused. */
  readonly enforces: boolean;
  readonly decide: (request: AdmissionRequest) => Promise<AdmissionDecision>;
};

/** All environments of a service; finds the one for a request. */
export class AdmissionScopes {
  readonly #byNamespace = new Map<string, AdmissionScope>();
  readonly #byKind = new Map<string, AdmissionScope[]>();
  readonly #strictestFirst: readonly AdmissionScope[];
  readonly #byRules: { readonly scope: AdmissionScope; readonly matches: (namespace: string) => boolean }[] = [];

  constructor(scopes: readonly AdmissionScope[]) {
    const strictness = ({ environment }: AdmissionScope) => STRICTNESS.indexOf(environment.spec.admission.mode);
    this.#strictestFirst = scopes.toSorted((a, b) => strictness(a) - strictness(b));
    for (const scope of scopes) {
      const { target, admission } = scope.environment.spec;
      for (const namespace of target.namespaces) this.#byNamespace.set(namespace, scope);
      for (const kind of target.clusterScoped.filter((k) => k !== 'Namespace'))
        this.#byKind.set(kind, [...(this.#byKind.get(kind) ?? []), scope]);
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
      };
    }
    const ruling = namespace === '' ? undefined : this.#byRules.find((r) => r.matches(namespace))?.scope;
    if (ruling === undefined) return undefined;
    const { environment } = ruling;
    return {
      environment: environment.metadata.name,
      enforces: rulesMode(environment) === 'enforce',
      decide: (r) => admitByRules(r, ruling),
    };
  }

  // Finds the owner of a cluster-scoped object: the environment that has it, that its label names, or the first that
  // governs its kind.
  #clusterScoped(request: AdmissionRequest): AdmissionScope | undefined {
    if (isIntoNode(request)) return this.#strictestFirst[0];
    const { ref, object, oldObject } = request;
    const scopes = this.#byKind.get(ref.kind) ?? [];
    const key = refKey(ref);
    const label = (oldObject ?? object)?.metadata?.labels?.[LABEL];
    return (
      scopes.find((s) => s.state().owned.has(key)) ??
      scopes.find((s) => admissible(s.state()).planned.has(key)) ??
      scopes.find((s) => s.environment.metadata.name === label) ??
      scopes[0]
    );
  }
}

const STRICTNESS: readonly AdmissionMode[] = ['enforce', 'warn', 'audit', 'off'];
