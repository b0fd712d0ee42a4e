import { Option } from '@commander-js/extra-typings';
import {
  archive,
  data,
  environment,
  ledgerKey,
  ledgerKeyCommand,
  ledgerKeyPublic,
  ledgerUrl,
  type OptionsOf,
  output,
  type Parent,
  reason,
} from './flags.ts';

export type ExceptionListOptions = OptionsOf<typeof exceptionListCommand>;
export type ExceptionExplainOptions = OptionsOf<typeof exceptionExplainCommand>;
export type ExceptionAssignOptions = OptionsOf<typeof exceptionAssignCommand>;
export type ExceptionSettleOptions = OptionsOf<typeof exceptionSettleCommand>;

const from = () => new Option('--from <time>', 'the start of the period, UTC (default: the beginning)');
const to = () => new Option('--to <time>', 'the end of the period, exclusive (default: now)');

export function exceptionListCommand(exception: Parent) {
  return exception
    .command('list')
    .description('list the open exceptions, as a report would now')
    .addOption(data())
    .addOption(archive())
    .addOption(from())
    .addOption(to())
    .option('--all', 'include exceptions that were settled or prevented', false)
    .option('--type <type>', 'only exceptions of this type')
    .addOption(environment())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign exception list --data /var/lib/countersign
  countersign exception list --from 2026-10-01 --all --type out-of-band-change`,
    );
}

export function exceptionExplainCommand(exception: Parent) {
  return exception
    .command('explain')
    .description('show everything that is known about an exception')
    .argument('<id>', 'the id in the list')
    .addOption(data())
    .addOption(archive())
    .addOption(from())
    .addOption(to())
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign exception explain E412');
}

export function exceptionAssignCommand(exception: Parent) {
  return exception
    .command('assign')
    .description('record who takes care of an exception; every report names them')
    .argument('<id>', 'the id in the list')
    .requiredOption('--to <name>', 'the person who takes care of it')
    .addOption(reason())
    .addOption(data())
    .addOption(archive())
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Example:
  countersign exception assign E412 --to "Robin Platform" \\
    --reason "on call that night"`,
    );
}

export function exceptionSettleCommand(exception: Parent) {
  return exception
    .command('settle')
    .description('record the outcome of an exception; every report names who settled it')
    .argument('<id>', 'the id in the list')
    .addOption(data())
    .addOption(archive())
    .addOption(from())
    .addOption(to())
    .addOption(
      new Option('--as <disposition>', 'the outcome')
        .choices(['accepted', 'remediated', 'false-positive'] as const)
        .makeOptionMandatory(),
    )
    .addOption(reason())
    .option('--ticket <id>', 'the ticket under which it was handled')
    .option('--link <url>', 'a link to evidence')
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign exception settle E412 --as remediated --ticket INC-4711 \\
    --reason "scaled back again"
  countersign exception settle E98 --as accepted --reason "planned" \\
    --link https://wiki.example.com/9`,
    );
}
