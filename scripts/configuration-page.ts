import { z } from 'zod';
import {
  environmentSchema,
  environmentSetSchema,
  notifierSchema,
  reportScheduleSchema,
  trustPolicySchema,
  waiverSchema,
} from '../src/model/index.ts';

type Node = {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  default?: unknown;
  description?: string;
  properties?: Record<string, Node>;
  required?: string[];
  anyOf?: readonly Node[];
  oneOf?: readonly Node[];
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
    ['EnvironmentSet', environmentSetSchema],
    ['TrustPolicy', trustPolicySchema],
    ['Notifier', notifierSchema],
    ['ReportSchedule', reportScheduleSchema],
    ['Waiver', waiverSchema],
  ] as const) {
    page.push(`## ${kind}`, '', '| key | what | needed or default |', '|---|---|---|');
    const found: string[] = [];
    rows(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Node, '', found);
    page.push(...new Set(found), ''); // forms of one key share some of theirs
  }
  return `${page.join('\n')}`;
}

function rows(node: Node, path: string, page: string[], forms: readonly Node[] = [node]): void {
  const form = Object.entries(node.properties ?? {}).find(([, child]) => child.const !== undefined);
  for (const [name, child] of Object.entries(node.properties ?? {})) {
    const isEverywhere = forms.every((f) => f.properties?.[name] !== undefined);
    const here = path === '' ? name : `${path}.${name}`;
    const item = child.type === 'array' ? child.items : undefined;
    const leaf = child.properties === undefined && item?.properties === undefined;
    const shown = item === undefined ? here : `${here}[]`;
    if (leaf || child.description !== undefined || item?.description !== undefined) {
      const only =
        isEverywhere || form === undefined || form[0] === name ? '' : `For \`${form[0]}: ${String(form[1].const)}\``;
      const what = [only, typeOf(item ?? child), child.description ?? item?.description].filter(Boolean).join('. ');
      page.push(`| \`${shown}\` | ${cell(what)} | ${cell(needed(node, name, isEverywhere))} |`);
    }
    const inner = item ?? child;
    const choices = inner.oneOf ?? inner.anyOf ?? [inner];
    for (const choice of choices) rows(choice, shown, page, choices);
  }
}

function needed(node: Node, name: string, isEverywhere: boolean): string {
  const given = node.properties?.[name]?.default;
  if (given !== undefined)
    return typeof given === 'object' && !Array.isArray(given) ? '' : `\`${JSON.stringify(given)}\``;
  if (node.required?.includes(name) !== true) return '';
  return isEverywhere ? 'needed' : 'one of these';
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}

function typeOf(node: Node): string {
  if (node.const !== undefined) return `\`${String(node.const)}\``;
  if (node.enum !== undefined) return node.enum.map((v) => `\`${String(v)}\``).join(' or ');
  return '';
}
