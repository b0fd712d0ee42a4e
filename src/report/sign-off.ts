import { CountersignError } from '../model/index.ts';

/** Trims and checks the parts of a sign-off. Throws `usage` if one is missing. */
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
    throw new CountersignError('usage', 'a sign-off needs a report, a name and a role', {
      hint: 'give the name with --name and the role with --role',
    });
  return { report, name, role, remarks };
}
