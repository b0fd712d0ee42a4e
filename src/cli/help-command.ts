import type { Parent } from './flags.ts';

export function helpCommand(program: Parent) {
  return program
    .command('help')
    .description('show the help of a command, or a page of the documentation')
    .argument('[topic...]', 'a command, or the name of a page such as `configuration` or `policy.md`')
    .addHelpText(
      'after',
      `
Examples:
  countersign help ledger show
  countersign help configuration
  countersign help policy.md`,
    );
}
