import type { StatedConfiguration } from '../model/index.ts';
import type { ChangeFacts } from './changes.ts';
import type { EmergencyRecord, ReportDefinition, ReportModel } from './model.ts';
import { type ReportSource, unique } from './source.ts';

/** Returns the scope of a report, its exclusions, who can bypass the gate, and the changes of its configuration. */
export function scopeOf(
  source: ReportSource,
  changes: readonly ChangeFacts[],
  emergencies: readonly EmergencyRecord[],
  definition: ReportDefinition,
  isIn: (environment: string) => boolean,
): ReportModel['scope'] {
  const beat = source.within('heartbeat').at(-1)?.entry.environments ?? [];
  const statements = source.within('config.stated').map(({ index, entry }) => ({
    index,
    time: entry.time,
    ...source.evidence<StatedConfiguration>(entry.evidence.sha256),
  }));
  // Replicas that run some of the environments record those: the newest record of each counts.
  const stated = new Map(statements.flatMap((s) => s.environments.map((e) => [e.name, e] as const)));
  const names = unique([...changes.map((c) => c.environment), ...beat.map((e) => e.name), ...stated.keys()]).filter(
    isIn,
  );
  const whole = unique(
    source.all.flatMap(({ entry }) => ('environment' in entry && entry.environment !== '' ? [entry.environment] : [])),
  );
  return {
    environments: names.sort().map((name) => {
      const { repository, branch, path, namespaces, admission, breakGlass } = stated.get(name) ?? {};
      return {
        name,
        refs: unique(changes.flatMap((c) => (c.environment === name && c.ref !== '' ? [c.ref] : []))),
        revision:
          beat.find((e) => e.name === name)?.revision ??
          changes.filter((c) => c.environment === name && c.outcome === 'applied').at(-1)?.to ??
          '',
        source: repository === undefined ? '' : `${repository} ${branch} ${path}`,
        namespaces: namespaces ?? [],
        admission: admission ?? '',
        breakGlass: breakGlass ?? [],
      };
    }),
    excluded: definition.environments.length === 0 ? [] : whole.filter((name) => !isIn(name)).sort(),
    bypass: unique(
      emergencies.flatMap((e) => [
        e.requester,
        ...(e.approver === '' ? [] : [e.approver]),
        ...e.uses.map((u) => u.user),
      ]),
    ).sort(),
    changed: statements.flatMap(({ index, time, changes: all }) =>
      all.filter((c) => isIn(c.environment)).map((c) => ({ entry: index, time, ...c })),
    ),
  };
}
