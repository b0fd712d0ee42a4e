import { CountersignError } from '../model/index.ts';
import type { Answer } from './api-server.ts';

type Cause = { readonly reason?: string; readonly message?: string; readonly field?: string };

/**
 * What to do about an answer that is no success, as an error. The API server repeats values in its complaints; of a
 * Secret nothing but the status is told.
 */
export function refusal(answer: Answer, verb: string, what: string, secret: boolean): CountersignError {
  const said = String(answer.body['message'] ?? '').slice(0, 1000);
  const message = `cannot ${verb} ${what}: ${secret ? `the API server answered ${answer.status} (its text is withheld, it may hold values)` : said || answer.status}`;
  if (answer.status === 401 || (answer.status === 403 && /is forbidden: User/.test(said)))
    return new CountersignError('cluster-forbidden', message, {
      hint: 'give the service’s account this right (docs/operations.md lists all it needs)',
    });
  const managers = conflicts(answer);
  if (managers.length > 0)
    return new CountersignError(
      'cluster-conflict',
      `${what}: ${managers.map(({ manager, field }) => `\`${manager}\` has \`${field}\``).join(', ')}`,
      {
        hint: 'take the fields out of Git, or let the environment take them: `spec.apply.conflicts: takeOver`',
      },
    );
  if (isImmutable(answer)) {
    const fields = [...new Set(causes(answer).map((c) => `\`${c.field ?? ''}\``))].join(', ');
    return new CountersignError(
      'cluster-immutable',
      `${what} is immutable in ${fields}: it cannot be changed while it is there`,
      {
        hint: 'give the object another name; or let it be deleted and made anew: the annotation `countersign.dev/allow: replace` on it',
      },
    );
  }
  if (/does not support dry run/.test(said))
    return new CountersignError('cluster-refused', message, {
      hint: 'its owner must declare `sideEffects: None` on that webhook',
    });
  // Our own webhook refuses what changed since the dry run: another dry run settles that.
  const passing = isPassing(answer) || said.includes('gate.countersign.dev');
  return new CountersignError(passing ? 'cluster-unreachable' : 'cluster-refused', message, {
    recover: passing ? 'retry' : 'wait',
    ...(passing ? {} : { hint: 'correct the manifest in the repository' }),
  });
}

/** Whether the same request may well succeed in a moment. */
export function isPassing(answer: Answer): boolean {
  const stale = answer.status === 409 && answer.body['reason'] === 'Conflict' && conflicts(answer).length === 0;
  // Our own webhook at a replica that has not heard of the intent yet.
  const unheard =
    answer.status === 403 && String(answer.body['message'] ?? '').includes('"gate.countersign.dev" denied');
  return answer.status === 429 || answer.status >= 500 || stale || unheard;
}

/** Other field managers that have what we want to set, with the field. */
function conflicts(answer: Answer): { readonly manager: string; readonly field: string }[] {
  if (answer.status !== 409) return [];
  return causes(answer)
    .filter((c) => c.reason === 'FieldManagerConflict')
    .slice(0, 20)
    .map((c) => ({ manager: /"([^"]*)"/.exec(c.message ?? '')?.[1] ?? 'another manager', field: c.field ?? '' }));
}

// By what the causes say and never by the status alone: most refusals with 422 are mistakes that a new object would
// have too.
function isImmutable(answer: Answer): boolean {
  const all = causes(answer);
  return (
    answer.status === 422 &&
    all.length > 0 &&
    all.every(({ message = '' }) =>
      /field is immutable|updates to .* are forbidden|may not be changed|cannot be changed|is immutable/i.test(message),
    )
  );
}

function causes(answer: Answer): readonly Cause[] {
  const found = (answer.body['details'] as { causes?: Cause[] } | undefined)?.causes;
  return Array.isArray(found) ? found : [];
}
