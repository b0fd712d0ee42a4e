import { refText, type Violation } from '../model/index.ts';
import { plain } from '../terminal/index.ts';
import { type Finding, type Findings, place, ruleOf } from './model.ts';

export function markdown(found: Findings): string {
  const cell = (text: string) => plain(text).replace(/[|<>`*_[\]\\]/g, (c) => `\\${c}`);
  const errors = found.findings.filter((f) => f.level === 'error').length;
  const head =
    '## Countersign: ' +
    `${found.outcome === 'allowed' ? 'allowed' : `denied, ${errors} violation${errors === 1 ? '' : 's'}`}\n` +
    `\n${found.objects} objects checked.\n`;
  if (found.findings.length === 0 && found.fixed.length === 0) return head;
  const row = (f: Finding) =>
    `| ${f.waived !== undefined ? 'waived' : f.level}${f.state === 'existing' ? ', as before' : ''} ` +
    `| ${cell(ruleOf(f))} | ${cell(place(f))} | ${cell(f.message)} | ${cell(f.hint ?? '')} |\n`;
  const table =
    found.findings.length === 0
      ? ''
      : `\n| | rule | where | what | fix |\n| --- | --- | --- | --- | --- |\n${found.findings.map(row).join('')}`;
  const subject = ({ object }: Violation) => (object === undefined ? '' : refText(object));
  const names = found.fixed.map((f) => cell(`${ruleOf(f)} (${subject(f)})`));
  const fixed = names.length === 0 ? '' : `\nFixed: ${names.join(', ')}\n`;
  return head + table + fixed;
}
