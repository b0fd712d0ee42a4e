import { config, context, environment, kubeconfig, ledgerData, type OptionsOf, output, type Parent } from './flags.ts';

export type AdmissionLearnOptions = OptionsOf<typeof admissionLearnCommand>;
export type AdmissionPreviewOptions = OptionsOf<typeof admissionPreviewCommand>;
export type AdmissionScanOptions = OptionsOf<typeof admissionScanCommand>;

export function admissionPreviewCommand(admission: Parent) {
  return admission
    .command('preview')
    .description('show what `enforce` would refuse, from records of `audit` or `warn`, or from an audit log')
    .addOption(ledgerData())
    .addOption(environment())
    .option('--since <duration>', 'how far back on the ledger', '7d')
    .option('--audit-log <file...>', 'use the API server’s audit log, for environments whose admission is still `off`')
    .addOption(config())
    .option('--applier <user>', 'the user that applies from Git, with --audit-log', 'countersign')
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign admission preview --data /var/lib/countersign --since 7d
  countersign admission preview --audit-log audit.log --config countersign \\
    --applier system:serviceaccount:countersign:countersign`,
    );
}

export function admissionScanCommand(admission: Parent) {
  return admission
    .command('scan')
    .description('show the newest scan of the governed namespaces: objects in no commit, and objects that rules deny')
    .addOption(ledgerData())
    .addOption(environment())
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign admission scan --data /var/lib/countersign');
}

export function admissionLearnCommand(admission: Parent) {
  return admission
    .command('learn')
    .description('print the declaration (`spec.admission.injected`) of the sidecars that the pods of namespaces have')
    .requiredOption('--namespace <name...>', 'where to look at pods')
    .option('--name <name>', 'the name of the injector in messages', 'injector')
    .addOption(kubeconfig())
    .addOption(context())
    .addHelpText(
      'after',
      `
Nothing is changed. Review the declaration before you commit it: it says what
may run beside your containers. Exit code 1: some pods have more than a
declaration can cover; they are named.

Example:
  countersign admission learn --namespace shop --name istio`,
    );
}
