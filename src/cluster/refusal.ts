import { CountersignError, type ObjectRef, refText } from '../model/index.ts';
import type { Answer } from './api-server.ts';

type Cause = { readonly reason?: string; readonly message?: string; readonly field?: string };

/**
 * Turns a failed answer into an error with a hint. The API server quotes values in its messages, so for a Secret only
 * the status is reported.
 */
export function refusal(answer: Answer, verb: string, what: string, secret: boolean): CountersignError {
  const said = String(answer.body['message'] ?? '')
    .slice(0, 1000)
    .toWellFormed();
  const withheld = `the API server answered ${answer.status} (message withheld, it may contain values)`;
  const message = `cannot ${verb} ${what}: ${secret ? withheld : said || answer.status}`;
  if (answer.status === 401 || (answer.status === 403 && /is forbidden: User/.test(said)))
    return new CountersignError('cluster-forbidden', message, {
      hint:
        'grant the service’s account this right: `countersign manifests --rights derived --rights-only` prints all ' +
        'that it needs (`countersign help operations`)',
    });
  const managers = conflicts(answer);
  if (managers.length > 0)
    return new CountersignError(
      'cluster-conflict',
      `${what}: ${managers.map(({ manager, field }) => `\`${manager}\` owns \`${field}\``).join(', ')}`,
      {
        hint: 'remove the fields from Git, or let the environment take ownership: `spec.apply.conflicts: takeOver`',
      },
    );
  if (isImmutable(answer)) {
    const fields = [...new Set(causes(answer).map((c) => `\`${c.field ?? ''}\``))].join(', ');
    return new CountersignError(
      'cluster-immutable',
      `${what} has immutable fields (${fields}) and cannot be changed in place`,
      {
        hint:
          'rename the object; or allow deleting and creating it ' +
          'again with the annotation `countersign.dev/allow: replace`',
      },
    );
  }
  const mistakes = mistakesIn(answer);
  if (mistakes !== undefined) return unfit(mistakes, verb, what);
  if (/does not support dry run/.test(said))
    return new CountersignError('cluster-refused', message, {
      hint: 'its owner must declare `sideEffects: None` on that webhook',
    });
  if (/failed calling webhook .*(?:x509:|tls:|certificate)/s.test(said))
    return new CountersignError('certificate-refused', message, {
      recover: 'retry',
      hint:
        'the API server does not accept the certificate of that webhook. If it is Countersign’s, it is made again ' +
        'within a minute once the clocks agree; with --webhook-tls, renew its files',
    });
  // Our own webhook refuses changes made since the dry run; another dry run resolves that.
  const passing = isPassing(answer) || said.includes('gate.countersign.dev');
  return new CountersignError(passing ? 'cluster-unreachable' : 'cluster-refused', message, {
    recover: passing ? 'retry' : 'wait',
    ...(passing ? {} : { hint: hintFor(answer, said) }),
  });
}

/** Returns the error for a manifest that does not fit the schema. */
export function unfit(mistakes: readonly string[], verb: string, what: string): CountersignError {
  return new CountersignError('cluster-refused', `cannot ${verb} ${what}: ${listed(mistakes)}`, {
    hint: 'correct the manifest in the repository',
  });
}

// Messages about a manifest that does not fit the schema, which come with status 500 and no reason.
const UNFIT = /^failed to create typed patch object \(.*?\): /s;
const UNREAD =
  /^failed to convert new object \(.*?\) to proper version: unable to convert unstructured object to .*?: /s;

/**
 * Returns what is wrong with a manifest that the API server answers with 500: each field and its problem, without the
 * value, which may be a secret. Undefined if the answer is another one.
 */
export function mistakesIn({ status, body }: Answer): readonly string[] | undefined {
  const said = String(body['message'] ?? '');
  const opening = UNFIT.exec(said)?.[0] ?? UNREAD.exec(said)?.[0];
  if (status !== 500 || opening === undefined) return undefined;
  return said
    .slice(opening.length)
    .replace(/^errors:\n/, '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .map((line) =>
      line
        .replace(/, got &value\.valueUnstructured\{.*$/s, ', got another type')
        .replace(/, got &\{.*$/s, ', got another type')
        .replace(/parsing time ".*$/s, 'it has a time that is not RFC 3339')
        .slice(0, 300)
        .toWellFormed(),
    );
}

// A field that Git's version has, and the version in which someone owned fields before does not.
const ACROSS = /failed to convert \w+ object.*: field not declared in schema/s;

/**
 * Tests whether an object cannot be written because the records of who owns its fields are of another version of its
 * kind (kubernetes/kubernetes#117260).
 */
export function isAcrossVersions({ status, body }: Answer): boolean {
  return status === 500 && ACROSS.test(String(body['message'] ?? ''));
}

function listed(texts: readonly string[]): string {
  const shown = texts.slice(0, SHOWN).join('; ');
  return `${shown}${texts.length > SHOWN ? `; and ${texts.length - SHOWN} more` : ''}`;
}

/** Number of mistakes or fields that a refusal names. */
export const SHOWN = 5;

/**
 * Returns the error for an object that the API server would store differently from Git. `mutators` are the webhooks and
 * policies that may have changed it; undefined if they cannot be read.
 */
export function alteration(
  ref: ObjectRef,
  pointers: readonly string[],
  mutators: readonly string[] | undefined,
): CountersignError {
  const list = (texts: readonly string[]) => {
    const shown = texts.slice(0, SHOWN).map((text) => `\`${text.slice(0, 200)}\``);
    return `${shown.join(', ')}${texts.length > SHOWN ? ` and ${texts.length - SHOWN} more` : ''}`;
  };
  const by = mutators === undefined || mutators.length === 0 ? '' : `, perhaps changed by ${list(mutators)}`;
  const find = 'find it with `kubectl get mutatingwebhookconfigurations,mutatingadmissionpolicies`, then ';
  return new CountersignError(
    'cluster-altered',
    `${refText(ref)} would not be as in Git: the API server answers with a different ${list(pointers)}${by}`,
    {
      hint:
        mutators?.length === 0
          ? 'no mutating webhook or policy has rules for it: a plugin or a disabled feature of the API server ' +
            'changes these fields; set them in Git as the API server does, or list them in `spec.drift.ignore`'
          : `if that is not meant, remove the webhook or policy; otherwise ${mutators === undefined ? find : ''}` +
            `exclude the namespace from it, or list these fields in \`spec.drift.ignore\``,
    },
  );
}

// Most refusals are about the manifest. These two are about the namespace it goes into.
function hintFor({ status }: Answer, said: string): string {
  if (/attempting to grant RBAC permissions not currently held/.test(said))
    return (
      'the service’s account may only grant what it has itself: give it these rights, or `escalate` and `bind` on ' +
      'roles (`countersign manifests --grant-roles`)'
    );
  if (/status\.storedVersions\[\d+\]: .*: (missing from|must appear in) spec\.versions/s.test(said))
    return 'objects were stored in that version: keep it in `spec.versions`, with `served: false` if no one may use it';
  if (/because it is being terminated/.test(said))
    return 'the namespace is being deleted; wait until it is gone, then run `countersign reconcile`';
  if (status === 404 && /^namespaces "[^"]*" not found/.test(said))
    return 'add the Namespace to the repository, or create it in the cluster';
  return 'correct the manifest in the repository';
}

/** Tests whether the same request may soon succeed. */
export function isPassing(answer: Answer): boolean {
  const stale = answer.status === 409 && answer.body['reason'] === 'Conflict' && conflicts(answer).length === 0;
  // Our own webhook, at a replica that does not know the intent yet.
  const unheard =
    answer.status === 403 && String(answer.body['message'] ?? '').includes('"gate.countersign.dev" denied');
  const isDown = answer.status >= 500 && mistakesIn(answer) === undefined && !isAcrossVersions(answer);
  return answer.status === 429 || isDown || stale || unheard;
}

/** Returns other field managers that own fields we want to set, with the field. */
function conflicts(answer: Answer): { readonly manager: string; readonly field: string }[] {
  if (answer.status !== 409) return [];
  return causes(answer)
    .filter((c) => c.reason === 'FieldManagerConflict')
    .slice(0, 20)
    .map((c) => ({ manager: /"([^"]*)"/.exec(c.message ?? '')?.[1] ?? 'another manager', field: c.field ?? '' }));
}

// Decided by the causes, never by the status alone: most refusals with 422 are mistakes that a new object would have
// too.
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
