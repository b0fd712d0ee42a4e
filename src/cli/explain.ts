import type { ProcessSettings } from '../config/index.ts';
import { CountersignError } from '../model/index.ts';
import { ruleInfos } from '../policy/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import { openPolicies } from './check-files.ts';

/** Implements `countersign check --explain RULE`: what a rule requires, why, and how to meet it. */
export async function explain(
  rule: string,
  policies: readonly string[],
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const rules = ruleInfos(await openPolicies(policies, [], settings, io));
  const info = rules.get(rule);
  if (info === undefined) {
    const near = [...rules.keys()].filter((id) => id.includes(rule) || rule.includes(id)).slice(0, 5);
    throw new CountersignError('usage', `there is no rule \`${rule}\``, {
      hint:
        near.length > 0
          ? `did you mean ${near.map((n) => `\`${n}\``).join(', ')}?`
          : '`countersign policy list` lists them all',
    });
  }
  const lines: (readonly [string, string | undefined])[] = [
    ['severity', info.severity],
    ['controls', info.controls?.join(', ')],
    ['fix', info.remediation],
    ['more', info.links?.join('\n          ')],
    ['source', info.place],
  ];
  io.out(`${paint(io, 'bold', plain(info.id))}  ${plain(info.title ?? '')}\n\n`);
  if (info.description !== undefined) io.out(`${plain(info.description.trim())}\n\n`);
  for (const [name, value] of lines)
    if (value !== undefined) io.out(`${name.padEnd(9)} ${plain(value).replaceAll('<U+000A>', '\n')}\n`);
  return EXIT.yes;
}
