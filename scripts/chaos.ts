import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DUTIES } from '../test/kit/chaos/actors.ts';
import { runChaos } from '../test/kit/chaos/run.ts';

// Three replicas on PostgreSQL, and faults around them: `npm run chaos [-- minutes=15] [seed=N] [only=PART,PART]`.
// Prints how long each promise was not kept after each fault, and everything that went wrong; then it exits with 1.
const words = process.argv.slice(2);
const given = (name: string) => words.find((w) => w.startsWith(`${name}=`))?.slice(name.length + 1);
const seed = Number(given('seed') ?? Date.now() % 1_000_000);
const minutes = Number(given('minutes') ?? 15);
const LIMIT_S = 30;
const directory = mkdtempSync(join(tmpdir(), 'countersign-chaos-'));
const begun = performance.now();
const say = (line: string) =>
  process.stderr.write(`${((performance.now() - begun) / 1000).toFixed(0).padStart(5)} s  ${line}\n`);
say(`seed ${seed}; logs are left in ${directory}`);
const only = given('only')?.split(',');
const { rows, problems, counts } = await runChaos({
  ...{ directory, minutes, seed, say, limit: LIMIT_S },
  ...(only === undefined ? {} : { only }),
});
const width = Math.max(...rows.map((r) => r.fault.length));
process.stdout.write(`\n${'seconds away, after'.padEnd(width)}  ${DUTIES.map((d) => d.padStart(11)).join('')}\n`);
for (const { fault, away } of rows)
  process.stdout.write(`${fault.padEnd(width)}  ${DUTIES.map((d) => away[d].toFixed(1).padStart(11)).join('')}\n`);
process.stdout.write(
  `\n${Object.entries(counts)
    .map(([name, n]) => `${name}: ${n}`)
    .join(', ')}\n`,
);
for (const problem of problems) process.stdout.write(`WRONG: ${problem}\n`);
process.stdout.write(problems.length === 0 ? `nothing wrong, nothing away for ${LIMIT_S} s\n` : '');
process.exit(problems.length === 0 ? 0 : 1);
