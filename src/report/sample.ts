import { createHmac } from 'node:crypto';
import type { ChangeFacts } from './changes.ts';
import type { SampleItem } from './model.ts';
import { grouped } from './source.ts';

/** Data of a report that determines a change's rank, besides the auditor's seed. */
export type SampleFrame = { readonly root: string; readonly from: string; readonly to: string };

/**
 * Draws the `size` lowest ranks of each stratum. A rank is HMAC-SHA256 in hex, key `ROOT|FROM|TO|STRATUM|SEED` (the
 * checkpoint's root in base64, the period as in the report), message the change's id. The order of changes does not
 * matter, and a seed cannot be chosen to fit before the root is known.
 */
export function drawSample(
  changes: readonly ChangeFacts[],
  frame: SampleFrame,
  seed: string,
  size: number,
): SampleItem[] {
  const applied = changes.filter((c) => c.outcome === 'applied');
  return [...grouped(applied, (c) => c.type)]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([stratum, all]) => {
      const key = `${frame.root}|${frame.from}|${frame.to}|${stratum}|${seed}`;
      return all
        .map((c) => ({ stratum, rank: createHmac('sha256', key).update(c.id).digest('hex'), change: c.id }))
        .sort((a, b) => (a.rank < b.rank ? -1 : 1))
        .slice(0, size);
    });
}
