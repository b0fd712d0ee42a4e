import { join, resolve } from 'node:path';
import type { ProcessSettings } from '../config/index.ts';
import { assess } from '../gate/index.ts';
import { openRepository, sourceRepository } from '../git/index.ts';
import { LedgerReader, ledgerFile } from '../ledger/index.ts';
import { CountersignError, sha256, type Verdict, type Violation } from '../model/index.ts';
import { EXIT, type Io, paint, plain } from './io.ts';
import { chooseEnvironment, gitProgram, openConfiguration, openGate } from './open.ts';

export type PolicyReplayOptions = { config: string[]; data: string; output: 'text' | 'json' };

/**
 * `countersign policy replay`: judges a recorded change again, from the same commits and at the same moment, and compares
 * what the rules say now with what they said then. Exit 0 the same, 1 different, 2 it could not be judged again.
 */
export async function policyReplay(entry: string, options: PolicyReplayOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const index = Number(entry);
  const reader = new LedgerReader(ledgerFile(options.data)).freeze();
  let then: Verdict;
  let time: string;
  try {
    const recorded = reader.entry(index);
    if (recorded?.entry.type !== 'change.judged')
      throw new CountersignError(
        'usage',
        `the entry ${entry} is no verdict${recorded === undefined ? '' : `, but \`${recorded.entry.type}\``}`,
        { hint: '`change.judged` entries are verdicts' },
      );
    then = reader.evidence(recorded.entry.evidence) as Verdict;
    time = recorded.entry.time;
  } finally {
    reader.close();
  }
  const configuration = openConfiguration(options);
  const environment = chooseEnvironment(configuration, then.environment);
  const { url, branch } = environment.spec.source;
  const repository = openRepository(join(resolve(options.data), 'git', sha256(`${url} ${branch}`).slice(0, 16)), gitProgram(settings));
  const { gate, close } = await openGate(configuration, environment, sourceRepository(repository), () => new Date(time), {
    git: gitProgram(settings),
  });
  try {
    const { verdict } = await assess(gate, then.from, then.to);
    const differences = compare(then, verdict);
    if (options.output === 'json')
      io.out(`${JSON.stringify({ entry: index, time, same: differences.length === 0, differences }, null, 2)}\n`);
    else if (differences.length === 0)
      io.out(
        `${paint(io, 'green', 'the same')}: entry ${index}, ${then.outcome}, ${then.objects} objects, rules ${then.consulted.bundleDigest.slice(0, 12)}, as of ${time}\n`,
      );
    else io.out(`${differences.map((d) => `  ${plain(d)}\n`).join('')}${paint(io, 'red', 'different')}: entry ${index} of ${time}\n`);
    return differences.length === 0 ? EXIT.yes : EXIT.no;
  } finally {
    await close();
    await repository.close();
  }
}

// What the rules said, and what they were asked with. Who signed and approved is the ledger's to prove, not theirs.
function compare(then: Verdict, now: Verdict): string[] {
  const differences: string[] = [];
  const same = (what: string, a: string | number, b: string | number) => {
    if (a !== b)
      differences.push(`${what} ${typeof a === 'string' ? a.slice(0, 16) : a} then, ${typeof b === 'string' ? b.slice(0, 16) : b} now`);
  };
  same('the rules were', then.consulted.bundleDigest, now.consulted.bundleDigest);
  same('the files were', then.content ?? '', now.content ?? '');
  same('the objects were', then.objects, now.objects);
  const key = (v: Violation) => `${v.rule ?? v.code}: ${v.message}`;
  const ruled = (all: readonly Violation[] | undefined) => new Set((all ?? []).filter((v) => v.rule !== undefined).map(key));
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
