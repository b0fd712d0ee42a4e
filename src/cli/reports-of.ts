import { writeFileSync } from 'node:fs';
import { CountersignError, messageOf } from '../model/index.ts';
import { type Findings, FORMS, type Form, printFindings } from './findings.ts';

/** Writes findings into files, from `form=file`. Throws `usage`. */
export function writeReports(reports: readonly string[], found: Findings): void {
  for (const report of reports) {
    const [form = '', ...rest] = report.split('=');
    const file = rest.join('=');
    if (!FORMS.includes(form as Form) || form === 'text' || file === '')
      throw new CountersignError('usage', `\`${report}\` is not a report`, {
        hint: `give FORM=FILE, with one of ${FORMS.filter((f) => f !== 'text').join(', ')}`,
      });
    try {
      writeFileSync(file, printFindings(form as Exclude<Form, 'text'>, found));
    } catch (cause) {
      throw new CountersignError('usage', `the report \`${file}\` cannot be written: ${messageOf(cause)}`, { cause });
    }
  }
}
