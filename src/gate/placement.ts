import {
  type Placement,
  type RenderedObject,
  refText,
  USER_ANNOTATION,
  type Violation,
  type ViolationCode,
} from '../model/index.ts';

/** Annotations of Argo CD. */
const ARGO = { wave: 'argocd.argoproj.io/sync-wave' } as const;

const ORDERS: readonly string[] = [USER_ANNOTATION.order, ARGO.wave];
const INTEGER = /^[+-]?\d{1,9}$/;

/** Returns when a change writes an object, by the annotations of Countersign and Argo CD on it. */
export function placementOf(rendered: RenderedObject): Placement {
  return read(rendered).placement;
}

/** Refuses annotations about the order of an object that are not understood, or that contradict each other. */
export function misplaced(rendered: RenderedObject): readonly Violation[] {
  return read(rendered).violations;
}

type Read = { readonly placement: Placement; readonly violations: readonly Violation[] };

function read(rendered: RenderedObject): Read {
  const stated = ORDERS.filter((key) => annotation(rendered, key) !== undefined);
  const unreadable = stated.filter((key) => integerIn(annotation(rendered, key)) === undefined);
  const [first, other] = distinct(stated, (key) => integerIn(annotation(rendered, key)));
  const order = first === undefined ? undefined : integerIn(annotation(rendered, first));
  return {
    placement: { order: order ?? 0, isStated: order !== undefined },
    violations: [
      ...unreadable.map((key) => notAnInteger(rendered, key)),
      ...(unreadable.length > 0 || first === undefined || other === undefined
        ? []
        : [contradiction(rendered, first, other)]),
    ],
  };
}

function notAnInteger(rendered: RenderedObject, key: string): Violation {
  const said = annotation(rendered, key);
  return refuse(rendered, key, 'order-unreadable', {
    message: `${refText(rendered.ref)}: \`${key}\` must be an integer in quotes, not ${shown(said)}`,
    hint: `write \`${key}: "${Number.isSafeInteger(said) ? said : '-5'}"\`, or remove the annotation`,
  });
}

function contradiction(rendered: RenderedObject, first: string, other: string): Violation {
  const [one, two] = [first, other].map((key) => `\`${key}\` says ${annotation(rendered, key)}`);
  return refuse(rendered, other, 'order-contradicts', {
    message: `${refText(rendered.ref)}: ${one}, and ${two}`,
    hint: `remove one of them, or write \`${other}: "${annotation(rendered, first)}"\``,
  });
}

function refuse(
  { ref, source, lineOf }: RenderedObject,
  key: string,
  code: ViolationCode,
  said: { readonly message: string; readonly hint: string },
): Violation {
  const line = lineOf(['metadata', 'annotations', key]);
  return { code, ...said, object: ref, source: { file: source.file, line } };
}

// A manifest may have anything here: the API server has not seen it yet.
function annotation({ object }: RenderedObject, key: string): unknown {
  const { annotations } = object.metadata as { readonly annotations?: unknown };
  if (typeof annotations !== 'object' || annotations === null || !Object.hasOwn(annotations, key)) return undefined;
  return (annotations as Readonly<Record<string, unknown>>)[key];
}

function integerIn(value: unknown): number | undefined {
  return typeof value === 'string' && INTEGER.test(value) ? Number(value) : undefined;
}

function shown(value: unknown): string {
  return typeof value === 'string' ? `\`${value.slice(0, 40)}\`` : `${typeof value} \`${String(value).slice(0, 40)}\``;
}

// The first key of each value.
function distinct(keys: readonly string[], of: (key: string) => unknown): readonly string[] {
  return [...new Map(keys.toReversed().map((key) => [of(key), key])).values()].toReversed();
}
