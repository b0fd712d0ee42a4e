import {
  groupOf,
  type KubernetesObject,
  type Operator,
  operatorsOf,
  type WrittenOperator,
  wildcardMatches,
} from '../model/index.ts';
import { type AdmissionRequest, isListed } from './admission-request.ts';

/** Result of looking a request up among the declared operators. */
export type Declared =
  /** Its user is no operator. */
  | { readonly kind: 'none' }
  /** It is one that makes such objects. */
  | { readonly kind: 'makes' }
  /** It is one that was declared to make others. `reason` names what does not fit. */
  | { readonly kind: 'other'; readonly reason: string };

/**
 * Compares a request with what its user was declared to make. Of several entries for one user, one that fits is enough.
 * An object that is removed needs the right kind only.
 */
export function declaredFor(request: AdmissionRequest, written: readonly WrittenOperator[]): Declared {
  const reasons = operatorsOf(written)
    .filter(({ identity }) => isListed(request, [identity]))
    .map((operator) => whyNot(request, operator));
  if (reasons.length === 0) return { kind: 'none' };
  const [first] = reasons;
  return first === undefined || reasons.includes(undefined) ? { kind: 'makes' } : { kind: 'other', reason: first };
}

function whyNot({ ref, object, user }: AdmissionRequest, { makes }: Operator): string | undefined {
  const { kinds, images } = makes ?? {};
  const group = groupOf(ref.apiVersion);
  const isOfKind = kinds?.some((kind) => kind === ref.kind || kind === `${ref.kind}.${group}`) ?? true;
  if (!isOfKind) return `\`${user}\` makes no ${ref.kind}: \`makes.kinds\` does not have it`;
  const foreign = object === undefined ? undefined : imagesIn(object).find((image) => !isOneOf(image, images));
  return foreign === undefined
    ? undefined
    : `\`${user}\` makes nothing with the image \`${foreign}\`: no pattern in \`makes.images\` matches it`;
}

function isOneOf(image: string, patterns: readonly string[] | undefined): boolean {
  return patterns?.some((pattern) => wildcardMatches(pattern, image)) ?? true;
}

const CONTAINERS: ReadonlySet<string> = new Set(['containers', 'initContainers', 'ephemeralContainers']);

// Wherever an object has a list of containers, also in a custom kind that another operator makes pods of.
function imagesIn(value: unknown): readonly string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value as KubernetesObject).flatMap(([key, inner]) => {
    const own = CONTAINERS.has(key) && Array.isArray(inner) ? inner.flatMap(imageOf) : [];
    return [...own, ...imagesIn(inner)];
  });
}

// A container without an image runs none that was declared.
function imageOf(container: unknown): readonly string[] {
  if (typeof container !== 'object' || container === null) return [];
  const { image } = container as { readonly image?: unknown };
  return [typeof image === 'string' ? image : ''];
}
