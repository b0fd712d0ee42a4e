import { digestOf, groupOf, type KubernetesObject, withoutPointers } from '../model/index.ts';

/** A pod template (core/v1 PodTemplateSpec). */
export type PodTemplate = {
  readonly metadata?: {
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly finalizers?: readonly string[];
    readonly [field: string]: unknown;
  };
  readonly spec?: Readonly<Record<string, unknown>>;
};

type Spec = Readonly<Record<string, unknown>>;

/** Label that a Deployment's controller adds to the template of a ReplicaSet. */
export const HASH = 'pod-template-hash';

/** Labels that the API server adds to the template of a Job. */
const JOB_LABELS: ReadonlySet<string> = new Set([
  'controller-uid',
  'job-name',
  'batch.kubernetes.io/controller-uid',
  'batch.kubernetes.io/job-name',
]);

// Defaults that the API server adds to a Job, but not to the template of a CronJob (pkg/apis/batch/v1/defaults.go).
const JOB_DEFAULTS: Spec = {
  parallelism: 1,
  completions: 1,
  backoffLimit: 6,
  completionMode: 'NonIndexed',
  manualSelector: false,
  suspend: false,
  podReplacementPolicy: 'TerminatingOrFailed',
};

/**
 * Returns the digest of the part of an object from which controllers make other objects; undefined if it has none. What
 * the API server or a controller adds to that part is left out, so that a ReplicaSet has the digest of its Deployment,
 * and a Job that of its CronJob.
 */
export function templateDigest(object: KubernetesObject): string | undefined {
  const kind = `${groupOf(object.apiVersion)}/${object.kind}`;
  const spec = record(object['spec']);
  if (kind === 'batch/Job') return digestOf(plainJob(spec));
  if (kind === 'batch/CronJob') return digestOf(plainJob(record(record(spec['jobTemplate'])['spec'])));
  const template = record(spec['template']);
  return Array.isArray(record(template['spec'])['containers']) ? podTemplateDigest(template) : undefined;
}

const WHOLE: ReadonlySet<string> = new Set(['/spec/template', '/spec/jobTemplate', '/spec/jobTemplate/spec']);

/**
 * Returns the digest of the same part without the fields that are left to others, and of the names of these fields;
 * undefined if none is. `left` has the pointers into the object of Git, also for what a controller made of it.
 */
export function leftDigest(object: KubernetesObject, left: readonly string[]): string | undefined {
  if (left.length === 0) return undefined;
  const names = [...left].sort();
  if (left.some((pointer) => WHOLE.has(pointer))) return digestOf({ left: names });
  const isRun = object.kind === 'Job' && left.some((pointer) => pointer.startsWith('/spec/jobTemplate/'));
  const pointers = isRun ? left.map((pointer) => pointer.replace(/^\/spec\/jobTemplate\//, '/')) : left;
  return digestOf({ left: names, template: templateDigest(withoutPointers(object, pointers)) ?? '' });
}

/** Returns the pointers that lead into the template of an object. */
export function intoTemplate(pointers: readonly string[]): readonly string[] {
  return pointers.filter((pointer) => /^\/spec\/(template|jobTemplate)(\/|$)/.test(pointer));
}

function podTemplateDigest(template: unknown): string {
  return digestOf(plainTemplate(record(template), new Set([HASH])));
}

/** Returns a value as a JSON object, or an empty one if it is something else. */
export function record(value: unknown): Spec {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Spec) : {};
}

/** Returns a value as a list, or an empty one if it is something else. */
export function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function plainTemplate(template: Spec, added: ReadonlySet<string>): Spec {
  const { creationTimestamp: _, labels, ...metadata } = record(template['metadata']);
  const kept = Object.fromEntries(Object.entries(record(labels)).filter(([key]) => !added.has(key)));
  return {
    ...template,
    metadata: { ...metadata, ...(Object.keys(kept).length === 0 ? {} : { labels: kept }) },
  };
}

function plainJob(spec: Spec): Spec {
  const { selector, template, ...rest } = spec;
  const defaults: Spec = {
    ...JOB_DEFAULTS,
    ...(rest['podFailurePolicy'] === undefined ? {} : { podReplacementPolicy: 'Failed' }),
    ...(rest['backoffLimitPerIndex'] === undefined ? {} : { backoffLimit: 2 ** 31 - 1 }),
  };
  return {
    ...Object.fromEntries(Object.entries(rest).filter(([key, value]) => defaults[key] !== value)),
    // the selector is generated, but for Jobs that ask to write their own
    ...(rest['manualSelector'] === true ? { selector } : {}),
    template: plainTemplate(record(template), JOB_LABELS),
  };
}
