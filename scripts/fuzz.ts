import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fuzzTargets, garbage, mutate, residentMiB, tryInput } from '../test/kit/fuzz.ts';

// Every parser, or those whose name has a word in it, for some seconds each: `node scripts/fuzz.ts [seconds] [word]`.
// Ends at the first defect and prints the input.
const seconds = Number(process.argv[2] ?? 10);
const directory = mkdtempSync(join(tmpdir(), 'countersign-fuzz-'));
try {
  for (const target of (await fuzzTargets(directory)).filter((t) => t.name.includes(process.argv[3] ?? ''))) {
    const counts = { value: 0, refused: 0 };
    for (const bytes of target.seeds.flatMap((seed) => garbage(seed))) counts[await tryInput(target, bytes, 5000)]++;
    const corpus = [...target.seeds];
    for (const end = Date.now() + seconds * 1000; Date.now() < end; ) {
      const bytes = mutate(corpus[Math.floor(Math.random() * corpus.length)] ?? Buffer.from('x'), Math.random);
      const outcome = await tryInput(target, bytes, 2000);
      counts[outcome]++;
      // What is still read although it was changed leads further than the seed did.
      if (outcome === 'value' && corpus.length < 200 && bytes.length < 20_000) corpus.push(bytes);
    }
    process.stdout.write(
      `${target.name.padEnd(18)} ${counts.value + counts.refused} inputs, ${counts.refused} refused; resident ${residentMiB().toFixed(0)} MiB\n`,
    );
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
