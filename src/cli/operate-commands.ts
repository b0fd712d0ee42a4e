import {
  context,
  data,
  environment,
  kubeconfig,
  ledgerData,
  ledgerKey,
  ledgerKeyCommand,
  ledgerKeyPublic,
  ledgerUrl,
  type OptionsOf,
  output,
  type Parent,
  reason,
} from './flags.ts';

export type StatusOptions = OptionsOf<typeof statusCommand>;
export type ExplainOptions = OptionsOf<typeof explainCommand>;
export type ReconcileOptions = OptionsOf<typeof reconcileCommand>;
export type RollbackOptions = OptionsOf<typeof rollbackCommand>;

export function statusCommand(program: Parent) {
  return program
    .command('status')
    .description('show the state of each environment')
    .addOption(environment())
    .addOption(data())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign status --data /var/lib/countersign
  kubectl -n countersign exec deploy/countersign -- countersign status

Exit codes: 0 every environment is as in Git, 1 one is not, 2 it could not be
determined.`,
    );
}

export function explainCommand(program: Parent) {
  return program
    .command('explain')
    .description('show where a live object comes from: file, commit, signer, approvals, rules, ledger entries')
    .argument('<kind/name>', 'the object, as kubectl spells it: deploy/web, pod/web-5c9f, deployments.apps/web')
    .option('-n, --namespace <name>', 'its namespace, if there are several of that name')
    .addOption(environment())
    .option('--proof', 'also print the proof that the verdict is on the ledger', false)
    .addOption(ledgerData())
    .addOption(kubeconfig())
    .addOption(context())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign explain deployment/web -n shop
  countersign explain deploy/web -n shop --proof
  countersign explain pod/web-5c9f7d-x2x1 -n shop
  countersign explain configmap/settings --output json`,
    );
}

// `suspend` and `resume` also work while no service runs; then they write to the ledger themselves.
function suspending(program: Parent, name: 'suspend' | 'resume', description: string) {
  return program
    .command(name)
    .description(description)
    .argument('<environment>', 'the environment')
    .addOption(reason())
    .addOption(data())
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .addOption(output('text', 'json'))
    .addHelpText('after', `\nExample:\n  countersign ${name} production --reason "INC-7: moving the database"`);
}

export function suspendCommand(program: Parent) {
  return suspending(program, 'suspend', 'apply nothing to an environment and revert no drift until it is resumed');
}

export function resumeCommand(program: Parent) {
  return suspending(program, 'resume', 'end a suspension, or try again what is held');
}

export function reconcileCommand(program: Parent) {
  return program
    .command('reconcile')
    .description('fetch and reconcile now, or write every object again into a cluster that lost them')
    .argument('<environment>', 'the environment')
    .addOption(reason())
    .addOption(data())
    .option('--from-scratch', 'write every object of the last good revision again', false)
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign reconcile production --reason "the forge’s call was lost"
  countersign reconcile production --from-scratch \\
    --reason "INC-9: the cluster was rebuilt"`,
    );
}

export function rollbackCommand(program: Parent) {
  return program
    .command('rollback')
    .description('go back to an earlier good revision, after the same checks, and stay there until its objects change')
    .argument('<environment>', 'the environment')
    .requiredOption('--to <revision>', 'a revision that the environment was at')
    .addOption(reason())
    .addOption(data())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Example:
  countersign rollback production --to 91bc0de --reason "INC-7: checkout fails"`,
    );
}
