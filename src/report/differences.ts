import type { Differences, ReportModel } from './model.ts';

const COUNTED = ['changes', 'applied', 'denied', 'failed', 'exceptions', 'open', 'admissionsDenied'] as const;

/** Returns the differences from the superseded report: numbers, changes by outcome, exceptions by disposition. */
export function differencesOf(before: ReportModel, after: ReportModel): Differences {
  return {
    counts: COUNTED.filter((name) => before.summary[name] !== after.summary[name]).map((name) => ({
      name,
      before: before.summary[name],
      after: after.summary[name],
    })),
    changes: differing([...outcomes(before)], [...outcomes(after)]),
    exceptions: differing(
      before.exceptions.map((e) => [e.id, e.disposition]),
      after.exceptions.map((e) => [e.id, e.disposition]),
    ),
  };
}

function* outcomes({ changes }: ReportModel): Generator<readonly [string, string]> {
  for (const { id, outcome } of changes) yield [id, outcome];
}

// Returns items that are in only one of them, or differ; an empty text stands for a missing one.
function differing(
  before: readonly (readonly [string, string])[],
  after: readonly (readonly [string, string])[],
): Differences['changes'] {
  const [was, is] = [new Map(before), new Map(after)];
  return [...new Set([...was.keys(), ...is.keys()])]
    .map((id) => ({ id, before: was.get(id) ?? '', after: is.get(id) ?? '' }))
    .filter((d) => d.before !== d.after)
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}
