import { GIVEN_TO_CLAIMS } from '../machinery/index.ts';
import {
  type AdmittedRequest,
  admissionDigest,
  CountersignError,
  type KubernetesObject,
  refKey,
} from '../model/index.ts';
import type { LedgerView } from './ports.ts';
import { scanned } from './rescan.ts';

const DECLARED: ReadonlySet<string> = new Set(['controller', 'operator']);
// The clocks of the API server and ours differ, and its times have no fractions. An entry is written a moment later.
const BEFORE_MS = 10_000;
const AFTER_MS = 60_000;

/**
 * Tests whether the gate let through, for a declared controller or operator, exactly what an object is now: the digest
 * of the request is on the ledger. The time of the object's last write only says where on the ledger to look. What is
 * archived there was not read, so it is no proof.
 */
export function letThrough(
  ledger: Pick<LedgerView, 'latest' | 'firstAt' | 'evidence'>,
  environment: string,
  object: KubernetesObject,
): boolean {
  const moments = [lastWritten(object), Date.parse(String(object.metadata['creationTimestamp']))];
  const variants = [object, unclaimed(object)];
  return [...new Set(moments)]
    .filter(Number.isFinite)
    .some((at) => variants.some((variant) => isAdmittedAt(at, ledger, environment, variant)));
}

function isAdmittedAt(
  written: number,
  ledger: Pick<LedgerView, 'latest' | 'firstAt' | 'evidence'>,
  environment: string,
  object: KubernetesObject,
): boolean {
  const key = refKey(scanned(object).ref);
  const digests = new Map<string, string>();
  const isThis = ({ object: of, subresource, as, operation, digest }: AdmittedRequest) => {
    if (digest === undefined || subresource !== '' || !DECLARED.has(as) || refKey(of) !== key) return false;
    const own = digests.get(operation) ?? admissionDigest(object, operation);
    digests.set(operation, own);
    return digest === own;
  };
  const [from, to] = [iso(written - BEFORE_MS), iso(written + AFTER_MS)];
  const next = (before?: number) => ledger.latest(['admission.allowed'], environment, before, from);
  try {
    for (let at = next(ledger.firstAt?.(to)); at !== undefined && at.entry.time >= from; at = next(at.index))
      if ((ledger.evidence(at.entry.evidence) as readonly AdmittedRequest[]).some(isThis)) return true;
  } catch (thrown) {
    if (thrown instanceof CountersignError && thrown.code === 'entry-archived') return false;
    throw thrown;
  }
  return false;
}

// Fields that the control plane sets on a claim or a Service after it was made, each by a write of its own that was
// proven.
const FINALIZER = 'service.kubernetes.io/load-balancer-cleanup';

function unclaimed(object: KubernetesObject): KubernetesObject {
  const { apiVersion, kind, metadata } = object;
  if (apiVersion !== 'v1' || (kind !== 'PersistentVolumeClaim' && kind !== 'Service')) return object;
  const { annotations = {}, finalizers, ...rest } = metadata as KubernetesObject['metadata'] & { finalizers?: unknown };
  const kept = Object.fromEntries(Object.entries(annotations).filter(([key]) => !GIVEN_TO_CLAIMS.has(key)));
  const others = Array.isArray(finalizers) ? finalizers.filter((f) => f !== FINALIZER) : [];
  const { volumeName: _, ...spec } = (object['spec'] ?? {}) as Readonly<Record<string, unknown>>;
  return {
    ...object,
    metadata: {
      ...rest,
      ...(Object.keys(kept).length === 0 ? {} : { annotations: kept }),
      ...(others.length === 0 ? {} : { finalizers: others }),
    } as KubernetesObject['metadata'],
    spec: kind === 'Service' ? object['spec'] : spec,
  };
}

function lastWritten({ metadata }: KubernetesObject): number {
  const managers = (metadata['managedFields'] ?? []) as readonly { subresource?: string; time?: string }[];
  const times = managers.filter((m) => m.subresource !== 'status').map((m) => Date.parse(m.time ?? ''));
  const known = times.filter((time) => Number.isFinite(time));
  return known.length > 0 ? Math.max(...known) : Date.parse(String(metadata['creationTimestamp']));
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
