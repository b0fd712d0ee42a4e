import { type Finding, type Findings, fingerprint, printFindings, showFindingsText } from '../findings/index.ts';
import { CountersignError, count, type Environment, type Verdict } from '../model/index.ts';
import { EXIT, type Io, Progress, paint } from '../terminal/index.ts';
import type { CheckOptions } from './check-commands.ts';
import { type Report, writeReports } from './reports-of.ts';

/** The verdict on one environment, with its findings. */
export type Judged = { readonly verdict: Verdict; readonly found: Findings };

const NAMED = 5; // environments of one finding

/**
 * Judges a change for all environments of a configuration, one after the other, and prints one answer. A finding that
 * several of them have appears once, with their names. Exit code 1 if any of them is denied.
 */
export async function checkAll(
  environments: readonly Environment[],
  judge: (environment: Environment) => Promise<Judged>,
  reports: readonly Report[],
  options: CheckOptions,
  io: Io,
): Promise<number> {
  const progress = new Progress(io, 'environments');
  const all: Judged[] = [];
  for (const environment of environments) {
    all.push(await judge(environment));
    progress.at(all.length, environments.length);
  }
  progress.end();
  const found = merged(all);
  writeReports(reports, found);
  const verdicts = all.map((j) => j.verdict);
  if (options.output === 'json')
    io.out(
      `${JSON.stringify({ outcome: found.outcome, environments: verdicts, findings: found.findings }, null, 2)}\n`,
    );
  else if (options.output === 'text')
    io.out(`${showFindingsText(found, io, { all: options.all === true })}${summary(verdicts, io)}`);
  else io.out(printFindings(options.output, found));
  const warned = options.failOnWarn === true && verdicts.some((v) => v.warnings.length > 0);
  return found.outcome === 'allowed' && !warned ? EXIT.yes : EXIT.no;
}

function summary(verdicts: readonly Verdict[], io: Io): string {
  const denied = verdicts.filter((v) => v.outcome === 'denied');
  const lines = denied.map(
    (v) => `${paint(io, 'red', '✗')} ${v.environment}  denied: ${count(v.violations.length, 'violation')}`,
  );
  const end =
    denied.length === 0
      ? `${paint(io, 'green', 'allowed')} for ${count(verdicts.length, 'environment')}`
      : `${paint(io, 'red', 'denied')} for ${denied.length} of ${count(verdicts.length, 'environment')}`;
  return `${[...lines, end].join('\n')}\n`;
}

function merged(all: readonly Judged[]): Findings {
  const denied = all.some(({ verdict }) => verdict.outcome === 'denied');
  const found = all.map((j) => j.found);
  return {
    outcome: denied ? 'denied' : 'allowed',
    findings: once(all.flatMap(({ verdict, found: { findings } }) => findings.map((f) => [verdict.environment, f]))),
    fixed: [...new Map(found.flatMap(({ fixed }) => fixed.map((f) => [fingerprint(f), f] as const))).values()],
    objects: found.reduce((sum, { objects }) => sum + objects, 0),
    rules: new Map(found.flatMap(({ rules }) => [...rules])),
  };
}

function once(findings: readonly (readonly [environment: string, finding: Finding])[]): readonly Finding[] {
  const groups = Map.groupBy(findings, ([, f]) => `${f.level} ${fingerprint(f)}`);
  return [...groups.values()].map((group) => {
    const [, finding] = group[0] as (typeof findings)[number];
    const names = [...new Set(group.map(([name]) => name))];
    const more = names.length > NAMED ? ` and ${names.length - NAMED} more` : '';
    return { ...finding, message: `${finding.message} (in ${names.slice(0, NAMED).join(', ')}${more})` };
  });
}

/**
 * Returns the environments of a configuration that the checkout is the repository of. Throws `usage` if that is not
 * clear.
 */
export function environmentsHere(environments: readonly Environment[], remote: string | undefined): Environment[] {
  const urls = new Set(environments.map((e) => e.spec.source.url));
  if (environments.length > 0 && urls.size === 1) return [...environments];
  const here = environments.filter((e) => e.spec.source.url === remote);
  if (here.length > 0) return here;
  throw new CountersignError(
    'usage',
    environments.length === 0
      ? 'there is no Environment in the configuration'
      : `the configuration has environments of ${urls.size} repositories, and none of them is this checkout’s remote`,
    { hint: 'name the documents of this repository with --config, or one environment with --environment' },
  );
}
