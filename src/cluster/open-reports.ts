import { CountersignError, FIELD_MANAGER, type ObjectRef } from '../model/index.ts';
import type { ApiServer } from './api-server.ts';
import { MANAGED } from './webhook-objects.ts';

/** One line of a Report (openreports.io/v1alpha1, github.com/openreports/reports-api). */
export type ReportResult = {
  readonly rule: string;
  readonly result: 'pass' | 'fail' | 'warn' | 'error' | 'skip';
  readonly message: string;
  readonly severity?: string | undefined;
  /** The object concerned; absent if there is none. */
  readonly object?: ObjectRef;
};

const MAX_RESULTS = 500; // an object has at most 1.5 MiB in etcd; omitted results are counted in the summary
const MAX_MESSAGE = 1000;
const SEVERITIES: ReadonlySet<string> = new Set(['critical', 'high', 'medium', 'low', 'info']);

/**
 * Writes results into a namespace as the Report `countersign-NAME`, for example of one environment. Returns false if
 * the cluster does not have that kind. Throws `cluster-forbidden`.
 */
export async function putReport(
  server: ApiServer,
  namespace: string,
  about: string,
  results: readonly ReportResult[],
  at: Date,
): Promise<boolean> {
  const summary = { pass: 0, fail: 0, warn: 0, error: 0, skip: 0 };
  for (const { result } of results) summary[result]++;
  const timestamp = { seconds: Math.floor(at.getTime() / 1000), nanos: 0 };
  const told = results.filter((r) => r.result !== 'pass').slice(0, MAX_RESULTS);
  const name = `countersign-${about}`.slice(0, 63);
  const body = {
    apiVersion: 'openreports.io/v1alpha1',
    kind: 'Report',
    metadata: { name, namespace, labels: MANAGED },
    source: 'countersign',
    summary,
    results: told.map(({ rule, result, message, severity, object }) => ({
      policy: 'countersign',
      rule,
      result,
      message: message.slice(0, MAX_MESSAGE),
      scored: true,
      ...(severity !== undefined && SEVERITIES.has(severity) ? { severity } : {}),
      ...(object === undefined ? {} : { resources: [object] }),
      timestamp,
    })),
  };
  const path =
    '/apis/openreports.io/v1alpha1/namespaces/' +
    `${encodeURIComponent(namespace)}/reports/${encodeURIComponent(name)}`;
  const { status, body: said } = await server.request(
    'PATCH',
    `${path}?fieldManager=${FIELD_MANAGER}&force=true`,
    body,
    'application/apply-patch+yaml',
  );
  if (status === 404) return false;
  if (status >= 300)
    throw new CountersignError(
      'cluster-forbidden',
      `cannot write the Report ${namespace}/${name}: ${String(said['message'] ?? status)}`,
      {
        hint: 'grant `create` and `patch` on reports of openreports.io',
      },
    );
  return true;
}
