import type { ProcessSettings } from '../config/index.ts';
import { type Finding, type Findings, fingerprint, printFindings, showFindingsText } from '../findings/index.ts';
import { assess, type Gate, ruledAt } from '../gate/index.ts';
import { type NativeRepository, sourceRepository, type UserRepository } from '../git/index.ts';
import {
  CountersignError,
  type Environment,
  isNoRevision,
  NO_REVISION,
  refText,
  type Verdict,
  type Violation,
} from '../model/index.ts';
import {
  chooseEnvironment,
  gitProgram,
  openCheckout,
  openConfiguration,
  openGate,
  openRendering,
  SharedRules,
} from '../open/index.ts';
import { ruleInfos } from '../policy/index.ts';
import { EXIT, type Io, paint } from '../terminal/index.ts';
import { checkAll, environmentsHere, type Judged } from './check-all.ts';
import type { CheckOptions } from './check-commands.ts';
import { type Report, reportsOf, writeReports } from './reports-of.ts';
import { showVerdictEnd, showVerdictHead } from './show-verdict.ts';

/**
 * Implements `countersign check`: the verdict the cluster would give, before the merge. It records nothing, so it can
 * allow nothing.
 */
export async function check(options: CheckOptions, settings: ProcessSettings, io: Io): Promise<number> {
  if (options.explain !== undefined)
    return (await import('./explain.ts')).explain(options.explain, options.policy ?? [], settings, io);
  refuseFileFlags(options);
  if (options.manifests !== undefined) return (await import('./check-files.ts')).checkFiles(options, settings, io);
  const rendering = openRendering(settings);
  rendering.warm(); // starts while configuration and history are read
  const reports = reportsOf(options.report);
  const configuration = openConfiguration(options);
  const { user, repository } = await openCheckout(options.repo, settings);
  const shared = new SharedRules();
  const closing: (() => Promise<void>)[] = [];
  const read = sourceRepository(repository);
  try {
    const remote = await user.config(`remote.${options.remote}.url`);
    const environments = options.allEnvironments
      ? environmentsHere(configuration.environments, remote)
      : [chooseEnvironment(configuration, options.environment)];
    if (options.fetch && remote !== undefined) await user.fetchApprovals(options.remote);
    const head = await user.commit(options.head);
    const bases = new Map<string, Promise<string>>();
    const judge = async (environment: Environment): Promise<Judged> => {
      const { source } = environment.spec;
      const from = bases.get(source.branch) ?? findBase(user, repository, options, source, head, settings);
      bases.set(source.branch, from);
      const base = await from;
      const parts = { git: gitProgram(settings), shared, ...rendering, untrusted: 'rendered' } as const;
      const clock = () => new Date();
      const { gate, close } = await openGate(configuration, environment, read, clock, parts);
      closing.push(close);
      const { verdict } = await assess(gate, base, head);
      const found = await told(gate, verdict, base);
      if (options.trace === true) await showTrace(gate, head, io);
      while (closing.length > 1) await closing.shift()?.(); // the next environment may need the same rules
      return { verdict, found };
    };
    if (options.allEnvironments) return await checkAll(environments, judge, reports, options, io);
    return showOne(await judge(environments[0] as Environment), reports, options, io);
  } finally {
    for (const close of closing) await close();
    rendering.close();
    repository.close();
  }
}

function showOne({ verdict, found }: Judged, reports: readonly Report[], options: CheckOptions, io: Io): number {
  writeReports(reports, found);
  if (options.output === 'json')
    io.out(`${JSON.stringify({ ...verdict, findings: found.findings, fixed: found.fixed }, null, 2)}\n`);
  else if (options.output === 'text')
    io.out(
      `${showVerdictHead(verdict, io)}` +
        `${spaced(showFindingsText(found, io, { all: options.all === true }))}${showVerdictEnd(verdict, io)}`,
    );
  else io.out(printFindings(options.output, found));
  const warned = options.failOnWarn === true && verdict.warnings.length > 0;
  return verdict.outcome === 'allowed' && !warned ? EXIT.yes : EXIT.no;
}

function spaced(text: string): string {
  return text === '' ? '' : `\n${text}`;
}

// Separates findings that existed in the base from those the change adds and those it fixes.
async function told(gate: Gate, verdict: Verdict, from: string): Promise<Findings> {
  const before = isNoRevision(from)
    ? []
    : await ruledAt(gate, from).then(
        (r) => r.violations,
        () => [],
      );
  const was = new Map(before.map((v) => [fingerprint(v), v]));
  const is = new Set([...verdict.violations, ...(verdict.waived ?? [])].map(fingerprint));
  const state = (v: Violation): Pick<Finding, 'state'> =>
    v.rule === undefined ? {} : { state: was.has(fingerprint(v)) ? 'existing' : 'new' };
  const findings = (
    [
      ['error', verdict.violations],
      ['warning', verdict.warnings],
      ['note', verdict.waived ?? []],
    ] as const
  ).flatMap(([level, all]) => all.map((v): Finding => ({ ...v, level, ...state(v) })));
  const rules = await gate.rules(verdict.tree, gate.trust);
  return {
    outcome: verdict.outcome,
    findings,
    fixed: [...was].filter(([key]) => !is.has(key)).map(([, v]) => v),
    objects: verdict.objects,
    rules: ruleInfos(rules.bundles),
  };
}

async function showTrace(gate: Gate, head: string, io: Io): Promise<void> {
  const { trace, objects } = await ruledAt(gate, head, true);
  io.err(
    `${paint(
      io,
      'dim',
      `trace: ${objects.length} objects (${objects
        .slice(0, 3)
        .map((o) => refText(o.ref))
        .join(', ')}${objects.length > 3 ? ', …' : ''})`,
    )}\n`,
  );
  for (const line of trace) io.err(`${paint(io, 'dim', 'trace:')} ${line}\n`);
}

// The base is named, given by the CI system, or the point where the head left the environment's branch.
async function findBase(
  user: UserRepository,
  repository: NativeRepository,
  options: CheckOptions,
  source: { branch: string; baseline?: string | undefined },
  head: string,
  settings: ProcessSettings,
): Promise<string> {
  const named = options.base ?? settings.ciBase;
  if (named !== undefined) return named === NO_REVISION ? NO_REVISION : user.commit(named);
  for (const candidate of [`${options.remote}/${source.branch}`, source.branch]) {
    const tip = await user.commit(candidate).catch(() => undefined);
    if (tip !== undefined && tip !== head && (await repository.isAncestor(tip, head))) return tip;
  }
  throw new CountersignError('usage', `cannot determine what to compare \`${options.head}\` with`, {
    hint: `use --base with the commit that is applied now, for example --base ${options.remote}/${source.branch}`,
  });
}

// These flags are about plain files. A change is checked by the rules of its environment, so they would be ignored.
function refuseFileFlags(options: CheckOptions): void {
  if (options.allEnvironments && (options.environment !== undefined || options.manifests !== undefined))
    throw new CountersignError('usage', '`--all-environments` is for all environments of the configuration', {
      hint: 'leave out `--environment` and `--manifests`',
    });
  if (options.manifests !== undefined) return;
  const given = [
    options.policy === undefined ? undefined : '--policy',
    options.data === undefined ? undefined : '--data',
    options.parameters === undefined ? undefined : '--parameters',
    options.combine ? '--combine' : undefined,
    options.namespace === undefined ? undefined : '--namespace',
  ].find((flag) => flag !== undefined);
  if (given === undefined) return;
  throw new CountersignError('usage', `\`${given}\` is only for plain files`, {
    hint: 'add `--manifests FILE…`; rules and parameters of a change come from `spec.policies` of its environment',
  });
}
