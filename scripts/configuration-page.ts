import { z } from 'zod';
import { environmentSchema, notifierSchema, reportScheduleSchema, trustPolicySchema, waiverSchema } from '../src/model/index.ts';

type Node = {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  default?: unknown;
  description?: string;
  properties?: Record<string, Node>;
  required?: string[];
  anyOf?: readonly Node[];
  items?: Node;
  pattern?: string;
  additionalProperties?: unknown;
};

/** docs/configuration.md, made from the one schema. */
export function configurationPage(): string {
  const page = [
    '# Configuration',
    '',
    'Made from the schema in `src/model/schema.ts` by `npm run docs`. Documents are YAML, in files named with `--config` (files or directories); several may stand in one file. Unknown keys are errors.',
    '',
  ];
  for (const [kind, schema] of [
    ['Environment', environmentSchema],
    ['TrustPolicy', trustPolicySchema],
    ['Notifier', notifierSchema],
    ['ReportSchedule', reportScheduleSchema],
    ['Waiver', waiverSchema],
  ] as const) {
    page.push(`## ${kind}`, '', '| key | what | needed or default |', '|---|---|---|');
    rows(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Node, '', page);
    page.push('');
  }
  return `${page.join('\n')}`;
}

function rows(node: Node, path: string, page: string[]): void {
  for (const [name, child] of Object.entries(node.properties ?? {})) {
    const here = path === '' ? name : `${path}.${name}`;
    const item = child.type === 'array' ? child.items : undefined;
    const leaf = child.properties === undefined && item?.properties === undefined;
    const shown = item === undefined ? here : `${here}[]`;
    if (leaf || child.description !== undefined || item?.description !== undefined) {
      const needed =
        node.required?.includes(name) === true && child.default === undefined
          ? 'needed'
          : child.default === undefined || (typeof child.default === 'object' && !Array.isArray(child.default))
            ? ''
            : `\`${JSON.stringify(child.default)}\``;
      page.push(
        `| \`${shown}\` | ${[typeOf(item ?? child), child.description ?? item?.description].filter(Boolean).join('. ').replaceAll('|', '\\|')} | ${needed.replaceAll('|', '\\|')} |`,
      );
    }
    const inner = item ?? child;
    for (const choice of inner.anyOf ?? [inner]) rows(choice, shown, page);
  }
}

function typeOf(node: Node): string {
  if (node.const !== undefined) return `\`${String(node.const)}\``;
  if (node.enum !== undefined) return node.enum.map((v) => `\`${String(v)}\``).join(' or ');
  return '';
}
