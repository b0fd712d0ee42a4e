import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command, type CommandUnknownOpts } from '@commander-js/extra-typings';
import { addCommands } from '../../src/cli/commands.ts';
import { readProcessSettings } from '../../src/config/index.ts';

const io = { out: () => {}, err: () => {}, terminal: false, colour: false, signal: new AbortController().signal };
const program = new Command('countersign');
addCommands(program, { io, hooks: {}, settings: readProcessSettings() }, () => {});

function leaves(command: CommandUnknownOpts, path = ''): [string, CommandUnknownOpts][] {
  return command.commands.flatMap((c) => {
    const name = `${path}${c.name()}`;
    return c.commands.length === 0
      ? [[name, c]]
      : [[name, c] as [string, CommandUnknownOpts], ...leaves(c, `${name} `)];
  });
}

const all = leaves(program);
const flagsOf = (command: CommandUnknownOpts) => new Set(command.options.map((o) => o.long ?? ''));

// Families of flags that name one thing together: with one of them missing, that thing cannot be named in full.
const FAMILIES = [
  ['--ledger', '--ledger-key', '--ledger-key-command', '--ledger-key-public'],
  ['--kubeconfig', '--context'],
];

for (const [name, command] of all) {
  test(`\`${name}\` has all flags of a family or none`, () => {
    const flags = flagsOf(command);
    for (const family of FAMILIES) {
      const here = family.filter((flag) => flags.has(flag));
      assert.ok(here.length === 0 || here.length === family.length, `${here.join(', ')} without its siblings`);
    }
  });

  test(`the help of \`${name}\` fits 80 columns, has an example, and is in lower case`, () => {
    let help = '';
    command.configureOutput({ writeOut: (text) => (help += text), getOutHelpWidth: () => 80 });
    command.outputHelp();
    // A word that is longer than its column cannot be wrapped.
    for (const line of help.split('\n')) assert.ok([...line].length <= 80 || !/\S\s+\S/.test(line), line);
    assert.doesNotMatch(help, /default: (?:false|\[\])/, 'that a flag is not given is not worth a word');
    if (command.commands.length === 0) assert.match(help, /Examples?\b/);
    assert.match(command.description(), /^[a-z]/);
    for (const option of command.options) assert.ok((option.description ?? '') !== '', option.flags);
  });
}
