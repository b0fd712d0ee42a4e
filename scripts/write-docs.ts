import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { configurationPage } from './configuration-page.ts';
import { rulePages } from './rule-pages.ts';
import { violationPage } from './violation-page.ts';

const docs = fileURLToPath(new URL('../docs', import.meta.url));
writeFileSync(join(docs, 'configuration.md'), configurationPage());
writeFileSync(join(docs, 'violations.md'), violationPage());
rmSync(join(docs, 'rules'), { recursive: true, force: true });
mkdirSync(join(docs, 'rules'));
for (const [name, text] of await rulePages()) writeFileSync(join(docs, 'rules', name), text);
