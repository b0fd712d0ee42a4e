import { extname } from 'node:path';
import type { ReportDelivery } from '../model/index.ts';
import { inThread } from '../open/index.ts';
import type { Issue, ReportSummary } from '../schedule/index.ts';

export type DeliveryTask = { readonly place: ReportDelivery; readonly issue: Issue };

/** A summary that only a caller connected to the cluster can store. */
export type ForCluster = readonly [namespace: string, name: string, summary: ReportSummary];

const LIMIT_MS = 15 * 60_000; // the schedule gives up earlier

/**
 * Delivers one report to one destination, in a separate thread. Returns the summary if the destination is a cluster.
 */
export function deliverReport(task: DeliveryTask, signal?: AbortSignal): Promise<ForCluster | undefined> {
  return inThread(
    new URL(`./deliver-thread${extname(import.meta.url)}`, import.meta.url),
    task,
    { ms: LIMIT_MS },
    signal,
  );
}
