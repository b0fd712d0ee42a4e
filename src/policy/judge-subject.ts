import type { Constraint, Entry, PolicyBundle } from '../bundle/index.ts';
import type { ViolationCode } from '../model/index.ts';
import { CountersignError, groupOf, type KubernetesObject, messageOf, type ValuePath } from '../model/index.ts';
import { type BuiltinContext, RegoModule, RegoObject, RegoSet, toJson, type Value } from '../rego/index.ts';
import { expanded, matchedOf, matches } from './match.ts';

/** Result of one rule on one subject, before it is translated into a verdict. */
export type Finding = {
  /** `deny` and `warn` count as named; `dryrun` and `exempt` are reported but do not count. */
  readonly action: 'deny' | 'warn' | 'dryrun' | 'exempt';
  readonly code: ViolationCode;
  readonly rule: string;
  readonly message: string;
  readonly path: ValuePath;
  readonly hint?: string;
  readonly severity?: string;
};

/**
 * Input of rules. Objects, and evidence about their images, are JSON text, so that they cross threads and reach Wasm
 * without further copies.
 */
export type Subject =
  | {
      readonly kind: 'object';
      readonly json: string;
      readonly file: string;
      readonly request?: RequestFields;
      readonly images?: string;
    }
  | { readonly kind: 'change'; readonly json: string; readonly images?: string }
  /** Conftest's `--combine`: a list of `{path, contents}`. */
  | { readonly kind: 'combined'; readonly json: string }
  /** A document that is not a Kubernetes object; only Conftest rules are evaluated. */
  | { readonly kind: 'document'; readonly json: string; readonly file: string };

/** Fields of an admission request that rules may read besides the object. */
export type RequestFields = {
  readonly operation: string;
  readonly userInfo?: unknown;
  readonly oldObject?: unknown;
  readonly dryRun?: boolean;
  readonly namespaceObject?: unknown;
};

/** Data shared by all subjects of one run. */
export type RunScope = {
  readonly environment: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  /** Nanoseconds since 1970, as text: the value of `time.now_ns`. */
  readonly now: string;
  /** Labels of known namespaces, for namespace selectors. */
  readonly namespaces: readonly (readonly [string, Readonly<Record<string, string>>])[];
  readonly trace?: boolean;
};

export type Judged = { readonly findings: readonly Finding[]; readonly trace: readonly string[] };

const MAX_INPUT = 16 * 1024 * 1024; // five times what the API server accepts in one request
const MAX_DEPTH = 500; // nesting depth; no manifest has a fifth of it

/** Loaded bundles, ready for evaluation. Belongs to one thread. */
export class LoadedRules {
  readonly #loaded: readonly { readonly bundle: PolicyBundle; readonly module: RegoModule }[];

  private constructor(loaded: readonly { readonly bundle: PolicyBundle; readonly module: RegoModule }[]) {
    this.#loaded = loaded;
  }

  /** Loads bundles; `inventory` becomes `data.inventory`. Throws `policy-unusable`. */
  static async open(bundles: readonly PolicyBundle[], inventory?: unknown): Promise<LoadedRules> {
    return new LoadedRules(
      await Promise.all(
        bundles.map(async (bundle) => {
          const data =
            inventory === undefined
              ? bundle.data
              : JSON.stringify({ ...(JSON.parse(bundle.data) as object), inventory });
          return { bundle, module: await RegoModule.open(bundle.wasm, data) };
        }),
      ),
    );
  }

  /** Bytes of Wasm memory currently held. */
  get memory(): number {
    return this.#loaded.reduce((sum, { module }) => sum + module.memory, 0);
  }

  /**
   * Evaluates every rule that applies to the subject. A rule that cannot answer is a finding that denies; nothing is
   * thrown.
   */
  judge(subject: Subject, scope: RunScope): Judged {
    const trace: string[] = [];
    const context: BuiltinContext = {
      now: BigInt(scope.now),
      print: scope.trace === true ? (line) => trace.push(line) : undefined,
    };
    const refused = tooLarge(subject.json);
    if (refused !== undefined) return { findings: [refused], trace };
    const findings = this.#loaded.flatMap(({ bundle, module }) => {
      try {
        return ask(bundle, module, subject, scope, context);
      } catch (thrown) {
        return [failed(bundle.name, thrown)];
      }
    });
    return { findings, trace };
  }
}

function tooLarge(json: string): Finding | undefined {
  if (json.length > MAX_INPUT)
    return broken(
      'policy-input-too-large',
      `the input is larger than ${MAX_INPUT / 1024 / 1024} MiB, so no rule was evaluated`,
    );
  let depth = 0;
  let inText = false;
  for (let i = 0; i < json.length; i++) {
    const c = json.charCodeAt(i);
    if (inText) {
      if (c === 92) i++;
      else if (c === 34) inText = false;
    } else if (c === 34) inText = true;
    else if (c === 123 || c === 91) {
      if (++depth > MAX_DEPTH)
        return broken(
          'policy-input-too-deep',
          `the input is nested more than ${MAX_DEPTH} deep, so no rule was evaluated`,
        );
    } else if (c === 125 || c === 93) depth--;
  }
  return undefined;
}

/** Returns a finding that denies because rules could not be evaluated or did not answer. */
export function broken(code: ViolationCode, message: string, hint?: string): Finding {
  return { action: 'deny', code, rule: code, message, path: [], ...(hint === undefined ? {} : { hint }) };
}

function failed(bundle: string, thrown: unknown): Finding {
  const { hint } = thrown instanceof CountersignError ? thrown : { hint: undefined };
  return broken('policy-failed', `${messageOf(thrown)} (bundle \`${bundle}\`)`, hint);
}

type Ask = ReturnType<RegoModule['withInput']>;

function ask(
  bundle: PolicyBundle,
  module: RegoModule,
  subject: Subject,
  scope: RunScope,
  context: BuiltinContext,
): Finding[] {
  const { entries, templates } = bundle.manifest;
  const wanted = entries.filter(
    (e) =>
      (subject.kind === 'change' ? e.convention === 'change' : e.convention !== 'change') &&
      (subject.kind === 'object' || subject.kind === 'change' || e.convention === 'conftest'),
  );
  const conftest = wanted.filter((e) => e.convention === 'conftest');
  if (wanted.length === 0 && (templates.length === 0 || subject.kind !== 'object')) return [];
  const evaluate = module.withInput(subject.json, context);
  const images = 'images' in subject && subject.images !== undefined ? subject.images : '{}';
  const around = (extra: object) =>
    `${JSON.stringify({ environment: scope.environment, parameters: scope.parameters, ...extra }).slice(0, -1)}` +
    ',"images":' +
    `${images}}`;
  const own =
    subject.kind === 'change'
      ? { object: around({}), path: ['change'] }
      : {
          object: around(
            subject.kind === 'object'
              ? { file: subject.file, ...(subject.request === undefined ? {} : { request: subject.request }) }
              : {},
          ),
          path: ['object'],
        };
  return [
    ...askEach(
      wanted.filter((e) => e.convention !== 'conftest'),
      (e) => evaluate(e.entrypoint, own),
    ),
    ...askConftest(conftest, conftest.length > 1 ? (together(bundle, context, evaluate) ?? evaluate) : evaluate),
    ...(subject.kind === 'object' && templates.length > 0
      ? askConstraints(bundle, subject, scope, evaluate, module, context)
      : []),
  ];
}

// Evaluates everything at once if that succeeds. Failures and traces are evaluated one by one, so that each is reported
// separately.
function together({ manifest }: PolicyBundle, { print }: BuiltinContext, evaluate: Ask): Ask | undefined {
  if (manifest.together === undefined || print !== undefined) return undefined;
  try {
    const all = evaluate(manifest.together);
    return all instanceof RegoObject ? (entrypoint) => all.get(entrypoint) : undefined;
  } catch {
    return undefined;
  }
}

function askEach(entries: readonly Entry[], evaluate: (entry: Entry) => Value | undefined): Finding[] {
  return entries.flatMap((entry) => {
    let result: Value | undefined;
    try {
      result = evaluate(entry);
    } catch (thrown) {
      return [failed(entry.entrypoint, thrown)];
    }
    return answersOf(result, entry.entrypoint).map((answer) =>
      findingOf(answer, entry.action === 'warn' ? 'warn' : 'deny', ruleName(entry)),
    );
  });
}

function ruleName(entry: Entry): string {
  return entry.convention === 'conftest' ? `${entry.namespace}/${entry.name}` : 'unnamed';
}

// `exception` rules name, by the part after `deny_` or `violation_`, the rules that do not count for this input.
function askConftest(entries: readonly Entry[], evaluate: Ask): Finding[] {
  const exceptions = new Map<string, Set<string>>();
  const problems: Finding[] = [];
  for (const entry of entries.filter((e) => e.action === 'exception')) {
    try {
      const result = evaluate(entry.entrypoint);
      const names =
        result === undefined
          ? []
          : listOf(result).flatMap((v) =>
              typeof v === 'string' ? [v] : listOf(v).filter((n) => typeof n === 'string'),
            );
      exceptions.set(entry.namespace, new Set([...(exceptions.get(entry.namespace) ?? []), ...names]));
    } catch (thrown) {
      problems.push(failed(entry.entrypoint, thrown));
    }
  }
  const asked = entries.filter((e) => e.action !== 'exception');
  return [
    ...problems,
    ...asked.flatMap((entry) => {
      const exempt =
        entry.action === 'deny' &&
        (exceptions.get(entry.namespace)?.has(entry.name.replace(/^(deny|violation)_?/, '')) ?? false);
      const findings = askEach([entry], (e) => evaluate(e.entrypoint));
      return exempt ? findings.map((f) => (f.code === 'policy' ? { ...f, action: 'exempt' as const } : f)) : findings;
    }),
  ];
}

function listOf(value: Value): readonly Value[] {
  return value instanceof RegoSet ? value.sorted() : Array.isArray(value) ? (value as readonly Value[]) : [];
}

function askConstraints(
  bundle: PolicyBundle,
  subject: Extract<Subject, { kind: 'object' }>,
  scope: RunScope,
  evaluate: Ask,
  module: RegoModule,
  context: BuiltinContext,
): Finding[] {
  const { constraints, templates, expansions } = bundle.manifest;
  const points = new Map(templates.map((t) => [t.kind, t.entrypoint]));
  const namespaces = new Map(scope.namespaces);
  const object = JSON.parse(subject.json) as KubernetesObject;
  const own = askMatching(constraints, points, object, subject.request, evaluate, matchedOf(object, namespaces));
  const made = expanded(object, expansions).flatMap(({ object: generated, path, expansion }) => {
    const fresh = module.withInput(JSON.stringify(generated), context);
    return askMatching(
      constraints,
      points,
      generated,
      subject.request,
      fresh,
      matchedOf(generated, namespaces, true),
    ).map((f) => ({
      ...f,
      action: f.code === 'policy' && expansion.action !== undefined ? expansion.action : f.action,
      path: [...path, ...f.path],
    }));
  });
  return [...own, ...made];
}

function askMatching(
  constraints: readonly Constraint[],
  points: ReadonlyMap<string, string>,
  object: KubernetesObject,
  request: RequestFields | undefined,
  evaluate: Ask,
  matched: ReturnType<typeof matchedOf>,
): Finding[] {
  const { name, namespace } = object.metadata ?? {};
  const group = groupOf(object.apiVersion);
  const kind = {
    group,
    version: group === '' ? object.apiVersion : object.apiVersion.slice(group.length + 1),
    kind: object.kind,
  };
  const review = {
    kind,
    name: name ?? '',
    ...(namespace === undefined ? {} : { namespace }),
    operation: '',
    ...request,
  };
  return constraints
    .filter((c) => matches(c.match, matched))
    .flatMap((constraint) => {
      const entrypoint = points.get(constraint.kind);
      const rule = `${constraint.kind}/${constraint.name}`;
      try {
        if (entrypoint === undefined)
          throw new CountersignError('policy-failed', `the constraint \`${rule}\` has no template`);
        const result = evaluate(entrypoint, {
          object: JSON.stringify({ review, parameters: constraint.parameters ?? {} }),
          path: ['review', 'object'],
        });
        return answersOf(result, entrypoint).map((answer) => findingOf(answer, constraint.action, rule));
      } catch (thrown) {
        return [failed(rule, thrown)];
      }
    });
}

type Answer =
  | { readonly kind: 'finding'; readonly value: string | Record<string, unknown> }
  | { readonly kind: 'broken'; readonly finding: Finding };

/** Reads a rule's answer: a set or list of texts and objects. Anything else counts as a denial. */
function answersOf(result: Value | undefined, entrypoint: string): Answer[] {
  if (result === undefined)
    return [
      {
        kind: 'broken',
        finding: broken(
          'policy-undefined',
          `the rules at \`${entrypoint}\` are undefined for this input`,
          'write them as sets: `deny contains …` is empty if nothing is wrong',
        ),
      },
    ];
  const members = listOf(result);
  if (!(result instanceof RegoSet) && !Array.isArray(result)) return [wrongShape(entrypoint)];
  return members.map((member): Answer => {
    if (typeof member === 'string') return { kind: 'finding', value: member };
    if (!(member instanceof RegoObject)) return wrongShape(entrypoint);
    const value = toJson(member) as Record<string, unknown>;
    return typeof (value['msg'] ?? value['message']) === 'string' ? { kind: 'finding', value } : wrongShape(entrypoint);
  });
}

function wrongShape(entrypoint: string): Answer {
  return {
    kind: 'broken',
    finding: broken(
      'policy-wrong-shape',
      `the rules at \`${entrypoint}\` returned something other than a set of findings`,
      'a finding is text, or an object with `msg` or `message`',
    ),
  };
}

function findingOf(answer: Answer, action: Finding['action'], rule: string): Finding {
  if (answer.kind === 'broken') return answer.finding;
  const { value } = answer;
  if (typeof value === 'string') return { action, code: 'policy', rule, message: value, path: [] };
  const word = (key: string): string | undefined => (typeof value[key] === 'string' ? value[key] : undefined);
  const path = Array.isArray(value['path'])
    ? value['path'].filter((p): p is string | number => typeof p === 'string' || typeof p === 'number')
    : [];
  const [hint, severity] = [word('hint') ?? word('remediation'), word('severity')];
  return {
    action,
    code: 'policy',
    rule: word('rule') ?? rule,
    message: word('message') ?? word('msg') ?? '',
    path,
    ...(hint === undefined ? {} : { hint }),
    ...(severity === undefined ? {} : { severity }),
  };
}
