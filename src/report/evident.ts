import type { ChangeRecord, ReportModel } from './model.ts';

/** Changes whose signed objects go along at most: those of a sample, and as many of those with an exception as there is room for. */
const MAX_EVIDENT = 1000;

/** Changes that are told one by one: those of the sample, then the others with an exception, each in the order of the ledger. */
export function recordedChanges(model: ReportModel): readonly ChangeRecord[] {
  const drawn = new Set((model.sample?.items ?? []).map((i) => i.change));
  return [...model.changes.filter((c) => drawn.has(c.id)), ...model.changes.filter((c) => !drawn.has(c.id) && c.exceptions.length > 0)];
}

/** Those of them that were allowed, so that signatures and approvals stand behind them. */
export function evidentChanges(model: ReportModel): readonly ChangeRecord[] {
  const sampled = model.sample?.items.length ?? 0;
  return recordedChanges(model)
    .filter((c) => c.outcome !== 'denied')
    .slice(0, Math.max(MAX_EVIDENT, sampled));
}
