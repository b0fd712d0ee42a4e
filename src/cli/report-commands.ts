import {
  archive,
  config,
  data,
  ledgerKey,
  ledgerKeyCommand,
  ledgerKeyPublic,
  ledgerUrl,
  type OptionsOf,
  output,
  type Parent,
} from './flags.ts';

export type ReportOptions = OptionsOf<typeof reportCommand>;
export type ReportRunOptions = OptionsOf<typeof reportRunCommand>;
export type ReportListOptions = OptionsOf<typeof reportListCommand>;
export type ReportSignOffOptions = OptionsOf<typeof reportSignOffCommand>;
export type VerifyOptions = OptionsOf<typeof verifyCommand>;

export function reportCommand(program: Parent) {
  return (
    program
      .command('report')
      // For `report run --data x`: flags after the name of a subcommand are its own.
      .enablePositionalOptions()
      .description('make the evidence report of a period')
      .addOption(data())
      .option('--from <time>', 'the start of the period, UTC (default: the beginning)')
      .option('--to <time>', 'the end of the period, exclusive (default: now)')
      .option('--environment <name...>', 'only these; the others are listed as left out')
      .option('--entity <name>', 'the organization the report is about (default: the ledger’s name)')
      .option('--classification <text>', 'the label on every page', 'confidential')
      .option(
        '--framework <name...>',
        'soc2, iso27001, nist-800-53, pci-dss, nis2, dora, or a file of your own (default: soc2)',
      )
      .option('--seed <text>', 'draw a sample by a seed that the auditor chose after the checkpoint was known')
      .option('--sample <number>', 'how many of each stratum to draw', '25')
      .option('--failure-hours <number>', 'a rollback or emergency within this time marks a failed deployment', '24')
      .option('--review-hours <number>', 'the time within which a use of break-glass is to be reviewed', '72')
      .addOption(archive())
      .option('--repo <dir...>', 'checkouts that hold signed commits and approvals the service no longer has')
      .option('--out <dir>', 'the directory for the files', 'countersign-report')
      .addOption(output('text', 'json'))
      .addHelpText(
        'after',
        `
Examples:
  countersign report --data /var/lib/countersign --from 2026-10-01 \\
    --to 2026-11-01 --out october
  countersign report --from 2026-07-01 --to 2026-10-01 --entity Example \\
    --framework soc2 iso27001 --out q3
  countersign report --from 2026-07-01 --to 2026-10-01 --sample 25 \\
    --seed "of the auditor" --out sample`,
      )
  );
}

export function reportRunCommand(report: Parent) {
  return report
    .command('run')
    .description('make and deliver the due reports of a ReportSchedule, or its newest one again')
    .argument('<schedule>', 'the name of the schedule')
    .addOption(config())
    .addOption(data())
    .option('--again', 'make a new version of the newest period; it names the one it supersedes', false)
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign report run monthly --data /var/lib/countersign
  countersign report run monthly --again

The running service does the work. If none runs, this command does, for example
in a CronJob.
Exit codes: 0 delivered or nothing due, 1 not delivered everywhere yet, 2 the
report could not be made.`,
    );
}

export function reportListCommand(report: Parent) {
  return report
    .command('list')
    .description('list the reports on the ledger and where they were delivered')
    .addOption(data())
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign report list --data /var/lib/countersign');
}

export function reportSignOffCommand(report: Parent) {
  return report
    .command('sign-off')
    .description('record who signs off a report, and their remarks')
    .argument('<report>', 'its id, from `report list` or its cover')
    .addOption(data())
    .requiredOption('--name <text>', 'the person who signs it off')
    .requiredOption('--role <text>', 'their role')
    .option('--remarks <text>', 'their remarks', '')
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Example:
  countersign report sign-off 2615937355838472 --name "Robin Example" \\
    --role "Head of Platform" --remarks "no findings"`,
    );
}

export function verifyCommand(program: Parent) {
  return program
    .command('verify')
    .description('check a report offline')
    .argument('<file>', 'the report with its other files beside it, or their directory')
    .option('--key <file>', 'the public key of the ledger')
    .option('--seen <file...>', 'checkpoints that you kept: check that the log only grew since')
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign verify october/report.pdf --key ledger.pub
  countersign verify october --key ledger.pub --seen september/checkpoint`,
    );
}
