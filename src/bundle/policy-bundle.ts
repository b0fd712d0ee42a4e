import { canonicalJson, sha256 } from '../model/index.ts';

/** Metadata of one rule, from its METADATA comment. */
export type RuleInfo = {
  /** The name in findings and waivers: `custom.rule`, or `package/rule`. */
  readonly id: string;
  readonly title?: string;
  readonly description?: string;
  readonly severity?: string;
  readonly controls?: readonly string[];
  readonly remediation?: string;
  readonly links?: readonly string[];
  /** File and line in its root, for example `rules/privileged.rego:12`. */
  readonly place: string;
};

/**
 * One document to evaluate. `object` and `change` are our own packages, `conftest` any other with `deny`, `violation`,
 * `warn` or `exception` rules.
 */
export type Entry = {
  readonly entrypoint: string;
  readonly convention: 'object' | 'change' | 'conftest';
  readonly action: 'deny' | 'warn' | 'exception';
  /** The Conftest namespace, for example `main`. */
  readonly namespace: string;
  /** The rule's name, for example `deny_run_as_root`. */
  readonly name: string;
};

/** A Gatekeeper ConstraintTemplate whose Rego is in the module. */
type Template = {
  readonly kind: string;
  readonly entrypoint: string;
  /** Whether its Rego reads `data.inventory`. */
  readonly inventory: boolean;
};

export type Selector = {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
};

/** Selects the objects a Gatekeeper constraint applies to. */
export type Match = {
  readonly kinds?: readonly { readonly apiGroups?: readonly string[]; readonly kinds?: readonly string[] }[];
  readonly namespaces?: readonly string[];
  readonly excludedNamespaces?: readonly string[];
  readonly labelSelector?: Selector;
  readonly namespaceSelector?: Selector;
  readonly name?: string;
  readonly scope?: string;
  readonly source?: string;
};

/** A Gatekeeper constraint, with defaults for parameters from the template's schema. */
export type Constraint = {
  readonly kind: string;
  readonly name: string;
  readonly parameters: unknown;
  readonly match: Match;
  readonly action: 'deny' | 'warn' | 'dryrun';
  readonly place: string;
};

/** Expands a workload into a Pod before constraints are evaluated (Gatekeeper's ExpansionTemplate). */
export type Expansion = {
  readonly name: string;
  readonly applyTo: readonly {
    readonly groups: readonly string[];
    readonly versions: readonly string[];
    readonly kinds: readonly string[];
  }[];
  readonly templateSource: string;
  readonly generated: { readonly group: string; readonly version: string; readonly kind: string };
  readonly action?: 'deny' | 'warn' | 'dryrun';
};

/** Content of a bundle besides the module: `countersign.json` in its archive. */
export type BundleManifest = {
  readonly v: 1;
  /** The opa version that compiled it. */
  readonly opa: string;
  readonly entries: readonly Entry[];
  /** An entrypoint that returns the results of all Conftest entries by name: shared rules are evaluated once. */
  readonly together?: string;
  readonly rules: readonly RuleInfo[];
  readonly templates: readonly Template[];
  readonly constraints: readonly Constraint[];
  readonly expansions: readonly Expansion[];
};

/** Compiled rules with everything that affects decisions, and the digest of exactly that. */
export type PolicyBundle = {
  readonly name: string;
  /** SHA-256 over module, data and manifest: everything that affects decisions, without the archive's timestamps. */
  readonly digest: string;
  readonly wasm: Uint8Array;
  /** JSON text of the data document. */
  readonly data: string;
  readonly manifest: BundleManifest;
};

/** Returns a bundle with its digest. */
export function policyBundle(name: string, wasm: Uint8Array, data: string, manifest: BundleManifest): PolicyBundle {
  const separator = Buffer.from([0]);
  const digest = sha256(
    Buffer.concat([wasm, separator, Buffer.from(data), separator, Buffer.from(canonicalJson(manifest))]),
  );
  return { name, digest, wasm, data, manifest };
}

const RULE = /^(deny|violation|warn|exception)(_[A-Za-z0-9_]+)?$/;

/** Returns the entry for an entrypoint name, or undefined if it follows no convention. */
export function entryOf(entrypoint: string): Entry | undefined {
  const parts = entrypoint.split('/');
  const name = parts.at(-1) ?? '';
  const namespace = parts.slice(0, -1).join('.');
  const match = RULE.exec(name);
  if (match === null || namespace === '') return undefined;
  const action = match[1] === 'warn' ? 'warn' : match[1] === 'exception' ? 'exception' : 'deny';
  const own = namespace === 'countersign.object' || namespace === 'countersign.change';
  return {
    entrypoint,
    convention: own ? (namespace.slice('countersign.'.length) as 'object' | 'change') : 'conftest',
    action,
    namespace,
    name,
  };
}
