import { CountersignError, type ObjectRef, refText } from '../model/index.ts';

const SHOWN = 5;

/**
 * Returns the refusal of an object that exists and is not as in Git, where taking it over may change nothing. `fields`
 * are JSON pointers to what would change; `others` is the number of further objects like it.
 */
export function unadopted(ref: ObjectRef, fields: readonly string[], others: number): CountersignError {
  const shown = fields.slice(0, SHOWN).map((field) => `\`${field.slice(0, 200)}\``);
  const more = fields.length > SHOWN ? ` and ${fields.length - SHOWN} more` : '';
  const effect = effectOnPods(ref, fields);
  const also = others === 0 ? '' : `; so would ${others} more ${others === 1 ? 'object' : 'objects'}`;
  return new CountersignError(
    'cluster-conflict',
    `${refText(ref)} exists, and adopting it would change ${shown.join(', ')}${more}` +
      `${effect === undefined ? '' : ` (${effect})`}${also}`,
    {
      hint:
        'commit what the cluster has (`countersign adopt` shows it), list the fields in `spec.drift.ignore`, ' +
        'or set `spec.apply.conflicts: takeOver` to write what Git has',
    },
  );
}

/**
 * Returns the refusal of a pod that exists and that Git has now. The API server lets no one change its commands, or
 * remove a container, so that it cannot be brought to what Git has.
 */
export function podOfOthers(ref: ObjectRef): CountersignError {
  return new CountersignError('cluster-conflict', `${refText(ref)} exists, and a pod cannot be made as in Git`, {
    hint: 'delete it (where admission is on, by break-glass): the change makes it again',
  });
}

const WORKLOADS: ReadonlySet<string> = new Set(['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet']);

/** Returns what a change of these fields does to running pods, as a clause; undefined if it does nothing to them. */
export function effectOnPods(
  { kind, apiVersion }: Pick<ObjectRef, 'kind' | 'apiVersion'>,
  pointers: readonly string[],
): string | undefined {
  if (!apiVersion.startsWith('apps/') || !WORKLOADS.has(kind)) return undefined;
  const has = (prefix: string) => pointers.some((p) => p === prefix || p.startsWith(`${prefix}/`));
  if (has('/spec/template')) return 'its pods would restart';
  return has('/spec/replicas') ? 'it would be scaled' : undefined;
}
