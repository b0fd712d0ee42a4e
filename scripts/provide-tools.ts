import type { ToolName } from '../src/tools/index.ts';
import { tool } from './tools.ts';

// One after the other and before anything is timed: a build must not fall into a test.
for (const name of process.argv.slice(2)) await tool(name as ToolName);
