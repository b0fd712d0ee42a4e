import { azure } from './azure.ts';
import { github } from './github.ts';
import { gitlab } from './gitlab.ts';
import { junit } from './junit.ts';
import { markdown } from './markdown.ts';
import type { Findings, Form } from './model.ts';
import { sarif } from './sarif.ts';
import { tap } from './tap.ts';

/** Prints findings in one of the formats that CI systems read. */
export function printFindings(form: Exclude<Form, 'text'>, found: Findings): string {
  switch (form) {
    case 'json': {
      const { outcome, objects, findings, fixed } = found;
      return `${JSON.stringify({ outcome, objects, findings, fixed }, null, 2)}\n`;
    }
    case 'sarif':
      return `${JSON.stringify(sarif(found), null, 2)}\n`;
    case 'junit':
      return junit(found);
    case 'github':
      return found.findings.map(github).join('');
    case 'gitlab':
      return `${JSON.stringify(found.findings.map(gitlab), null, 2)}\n`;
    case 'azuredevops':
      return found.findings.map(azure).join('');
    case 'tap':
      return tap(found);
    case 'markdown':
      return markdown(found);
  }
}
