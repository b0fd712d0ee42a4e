import {
  CountersignError,
  digestOf,
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
import type { EnvironmentState } from './environment-state.ts';
import type { Gate } from './gate.ts';
import { readImages } from './images-in-force.ts';
import { atItsLine } from './rescan.ts';
import { trustInForce } from './trust-in-force.ts';
import { readWaivers } from './waivers-in-force.ts';

/** Result of the rules for one request. */
export type Ruling = {
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  readonly waived: readonly Violation[];
  /** Digest of the bundles. */
  readonly bundle: string;
};

/** Everything that judges requests at one revision. */
export type RulesAt = {
  readonly pool: PolicyPool;
  readonly waivers: readonly Waiver[];
  readonly images: ImageData;
  readonly bundle: string;
};

/** Loads what judges requests at a revision. */
export type LoadRules = (revision: string) => Promise<RulesAt>;

const NO_IMAGES: ImageData = { digest: '', of: new Map() };
const WAIVERS_MS = 60_000; // how long waivers are cached: the keys that verified them may expire

type Loaded = { readonly revision: string; readonly at: number; readonly rules: Promise<RulesAt>; failed: boolean };

/**
 * The rules and waivers of an environment's current revision, for requests: the bundles, parameters and TrustPolicy
 * that judged it. Those of a revision being applied are loaded in advance, so that no request waits for them later.
 */
export class RulesInForce {
  readonly environment: Environment;
  readonly #load: LoadRules;
  readonly #clock: () => Date;
  readonly #state: () => EnvironmentState;
  // Objects unchanged since the last scan are not evaluated again.
  readonly #memory: RuleMemory = new Recent(5000);
  #loaded: Loaded | undefined;
  #next: Loaded | undefined;

  constructor(environment: Environment, state: () => EnvironmentState, load: LoadRules, clock: () => Date) {
    this.environment = environment;
    this.#state = state;
    this.#load = load;
    this.#clock = clock;
  }

  /** Loads the rules and starts their threads. Throws the error if loading fails. */
  async warm(): Promise<void> {
    (await this.#rules()).pool.warm();
  }

  /**
   * Evaluates the rules on the object of a request. `namespace` has the labels of its namespace, if known. Failure to
   * evaluate is a violation, as everywhere. Throws if the rules cannot be loaded.
   */
  async ask(request: AdmissionRequest, namespace: Readonly<Record<string, string>> | undefined): Promise<Ruling> {
    const object = request.object ?? request.oldObject;
    if (object === undefined) return { violations: [], warnings: [], waived: [], bundle: '' };
    for (let attempt = 1; ; attempt++) {
      const rules = await this.#rules();
      try {
        return await this.#askThese(rules, request, object, namespace);
      } catch (thrown) {
        // Their threads were ended because newer rules replaced them.
        if (attempt === 2 || !(thrown instanceof CountersignError) || thrown.recover !== 'retry') throw thrown;
        this.#loaded = undefined;
      }
    }
  }

  /** Names everything that judges now: the same text, the same findings. Throws if the rules cannot be loaded. */
  async basis(): Promise<string> {
    const { bundle, waivers, images } = await this.#rules();
    return digestOf([bundle, images.digest, waivers]);
  }

  /**
   * Evaluates the rules on existing objects in the cluster, without a request. Throws if the rules cannot be loaded.
   */
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
          : {
              namespaceObject: {
                apiVersion: 'v1',
                kind: 'Namespace',
                metadata: { name: ref.namespace, labels: namespace },
              },
            }),
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
    const { revision, open } = this.#state();
    if (this.#loaded?.revision !== revision && this.#next?.revision === revision && !this.#next.failed)
      this.#loaded = this.#next;
    this.#prepare(revision, open?.intent.entry.revision);
    const known = this.#loaded;
    const isKnown = known?.revision === revision && !known.failed;
    if (isKnown && isFresh(known)) return known.rules;
    const loaded = this.#begin(revision);
    if (!isKnown) {
      this.#loaded = loaded;
      return loaded.rules;
    }
    // Reading waivers again does not delay requests: the previous ones apply until then.
    const standing = { ...loaded, rules: known.rules };
    this.#loaded = standing;
    loaded.rules
      .then(() => {
        if (this.#loaded === standing) this.#loaded = loaded;
      })
      .catch(() => {});
    return known.rules;
  }

  // Rules that cannot be loaded now are retried when they come into force, or after a while.
  #prepare(present: string, coming: string | undefined): void {
    if (coming === undefined || coming === present) this.#next = undefined;
    else if (this.#next?.revision !== coming || !isFresh(this.#next)) {
      this.#next = this.#begin(coming);
      this.#next.rules.then(({ pool }) => pool.warm()).catch(() => {});
    }
  }

  #begin(revision: string): Loaded {
    const loaded: Loaded = { revision, at: performance.now(), rules: this.#load(revision), failed: false };
    loaded.rules.catch(() => {
      loaded.failed = true; // the next request tries again
    });
    return loaded;
  }
}

function isFresh({ at }: Loaded): boolean {
  return performance.now() - at < WAIVERS_MS;
}

/**
 * Reads the rules, waivers and images of a revision from the same sources as for changes. Throws `policy-unusable`
 * (retry).
 */
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
      throw new CountersignError(
        'policy-unusable',
        `cannot load the rules of \`${environment.metadata.name}\`: ${messageOf(cause)}`,
        {
          cause,
          recover: 'retry',
        },
      );
    }
  };
}
