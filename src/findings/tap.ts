import { plain } from '../terminal/index.ts';
import { type Finding, type Findings, place, ruleOf } from './model.ts';

export function tap(found: Findings): string {
  const line = (f: Finding, i: number) =>
    `${f.level === 'error' ? 'not ok' : 'ok'} ${i + 1} - ` +
    `${plain(`${ruleOf(f)} ${place(f)} ${f.message}`).replaceAll('#', '\\#')}` +
    `${f.level === 'note' ? ' # SKIP waived' : ''}\n`;
  if (found.findings.length === 0) return `TAP version 13\n1..1\nok 1 - ${found.objects} objects\n`;
  return `TAP version 13\n1..${found.findings.length}\n${found.findings.map(line).join('')}`;
}
