import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Findings, FORMS, type Form, printFindings } from '../findings/index.ts';
import { CountersignError, messageOf } from '../model/index.ts';

/** A file that findings are written to. */
export type Report = { readonly form: Exclude<Form, 'text'>; readonly file: string };

/** Parses `form=file` before anything is judged. Throws `usage`. */
export function reportsOf(given: readonly string[] | undefined): Report[] {
  return (given ?? []).map((one) => {
    const [form = '', ...rest] = one.split('=');
    const file = rest.join('=');
    if (!FORMS.includes(form as Form) || form === 'text' || file === '')
      throw new CountersignError('usage', `\`${one}\` is not a report`, {
        hint: `give FORM=FILE, with one of ${FORMS.filter((f) => f !== 'text').join(', ')}`,
      });
    return { form: form as Report['form'], file };
  });
}

/** Writes findings into files. Throws `usage`. */
export function writeReports(reports: readonly Report[], found: Findings): void {
  for (const { form, file } of reports) {
    try {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, printFindings(form, found));
    } catch (cause) {
      throw new CountersignError('usage', `the report \`${file}\` cannot be written: ${messageOf(cause)}`, { cause });
    }
  }
}
