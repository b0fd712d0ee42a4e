import type { AdmittedRequest } from '../model/index.ts';
import type { ChangeFacts, ReadVerdict } from './changes.ts';
import type { ExceptionRecord, Reconciliation } from './model.ts';
import { outagesOf } from './register.ts';
import { grouped, type ReportSource, seconds } from './source.ts';

/**
 * Runs the seven checks of the population's completeness; `carried` comes from `tipBook`. A check without a source on
 * the ledger is not determinable, and never agrees.
 */
export function reconciliationOf(
  source: ReportSource,
  changes: readonly ChangeFacts[],
  carried: ReadonlySet<string>,
  register: readonly ExceptionRecord[],
): Reconciliation[] {
  return [
    refChain(source, changes),
    tips(source, changes, carried),
    applies(source),
    byOthers(source),
    ledger(source),
    outages(source, register),
    endState(source, register),
  ];
}

function tied(unexplained: number): Reconciliation['status'] {
  return unexplained === 0 ? 'ties' : 'does not tie';
}

// Each move of a branch begins where the previous one ended.
function refChain(source: ReportSource, changes: readonly ChangeFacts[]): Reconciliation {
  const moves = [...source.within('ref.advanced'), ...source.within('ref.rewound')].sort((a, b) => a.index - b.index);
  let links = 0;
  let broken = 0;
  for (const chain of grouped(moves, (m) => `${m.entry.environment} ${m.entry.ref}`).values())
    chain.forEach((move, i) => {
      const before = chain[i - 1];
      if (before === undefined || move.entry.before === before.entry.after) links++;
      else broken++;
    });
  const rewound = source.within('ref.rewound').length;
  return {
    id: 'R1',
    check: 'each move of a branch begins where the one before ended',
    left: { source: 'moves of branches on the ledger', count: moves.length },
    right: { source: 'moves that follow on', count: links },
    explained: rewound === 0 ? '' : `${rewound} of them went back or aside: exceptions of type force-push`,
    unexplained: broken,
    status: moves.length === 0 && changes.length > 0 ? 'not determinable' : tied(broken),
  };
}

/**
 * Counts tips of branches that were not judged themselves but were part of a judged change. Verdicts must be added in
 * order.
 */
export function tipBook(source: ReportSource): {
  readonly see: (read: ReadVerdict) => void;
  readonly carried: ReadonlySet<string>;
} {
  const judged = new Set(source.judged.map((v) => `${v.entry.environment} ${v.entry.to}`));
  const asked = new Set(
    [...source.within('ref.advanced'), ...source.within('ref.rewound')]
      .map(({ entry }) => `${entry.environment} ${entry.after}`)
      .filter((key) => !judged.has(key)),
  );
  const carried = new Set<string>();
  const see = ({ judged: { entry }, verdict }: ReadVerdict) => {
    if (asked.size === 0) return;
    for (const { commit } of verdict.commits)
      if (asked.has(`${entry.environment} ${commit}`)) carried.add(`${entry.environment} ${commit}`);
  };
  return { see, carried };
}

function tips(source: ReportSource, changes: readonly ChangeFacts[], carried: ReadonlySet<string>): Reconciliation {
  const moves = [...source.within('ref.advanced'), ...source.within('ref.rewound')];
  const judged = new Set(source.judged.map((v) => `${v.entry.environment} ${v.entry.to}`));
  const asked = new Set(source.of('change.judged').map((v) => `${v.entry.environment} ${v.entry.to}`));
  const rolled = new Set(source.within('apply.intent').map((i) => `${i.entry.environment} ${i.entry.revision}`));
  const of = { direct: 0, superseded: 0, pending: 0, unexplained: 0 };
  const newest = new Map(moves.map((m) => [m.entry.environment, m.index]));
  for (const { index, entry } of moves) {
    const key = `${entry.environment} ${entry.after}`;
    if (judged.has(key) || rolled.has(key)) of.direct++;
    else if (carried.has(key)) of.superseded++;
    else if (asked.has(key) || newest.get(entry.environment) === index) of.pending++;
    else of.unexplained++;
  }
  // A change judged before the period but deployed in it is in the report of the previous period, and must not go
  // unnoticed here.
  const known = new Set(source.judged.map((v) => v.index));
  const carriedOver = source
    .within('apply.intent')
    .filter((i) => i.entry.purpose === 'apply' && !known.has(i.entry.verdict)).length;
  const count = (outcome: ChangeFacts['outcome']) => changes.filter((c) => c.outcome === outcome).length;
  return {
    id: 'R2',
    check: 'what reached a branch was judged',
    left: { source: 'new tips of branches', count: moves.length },
    right: { source: 'tips that were judged, or are part of what was', count: of.direct + of.superseded },
    explained:
      `${of.superseded} judged as part of a later tip, ${of.pending} not judged within the period; of all ` +
      `changes ${count('applied')} applied, ${count('denied')} denied, ${count('failed')} failed, ` +
      `${count('allowed')} not applied yet` +
      (carriedOver === 0
        ? ''
        : `; ${carriedOver} deployments of changes that were judged before the period: see the report before`),
    unexplained: of.unexplained + carriedOver,
    status:
      moves.length === 0 && changes.length > 0 && carriedOver === 0
        ? 'not determinable'
        : tied(of.unexplained + carriedOver),
  };
}

function applies(source: ReportSource): Reconciliation {
  const intents = source.within('apply.intent');
  const begun = new Set(intents.map((i) => i.index));
  const results = source.of('apply.result').filter((r) => begun.has(r.entry.intent) || source.isWithin(r.entry.time));
  const ended = new Set(results.map((r) => r.entry.intent));
  const gone = new Set(
    source.of('apply.intent').flatMap((i) => [i.entry.takesOver, i.entry.continues].filter((x) => x !== undefined)),
  );
  const left = intents.filter((i) => !ended.has(i.index) && !gone.has(i.index)).length;
  const allowed = source.within('admission.allowed');
  const met = allowed.reduce(
    (sum, a) =>
      sum +
      source.evidence<readonly AdmittedRequest[]>(a.entry.evidence.sha256).filter((r) => r.as === 'intent').length,
    0,
  );
  const written = results
    .filter((r) => source.isWithin(r.entry.time))
    .reduce((sum, r) => sum + r.entry.applied + r.entry.pruned, 0);
  const known = allowed.length > 0;
  const short = known ? Math.max(0, written - met) : 0;
  return {
    id: 'R3',
    check: 'every run has its end, and the webhook saw what it wrote',
    left: { source: 'runs that began; objects they wrote', count: known ? written : intents.length },
    right: {
      source: known ? 'requests of an intent that the webhook let through' : 'runs that ended',
      count: known ? met : intents.length - left,
    },
    explained: known
      ? `${intents.length} runs, ${left} without an end; ` +
        'what an intent wrote twice, or already was so, is not counted by both'
      : 'the webhook recorded nothing in the period: writes and requests cannot be compared',
    unexplained: left,
    status:
      left > 0
        ? 'does not tie'
        : known
          ? short === 0
            ? 'ties'
            : 'not determinable'
          : intents.length === 0
            ? 'ties'
            : 'not determinable',
  };
}

function byOthers(source: ReportSource): Reconciliation {
  const covered = source.within('audit.covered');
  const sum = (field: 'events' | 'intents' | 'breakglass' | 'recorded' | 'controllers' | 'unmatched') =>
    covered.reduce((total, { entry }) => total + entry[field], 0);
  const explained = sum('intents') + sum('breakglass') + sum('recorded') + sum('controllers');
  const unexplained = sum('events') - explained;
  return {
    id: 'R4',
    check: 'every write in the API server’s audit log is accounted for',
    left: { source: 'writes in the audit log', count: sum('events') },
    right: { source: 'intents, break-glass, recorded requests and controllers', count: explained },
    explained:
      covered.length === 0
        ? 'no audit log was given to the gate in the period'
        : `${sum('intents')} intents, ${sum('breakglass')} break-glass, ` +
          `${sum('recorded')} recorded, ${sum('controllers')} by the cluster’s controllers`,
    unexplained,
    status: covered.length === 0 ? 'not determinable' : tied(unexplained),
  };
}

function ledger(source: ReportSource): Reconciliation {
  const count = source.all.length;
  const last = source.all.at(-1)?.index ?? source.first - 1;
  const epochs = source.within('epoch.opened').length;
  const explained = [
    `${source.of('checkpoint.anchored').length} anchors outside of the store`,
    ...(epochs === 0 ? [] : [`${epochs} times the store was put back`]),
    ...countText(source.within('subject.forgotten').length, 'name erased on request', 'names erased on request'),
    ...countText(
      source.within('record.refused').reduce((sum, { entry }) => sum + entry.count, 0),
      'record refused',
      'records refused',
    ),
    ...countText(
      source.within('records.missing').reduce((sum, { entry }) => sum + entry.count, 0),
      'record missing',
      'records missing',
    ),
  ];
  return {
    id: 'R5',
    check: 'the ledger has no gap, and gives the root of its checkpoint',
    left: { source: 'last index less the first, and one', count: last - source.first + 1 },
    right: { source: 'entries that were read', count },
    explained: explained.join('; '),
    unexplained: last - source.first + 1 - count,
    status: epochs > 0 ? 'does not tie' : tied(last - source.first + 1 - count),
  };
}

function countText(n: number, one: string, many: string): string[] {
  return n === 0 ? [] : [`${n} ${n === 1 ? one : many}`];
}

function outages(source: ReportSource, register: readonly ExceptionRecord[]): Reconciliation {
  const beats = source.within('heartbeat').length;
  const away = outagesOf(source);
  const listed = register.filter((e) => e.type === 'gate-outage').length;
  const total = away.reduce((sum, a) => sum + seconds(a.from, a.to), 0);
  return {
    id: 'R6',
    check: 'the gate was there, by its heartbeats',
    left: { source: 'times without a sign of it', count: away.length },
    right: { source: 'outages in the register', count: listed },
    explained:
      beats === 0
        ? 'the service records no heartbeats'
        : `${beats} heartbeats; away for ${total} s; what was changed meanwhile is drift, or in the audit log`,
    unexplained: away.length - listed,
    status: beats === 0 ? 'not determinable' : tied(away.length - listed),
  };
}

function endState(source: ReportSource, register: readonly ExceptionRecord[]): Reconciliation {
  const beats = source.within('heartbeat').at(-1);
  const environments = beats?.entry.environments ?? [];
  const good = environments.filter((e) => e.state === 'applied').length;
  const open = register.filter((e) => e.type === 'out-of-band-change' && e.disposition === 'open').length;
  return {
    id: 'R7',
    check: 'the cluster is as the last recorded apply has it',
    left: { source: 'environments at the last heartbeat', count: environments.length },
    right: { source: 'of them as their revision has it', count: good },
    explained: `${open} differences that were not put right`,
    unexplained: environments.length - good + open,
    status: beats === undefined ? 'not determinable' : tied(environments.length - good + open),
  };
}
