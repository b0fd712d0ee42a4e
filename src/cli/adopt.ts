import { type ApiServer, adoptionChanges, foreignOwner, lastWriter, objectsIn } from '../cluster/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import { belonging, type Scanned, scanned } from '../gate/index.ts';
import {
  CountersignError,
  count,
  type Environment,
  FIELD_MANAGER,
  LABEL,
  messageOf,
  type ObjectRef,
  refKey,
  refText,
} from '../model/index.ts';
import { effectOnPods, isPod, podOfOthers } from '../reconcile/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type { AdoptOptions } from './check-commands.ts';
import { objectDiff, printDiff } from './object-diff.ts';
import { type Previewed, withPreviews } from './previews.ts';

/**
 * `same`: exists as in Git, and can be taken over. `ours`: already taken over. `different`: taking it over would change
 * it. `other`: it belongs to another environment. `refused`: the API server refuses Git's object.
 */
type State = 'new' | 'same' | 'ours' | 'different' | 'other' | 'refused';

type Candidate = {
  readonly ref: ObjectRef;
  readonly object: string;
  readonly state: State;
  /** The tool or controller that claims it. */
  readonly owner?: string;
  /** The last field manager that wrote it. */
  readonly writer?: string;
  /** JSON pointers to what would change. */
  readonly fields: readonly string[];
  /** The effect of that on running pods. */
  readonly effect?: string;
  /** A diff, or why it is refused. */
  readonly text?: string;
};

type Beside = { readonly unmanaged: readonly Scanned[]; readonly unread: readonly string[] };

/**
 * Implements `countersign adopt`: compares a revision of a checkout with what runs, and says of each object whether
 * `spec.apply.conflicts: adopt` can take it over. Nothing is written. Exit code 0 if all can be, 1 if not, 2 if it
 * could not be determined, or if not everything beside it could be read.
 */
export function adopt(options: AdoptOptions, settings: ProcessSettings, io: Io): Promise<number> {
  return withPreviews(options, settings, io, async (found) => {
    const { environment, commit, server, objects, hooks } = found;
    const all = objects.map((one) => candidate(one, environment));
    const beside = await besideGit(server, environment, [...objects.map((o) => o.rendered.ref), ...hooks]);
    const isReady = all.every(({ state }) => !BARS.has(state));
    if (options.output === 'json') io.out(`${JSON.stringify(asJson(found, all, beside), null, 2)}\n`);
    else {
      io.out(`${environment.metadata.name} at ${commit.slice(0, 12)}: ${count(all.length, 'object')} in Git\n`);
      summary(all, io);
      for (const one of all) details(one, io);
      for (const hook of hooks) io.out(`hook ${plain(refText(hook))}: not compared\n`);
      showBeside(beside, io);
      next(environment, all, isReady, io);
    }
    if (!isReady) return EXIT.no;
    return beside.unread.length === 0 ? EXIT.yes : EXIT.undecided;
  });
}

const BARS: ReadonlySet<State> = new Set(['different', 'other', 'refused']);

function candidate(one: Previewed['objects'][number], environment: Environment): Candidate {
  const { ref } = one.rendered;
  const name = { ref, object: refText(ref) };
  if ('refused' in one) return { ...name, state: 'refused', fields: [], text: one.refused };
  const { live, wanted } = one;
  if (live === undefined) return { ...name, state: 'new', fields: [] };
  const label = live.metadata.labels?.[LABEL];
  if (isPod(ref) && label !== environment.metadata.name)
    return { ...name, state: 'refused', fields: [], text: messageOf(podOfOthers(ref)) };
  const owner =
    label === undefined || label === environment.metadata.name
      ? foreignOwner(live, one.rendered.object)
      : `the environment \`${label}\``;
  const writer = lastWriter(live, FIELD_MANAGER)?.manager;
  const fields = adoptionChanges(live, wanted, one.rendered.object);
  const effect = effectOnPods(ref, fields);
  const state = stateOf(label, environment, fields);
  return {
    ...name,
    state,
    ...(owner === undefined ? {} : { owner }),
    ...(writer === undefined ? {} : { writer }),
    fields,
    ...(effect === undefined ? {} : { effect }),
    ...(state === 'different' ? { text: objectDiff(refText(ref), live, wanted) } : {}),
  };
}

function stateOf(label: string | undefined, environment: Environment, fields: readonly string[]): State {
  if (label === environment.metadata.name) return 'ours';
  if (label !== undefined) return 'other';
  return fields.length === 0 ? 'same' : 'different';
}

// Returns objects in the governed namespaces that no file of this revision makes.
async function besideGit(server: ApiServer, environment: Environment, refs: readonly ObjectRef[]): Promise<Beside> {
  const { namespaces } = environment.spec.target;
  const all: Scanned[] = [];
  const pages = objectsIn(server, namespaces, { isFresh: true });
  const next = () =>
    pages.next().catch((thrown: unknown) => {
      throw new CountersignError('cluster-unreachable', `the namespaces cannot be read: ${messageOf(thrown)}`, {
        hint: 'give a kubeconfig with `get` and `list` on them: --kubeconfig, --context',
      });
    });
  let page = await next();
  for (; page.done !== true; page = await next()) all.push(...page.value.map((object) => scanned(object)));
  const whose = belonging(all, { owned: new Map(refs.map((ref) => [refKey(ref), {}])) });
  return { unmanaged: all.filter((_, i) => whose[i] === 'unmanaged').sort(byKey), unread: page.value };
}

function byKey(a: Scanned, b: Scanned): number {
  return refKey(a.ref) < refKey(b.ref) ? -1 : 1;
}

const SUMMARY: readonly (readonly [State, string])[] = [
  ['same', 'as in Git: taken over as they are, nothing restarts'],
  ['ours', 'taken over before'],
  ['new', 'not in the cluster yet: created'],
  ['different', 'different: not taken over by `adopt`'],
  ['other', 'of another environment: not taken over'],
  ['refused', 'refused: see below'],
];

function summary(all: readonly Candidate[], io: Io): void {
  for (const [state, text] of SUMMARY) {
    const here = all.filter((one) => one.state === state).length;
    if (here > 0) io.out(`${String(here).padStart(6)}  ${text}\n`);
  }
}

function details({ object, state, owner, writer, fields, effect, text }: Candidate, io: Io): void {
  if (state === 'same' && owner === undefined) return;
  if (state === 'ours' || state === 'new') return;
  const by = writer === undefined || state === 'refused' ? '' : `, last written by \`${plain(writer)}\``;
  const of = owner === undefined ? '' : `, of ${plain(owner)}`;
  io.out(`\n${paint(io, 'bold', `${state} ${plain(object)}`)}${of}${by}\n`);
  if (fields.length > 0 && effect !== undefined) io.out(`  ${paint(io, 'yellow', `${effect}`)}\n`);
  if (text !== undefined) printDiff(text, io);
}

function showBeside({ unmanaged, unread }: Beside, io: Io): void {
  if (unmanaged.length > 0)
    io.out(
      `\n${count(unmanaged.length, 'object')} in the governed namespaces that Git does not have. With admission, ` +
        'each\nis an exception until it is committed or removed:\n',
    );
  for (const { ref, manager, since } of unmanaged)
    io.out(`  ${plain(refText(ref))}\n      by ${plain(manager || 'an unknown manager')} since ${since}\n`);
  if (unread.length > 0)
    io.out(`\n${paint(io, 'yellow', 'not read:')} ${unread.join(', ')}; use an account that may list these\n`);
}

function next({ metadata, spec }: Environment, all: readonly Candidate[], isReady: boolean, io: Io): void {
  const owners = [...new Set(all.map((one) => one.owner).filter((owner) => owner !== undefined))];
  io.out('\n');
  if (all.every(({ state }) => state === 'ours')) io.out(`nothing to do: ${metadata.name} has everything\n`);
  else if (!isReady)
    io.out(
      'next: commit what the cluster has, or list the fields in `spec.drift.ignore`, then run\nthis again. ' +
        '`spec.apply.conflicts: takeOver` writes what Git has.\n',
    );
  else {
    if (owners.length > 0)
      io.out(`next: stop ${owners.map((o) => plain(o)).join(', ')} from writing to these objects\n`);
    io.out(
      spec.apply.conflicts === 'refuse'
        ? 'next: set `spec.apply.conflicts: adopt` in the Environment, then start the service or\nrun ' +
            '`countersign apply`\n'
        : 'next: start the service, or run `countersign apply`\n',
    );
  }
}

function asJson({ environment, commit, hooks }: Previewed, all: readonly Candidate[], beside: Beside): object {
  return {
    environment: environment.metadata.name,
    revision: commit,
    objects: all.map(({ ref: _, ...one }) => one),
    hooks: hooks.map(refText),
    unmanaged: beside.unmanaged.map(({ ref, manager, since }) => ({ object: refText(ref), manager, since })),
    unread: beside.unread,
  };
}
