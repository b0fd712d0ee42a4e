import { plain } from '../terminal/index.ts';
import { type Finding, ruleOf } from './model.ts';

export function azure(f: Finding): string {
  if (f.level === 'note') return `##[section]${plain(f.message)}\n`;
  const safe = (text: string) => plain(text).replaceAll('%', '%AZP25').replaceAll(';', '%3B').replaceAll(']', '%5D');
  const where =
    f.source === undefined
      ? ''
      : `sourcepath=${safe(f.source.file)};linenumber=${f.source.line};` +
        `${f.source.column === undefined ? '' : `columnnumber=${f.source.column};`}`;
  return (
    '##vso[task.logissue ' +
    `type=${f.level};${where}code=${safe(ruleOf(f))};]` +
    `${plain(f.hint === undefined ? f.message : `${f.message}. Fix: ${f.hint}`)}\n`
  );
}
