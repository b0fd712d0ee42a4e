import { Option } from '@commander-js/extra-typings';
import { FORMS } from '../findings/index.ts';
import {
  config,
  context,
  environment,
  kubeconfig,
  noFetch,
  type OptionsOf,
  output,
  type Parent,
  remote,
  repo,
  trust,
} from './flags.ts';

export type CheckOptions = OptionsOf<typeof checkCommand>;
export type PreReceiveOptions = OptionsOf<typeof preReceiveCommand>;
export type ProvenanceOptions = OptionsOf<typeof provenanceCommand>;
export type DiffOptions = OptionsOf<typeof diffCommand>;
export type AdoptOptions = OptionsOf<typeof adoptCommand>;
export type InitOptions = OptionsOf<typeof initCommand>;

export function checkCommand(program: Parent) {
  return program
    .command('check')
    .description('check a change before it is merged, as the gate will after the merge')
    .addOption(repo())
    .addOption(config())
    .addOption(trust())
    .addOption(environment())
    .option('--all-environments', 'judge the change for every environment of the configuration, in one run', false)
    .option(
      '--base <commit>',
      'the commit that is applied now (default: from the CI, or where the head left the branch)',
    )
    .option('--head <commit>', 'the commit to apply', 'HEAD')
    .addOption(remote())
    .addOption(noFetch())
    .option('--all', 'show every finding, including those that were there before the change', false)
    .option('--fail-on-warn', 'treat warnings as violations', false)
    .option('--explain <rule>', 'print what a rule asks for and how to meet it')
    .option('--trace', 'show the output of `print` and `trace` in rules', false)
    .option('--manifests <path...>', 'check plain files instead: directories, files, or `-` for standard input')
    .option(
      '--policy <path...>',
      'rules for --manifests: bundles, or directories with Rego, ' +
        'templates and constraints (default: the built-in rules)',
    )
    .option('--data <path...>', 'data for the rules of --policy')
    .option('--parameters <name=value...>', 'parameters for the rules of --policy, or a YAML file with them')
    .option(
      '--namespace <name>',
      'with --manifests: namespace for objects that do not set one, as `spec.target.namespace`',
    )
    .option('--combine', 'give the rules of --policy all documents at once, as Conftest does', false)
    .option('--report <format=file...>', 'also write the findings to files')
    .addOption(output(...FORMS))
    .addHelpText(
      'after',
      `
Examples:
  countersign check --base origin/main --head HEAD
  countersign check --all-environments
  countersign check --output github --report sarif=countersign.sarif
  countersign check --manifests deploy/ --policy policy/
  helm template chart/ | countersign check --manifests - --namespace shop
  countersign check --explain privileged`,
    );
}

export function preReceiveCommand(program: Parent) {
  return program
    .command('pre-receive')
    .description('check a push before a Git server accepts it, as the Git hook of that name')
    .addOption(repo())
    .addOption(config())
    .addOption(trust())
    .addHelpText(
      'after',
      `
Example, as the hook \`pre-receive\` of a bare repository:
  #!/bin/sh
  exec countersign pre-receive --config /etc/countersign`,
    );
}

export function provenanceCommand(program: Parent) {
  return program
    .command('provenance')
    .description('show who signed each commit of a range')
    .argument('[range]', 'a commit with all of its history, or FROM..TO', 'HEAD')
    .addOption(repo())
    .addOption(config())
    .addOption(trust())
    .addOption(environment())
    .addOption(
      new Option('--time <whose>', 'judge keys as of `now`, or at the time that each commit `claimed` for itself')
        .choices(['now', 'claimed'] as const)
        .default('now' as const),
    )
    .option('--data <path>', 'the ledger of a service: judge each commit at the time it was first seen there')
    .option('--tag', 'the argument is the name of a signed tag', false)
    .addOption(output('text', 'json', 'jsonl'))
    .addHelpText(
      'after',
      `
Examples:
  countersign provenance main~20..main
  countersign provenance --trust countersign/trust.yaml --output jsonl
  countersign provenance --tag v1.4.0`,
    );
}

// Both compare a commit with the cluster, by dry runs.
function comparing(program: Parent, name: 'adopt' | 'diff', description: string) {
  return program
    .command(name)
    .description(description)
    .addOption(repo())
    .addOption(config())
    .addOption(trust())
    .addOption(environment())
    .option('--revision <commit>', 'the commit to compare the cluster with', 'HEAD')
    .addOption(kubeconfig())
    .addOption(context())
    .addOption(output('text', 'json'));
}

export function adoptCommand(program: Parent) {
  return comparing(
    program,
    'adopt',
    'show whether what already runs can be taken over as it is, and what differs; writes nothing',
  ).addHelpText(
    'after',
    `
Exit codes: 0 everything can be taken over, 1 something differs,
2 it could not be determined.

Examples:
  countersign adopt
  countersign adopt --environment production --context production
  countersign adopt --output json`,
  );
}

export function diffCommand(program: Parent) {
  return comparing(
    program,
    'diff',
    'show what a revision would change in the cluster, by a server-side dry run; Secret values are hidden',
  ).addHelpText(
    'after',
    `
Examples:
  countersign diff
  countersign diff --environment production --revision origin/main

Exit codes: 0 no difference, 1 a difference, 2 it could not be determined.`,
  );
}

export function initCommand(program: Parent) {
  return program
    .command('init')
    .description('write the first documents and a CI job for a fleet repository')
    .addOption(repo())
    .option('--environment <name>', 'its first environment', 'production')
    .option('--namespace <name...>', 'the namespaces it governs', ['default'])
    .option('--path <dir>', 'the directory of its manifests', 'clusters/production')
    .option('--force', 'overwrite files that exist', false)
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Example:
  countersign init --environment production --namespace shop \\
    --path clusters/production`,
    );
}
