import { Ajv } from 'ajv';
import type { Constraint, Expansion, Match } from './policy-bundle.ts';

/** A manifest found in a root, and its place. */
export type Found = { readonly value: Record<string, unknown>; readonly place: string };
export type Problem = { readonly place: string; readonly text: string };

/** The Rego of a template, ready to be compiled with others. */
export type TemplateSource = {
  readonly kind: string;
  readonly name: string;
  readonly package: string;
  readonly version: 'v0' | 'v1';
  readonly modules: readonly { readonly file: string; readonly text: string }[];
  readonly inventory: boolean;
  readonly schema: Record<string, unknown> | undefined;
  readonly place: string;
};

/**
 * Constraints apply at this enforcement point of Gatekeeper. Pre-merge check, reconcile and admission give one answer,
 * so there is one point.
 */
const ENFORCEMENT_POINTS = ['validation.gatekeeper.sh', '*'];

type Target = {
  readonly target?: string;
  readonly rego?: string;
  readonly libs?: readonly string[];
  readonly code?: readonly {
    readonly engine?: string;
    readonly source?: { readonly rego?: string; readonly libs?: readonly string[]; readonly version?: string };
  }[];
};

export const isTemplate = (v: Record<string, unknown>): boolean =>
  v['kind'] === 'ConstraintTemplate' && group(v) === 'templates.gatekeeper.sh';
export const isConstraint = (v: Record<string, unknown>): boolean => group(v) === 'constraints.gatekeeper.sh';
export const isExpansion = (v: Record<string, unknown>): boolean =>
  v['kind'] === 'ExpansionTemplate' && group(v) === 'expansion.gatekeeper.sh';

function group(v: Record<string, unknown>): string {
  return String(v['apiVersion'] ?? '').split('/')[0] ?? '';
}

function at(value: unknown, ...path: (string | number)[]): unknown {
  return path.reduce<unknown>((v, key) => (v as Record<string | number, unknown> | undefined | null)?.[key], value);
}

/**
 * Extracts the Rego from a ConstraintTemplate, in either spelling, and gives it its own packages, so that libraries
 * with the same name do not collide. Data providers and templates without Rego are problems.
 */
export function readTemplate({ value, place }: Found, problems: Problem[]): TemplateSource | undefined {
  const problem = (text: string) => void problems.push({ place, text });
  const kind = at(value, 'spec', 'crd', 'spec', 'names', 'kind');
  const name = at(value, 'metadata', 'name');
  const [target] = (at(value, 'spec', 'targets') as Target[] | undefined) ?? [];
  if (typeof kind !== 'string' || !/^[A-Za-z][A-Za-z0-9]*$/.test(kind))
    return problem('`spec.crd.spec.names.kind` is required') as undefined;
  if (String(name) !== kind.toLowerCase())
    problem(`the template of kind \`${kind}\` must be named \`${kind.toLowerCase()}\``);
  const code = target?.code?.find((c) => c.engine === 'Rego')?.source;
  const rego = code?.rego ?? target?.rego;
  if (rego === undefined)
    return problem(`the template \`${kind}\` has no Rego, and only Rego is supported`) as undefined;
  const libs = code?.libs ?? target?.libs ?? [];
  if ([rego, ...libs].some((text) => /\bexternal_data\s*\(/.test(text)))
    return problem(`the template \`${kind}\` uses external data, which is not supported`) as undefined;
  const own = `countersign.templates.${kind.toLowerCase()}`;
  const rename = (text: string, to: (was: string) => string) =>
    text
      .replace(/^(\s*package\s+)([\w.]+)/m, (_, word: string, was: string) => word + to(was))
      .replace(/\bdata\.lib\b/g, `data.${own}.lib`);
  const modules = [
    { file: `${kind}/template.rego`, text: rename(rego, () => own) },
    ...libs.map((text, i) => ({ file: `${kind}/lib${i}.rego`, text: rename(text, (was) => `${own}.${was}`) })),
  ];
  for (const lib of libs)
    if (!/^\s*package\s+lib\b/m.test(lib))
      problem(`a library of the template \`${kind}\` is not in a package under \`lib\``);
  return {
    kind,
    name: String(name),
    package: own,
    version: code?.version === 'v1' ? 'v1' : 'v0',
    modules,
    inventory: modules.some((m) => /\bdata\.inventory\b/.test(m.text)),
    schema: at(value, 'spec', 'crd', 'spec', 'validation', 'openAPIV3Schema') as Record<string, unknown> | undefined,
    place,
  };
}

/**
 * Returns a constraint with the defaults of its template's schema. A kind without a template, and parameters the schema
 * does not have, are problems.
 */
export function readConstraint(
  { value, place }: Found,
  templates: ReadonlyMap<string, TemplateSource>,
  problems: Problem[],
): Constraint | undefined {
  const kind = String(value['kind']);
  const name = String(at(value, 'metadata', 'name') ?? '');
  const template = templates.get(kind);
  if (template === undefined) {
    problems.push({
      place,
      text: `the constraint \`${kind}/${name}\` has no template: add the ConstraintTemplate \`${kind.toLowerCase()}\``,
    });
    return undefined;
  }
  const parameters = structuredClone(at(value, 'spec', 'parameters') ?? {});
  for (const text of checkParameters(template.schema, parameters))
    problems.push({ place, text: `the constraint \`${kind}/${name}\`: ${text}` });
  const action = actionOf(value['spec'] as Record<string, unknown> | undefined);
  if (action === undefined) return undefined;
  if (!['deny', 'warn', 'dryrun'].includes(action)) {
    problems.push({
      place,
      text:
        `the constraint \`${kind}/${name}\`: enforcementAction must be \`deny\`, ` +
        `\`warn\`, \`dryrun\` or \`scoped\`, found \`${action}\``,
    });
    return undefined;
  }
  return {
    kind,
    name,
    parameters,
    match: (at(value, 'spec', 'match') ?? {}) as Match,
    action: action as Constraint['action'],
    place,
  };
}

// Returns undefined if a scoped constraint names only other enforcement points.
function actionOf(spec: Record<string, unknown> | undefined): string | undefined {
  const action = String(spec?.['enforcementAction'] ?? 'deny');
  if (action !== 'scoped') return action;
  const scoped = (spec?.['scopedEnforcementActions'] ?? []) as {
    action?: string;
    enforcementPoints?: { name?: string }[];
  }[];
  const here = scoped.filter((s) => s.enforcementPoints?.some((p) => ENFORCEMENT_POINTS.includes(String(p.name))));
  return (['deny', 'warn', 'dryrun'] as const).find((a) => here.some((s) => s.action === a));
}

function checkParameters(schema: Record<string, unknown> | undefined, parameters: unknown): string[] {
  if (schema === undefined) return [];
  const ajv = new Ajv({ strict: false, allErrors: true, useDefaults: true, validateFormats: false, logger: false });
  const validate = ajv.compile(structural(schema) as object);
  if (validate(parameters)) return [];
  return (validate.errors ?? []).map((e) => {
    const unknown = (e.params as { additionalProperty?: string }).additionalProperty;
    const path = e.instancePath.replaceAll('/', '.');
    return unknown === undefined
      ? `\`parameters${path}\` ${e.message ?? 'is invalid'}`
      : `\`parameters${path}.${unknown}\` is not a parameter of the template`;
  });
}

// A structural schema refuses unknown fields unless it says otherwise.
function structural(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(structural);
  if (typeof schema !== 'object' || schema === null) return schema;
  const { nullable, ...rest } = schema as Record<string, unknown>;
  const made = Object.fromEntries(
    Object.entries(rest).map(([k, v]) => [
      k,
      k === 'properties'
        ? Object.fromEntries(Object.entries(v as object).map(([p, s]) => [p, structural(s)]))
        : ['default', 'enum', 'example'].includes(k)
          ? v
          : structural(v),
    ]),
  );
  const closed =
    made['properties'] !== undefined &&
    made['additionalProperties'] === undefined &&
    made['x-kubernetes-preserve-unknown-fields'] !== true;
  return {
    ...made,
    ...(closed ? { additionalProperties: false } : {}),
    ...(nullable === true && typeof made['type'] === 'string' ? { type: [made['type'], 'null'] } : {}),
  };
}

/** Reads an ExpansionTemplate. */
export function readExpansion({ value, place }: Found, problems: Problem[]): Expansion | undefined {
  const spec = (value['spec'] ?? {}) as Record<string, unknown>;
  const generated = spec['generatedGVK'] as Expansion['generated'] | undefined;
  const templateSource = spec['templateSource'];
  const applyTo = spec['applyTo'];
  if (!Array.isArray(applyTo) || typeof templateSource !== 'string' || generated?.kind === undefined) {
    problems.push({ place, text: 'an ExpansionTemplate needs `applyTo`, `templateSource` and `generatedGVK`' });
    return undefined;
  }
  const action = spec['enforcementAction'];
  return {
    name: String(at(value, 'metadata', 'name') ?? ''),
    applyTo: applyTo as Expansion['applyTo'],
    templateSource,
    generated: { group: generated.group ?? '', version: generated.version, kind: generated.kind },
    ...(action === 'deny' || action === 'warn' || action === 'dryrun' ? { action } : {}),
  };
}
