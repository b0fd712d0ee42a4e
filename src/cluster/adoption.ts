import { controllerOf, isStamp, type KubernetesObject } from '../model/index.ts';
import { differences } from './fields.ts';
import { isMark } from './owners.ts';

/**
 * Returns JSON pointers to what taking over a live object would change in it, without the marks by which tools know
 * their objects. `wanted` is the object as it would be afterwards, and `git` as it is in Git. A controller that Git
 * does not name counts as well: it would go on writing the object, or delete it.
 */
export function adoptionChanges(
  live: KubernetesObject,
  wanted: KubernetesObject,
  git: KubernetesObject,
): readonly string[] {
  const found = differences(withoutMarks(live, wanted), withoutMarks(wanted, live), MAX_PATHS);
  const isOwned = controllerOf(live) !== undefined && git.metadata['ownerReferences'] === undefined;
  return isOwned && !found.includes(OWNERS) ? [...found, OWNERS] : found;
}

const OWNERS = '/metadata/ownerReferences';
const MAX_PATHS = 1000; // so that what restarts pods is among them

// A mark that both have, with different values, is a difference.
function withoutMarks(object: KubernetesObject, other: KubernetesObject): KubernetesObject {
  const { labels, annotations, ...metadata } = object.metadata;
  const kept = (where: 'labels' | 'annotations') => {
    const entries = Object.entries(object.metadata[where] ?? {}).filter(
      ([key, value]) =>
        !isStamp(key) && (other.metadata[where]?.[key] !== undefined || !isMark(object, where, key, value)),
    );
    return entries.length === 0 ? {} : { [where]: Object.fromEntries(entries) };
  };
  return { ...object, metadata: { ...metadata, ...kept('labels'), ...kept('annotations') } };
}
