import { Command, CommanderError } from '@commander-js/extra-typings';
import { readProcessSettings, version } from '../config/index.ts';
import type { ServeHooks } from '../serve/index.ts';
import { EXIT, fail, type Io } from '../terminal/index.ts';
import { addCommands } from './commands.ts';

/** Runs one command line, given without the program name, and returns its exit code. Never throws. */
export async function runCli(args: readonly string[], io: Io, hooks: ServeHooks = {}): Promise<number> {
  let code: number = EXIT.yes;
  const program = new Command('countersign')
    .description(
      'The change-control gate for GitOps: a cluster runs only ' +
        'what came from signed, approved and policy-checked commits.',
    )
    .version(version())
    .configureOutput({ writeOut: io.out, writeErr: io.err })
    .exitOverride()
    .enablePositionalOptions() // `report list --data x`: without it `report` would take what is for its subcommand
    .showHelpAfterError('(use --help to see the commands and flags)')
    .addHelpText('after', '\nExit codes: 0 the gate says yes, 1 it says no, 2 it could not be determined.');
  try {
    addCommands(program, { io, hooks, settings: readProcessSettings() }, (result) => {
      code = result;
    });
    await program.parseAsync([...args], { from: 'user' });
    return code;
  } catch (thrown) {
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? EXIT.yes : EXIT.undecided;
    return fail(thrown, io);
  }
}
