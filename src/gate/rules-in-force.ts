import {
  CountersignError,
  type Environment,
  type ImageData,
  isNoRevision,
  type KubernetesObject,
  messageOf,
  Recent,
  type RenderedObject,
  type Violation,
} from '../model/index.ts';
import {
  applyWaivers,
  digestOfBundles,
  evaluateObjects,
  type PolicyPool,
  type PolicyScope,
  type RequestFields,
  type RuleMemory,
  type Waiver,
} from '../policy/index.ts';
import type { AdmissionRequest } from './admission-request.ts';
import type { Gate } from './assess.ts';
import type { EnvironmentState } from './environment-state.ts';
import { readImages } from './images-in-force.ts';
import { atItsLine } from './rescan.ts';
import { trustInForce } from './trust-in-force.ts';
import { readWaivers } from './waivers-in-force.ts';

/** What the rules say of one request. */
export type Ruling = {
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  readonly waived: readonly Violation[];
  /** Digest of the bundles. */
  readonly bundle: string;
};

/** What judges requests at one revision. */
export type RulesAt = {
  readonly pool: PolicyPool;
  readonly waivers: readonly Waiver[];
  readonly images: ImageData;
  readonly bundle: string;
};

/** Gives what judges requests at a revision. */
export type LoadRules = (revision: string) => Promise<RulesAt>;

const NO_IMAGES: ImageData = { digest: '', of: new Map() };
const WAIVERS_MS = 60_000; // how long waivers stand as they were read: keys that verified them may end

/**
 * The rules and waivers of the revision that an environment is at, for requests: the bundles, parameters and TrustPolicy that
 * judged it. They are loaded when it is at another revision, not when a request comes.
 */
export class RulesInForce {
  readonly environment: Environment;
  readonly #load: LoadRules;
  readonly #clock: () => Date;
  readonly #state: () => EnvironmentState;
  // Objects that did not change since the last look are not asked about again.
  readonly #memory: RuleMemory = new Recent(5000);
  #loaded: { readonly revision: string; readonly at: number; readonly rules: Promise<RulesAt> } | undefined;

  constructor(environment: Environment, state: () => EnvironmentState, load: LoadRules, clock: () => Date) {
    this.environment = environment;
    this.#state = state;
    this.#load = load;
    this.#clock = clock;
  }

  /** Has them loaded, and starts their threads. Throws what keeps them from being loaded. */
  async warm(): Promise<void> {
    (await this.#rules()).pool.warm();
  }

  /**
   * What the rules say of the object of a request. `namespace` has the labels of its namespace, where they are known. What keeps
   * the rules from being asked is a violation, as everywhere. Throws when they cannot be loaded.
   */
  async ask(request: AdmissionRequest, namespace: Readonly<Record<string, string>> | undefined): Promise<Ruling> {
    const object = request.object ?? request.oldObject;
    if (object === undefined) return { violations: [], warnings: [], waived: [], bundle: '' };
    for (let attempt = 1; ; attempt++) {
      const rules = await this.#rules();
      try {
        return await this.#askThese(rules, request, object, namespace);
      } catch (thrown) {
        // Their threads were ended because newer rules took their place.
        if (attempt === 2 || !(thrown instanceof CountersignError) || thrown.recover !== 'retry') throw thrown;
        this.#loaded = undefined;
      }
    }
  }

  /** What the rules say of objects as they are in the cluster, without a request. Throws when they cannot be loaded. */
  async judge(objects: readonly RenderedObject[]): Promise<Ruling> {
    return this.#evaluate(await this.#rules(), objects, {}, undefined, this.#memory);
  }

  #askThese(
    rules: RulesAt,
    request: AdmissionRequest,
    object: KubernetesObject,
    namespace: Readonly<Record<string, string>> | undefined,
  ): Promise<Ruling> {
    const { operation, user, groups, oldObject, dryRun, ref } = request;
    return this.#evaluate(
      rules,
      [atItsLine(object, ref, this.#state(), '')],
      namespace === undefined ? {} : { namespaces: [[ref.namespace, namespace]] },
      {
        operation,
        userInfo: { username: user, groups },
        ...(oldObject === undefined ? {} : { oldObject }),
        dryRun,
        ...(namespace === undefined
          ? {}
          : { namespaceObject: { apiVersion: 'v1', kind: 'Namespace', metadata: { name: ref.namespace, labels: namespace } } }),
      },
    );
  }

  async #evaluate(
    { pool, waivers, images, bundle }: RulesAt,
    objects: readonly RenderedObject[],
    known: Pick<PolicyScope, 'namespaces'>,
    asked: RequestFields | undefined,
    memory?: RuleMemory,
  ): Promise<Ruling> {
    const { metadata, spec } = this.environment;
    const now = this.#clock();
    const scope = { environment: metadata.name, parameters: spec.policies.parameters, now, images, ...known };
    const found = await evaluateObjects(pool, objects, scope, asked, memory);
    const { standing, waived } = applyWaivers(found.violations, waivers, metadata.name, now.getTime());
    return { violations: standing, warnings: found.warnings, waived, bundle };
  }

  #rules(): Promise<RulesAt> {
    const { revision } = this.#state();
    const known = this.#loaded;
    if (known?.revision === revision && performance.now() - known.at < WAIVERS_MS) return known.rules;
    const rules = this.#load(revision);
    const loaded = { revision, at: performance.now(), rules };
    this.#loaded = loaded;
    rules.catch(() => {
      if (this.#loaded === loaded) this.#loaded = undefined; // the next request tries for itself
    });
    // Waivers that are read again do not keep requests waiting: those before stand until then.
    if (known?.revision === revision) {
      const before = known.rules;
      this.#loaded = { ...loaded, rules: before };
      void rules
        .then(() => {
          this.#loaded = loaded;
        })
        .catch(() => {});
      return before;
    }
    return rules;
  }
}

/** Reads the rules, waivers and images of a revision from what the gate judges changes by. Throws `policy-unusable`, to be tried again. */
export function rulesOf(gate: Omit<Gate, 'make'>): LoadRules {
  const { environment, repository, trust, openPolicy, recorder: ledger, clock } = gate;
  return async (revision) => {
    try {
      if (isNoRevision(revision)) {
        const pool = await gate.rules('', trust);
        return { pool, waivers: [], images: NO_IMAGES, bundle: digestOfBundles(pool.bundles) };
      }
      const tree = await repository.tree(revision);
      const { store } = await trustInForce({ environment, repository, trust, openPolicy, ledger }, revision, true);
      const pool = await gate.rules(tree, store);
      const { waivers } = await readWaivers(gate, tree, store, clock().getTime());
      const { images } = await readImages(gate, tree, store);
      return { pool, waivers, images, bundle: digestOfBundles(pool.bundles) };
    } catch (cause) {
      throw new CountersignError('policy-unusable', `the rules of \`${environment.metadata.name}\` cannot be loaded: ${messageOf(cause)}`, {
        cause,
        recover: 'retry',
      });
    }
  };
}
