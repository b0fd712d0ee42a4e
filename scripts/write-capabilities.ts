import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { REFUSED } from '../src/rego/index.ts';
import { tool } from './tools.ts';

// What the pinned opa offers, less what is refused when rules are loaded: `opa build` then says so first.
const all = JSON.parse(
  execFileSync(await tool('opa', { pinned: true }), ['capabilities', '--current'], { encoding: 'utf8' }),
) as {
  builtins: { name: string }[];
  allow_net?: string[];
};
const kept = { ...all, builtins: all.builtins.filter((b) => !Object.hasOwn(REFUSED, b.name)), allow_net: [] };
const { builtins, ...rest } = kept;
const body = `{\n${Object.entries(rest)
  .map(([k, v]) => `${JSON.stringify(k)}: ${JSON.stringify(v)},`)
  .join('\n')}\n"builtins": [\n${builtins.map((b) => JSON.stringify(b)).join(',\n')}\n]\n}\n`;
writeFileSync(fileURLToPath(new URL('../policies/capabilities.json', import.meta.url)), body);
