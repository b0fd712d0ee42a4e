import { refText } from '../model/index.ts';
import { plain } from '../terminal/index.ts';
import { type Findings, place, ruleOf } from './model.ts';

function xml(text: string): string {
  // Characters that XML 1.0 does not allow are made visible, so that a message cannot break a report.
  return plain(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

export function junit(found: Findings): string {
  const failures = found.findings.filter((f) => f.level === 'error');
  const cases = found.findings.map((f) => {
    const name = `${ruleOf(f)}${f.object === undefined ? '' : ` ${refText(f.object)}`}`;
    const body =
      f.level === 'error'
        ? `<failure type="${xml(f.severity ?? 'error')}" ` +
          `message="${xml(f.message)}">${xml(`${place(f)}${f.hint === undefined ? '' : `  fix: ${f.hint}`}`)}</failure>`
        : f.level === 'note'
          ? `<skipped message="${xml(f.message)}"/>`
          : `<system-out>${xml(`warning: ${f.message} (${place(f)})`)}</system-out>`;
    return `    <testcase classname="${xml(f.source?.file ?? 'change')}" name="${xml(name)}">${body}</testcase>\n`;
  });
  const passed =
    found.findings.length === 0 ? `    <testcase classname="countersign" name="${found.objects} objects"/>\n` : '';
  return (
    '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n  <testsuite name="countersign" ' +
    `tests="${Math.max(1, found.findings.length)}" failures="${failures.length}" errors="0" ` +
    `skipped="${found.findings.filter((f) => f.level === 'note').length}">\n` +
    `${cases.join('')}${passed}  </testsuite>\n</testsuites>\n`
  );
}
