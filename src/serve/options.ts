import type { PassOptions } from '../open/index.ts';
import type { Step } from '../reconcile/index.ts';

export type ServeOptions = PassOptions & {
  configNamespace?: string[];
  configFiles?: string;
  allowCrossNamespace?: boolean;
  listen: string;
  webhookUrl?: string;
  webhookService?: string;
  webhookTls?: string;
  webhookClientCa?: string;
  webhookName: string;
  webhookThreads: string;
  protect: boolean;
  rescan: string;
  http: string;
  httpName: string[];
  dashboard: string;
  anchor?: string[];
  anchorEvery: string;
  auditTokenFile?: string;
  heartbeat: string;
  lease?: string;
};

/** Hooks for observing a running service: each step of each change (tests stop the process there). */
export type ServeHooks = {
  /** Called when everything is loaded and runs. */
  readonly onRunning?: () => void;
  /** Called when a Lease was lost. The process should end soon, even if something is still open. */
  readonly onLeaseLost?: () => void;
  readonly onStep?: (step: Step, environment: string) => void;
};
