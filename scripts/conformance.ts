import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { type Case, judgeCase } from '../test/kit/conformance.ts';

const only = process.argv[3];
const families = new Map<string, { passed: number; failed: number; skipped: number }>();
for await (const line of createInterface({ input: createReadStream(process.argv[2] as string) })) {
  const one = JSON.parse(line) as Case;
  const outcome = await judgeCase(one);
  const row = families.get(one.family) ?? { passed: 0, failed: 0, skipped: 0 };
  row[outcome.kind]++;
  families.set(one.family, row);
  if (outcome.kind === 'failed' && (only === undefined || one.family.includes(only))) console.log(`${one.version} ${one.note}: ${outcome.why}`.slice(0, 400));
  if (outcome.kind === 'skipped' && only === 'skipped') console.log(`${one.version} ${one.note}: ${outcome.why}`);
}
let [p, f, s] = [0, 0, 0];
for (const [name, r] of families) {
  p += r.passed; f += r.failed; s += r.skipped;
  if (r.failed > 0) console.log(name, r);
}
console.log({ p, f, s });
