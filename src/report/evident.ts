import type { ChangeRecord, ReportModel } from './model.ts';

/**
 * Maximum number of changes whose signed objects are included: those of a sample, and those with an exception if there
 * is room.
 */
const MAX_EVIDENT = 1000;

/**
 * Returns ids of changes shown individually: those of the sample, then others with an exception, each in ledger order.
 */
export function recordedChanges({ sample, changes }: ReportModel): readonly string[] {
  const drawn = new Set((sample?.items ?? []).map((i) => i.change));
  return [
    ...changes.ids.filter((id) => drawn.has(id)),
    ...changes.ids.filter((id) => !drawn.has(id) && changes.hasExceptions(id)),
  ];
}

/** Returns those that were allowed, and so rest on signatures and approvals. */
export function evidentChanges(model: ReportModel): readonly ChangeRecord[] {
  const room = Math.max(MAX_EVIDENT, model.sample?.items.length ?? 0);
  const prevented = new Set(model.exceptions.filter((e) => e.disposition === 'prevented').map((e) => e.change));
  const ids = recordedChanges(model).filter((id) => !prevented.has(id));
  return model.changes.of(ids.slice(0, room)).filter((c) => c.outcome !== 'denied');
}
