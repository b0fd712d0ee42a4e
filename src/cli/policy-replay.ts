import { join, resolve } from 'node:path';
import type { ProcessSettings } from '../config/index.ts';
import { assess, type LedgerView, servedThen } from '../gate/index.ts';
import { openRepository, sourceRepository } from '../git/index.ts';
import { LedgerReader, ledgerFile } from '../ledger/index.ts';
import { CountersignError, sha256, type Verdict, type Violation } from '../model/index.ts';
import { chooseEnvironment, gitProgram, openConfiguration, openGate, openRendering } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type { PolicyReplayOptions } from './policy-commands.ts';

/**
 * Implements `countersign policy replay`: judges a recorded change again, from the same commits and at the same time,
 * and compares the results of the rules. Exit code 0 if they are equal, 1 if not, 2 if it could not be judged again.
 */
export async function policyReplay(
  entry: string,
  options: PolicyReplayOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const index = Number(entry);
  const reader = new LedgerReader(ledgerFile(options.data)).freeze();
  try {
    const recorded = reader.entry(index);
    if (recorded?.entry.type !== 'change.judged')
      throw new CountersignError(
        'usage',
        `the entry ${entry} is not a verdict${recorded === undefined ? '' : `, but \`${recorded.entry.type}\``}`,
        { hint: 'use the index of a `change.judged` entry' },
      );
    const then = reader.evidence(recorded.entry.evidence) as Verdict;
    const at = then.consulted.at ?? recorded.entry.time;
    const configuration = openConfiguration(options);
    const environment = chooseEnvironment(configuration, then.environment);
    const { url, branch } = environment.spec.source;
    const git = gitProgram(settings);
    const repository = openRepository(join(resolve(options.data), 'git', sha256(`${url} ${branch}`).slice(0, 16)), git);
    const rendering = openRendering(settings);
    const { gate, close } = await openGate(
      configuration,
      environment,
      sourceRepository(repository),
      () => new Date(at),
      {
        git,
        ...rendering,
        untrusted: then.consulted.bundleDigest === '' ? 'refused' : 'rendered',
      },
    );
    try {
      const { verdict } = await assess(
        {
          ...gate,
          past: before(reader, index),
          ...(then.consulted.served === undefined ? {} : { servedScope: servedThen(then) }),
        },
        then.from,
        then.to,
      );
      return tell({ index, at, then, differences: compare(then, verdict) }, options, io);
    } finally {
      await close();
      rendering.close();
      await repository.close();
    }
  } finally {
    reader.close();
  }
}

// Returns the ledger as it was at the time of the verdict.
function before(ledger: LedgerView, index: number): LedgerView {
  return {
    latest: (types, environment, limit = index) => ledger.latest(types, environment, Math.min(limit, index)),
    all: (type, environment, since) =>
      ledger.all(type, environment, since).filter((recorded) => recorded.index < index),
    entry: (i) => (i < index ? ledger.entry(i) : undefined),
    evidence: (ref) => ledger.evidence(ref),
  };
}

function tell(
  { index, at, then, differences }: { index: number; at: string; then: Verdict; differences: readonly string[] },
  options: PolicyReplayOptions,
  io: Io,
): number {
  const same = differences.length === 0;
  if (options.output === 'json') io.out(`${JSON.stringify({ entry: index, time: at, same, differences }, null, 2)}\n`);
  else if (same)
    io.out(
      `${paint(io, 'green', 'the same')}: entry ${index}, ${then.outcome}, ` +
        `${then.objects} objects, rules ${then.consulted.bundleDigest.slice(0, 12)}, as of ${at}\n`,
    );
  else
    io.out(
      `${differences.map((d) => `  ${plain(d)}\n`).join('')}${paint(io, 'red', 'different')}: ` +
        `entry ${index} of ${at}\n`,
    );
  return same ? EXIT.yes : EXIT.no;
}

// Compares the inputs and the results.
function compare(then: Verdict, now: Verdict): string[] {
  const differences: string[] = [];
  const same = (what: string, a: string | number, b: string | number) => {
    if (a !== b) differences.push(`${what} ${short(a)} then, ${short(b)} now`);
  };
  same('the outcome was', then.outcome, now.outcome);
  same('the people trusted were', then.consulted.trustDigest, now.consulted.trustDigest);
  same('the approvals were of', approvers(then), approvers(now));
  same('the rules were', then.consulted.bundleDigest, now.consulted.bundleDigest);
  same('the files were', then.content ?? '', now.content ?? '');
  same('the objects were', then.objects, now.objects);
  const key = (v: Violation) => `${v.rule ?? v.code}: ${v.message}`;
  const ruled = (all: readonly Violation[] | undefined) => new Set((all ?? []).map(key));
  for (const [what, a, b] of [
    ['violation', then.violations, now.violations],
    ['warning', then.warnings, now.warnings],
    ['waived', then.waived, now.waived],
  ] as const) {
    const [was, is] = [ruled(a), ruled(b)];
    for (const one of was) if (!is.has(one)) differences.push(`${what} gone: ${one}`);
    for (const one of is) if (!was.has(one)) differences.push(`${what} new: ${one}`);
  }
  return differences;
}

function short(value: string | number): string {
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value) ? value.slice(0, 12) : String(value);
}

function approvers(verdict: Verdict): string {
  return verdict.approvals.length === 0
    ? 'no one'
    : [...new Set(verdict.approvals.map((a) => a.principal))].sort().join(', ');
}
