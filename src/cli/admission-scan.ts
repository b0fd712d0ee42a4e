import { type Scan, viewOf } from '../gate/index.ts';
import { CountersignError, refText } from '../model/index.ts';
import { environmentsOf, readLedger } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type { AdmissionScanOptions } from './admission-commands.ts';

/**
 * Implements `countersign admission scan`: the newest result on the ledger. Exit code 0 if everything matches Git and
 * the rules, 1 if not, 2 if there was no scan or not everything could be read.
 */
export function admissionScan(options: AdmissionScanOptions, io: Io): number {
  const reader = readLedger(options.data);
  try {
    const view = viewOf(reader);
    const all = environmentsOf(reader)
      .filter((e) => options.environment === undefined || e === options.environment)
      .flatMap((environment) => {
        const found = view.latest(['cluster.scanned'], environment);
        if (found === undefined) return [];
        const { time, revision, objects, waived } = found.entry;
        return [
          {
            environment,
            entry: found.index,
            at: time,
            revision,
            objects,
            waived,
            ...(view.evidence(found.entry.evidence) as Scan),
          },
        ];
      });
    if (all.length === 0)
      throw new CountersignError('usage', 'this ledger has no scan result', {
        hint: 'a service with admission scans every --rescan (10m)',
      });
    if (options.output === 'json') io.out(`${JSON.stringify(all, null, 2)}\n`);
    else for (const one of all) show(one, io);
    if (!all.every((e) => e.unmanaged.length === 0 && e.violations.every((v) => v.waived !== undefined)))
      return EXIT.no;
    return all.every((e) => e.unread.length === 0) ? EXIT.yes : EXIT.undecided;
  } finally {
    reader.close();
  }
}

type Shown = Scan & {
  readonly environment: string;
  readonly at: string;
  readonly objects: number;
  readonly waived: number;
};

function show({ environment, at, objects, unmanaged, violations, waived, unread }: Shown, io: Io): void {
  const standing = violations.filter((v) => v.waived === undefined);
  io.out(
    `${environment}: ${objects} objects at ${at.slice(0, 19)}Z, ` +
      `${unmanaged.length} in no commit, ${standing.length} denied by rules, ${waived} waived\n`,
  );
  for (const { object, manager, since } of unmanaged)
    io.out(
      `  ${paint(io, 'yellow', 'in no commit')} ${plain(refText(object))}\n` +
        `      by ${plain(manager || 'an unknown manager')} since ${since}\n`,
    );
  for (const { rule, message } of standing)
    io.out(`  ${paint(io, 'red', 'denied')}       ${plain(rule)}: ${plain(message)}\n`);
  if (unread.length > 0) io.out(`  ${paint(io, 'yellow', 'not read')}     ${unread.join(', ')}\n`);
}
