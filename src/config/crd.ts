import { z } from 'zod';
import {
  environmentSchema,
  environmentSetSchema,
  notifierSchema,
  reportScheduleSchema,
  trustPolicySchema,
} from '../model/index.ts';

type Schema = Readonly<Record<string, unknown>>;

const KINDS = [
  { kind: 'Environment', plural: 'environments', short: 'env', schema: environmentSchema },
  { kind: 'EnvironmentSet', plural: 'environmentsets', short: 'envset', schema: environmentSetSchema },
  { kind: 'TrustPolicy', plural: 'trustpolicies', short: 'trust', schema: trustPolicySchema },
  { kind: 'Notifier', plural: 'notifiers', short: undefined, schema: notifierSchema },
  { kind: 'ReportSchedule', plural: 'reportschedules', short: undefined, schema: reportScheduleSchema },
] as const;

type Kind = (typeof KINDS)[number]['kind'];

const text = { type: 'string' };
const time = { type: 'string', format: 'date-time' };
const CONDITIONS = {
  type: 'array',
  'x-kubernetes-list-type': 'map',
  'x-kubernetes-list-map-keys': ['type'],
  items: {
    type: 'object',
    required: ['type', 'status', 'reason', 'message', 'lastTransitionTime'],
    properties: {
      type: text,
      status: { type: 'string', enum: ['True', 'False', 'Unknown'] },
      reason: text,
      message: text,
      lastTransitionTime: time,
      observedGeneration: { type: 'integer', format: 'int64' },
    },
  },
};

// Status of an Environment, for people and for `kubectl wait`; all of it comes from the ledger.
const ENVIRONMENT_STATUS = {
  type: 'object',
  properties: {
    observedGeneration: { type: 'integer', format: 'int64' },
    conditions: CONDITIONS,
    state: { ...text, description: 'As in `countersign status`: `applied`, `denied`, `held`, `drifted`, …' },
    lastAppliedRevision: { ...text, description: 'The commit that was applied completely.' },
    lastAttemptedRevision: { ...text, description: 'The commit of the branch at the last check.' },
    lastCheckTime: time,
    nextCheckTime: time,
    objects: {
      type: 'object',
      description: 'Number of objects by health.',
      properties: Object.fromEntries(
        ['current', 'progressing', 'failed', 'missing'].map((k) => [k, { type: 'integer' }]),
      ),
    },
  },
};
const SET_STATUS = {
  type: 'object',
  properties: {
    observedGeneration: { type: 'integer', format: 'int64' },
    conditions: CONDITIONS,
    environments: { type: 'integer', description: 'The environments it describes.' },
    ready: { type: 'integer', description: 'Those of them that are applied and healthy, by this service.' },
  },
};
const DOCUMENT_STATUS = {
  type: 'object',
  properties: { observedGeneration: { type: 'integer', format: 'int64' }, conditions: CONDITIONS },
};

const READY = { name: 'Ready', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].status' };
const ENVIRONMENT_COLUMNS = [
  READY,
  { name: 'State', type: 'string', jsonPath: '.status.state' },
  { name: 'Revision', type: 'string', jsonPath: '.status.lastAppliedRevision' },
  { name: 'Message', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].message', priority: 1 },
  { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' },
];
const SET_COLUMNS = [
  READY,
  { name: 'Environments', type: 'integer', jsonPath: '.status.environments' },
  { name: 'Healthy', type: 'integer', jsonPath: '.status.ready' },
  { name: 'Message', type: 'string', jsonPath: '.status.conditions[?(@.type=="Ready")].message', priority: 1 },
];

const COLUMNS: Partial<Record<Kind, readonly Schema[]>> = {
  Environment: ENVIRONMENT_COLUMNS,
  EnvironmentSet: SET_COLUMNS,
};
const STATUSES: Partial<Record<Kind, Schema>> = { Environment: ENVIRONMENT_STATUS, EnvironmentSet: SET_STATUS };

/**
 * Returns the CustomResourceDefinitions of our documents, generated from the one schema (structural, as required by
 * apiextensions.k8s.io/v1). They accept slightly more than the schema, because Kubernetes' JSON Schema cannot express
 * everything. The remaining problems appear in the object's status.
 */
export function customResourceDefinitions(): readonly Schema[] {
  return KINDS.map(({ kind, plural, short, schema }) => {
    const made = z.toJSONSchema(schema, {
      io: 'input',
      target: 'openapi-3.0',
      unrepresentable: 'any',
      reused: 'inline',
    }) as Schema;
    const { spec } = made['properties'] as { spec: Schema };
    return {
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name: `${plural}.countersign.dev` },
      spec: {
        group: 'countersign.dev',
        scope: 'Namespaced',
        names: {
          kind,
          plural,
          singular: kind.toLowerCase(),
          listKind: `${kind}List`,
          ...(short === undefined ? {} : { shortNames: [short] }),
        },
        versions: [
          {
            name: 'v1alpha1',
            served: true,
            storage: true,
            subresources: { status: {} },
            additionalPrinterColumns: COLUMNS[kind] ?? [READY],
            schema: {
              openAPIV3Schema: {
                type: 'object',
                required: ['spec'],
                properties: {
                  apiVersion: text,
                  kind: text,
                  metadata: {
                    type: 'object',
                    properties: { name: (made['properties'] as NameSchema).metadata.properties.name },
                  },
                  spec: structural(spec),
                  status: STATUSES[kind] ?? DOCUMENT_STATUS,
                },
              },
            },
          },
        ],
      },
    };
  });
}

type NameSchema = { readonly metadata: { readonly properties: { readonly name: Schema } } };

// A structural schema states the type of everything once, outside any choice, and never closes an object: the API
// server drops or refuses unknown fields. Defaults are left to us, so that a document stays as written.
function structural(schema: Schema): Schema {
  const {
    additionalProperties,
    default: _,
    oneOf,
    anyOf,
    properties,
    items,
    $schema: __,
    propertyNames: ___,
    ...rest
  } = schema;
  const choices = (oneOf ?? anyOf) as readonly Schema[] | undefined;
  if (choices !== undefined) return { ...rest, ...joined(choices) };
  return {
    ...rest,
    ...(rest['type'] === undefined ? { 'x-kubernetes-preserve-unknown-fields': true } : {}),
    ...(properties === undefined ? {} : { properties: structuralEach(properties as Readonly<Record<string, Schema>>) }),
    ...(items === undefined ? {} : { items: structural(items as Schema) }),
    ...(typeof additionalProperties === 'object'
      ? { additionalProperties: structural(additionalProperties as Schema) }
      : {}),
  };
}

function structuralEach(properties: Readonly<Record<string, Schema>>): Schema {
  return Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, structural(value)]));
}

// Merges the keys of several alternative forms; which keys go together is checked when the document is read.
function joined(choices: readonly Schema[]): Schema {
  if (choices.some((c) => c['type'] !== 'object')) return { 'x-kubernetes-preserve-unknown-fields': true };
  const properties: Record<string, Schema> = {};
  for (const choice of choices)
    for (const [key, value] of Object.entries(choice['properties'] as Readonly<Record<string, Schema>>)) {
      const known = properties[key];
      const mine = structural(value);
      properties[key] =
        known?.['enum'] !== undefined && mine['enum'] !== undefined ? bothEnums(known, mine) : (known ?? mine);
    }
  return { type: 'object', properties };
}

function bothEnums(a: Schema, b: Schema): Schema {
  const { description: _, ...rest } = a;
  return { ...rest, enum: [...new Set([...(a['enum'] as unknown[]), ...(b['enum'] as unknown[])])] };
}
