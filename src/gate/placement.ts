import {
  HOOK_ANNOTATION,
  type Hook,
  type HookRemoval,
  type Occasion,
  type Placement,
  type RenderedObject,
  refText,
  similar,
  USER_ANNOTATION,
  type Violation,
  type ViolationCode,
} from '../model/index.ts';

/** Returns when a change writes an object, by the annotations of Countersign, Argo CD and Helm on it. */
export function placementOf(rendered: RenderedObject): Placement {
  const hook = hookOf(rendered);
  const [key] = ordersOn(rendered, hook !== undefined);
  const order = key === undefined ? undefined : integerIn(annotation(rendered, key));
  const placed = { order: order ?? 0, isStated: order !== undefined };
  return hook === undefined ? placed : { ...placed, hook };
}

/** Refuses annotations about order and hooks that are not understood, or that contradict each other. */
export function misplaced(rendered: RenderedObject): readonly Violation[] {
  const names = [...unknownIn(rendered, HOOKS), ...unknownIn(rendered, POLICIES)];
  if (names.length > 0) return names;
  const hooks = hooksDiffer(rendered) ? [contradictingHooks(rendered)] : [];
  return [...hooks, ...wrongOrders(rendered)];
}

/**
 * Tests whether an object is in Git for an occasion that Countersign does not have, so that no change writes it: a
 * test, the deletion of a release, or `Skip`.
 */
export function isNeverWritten(rendered: RenderedObject): boolean {
  return hookOf(rendered)?.runs.length === 0;
}

/** Warns of an object that no change writes. Helm's tests are known to be started by hand. */
export function neverWritten(rendered: RenderedObject): Violation | undefined {
  const key = [ARGO.hook, HELM.hook].find((one) => annotation(rendered, one) !== undefined);
  const said = key === undefined ? [] : listIn(rendered, key);
  if (key === undefined || !isNeverWritten(rendered) || said.every((name) => name.startsWith('test'))) return undefined;
  return refuse(rendered, key, 'hook-not-run', {
    message: `${refText(rendered.ref)} is not applied: \`${key}: ${said.join(',')}\``,
    hint: 'it is removed if it was applied before; remove the annotation to apply it',
  });
}

const ARGO = {
  wave: 'argocd.argoproj.io/sync-wave',
  hook: HOOK_ANNOTATION.argo,
  policy: 'argocd.argoproj.io/hook-delete-policy',
} as const;
const HELM = {
  weight: 'helm.sh/hook-weight',
  hook: HOOK_ANNOTATION.helm,
  policy: 'helm.sh/hook-delete-policy',
} as const;

// --- hooks

type Run = Hook['runs'][number];

const ALWAYS: readonly Occasion[] = ['install', 'upgrade', 'rollback'];
const never: readonly Run[] = [];
const on = (phase: Run['phase'], ...occasions: readonly Occasion[]): readonly Run[] => [{ phase, on: occasions }];

/** The meaning of each name. Helm's `crd-install` makes no hook: Helm 3 and Argo CD take it for an ordinary object. */
const HOOKS: Readonly<Record<string, Readonly<Record<string, readonly Run[]>>>> = {
  [ARGO.hook]: {
    PreSync: on('before', ...ALWAYS),
    Sync: on('main', ...ALWAYS),
    PostSync: on('after', ...ALWAYS),
    SyncFail: on('failure', ...ALWAYS),
    PreDelete: never,
    PostDelete: never,
    Skip: never,
  },
  [HELM.hook]: {
    'pre-install': on('before', 'install'),
    'pre-upgrade': on('before', 'upgrade'),
    'pre-rollback': on('before', 'rollback'),
    'post-install': on('after', 'install'),
    'post-upgrade': on('after', 'upgrade'),
    'post-rollback': on('after', 'rollback'),
    'pre-delete': never,
    'post-delete': never,
    test: never,
    'test-success': never,
    'test-failure': never,
    'crd-install': never,
  },
};

const POLICIES: Readonly<Record<string, Readonly<Record<string, HookRemoval>>>> = {
  [ARGO.policy]: { BeforeHookCreation: 'before', HookSucceeded: 'succeeded', HookFailed: 'failed' },
  [HELM.policy]: { 'before-hook-creation': 'before', 'hook-succeeded': 'succeeded', 'hook-failed': 'failed' },
};

// As Argo CD does it, its own annotation counts if an object has both.
function hookOf(rendered: RenderedObject): Hook | undefined {
  const key = [ARGO.hook, HELM.hook].find((one) => annotation(rendered, one) !== undefined);
  if (key === undefined || listIn(rendered, key).includes('crd-install')) return undefined;
  const removals = Object.keys(POLICIES).flatMap((policy) => meant(rendered, policy, POLICIES));
  return { runs: merged(meant(rendered, key, HOOKS).flat()), remove: removals.length === 0 ? ['before'] : removals };
}

// One run for each phase.
function merged(runs: readonly Run[]): readonly Run[] {
  const byPhase = Map.groupBy(runs, (r) => r.phase);
  return [...byPhase].map(([phase, all]) => ({ phase, on: [...new Set(all.flatMap((r) => r.on))] }));
}

type Meanings<T> = Readonly<Record<string, Readonly<Record<string, T>>>>;

function meant<T>(rendered: RenderedObject, key: string, meanings: Meanings<T>): readonly T[] {
  const names = meanings[key] ?? {};
  return listIn(rendered, key).flatMap((name) => (Object.hasOwn(names, name) ? [names[name] as T] : []));
}

function unknownIn(rendered: RenderedObject, meanings: Meanings<unknown>): readonly Violation[] {
  return Object.entries(meanings).flatMap(([key, names]) => {
    const said = annotation(rendered, key);
    const unknown = listIn(rendered, key).filter((name) => !Object.hasOwn(names, name));
    if (said === undefined || (unknown.length === 0 && listIn(rendered, key).length > 0)) return [];
    const known = Object.keys(names);
    const [wrong = ''] = unknown;
    const near = known.find((name) => name.toLowerCase() === wrong.toLowerCase()) ?? similar(wrong, known);
    const message = `${refText(rendered.ref)}: \`${key}\` has no meaning for ${shown(unknown[0] ?? said)}`;
    const hint = near === undefined ? `write one or more of ${known.join(', ')}` : `write \`${key}: ${near}\``;
    return [refuse(rendered, key, 'hook-unknown', { message, hint })];
  });
}

// Helm knows an installation from an upgrade, and Argo CD does not: only the phases can contradict each other.
function hooksDiffer(rendered: RenderedObject): boolean {
  const phases = (key: string) => new Set(meant(rendered, key, HOOKS).flatMap((runs) => runs.map((r) => r.phase)));
  if ([ARGO.hook, HELM.hook].some((key) => annotation(rendered, key) === undefined)) return false;
  const [argo, helm] = [phases(ARGO.hook), phases(HELM.hook)];
  return argo.size !== helm.size || [...argo].some((phase) => !helm.has(phase));
}

function contradictingHooks(rendered: RenderedObject): Violation {
  const [argo, helm] = [ARGO.hook, HELM.hook].map((key) => `\`${key}: ${annotation(rendered, key)}\``);
  return refuse(rendered, ARGO.hook, 'hook-contradicts', {
    message: `${refText(rendered.ref)}: ${argo} and ${helm} mean different phases`,
    hint: `remove one of them, or let both name the same phase (\`PreSync\` is \`pre-install,pre-upgrade\`)`,
  });
}

// --- order

const INTEGER = /^[+-]?\d{1,9}$/;

// The weight of what is no hook has no meaning.
function ordersOn(rendered: RenderedObject, isHook: boolean): readonly string[] {
  const keys = [USER_ANNOTATION.order, ARGO.wave, ...(isHook ? [HELM.weight] : [])];
  return keys.filter((key) => annotation(rendered, key) !== undefined);
}

function wrongOrders(rendered: RenderedObject): readonly Violation[] {
  const stated = ordersOn(rendered, hookOf(rendered) !== undefined);
  const unreadable = stated.filter((key) => integerIn(annotation(rendered, key)) === undefined);
  if (unreadable.length > 0) return unreadable.map((key) => notAnInteger(rendered, key));
  const [first, ...others] = stated;
  const other = others.find((key) => integerIn(annotation(rendered, key)) !== integerIn(annotation(rendered, first)));
  return first === undefined || other === undefined ? [] : [contradictingOrders(rendered, first, other)];
}

function notAnInteger(rendered: RenderedObject, key: string): Violation {
  const said = annotation(rendered, key);
  return refuse(rendered, key, 'order-unreadable', {
    message: `${refText(rendered.ref)}: \`${key}\` must be an integer in quotes, not ${shown(said)}`,
    hint: `write \`${key}: "${Number.isSafeInteger(said) ? said : '-5'}"\`, or remove the annotation`,
  });
}

function contradictingOrders(rendered: RenderedObject, first: string, other: string): Violation {
  const [one, two] = [first, other].map((key) => `\`${key}\` says ${annotation(rendered, key)}`);
  return refuse(rendered, other, 'order-contradicts', {
    message: `${refText(rendered.ref)}: ${one}, and ${two}`,
    hint: `remove one of them, or write \`${other}: "${annotation(rendered, first)}"\``,
  });
}

// --- annotations

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
function annotation({ object }: RenderedObject, key: string | undefined): unknown {
  const { annotations } = object.metadata as { readonly annotations?: unknown };
  if (typeof annotations !== 'object' || annotations === null || key === undefined) return undefined;
  return Object.hasOwn(annotations, key) ? (annotations as Readonly<Record<string, unknown>>)[key] : undefined;
}

function listIn(rendered: RenderedObject, key: string): readonly string[] {
  const value = annotation(rendered, key);
  if (typeof value !== 'string') return [];
  return value
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
}

function integerIn(value: unknown): number | undefined {
  return typeof value === 'string' && INTEGER.test(value) ? Number(value) : undefined;
}

function shown(value: unknown): string {
  return typeof value === 'string' ? `\`${value.slice(0, 40)}\`` : `${typeof value} \`${String(value).slice(0, 40)}\``;
}
