import { placementOf } from '../gate/index.ts';
import {
  type AllowedRevision,
  CountersignError,
  type Irreversible,
  type ObjectRef,
  type OwnedObject,
  type RenderedObject,
  refKey,
  refText,
  USER_ANNOTATION,
} from '../model/index.ts';
import { runsOnce } from './hooks.ts';
import type { ClusterPort } from './ports.ts';

const FEW = 10; // removals that need no announcement, however small the environment is

/** A planned run, as far as its actions may be irreversible. */
export type Deed = {
  readonly written: readonly {
    readonly ref: ObjectRef;
    readonly rendered: RenderedObject;
    readonly replace: boolean;
    readonly isNew: boolean;
  }[];
  readonly prune: readonly ObjectRef[];
  readonly owned: ReadonlyMap<string, OwnedObject>;
};

/** Returns the effects of a run that going back to the last good revision would not undo. */
export async function irreversible({ written, prune, owned }: Deed, cluster: ClusterPort): Promise<Irreversible[]> {
  const found: Irreversible[] = [];
  for (const { ref, rendered, replace, isNew } of written) {
    if (placementOf(rendered).hook !== undefined && runsOnce(ref)) found.push({ action: 'run', object: ref });
    else if (replace) found.push({ action: 'replace', object: ref });
    else if (isNew && ref.kind === 'Job' && ref.apiVersion.startsWith('batch/'))
      found.push({ action: 'run', object: ref });
    else if (!isNew && (await storesAnew(rendered, cluster))) found.push({ action: 'store', object: ref });
  }
  for (const ref of prune) {
    const holdsData = ['PersistentVolumeClaim', 'PersistentVolume', 'Namespace'].includes(ref.kind);
    if (holdsData || (ref.kind === 'CustomResourceDefinition' && (await cluster.hasInstances(ref))))
      found.push({ action: 'delete', object: ref });
  }
  if (prune.length > FEW && prune.length * 2 > owned.size) found.push({ action: 'prune' });
  return found;
}

/**
 * Throws `change-irreversible` for the first action that neither a signed commit (`Countersign-Allow`) nor the manifest
 * declares intended.
 */
export function refuseUnmeant(
  found: readonly Irreversible[],
  { allows }: AllowedRevision,
  written: Deed['written'],
  total: number,
): void {
  if (found.length === 0) return;
  const said = new Set(allows);
  const byManifest = new Map(written.map((w) => [refKey(w.ref), leaves(w.rendered)]));
  const open = found.filter(({ action, object }) => {
    if (object === undefined) return !said.has(action);
    return !said.has(`${action} ${refText(object)}`) && !byManifest.get(refKey(object))?.has(action);
  });
  const [first] = open;
  if (first === undefined) return;
  const more = open.length > 1 ? ` (and ${open.length - 1} more)` : '';
  const what = first.object === undefined ? '' : refText(first.object);
  const texts = {
    run: [`${what} would run, which cannot be undone`, true],
    store: [`${what} would store its objects in another version, which it then has to keep`, true],
    replace: [`${what} cannot be changed in place; it would be deleted and created again`, true],
    delete: [`${what} would be deleted with its content`, false],
    prune: [`more than half of the ${total} objects would be deleted`, false],
    empty: ['everything would be deleted', false],
  } as const;
  const [text, manifest] = texts[first.action];
  throw new CountersignError('change-irreversible', `${text}${more}`, {
    hint:
      'if you do mean it, say so in the commit: `Countersign-Allow: ' +
      `${first.action}${what === '' ? '' : ` ${what}`}\`` +
      `${manifest ? `, or on the object with the annotation \`${USER_ANNOTATION.allow}: ${first.action}\`` : ''}`,
  });
}

// A definition keeps each version in which it ever stored objects (apiextensions.k8s.io/v1, `status.storedVersions`).
async function storesAnew({ ref, object }: RenderedObject, cluster: ClusterPort): Promise<boolean> {
  if (ref.kind !== 'CustomResourceDefinition') return false;
  const { versions } = (object['spec'] ?? {}) as { versions?: unknown };
  const stored = (Array.isArray(versions) ? versions : []).find(
    (v: { storage?: unknown } | null) => v?.storage === true,
  );
  const live = await cluster.read(ref);
  const { storedVersions } = (live?.['status'] ?? {}) as { storedVersions?: unknown };
  return stored !== undefined && Array.isArray(storedVersions) && !storedVersions.includes(stored.name);
}

/**
 * Returns the actions that the annotation `countersign.dev/allow` of a manifest declares intended. A hook that
 * runs when it is made is meant to run.
 */
export function leaves(rendered: RenderedObject): ReadonlySet<string> {
  const said = rendered.object.metadata.annotations?.[USER_ANNOTATION.allow] ?? '';
  const isMadeAnew = placementOf(rendered).hook !== undefined && runsOnce(rendered.ref);
  const asHook = isMadeAnew ? ['run', 'replace'] : [];
  return new Set([...said.split(',').map((part) => part.trim()), ...asHook]);
}
