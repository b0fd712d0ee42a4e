import type { Violation } from '../model/index.ts';
import type { Judged } from './changes.ts';
import type { PolicyRecord, RuleRecord } from './model.ts';
import { grouped } from './source.ts';

/** The sets of rules that judged, one row for each stretch of verdicts with the same. */
export function policiesOf(verdicts: readonly Judged[]): PolicyRecord[] {
  const rows: PolicyRecord[] = [];
  for (const [environment, all] of grouped(verdicts, (v) => v.entry.environment)) {
    let open: { -readonly [K in keyof PolicyRecord]: PolicyRecord[K] } | undefined;
    for (const { entry, verdict } of all) {
      const bundle = verdict.consulted.bundleDigest;
      if (open === undefined || open.bundle !== bundle) {
        if (open !== undefined) open.to = entry.time;
        open = { environment, bundle, from: entry.time, to: '', verdicts: 0, denied: 0, waived: 0 };
        rows.push(open);
      }
      open.verdicts++;
      if (entry.outcome === 'denied') open.denied++;
      open.waived += (verdict.waived ?? []).length;
    }
  }
  return rows;
}

/** How often each rule spoke in the last verdict on each change. */
export function rulesOf(last: readonly Judged[]): RuleRecord[] {
  const rows = new Map<string, { -readonly [K in keyof Omit<RuleRecord, 'rule'>]: RuleRecord[K] }>();
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
  for (const { verdict } of last) {
    for (const v of verdict.violations) count(v, 'denied');
    for (const v of verdict.warnings) count(v, 'warned');
    for (const v of verdict.waived ?? []) count(v, 'waived');
  }
  return [...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([rule, row]) => ({ rule, ...row }));
}
