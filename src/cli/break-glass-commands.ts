import {
  config,
  context,
  data,
  environment,
  kubeconfig,
  ledgerData,
  type OptionsOf,
  output,
  type Parent,
  reason,
} from './flags.ts';

export type BreakGlassOpenOptions = OptionsOf<typeof breakGlassOpenCommand>;
export type BreakGlassApproveOptions = OptionsOf<typeof breakGlassApproveCommand>;
export type BreakGlassCloseOptions = OptionsOf<typeof breakGlassCloseCommand>;
export type BreakGlassListOptions = OptionsOf<typeof breakGlassListCommand>;
export type BreakGlassSettleOptions = OptionsOf<typeof breakGlassSettleCommand>;

export function breakGlassOpenCommand(glass: Parent) {
  return glass
    .command('open')
    .description('let members of the break-glass groups write and connect in namespaces, for a limited time')
    .option('-n, --namespace <name...>', 'the namespaces (default: those of the environment)')
    .addOption(config())
    .addOption(environment())
    .addOption(kubeconfig())
    .addOption(context())
    .requiredOption('--reason <text>', 'why; it is recorded on the ledger and appears in every report')
    .requiredOption('--ticket <id>', 'the ticket under which it is handled')
    .option('--for <duration>', 'for how long, up to the limit of the environment', '30m')
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign break-glass open -n shop --ticket INC-4711 --for 30m \\
    --reason "checkout is down"
  countersign break-glass open --environment production --ticket INC-12 \\
    --for 1h --reason "restore the database"`,
    );
}

export function breakGlassApproveCommand(glass: Parent) {
  return glass
    .command('approve')
    .description('as a second person, approve what someone else opened (`breakGlass.approvals: 1`)')
    .option('-n, --namespace <name...>', 'the namespaces (default: those of the environment)')
    .addOption(config())
    .addOption(environment())
    .addOption(kubeconfig())
    .addOption(context())
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign break-glass approve -n shop');
}

export function breakGlassCloseCommand(glass: Parent) {
  return glass
    .command('close')
    .description('end break-glass before its time')
    .option('-n, --namespace <name...>', 'the namespaces (default: those of the environment)')
    .addOption(config())
    .addOption(environment())
    .addOption(kubeconfig())
    .addOption(context())
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign break-glass close -n shop');
}

export function breakGlassListCommand(glass: Parent) {
  return glass
    .command('list')
    .description('list the open grants, and the uses that wait for review')
    .addOption(ledgerData())
    .addOption(environment())
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign break-glass list --data /var/lib/countersign');
}

export function breakGlassSettleCommand(glass: Parent) {
  return glass
    .command('settle')
    .description('end the review of uses: by the commit that brought Git in line, or because all is reverted')
    .argument('<environment>', 'the environment')
    .addOption(reason())
    .addOption(data())
    .option('--use <entry...>', 'only these, by their entries (default: all that are left)')
    .option('--commit <id>', 'the commit that brought Git in line; it must have been applied since')
    .option('--reverted', 'the uses are reverted: everything is as in Git', false)
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign break-glass settle production --commit 91bc0de \\
    --reason "reviewed with the team, CHG-88"
  countersign break-glass settle production --use 412 413 --reverted \\
    --reason "INC-4711 review"`,
    );
}
