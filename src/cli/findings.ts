import { createHash } from 'node:crypto';
import type { RuleInfo } from '../bundle/index.ts';
import { refText, type Violation } from '../model/index.ts';
import { type Io, paint, plain } from './io.ts';
import { version } from './version.ts';

/** What a check found, in every form it may be printed in. */
export type Findings = {
  readonly outcome: 'allowed' | 'denied';
  readonly findings: readonly Finding[];
  /** What the base had and the head has not. */
  readonly fixed: readonly Violation[];
  readonly objects: number;
  readonly rules: ReadonlyMap<string, RuleInfo>;
};

/** `error` denies, `warning` does not, `note` is let pass by a waiver or an exception. */
export type Finding = Violation & { readonly level: 'error' | 'warning' | 'note'; readonly state?: 'new' | 'existing' };

export const FORMS = ['text', 'json', 'sarif', 'junit', 'github', 'gitlab', 'azuredevops', 'tap', 'markdown'] as const;
export type Form = (typeof FORMS)[number];

/** Prints findings in one of the forms that CI systems read. */
export function printFindings(form: Exclude<Form, 'text'>, found: Findings): string {
  switch (form) {
    case 'json':
      return `${JSON.stringify({ outcome: found.outcome, objects: found.objects, findings: found.findings, fixed: found.fixed }, null, 2)}\n`;
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

const ruleOf = (f: Violation) => f.rule ?? f.code;

/** Text that stays the same when lines move: for telling new findings from old ones. */
export function fingerprint(f: Violation): string {
  const object = f.object === undefined ? '' : refText(f.object);
  return createHash('sha256')
    .update(JSON.stringify([ruleOf(f), object, f.message, f.source?.file ?? '']))
    .digest('hex')
    .slice(0, 32);
}

const LEVELS: Record<string, string> = { critical: '9.5', high: '8.0', medium: '5.5', low: '3.0' };

function sarif(found: Findings): object {
  const ids = [...new Set(found.findings.map(ruleOf))].sort();
  return {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {
          driver: {
            name: 'countersign',
            version: version(),
            rules: ids.map((id) => {
              const info = found.rules.get(id);
              const severity = info?.severity ?? found.findings.find((f) => ruleOf(f) === id)?.severity;
              return {
                id,
                shortDescription: { text: info?.title ?? id },
                ...(info?.description === undefined ? {} : { fullDescription: { text: info.description } }),
                ...(info?.remediation === undefined ? {} : { help: { text: info.remediation } }),
                properties: {
                  tags: info?.controls ?? [],
                  ...(severity === undefined ? {} : { 'security-severity': LEVELS[severity] ?? '5.0' }),
                },
              };
            }),
          },
        },
        results: found.findings.map((f) => ({
          ruleId: ruleOf(f),
          ruleIndex: ids.indexOf(ruleOf(f)),
          level: f.level,
          message: { text: f.hint === undefined ? f.message : `${f.message}. Fix: ${f.hint}` },
          locations: [
            {
              physicalLocation: {
                artifactLocation: { uri: (f.source?.file ?? '.').split('/').map(encodeURIComponent).join('/'), uriBaseId: '%SRCROOT%' },
                region: { startLine: f.source?.line ?? 1, ...(f.source?.column === undefined ? {} : { startColumn: f.source.column }) },
              },
              ...(f.object === undefined ? {} : { logicalLocations: [{ fullyQualifiedName: refText(f.object), kind: 'resource' }] }),
            },
          ],
          partialFingerprints: { 'countersign/v1': fingerprint(f) },
          ...(f.state === undefined ? {} : { baselineState: f.state === 'new' ? 'new' : 'unchanged' }),
          ...(f.waived === undefined
            ? {}
            : {
                suppressions: [
                  {
                    kind: 'external',
                    status: 'accepted',
                    justification: `${f.waived.reason} (${f.waived.ticket}, waived by ${f.waived.approver} until ${f.waived.until})`,
                  },
                ],
              }),
        })),
      },
    ],
  };
}

function xml(text: string): string {
  // Characters that XML 1.0 has no place for are shown, so that a message can break no report.
  return plain(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

function place(f: Violation): string {
  return f.source === undefined ? '' : `${f.source.file}:${f.source.line}${f.source.column === undefined ? '' : `:${f.source.column}`}`;
}

function junit(found: Findings): string {
  const failures = found.findings.filter((f) => f.level === 'error');
  const cases = found.findings.map((f) => {
    const name = `${ruleOf(f)}${f.object === undefined ? '' : ` ${refText(f.object)}`}`;
    const body =
      f.level === 'error'
        ? `<failure type="${xml(f.severity ?? 'error')}" message="${xml(f.message)}">${xml(`${place(f)}${f.hint === undefined ? '' : `  fix: ${f.hint}`}`)}</failure>`
        : f.level === 'note'
          ? `<skipped message="${xml(f.message)}"/>`
          : `<system-out>${xml(`warning: ${f.message} (${place(f)})`)}</system-out>`;
    return `    <testcase classname="${xml(f.source?.file ?? 'change')}" name="${xml(name)}">${body}</testcase>\n`;
  });
  const passed = found.findings.length === 0 ? `    <testcase classname="countersign" name="${found.objects} objects"/>\n` : '';
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n  <testsuite name="countersign" tests="${Math.max(1, found.findings.length)}" failures="${failures.length}" errors="0" skipped="${found.findings.filter((f) => f.level === 'note').length}">\n${cases.join('')}${passed}  </testsuite>\n</testsuites>\n`;
}

// Workflow commands end at a line break; `%` comes first.
function command(text: string, property: boolean): string {
  const escaped = text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
  return property ? escaped.replaceAll(':', '%3A').replaceAll(',', '%2C') : escaped;
}

function github(f: Finding): string {
  const kind = f.level === 'note' ? 'notice' : f.level;
  const where =
    f.source === undefined
      ? ''
      : ` file=${command(f.source.file, true)},line=${f.source.line}${f.source.column === undefined ? '' : `,col=${f.source.column}`},title=${command(ruleOf(f), true)}`;
  return `::${kind}${where}::${command(f.hint === undefined ? f.message : `${f.message}. Fix: ${f.hint}`, false)}\n`;
}

const GITLAB: Record<string, string> = { critical: 'blocker', high: 'critical', medium: 'major', low: 'minor' };

function gitlab(f: Finding): object {
  const severity = f.level === 'error' ? (GITLAB[f.severity ?? ''] ?? 'major') : f.level === 'warning' ? 'minor' : 'info';
  return {
    description: f.message,
    check_name: ruleOf(f),
    fingerprint: fingerprint(f),
    severity,
    location: { path: f.source?.file ?? '.', lines: { begin: f.source?.line ?? 1 } },
  };
}

function azure(f: Finding): string {
  if (f.level === 'note') return `##[section]${plain(f.message)}\n`;
  const safe = (text: string) => plain(text).replaceAll('%', '%AZP25').replaceAll(';', '%3B').replaceAll(']', '%5D');
  const where =
    f.source === undefined
      ? ''
      : `sourcepath=${safe(f.source.file)};linenumber=${f.source.line};${f.source.column === undefined ? '' : `columnnumber=${f.source.column};`}`;
  return `##vso[task.logissue type=${f.level};${where}code=${safe(ruleOf(f))};]${plain(f.hint === undefined ? f.message : `${f.message}. Fix: ${f.hint}`)}\n`;
}

function tap(found: Findings): string {
  const line = (f: Finding, i: number) =>
    `${f.level === 'error' ? 'not ok' : 'ok'} ${i + 1} - ${plain(`${ruleOf(f)} ${place(f)} ${f.message}`).replaceAll('#', '\\#')}${f.level === 'note' ? ' # SKIP waived' : ''}\n`;
  if (found.findings.length === 0) return `TAP version 13\n1..1\nok 1 - ${found.objects} objects\n`;
  return `TAP version 13\n1..${found.findings.length}\n${found.findings.map(line).join('')}`;
}

function markdown(found: Findings): string {
  const cell = (text: string) => plain(text).replace(/[|<>`*_[\]\\]/g, (c) => `\\${c}`);
  const errors = found.findings.filter((f) => f.level === 'error').length;
  const head = `## Countersign: ${found.outcome === 'allowed' ? 'allowed' : `denied, ${errors} violation${errors === 1 ? '' : 's'}`}\n\n${found.objects} objects checked.\n`;
  if (found.findings.length === 0 && found.fixed.length === 0) return head;
  const row = (f: Finding) =>
    `| ${f.waived !== undefined ? 'waived' : f.level}${f.state === 'existing' ? ', as before' : ''} | ${cell(ruleOf(f))} | ${cell(place(f))} | ${cell(f.message)} | ${cell(f.hint ?? '')} |\n`;
  const table =
    found.findings.length === 0
      ? ''
      : `\n| | rule | where | what | fix |\n| --- | --- | --- | --- | --- |\n${found.findings.map(row).join('')}`;
  const fixed =
    found.fixed.length === 0
      ? ''
      : `\nFixed: ${found.fixed.map((f) => cell(`${ruleOf(f)} (${f.object === undefined ? '' : refText(f.object)})`)).join(', ')}\n`;
  return head + table + fixed;
}

/** Findings for people: the place first, then what and how to fix it, errors before warnings before what is waived. */
export function showFindingsText(found: Findings, io: Io, options: { readonly all: boolean }): string {
  const order = { error: 0, warning: 1, note: 2 };
  const shown = options.all ? found.findings : found.findings.filter((f) => f.state !== 'existing' || f.level === 'error');
  const lines = [...shown].sort((a, b) => order[a.level] - order[b.level]).map((f) => oneFinding(f, io));
  const hidden = found.findings.length - shown.length;
  const more = hidden > 0 ? [paint(io, 'dim', `  ${hidden} more that were there before are not shown; --all shows them`)] : [];
  const fixed = found.fixed.map((f) => `  ${paint(io, 'green', '✓ fixed')} ${plain(`${ruleOf(f)}  ${f.message}`)}`);
  return [...lines, ...more, ...fixed].map((l) => `${l}\n`).join('');
}

function oneFinding(f: Finding, io: Io): string {
  const [mark, colour] =
    f.level === 'error' ? (['✗', 'red'] as const) : f.level === 'warning' ? (['!', 'yellow'] as const) : (['-', 'dim'] as const);
  const tags = [f.severity, ...(f.controls ?? []), f.state === 'existing' ? 'was there before' : undefined]
    .filter((t) => t !== undefined)
    .join(', ');
  const lines = [`  ${paint(io, colour, `${mark} ${plain(ruleOf(f))}`)}${tags === '' ? '' : `  ${paint(io, 'dim', plain(tags))}`}`];
  if (f.source !== undefined) lines.push(`    ${plain(place(f))}`);
  lines.push(`    ${plain(f.message)}`);
  if (f.waived !== undefined)
    lines.push(
      `    ${paint(io, 'dim', plain(`waived by ${f.waived.approver} until ${f.waived.until}: ${f.waived.reason} (${f.waived.ticket})`))}`,
    );
  else if (f.hint !== undefined) lines.push(`    ${paint(io, 'dim', 'fix:')} ${plain(f.hint)}`);
  return lines.join('\n');
}
