import type { Verdict, Violation } from '../model/index.ts';
import type { ReadVerdict } from './changes.ts';
import type { PolicyRecord, RuleRecord } from './model.ts';

type Open<T> = { -readonly [K in keyof T]: T[K] };

/**
 * Collects the sets of rules that judged, one row per run of verdicts with the same set. Verdicts must be added in
 * order.
 */
export function policyBook(): { readonly see: (read: ReadVerdict) => void; readonly records: () => PolicyRecord[] } {
  const rows = new Map<string, Open<PolicyRecord>[]>();
  return {
    see: ({ judged: { entry }, verdict }) => {
      const mine = rows.get(entry.environment) ?? [];
      rows.set(entry.environment, mine);
      const bundle = verdict.consulted.bundleDigest;
      let open = mine.at(-1);
      if (open === undefined || open.bundle !== bundle) {
        if (open !== undefined) open.to = entry.time;
        open = { environment: entry.environment, bundle, from: entry.time, to: '', verdicts: 0, denied: 0, waived: 0 };
        mine.push(open);
      }
      open.verdicts++;
      if (entry.outcome === 'denied') open.denied++;
      open.waived += (verdict.waived ?? []).length;
    },
    records: () => [...rows.values()].flat(),
  };
}

/** Counts the findings of each rule in the verdicts added: the last one on each change. */
export function ruleBook(): { readonly see: (verdict: Verdict) => void; readonly records: () => RuleRecord[] } {
  const rows = new Map<string, Open<Omit<RuleRecord, 'rule'>>>();
  const count = (v: Violation, field: 'denied' | 'warned' | 'waived') => {
    const rule = v.rule ?? v.code;
    const row = rows.get(rule) ?? {
      title: '',
      severity: '',
      controls: [],
      denied: 0,
      warned: 0,
      waived: 0,
    };
    row.title ||= v.title ?? '';
    row.severity ||= v.severity ?? '';
    if (row.controls.length === 0) row.controls = v.controls ?? [];
    row[field]++;
    rows.set(rule, row);
  };
  return {
    see: (verdict) => {
      for (const v of verdict.violations) count(v, 'denied');
      for (const v of verdict.warnings) count(v, 'warned');
      for (const v of verdict.waived ?? []) count(v, 'waived');
    },
    records: () => [...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([rule, row]) => ({ rule, ...row })),
  };
}
