import { config, environment, ledgerData, type OptionsOf, output, type Parent, repo, signingKey } from './flags.ts';

export type PolicyBuildOptions = OptionsOf<typeof policyBuildCommand>;
export type PolicyTestOptions = OptionsOf<typeof policyTestCommand>;
export type PolicyListOptions = OptionsOf<typeof policyListCommand>;
export type PolicySignOptions = OptionsOf<typeof policySignCommand>;
export type PolicyWaiveOptions = OptionsOf<typeof policyWaiveCommand>;
export type PolicyReplayOptions = OptionsOf<typeof policyReplayCommand>;

export function policyBuildCommand(policy: Parent) {
  return policy
    .command('build')
    .description('compile Rego, Gatekeeper templates and constraints into a bundle')
    .argument('<root...>', 'files or directories')
    .option('--bundle <file>', 'the file to write', 'bundle.tar.gz')
    .option('--data <path...>', 'data files; the path of a directory is the path of its data')
    .option('--v0', 'read all Rego as version 0; without it, each file’s version is detected', false)
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign policy build policy/
  countersign policy build policy/ gatekeeper/ --data data/ \\
    --bundle dist/rules.tar.gz`,
    );
}

export function policyTestCommand(policy: Parent) {
  return policy
    .command('test')
    .description('run Rego tests, Gatekeeper suites and examples on the compiled rules')
    .argument('<root...>', 'directories with rules and their tests')
    .option('--data <path...>', 'data files')
    .option('--run <part>', 'only tests whose name contains this')
    .option('--coverage', 'list the lines that no Rego test reached', false)
    .option('--watch', 'run again when a file changes', false)
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign policy test policy/ --coverage
  countersign policy test policy/ --run privileged --watch`,
    );
}

export function policyListCommand(policy: Parent) {
  return policy
    .command('list')
    .description('list the rules with severity, controls and title')
    .option('--policy <path...>', 'bundles or directories (default: the built-in rules)')
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign policy list --policy dist/rules.tar.gz');
}

export function policySignCommand(policy: Parent) {
  return policy
    .command('sign')
    .description('sign a bundle with the key you sign commits with')
    .argument('<bundle>', 'the file')
    .addOption(repo())
    .addOption(signingKey())
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign policy sign dist/rules.tar.gz');
}

export function policyWaiveCommand(policy: Parent) {
  return policy
    .command('waive')
    .description('sign a waiver: one rule, one subject, until a date')
    .argument('<rule>', 'the rule, as findings name it')
    .addOption(repo())
    .addOption(config())
    .addOption(environment())
    .option('--kind <kind>', 'the kind of the object')
    .option('--namespace <name>', 'its namespace')
    .option('--object <name>', 'its name')
    .option('--file <path>', 'the file it is in')
    .requiredOption('--reason <text>', 'why')
    .requiredOption('--ticket <id>', 'the ticket under which it is being fixed')
    .requiredOption('--until <date>', 'the first day on which the waiver no longer counts, as 2026-12-31')
    .option('--name <name>', 'the name of the waiver (default: from rule and object)')
    .addOption(signingKey())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Example:
  countersign policy waive host-path --kind DaemonSet --object node-agent \\
    --reason "reads node logs" --ticket OPS-12 --until 2026-12-31`,
    );
}

export function policyReplayCommand(policy: Parent) {
  return policy
    .command('replay')
    .description('judge a recorded change again, with the same commits and at the same time, and compare')
    .argument('<entry>', 'the index of a `change.judged` entry on the ledger')
    .addOption(config())
    .addOption(ledgerData())
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign policy replay 118 --data /var/lib/countersign');
}

export function policyCapabilitiesCommand(policy: Parent) {
  return policy
    .command('capabilities')
    .description('print the builtins that rules may call, for `opa build --capabilities`')
    .addHelpText('after', '\nExample:\n  countersign policy capabilities > capabilities.json');
}
