import { CountersignError } from '../model/index.ts';

/** What is signed off, without blanks around it. Throws `usage` where a part is missing. */
export function signOffOf(asked: {
  readonly report: string;
  readonly name: string;
  readonly role: string;
  readonly remarks: string;
}) {
  const [report, name, role, remarks] = [asked.report, asked.name, asked.role, asked.remarks].map((text) =>
    text.trim(),
  ) as [string, string, string, string];
  if (report === '' || name === '' || role === '')
    throw new CountersignError('usage', 'a report, a name and a role are needed', {
      hint: 'say who with --name and as what with --role',
    });
  return { report, name, role, remarks };
}
