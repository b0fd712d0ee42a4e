import { CountersignError } from '../model/index.ts';
import { askService } from './control-socket.ts';
import { EXIT, type Io, plain } from './io.ts';
import { localUser, recordWithoutService } from './operate.ts';
import { readLedger } from './read-ledger.ts';

export type ReportSignOffOptions = { data: string; name: string; role: string; remarks: string; output: 'text' | 'json' };

/** `countersign report sign-off REPORT`: puts on the ledger that somebody answers for it, and what they say of it. */
export async function reportSignOff(report: string, options: ReportSignOffOptions, io: Io): Promise<number> {
  const { data, name, role, remarks } = options;
  const asked = signOffOf({ report, name, role, remarks });
  const reader = readLedger(data);
  try {
    if (!reader.all('report.issued', '').some(({ entry }) => entry.report === report))
      throw new CountersignError('usage', `there is no report \`${plain(report)}\` on the ledger`, {
        hint: '`countersign report list` shows those that there are; one that was made without a running service is not on it',
      });
  } finally {
    reader.close();
  }
  const answer = await askService(data, 'report-sign-off', { ...asked, user: localUser() });
  if (answer === undefined)
    await recordWithoutService(data, (user, subject) => ({ type: 'report.reviewed', ...asked, name: subject(name), user }));
  if (options.output === 'json') io.out(`${JSON.stringify(asked, null, 2)}\n`);
  else io.out(`${report} is signed off by ${plain(name)}, ${plain(role)}; the next report of its period says so\n`);
  return EXIT.yes;
}

/** What is signed off, without blanks around it. Throws `usage` where a part is missing. */
export function signOffOf(asked: { readonly report: string; readonly name: string; readonly role: string; readonly remarks: string }) {
  const [report, name, role, remarks] = [asked.report, asked.name, asked.role, asked.remarks].map((text) => text.trim()) as [
    string,
    string,
    string,
    string,
  ];
  if (report === '' || name === '' || role === '')
    throw new CountersignError('usage', 'a report, a name and a role are needed', { hint: 'say who with --name and as what with --role' });
  return { report, name, role, remarks };
}
