import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type RuleInfo, readBundle } from '../src/bundle/index.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const SEVERITIES = ['critical', 'high', 'medium', 'low'];

/**
 * The pages under docs/rules by file name: one for each rule of the library, and a list. Made from METADATA and
 * examples.
 */
export async function rulePages(): Promise<Map<string, string>> {
  const bundle = await readBundle(readFileSync(join(root, 'policies/dist/bundle.tar.gz')), 'shipped');
  const rules = [...bundle.manifest.rules].sort((a, b) => (a.id < b.id ? -1 : 1));
  return new Map([['README.md', listPage(rules)], ...rules.map((rule) => [`${rule.id}.md`, rulePage(rule)] as const)]);
}

function listPage(rules: readonly RuleInfo[]): string {
  const files = [...new Set(rules.map(fileOf))].sort();
  const lines = [
    '# Rules',
    '',
    `The ${rules.length} rules that come with Countersign, made from their METADATA by \`npm run docs\`. \`countersign check --explain RULE\` shows`,
    'the same. A rule for Pods applies to every kind that makes Pods. [The policy page](../policy.md) explains how to choose,',
    'write and waive rules.',
  ];
  for (const file of files) {
    lines.push('', `## \`${file}\``, '', '| rule | severity | requirement | controls |', '|---|---|---|---|');
    const inFile = rules.filter((r) => fileOf(r) === file);
    for (const r of inFile.sort((a, b) => SEVERITIES.indexOf(a.severity ?? '') - SEVERITIES.indexOf(b.severity ?? '')))
      lines.push(
        `| [${r.id}](${r.id}.md) | ${r.severity ?? ''} | ${cell(r.title ?? '')} | ${(r.controls ?? []).join(', ')} |`,
      );
  }
  return `${lines.join('\n')}\n`;
}

function rulePage(rule: RuleInfo): string {
  const lines = [`# ${rule.id}`, '', `**${rule.title ?? rule.id}.** ${rule.description?.trim() ?? ''}`.trim(), ''];
  lines.push(`- Severity: ${rule.severity ?? 'not set'}`);
  if (rule.controls !== undefined) lines.push(`- Controls: ${rule.controls.join(', ')}`);
  if (rule.remediation !== undefined) lines.push(`- How to meet it: ${rule.remediation}`);
  for (const link of rule.links ?? []) lines.push(`- More: <${link}>`);
  const file = fileOf(rule);
  lines.push(`- Source: [policies/${file}](../../policies/${file})`);
  for (const variant of variantsOf(rule.id)) {
    const read = (name: string) => {
      const path = join(root, 'policies/examples', variant, name);
      return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
    };
    const parameters = read('parameters.yaml');
    const suffix = parameters === undefined ? '' : ' with these parameters';
    if (parameters !== undefined)
      lines.push('', `## Parameters${variantOf(variant)}`, '', '```yaml', parameters.trim(), '```');
    const images = read('images.yaml');
    if (images !== undefined) lines.push('', `## Images${variantOf(variant)}`, '', '```yaml', images.trim(), '```');
    for (const [title, name] of [
      [`Breaks it${suffix}`, 'fail.yaml'],
      [`Meets it${suffix}`, 'pass.yaml'],
    ] as const) {
      const first = read(name)?.split(/^---$/m)[0]?.trim();
      if (first !== undefined) lines.push('', `## ${title}${variantOf(variant)}`, '', '```yaml', first, '```');
    }
  }
  return `${lines.join('\n')}\n`;
}

function variantsOf(rule: string): string[] {
  return readdirSync(join(root, 'policies/examples'))
    .filter((d) => d === rule || d.startsWith(`${rule}@`))
    .sort();
}

function variantOf(directory: string): string {
  const variant = directory.split('@')[1];
  return variant === undefined ? '' : ` (${variant})`;
}

function fileOf(rule: RuleInfo): string {
  return `rules/${rule.place.replace(/:\d+$/, '').replace(/^.*\//, '')}`;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}
