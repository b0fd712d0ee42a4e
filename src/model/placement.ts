/** Annotations of Argo CD and Helm that make an object a hook. */
export const HOOK_ANNOTATION = { argo: 'argocd.argoproj.io/hook', helm: 'helm.sh/hook' } as const;

/** The part of a change in which a hook runs. `main` is where ordinary objects are written. */
export const HOOK_PHASES = ['before', 'main', 'after', 'failure'] as const;
export type HookPhase = (typeof HOOK_PHASES)[number];

/** Why a change takes place: the first revision, a later one, or a requested rollback. */
export type Occasion = 'install' | 'upgrade' | 'rollback';

/** When the object of a hook is removed: before it runs again, once it succeeded, or once it failed. */
export type HookRemoval = 'before' | 'succeeded' | 'failed';

/** An object that runs in a phase of a change, instead of staying as long as Git has it. */
export type Hook = {
  readonly runs: readonly { readonly phase: HookPhase; readonly on: readonly Occasion[] }[];
  readonly remove: readonly HookRemoval[];
};

/** When a change writes an object. Lower orders first; each is healthy before the next one is written. */
export type Placement = {
  readonly order: number;
  /** Whether an annotation says so; the others are at 0. */
  readonly isStated: boolean;
  readonly hook?: Hook;
};
