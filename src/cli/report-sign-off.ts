import { CountersignError } from '../model/index.ts';
import { askService, readLedger } from '../open/index.ts';
import { signOffOf } from '../report/index.ts';
import { EXIT, type Io, plain } from '../terminal/index.ts';
import { localUser, recordWithoutService } from './operate.ts';
import type { ReportSignOffOptions } from './report-commands.ts';

/** Implements `countersign report sign-off REPORT`: records who signs off a report, and their remarks. */
export async function reportSignOff(report: string, options: ReportSignOffOptions, io: Io): Promise<number> {
  const { data, name, role, remarks } = options;
  const asked = signOffOf({ report, name, role, remarks });
  const reader = readLedger(data);
  try {
    if (!reader.all('report.issued', '').some(({ entry }) => entry.report === report))
      throw new CountersignError('usage', `there is no report \`${plain(report)}\` on the ledger`, {
        hint:
          '`countersign report list` shows the existing ones; ' +
          'a report made without a running service is not on the ledger',
      });
  } finally {
    reader.close();
  }
  const answer = await askService(data, 'report-sign-off', { ...asked, user: localUser() });
  if (answer === undefined)
    await recordWithoutService(options, (user, subject) => ({
      type: 'report.reviewed',
      ...asked,
      name: subject(name),
      user,
    }));
  if (options.output === 'json') io.out(`${JSON.stringify(asked, null, 2)}\n`);
  else io.out(`${report} is signed off by ${plain(name)}, ${plain(role)}; the next report of its period says so\n`);
  return EXIT.yes;
}
