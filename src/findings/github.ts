import { type Finding, ruleOf } from './model.ts';

// A workflow command ends at a line break; `%` must be escaped first.
function command(text: string, property: boolean): string {
  const escaped = text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
  return property ? escaped.replaceAll(':', '%3A').replaceAll(',', '%2C') : escaped;
}

export function github(f: Finding): string {
  const kind = f.level === 'note' ? 'notice' : f.level;
  const where =
    f.source === undefined
      ? ''
      : ` file=${command(f.source.file, true)},line=${f.source.line}` +
        `${f.source.column === undefined ? '' : `,col=${f.source.column}`},title=${command(ruleOf(f), true)}`;
  return `::${kind}${where}::${command(f.hint === undefined ? f.message : `${f.message}. Fix: ${f.hint}`, false)}\n`;
}
