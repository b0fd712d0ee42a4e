import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CountersignError } from '../model/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';

const PAGES = fileURLToPath(new URL('../../docs', import.meta.url));

/** Lists the topics that `countersign help TOPIC` prints: the pages of the documentation. */
export function topics(): string[] {
  if (!existsSync(PAGES)) return [];
  return readdirSync(PAGES)
    .filter((file) => file.endsWith('.md'))
    .map((file) => file.slice(0, -'.md'.length))
    .sort();
}

/** Prints a page of the documentation. Throws `usage` that lists the topics if there is none of that name. */
export function helpTopic(topic: string, io: Io): number {
  const page = topic.replace(/\.md$/, '');
  if (!topics().includes(page))
    throw new CountersignError('usage', `there is no command and no topic \`${topic}\``, {
      hint: `use \`countersign --help\` for the commands; topics are ${topics().join(', ')}`,
    });
  io.out(readFileSync(join(PAGES, `${page}.md`), 'utf8'));
  return EXIT.yes;
}
