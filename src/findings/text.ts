import { type Io, paint, plain } from '../terminal/index.ts';
import { type Finding, type Findings, place, ruleOf } from './model.ts';

/** Formats findings for people: place, message, fix; errors before warnings before waived findings. */
export function showFindingsText(found: Findings, io: Io, options: { readonly all: boolean }): string {
  const order = { error: 0, warning: 1, note: 2 };
  const shown = options.all
    ? found.findings
    : found.findings.filter((f) => f.state !== 'existing' || f.level === 'error');
  const lines = [...shown].sort((a, b) => order[a.level] - order[b.level]).map((f) => oneFinding(f, io));
  const hidden = found.findings.length - shown.length;
  const more =
    hidden > 0 ? [paint(io, 'dim', `  ${hidden} more that existed before are not shown; use --all to show them`)] : [];
  const fixed = found.fixed.map((f) => `  ${paint(io, 'green', '✓ fixed')} ${plain(`${ruleOf(f)}  ${f.message}`)}`);
  return [...lines, ...more, ...fixed].map((l) => `${l}\n`).join('');
}

function oneFinding(f: Finding, io: Io): string {
  const [mark, colour] =
    f.level === 'error'
      ? (['✗', 'red'] as const)
      : f.level === 'warning'
        ? (['!', 'yellow'] as const)
        : (['-', 'dim'] as const);
  const tags = [f.severity, ...(f.controls ?? []), f.state === 'existing' ? 'existed before' : undefined]
    .filter((t) => t !== undefined)
    .join(', ');
  const lines = [
    `  ${paint(io, colour, `${mark} ${plain(ruleOf(f))}`)}${tags === '' ? '' : `  ${paint(io, 'dim', plain(tags))}`}`,
  ];
  if (f.source !== undefined) lines.push(`    ${plain(place(f))}`);
  lines.push(`    ${plain(f.message)}`);
  if (f.waived !== undefined) {
    const { approver, until, reason, ticket } = f.waived;
    lines.push(`    ${paint(io, 'dim', plain(`waived by ${approver} until ${until}: ${reason} (${ticket})`))}`);
  } else if (f.hint !== undefined) lines.push(`    ${paint(io, 'dim', 'fix:')} ${plain(f.hint)}`);
  return lines.join('\n');
}
