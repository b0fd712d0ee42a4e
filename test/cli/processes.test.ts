import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Command, type CommandUnknownOpts } from '@commander-js/extra-typings';
import { addCommands } from '../../src/cli/commands.ts';
import { readProcessSettings } from '../../src/config/index.ts';
import { inParallel } from '../../src/model/index.ts';
import { scratch } from '../kit/scratch.ts';
import { countersignProcess } from '../kit/service.ts';

const io = { out: () => {}, err: () => {}, terminal: false, colour: false, signal: new AbortController().signal };
const program = new Command('countersign');
addCommands(program, { io, hooks: {}, settings: readProcessSettings() }, () => {});

function leaves(command: CommandUnknownOpts, path: readonly string[] = []): (readonly string[])[] {
  return command.commands.flatMap((c) => {
    const here = [...path, c.name()];
    return c.commands.length > 0 ? leaves(c, here) : [[...here, ...needed(c)]];
  });
}

// Something for every argument and option that a command cannot be without.
function needed(command: CommandUnknownOpts): readonly string[] {
  return [
    ...command.registeredArguments.filter((a) => a.required).map(() => 'x'),
    ...command.options.filter((o) => o.mandatory && o.required).flatMap((o) => [o.long ?? '', 'x']),
  ];
}

test('every command, as a process in an empty directory, ends with an answer and its exit code', async () => {
  const directory = scratch();
  const all = leaves(program);
  assert.ok(all.length > 40, `${all.length} commands`);
  await inParallel(
    [...all.entries()],
    async ([i, args]) => {
      const cwd = join(directory, String(i));
      mkdirSync(cwd);
      const { code, stdout, stderr } = await countersignProcess(args, { cwd });
      const said = `countersign ${args.join(' ')} ended with ${code}:\n${stdout}${stderr}`;
      assert.ok([0, 1, 2].includes(code), said);
      assert.doesNotMatch(stderr, /defect in Countersign|^ {4}at /m, said);
      assert.notEqual(`${stdout}${stderr}`.trim(), '', said);
    },
    () => 3,
  );
});
