import type { ChangeRecord, ReportModel } from './model.ts';

/**
 * Changes whose signed objects go along at most: those of a sample, and as many of those with an exception as there is
 * room for.
 */
const MAX_EVIDENT = 1000;

/**
 * Ids of changes that are told one by one: those of the sample, then the others with an exception, each in the order of
 * the ledger.
 */
export function recordedChanges({ sample, changes }: ReportModel): readonly string[] {
  const drawn = new Set((sample?.items ?? []).map((i) => i.change));
  return [
    ...changes.ids.filter((id) => drawn.has(id)),
    ...changes.ids.filter((id) => !drawn.has(id) && changes.hasExceptions(id)),
  ];
}

/** Those of them that were allowed, so that signatures and approvals stand behind them. */
export function evidentChanges(model: ReportModel): readonly ChangeRecord[] {
  const room = Math.max(MAX_EVIDENT, model.sample?.items.length ?? 0);
  const prevented = new Set(model.exceptions.filter((e) => e.disposition === 'prevented').map((e) => e.change));
  const ids = recordedChanges(model).filter((id) => !prevented.has(id));
  return model.changes.of(ids.slice(0, room)).filter((c) => c.outcome !== 'denied');
}
