import type { ChangeFacts } from './changes.ts';
import type { DeliveryMetrics } from './model.ts';
import { grouped, seconds } from './source.ts';

const WEEK_S = 7 * 86_400;

/**
 * Computes the delivery metrics of each environment (dora.dev, five keys). A deployment is an applied change that wrote
 * or removed an object. It failed if it was undone, or if a rollback or an emergency followed within `failureHours`.
 */
export function metricsOf(
  changes: readonly ChangeFacts[],
  period: { readonly from: string; readonly to: string },
  failureHours: number,
): DeliveryMetrics[] {
  return [...grouped(changes, (c) => c.environment)]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([environment, all]) => {
      const runs = all
        .filter(
          (c) =>
            (c.outcome === 'applied' && c.written + c.removed > 0) ||
            (c.outcome === 'failed' && c.applyStartedAt !== ''),
        )
        .sort((a, b) => (startOf(a) < startOf(b) ? -1 : 1));
      const lead = runs
        .filter((c) => c.outcome === 'applied')
        .flatMap((c) => c.committedAt.map((at) => Math.round(Date.parse(c.appliedAt) / 1000 - at)));
      const failed: { readonly at: string; readonly until: string | undefined }[] = [];
      runs.forEach((run, i) => {
        const next = runs[i + 1];
        const isFixed =
          next !== undefined &&
          (next.type === 'rollback' || next.type === 'emergency') &&
          seconds(startOf(run), startOf(next)) <= failureHours * 3600;
        if (run.outcome === 'failed')
          failed.push({ at: startOf(run), until: runs.slice(i + 1).find((r) => r.outcome === 'applied')?.appliedAt });
        else if (isFixed)
          failed.push({ at: run.appliedAt, until: next.outcome === 'applied' ? next.appliedAt : undefined });
      });
      const recovery = failed.flatMap((f) => (f.until === undefined ? [] : [seconds(f.at, f.until)]));
      const weeks = Math.max(1 / 7, seconds(period.from, period.to) / WEEK_S);
      return {
        environment,
        deployments: runs.length,
        perWeek: round(runs.length / weeks),
        leadTime: { n: lead.length, median: quantile(lead, 0.5), p90: quantile(lead, 0.9) },
        failed: failed.length,
        failRate: runs.length === 0 ? undefined : round(failed.length / runs.length),
        recoveryTime: { n: recovery.length, median: quantile(recovery, 0.5), open: failed.length - recovery.length },
        reworkRate:
          runs.length === 0 ? undefined : round(runs.filter((c) => c.type === 'emergency').length / runs.length),
      };
    });
}

function startOf(change: ChangeFacts): string {
  return change.outcome === 'applied' ? change.appliedAt : change.applyStartedAt;
}

/** Returns a quantile (nearest rank); undefined for an empty list. */
function quantile(values: readonly number[], share: number): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
}

function round(value: number): number {
  return Math.round(value * 10_000) / 10_000;
}
