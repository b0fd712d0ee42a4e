import { Option } from '@commander-js/extra-typings';
import {
  config,
  environment,
  noFetch,
  type OptionsOf,
  output,
  type Parent,
  remote,
  repo,
  signingKey,
  trust,
} from './flags.ts';

export type ApproveOptions = OptionsOf<typeof approveCommand>;
export type ApprovalsListOptions = OptionsOf<typeof approvalsListCommand>;
export type ApprovalsVerifyOptions = OptionsOf<typeof approvalsVerifyCommand>;
export type ApprovalsImportOptions = OptionsOf<typeof approvalsImportCommand>;

type Text = { readonly name: string; readonly description: string; readonly examples: string };

// Every command that signs a statement about a change has the same flags.
function signing(parent: Parent, { name, description, examples }: Text) {
  return parent
    .command(name)
    .description(description)
    .argument('<commit>', 'the commit that the statement is about')
    .addOption(repo())
    .option('--branch <name>', 'the branch it is for', 'main')
    .option(
      '--base <commit>',
      'the commit it is compared with (default: the tip of the branch, or the first parent of a commit on it)',
    )
    .option('--remote <name>', 'the remote to push to', 'origin')
    .option('--repository <url>', 'the address of the repository (default: the address of the remote)')
    .option('--environment <name...>', 'only for these environments (default: all)', [])
    .option('--reason <text>', 'why; it appears in the report', '')
    .option('--rollback', 'approve that the branch goes back to this commit, and nothing else', false)
    .option('--override', 'let the change pass a closed window; the reason is recorded on the ledger', false)
    .option('--expires <duration>', 'how long the approval counts, for example 7d')
    .addOption(signingKey())
    .option('--no-push', 'keep it in this checkout')
    .option('--yes', 'do not ask for confirmation', false)
    .addOption(output('text', 'json'))
    .addHelpText('after', examples);
}

export function approveCommand(program: Parent) {
  return signing(program, {
    name: 'approve',
    description: 'approve a change with the key you sign commits with',
    examples: `
Examples:
  countersign approve origin/feature --reason "reviewed, see CHG-12"
  countersign approve 3f2a91c --base 91bc0de --environment production
  countersign approve 91bc0de --rollback --reason "INC-7: last good one"`,
  });
}

export function rejectCommand(approvals: Parent) {
  return signing(approvals, {
    name: 'reject',
    description: 'reject a change: it is refused until you approve it or revoke the rejection',
    examples: `
Example:
  countersign approvals reject origin/feature --reason "opens port 22"`,
  });
}

export function revokeCommand(approvals: Parent) {
  return signing(approvals, {
    name: 'revoke',
    description: 'take back your approval or rejection of a change',
    examples: `
Example:
  countersign approvals revoke origin/feature --reason "wrong base"`,
  });
}

export function approvalsListCommand(approvals: Parent) {
  return approvals
    .command('list')
    .description('list every stored statement, and whether it counts')
    .addOption(repo())
    .addOption(config())
    .addOption(trust())
    .addOption(environment())
    .addOption(remote())
    .addOption(noFetch())
    .addOption(output('text', 'json', 'jsonl'))
    .addHelpText(
      'after',
      `
Example:
  countersign approvals list --environment production --no-fetch`,
    );
}

export function approvalsVerifyCommand(approvals: Parent) {
  return approvals
    .command('verify')
    .description('check whether signatures and approvals let a change through')
    .argument('<commit>', 'the last commit of the change')
    .addOption(repo())
    .addOption(config())
    .addOption(trust())
    .addOption(environment())
    .addOption(remote())
    .addOption(noFetch())
    .option(
      '--base <commit>',
      'the commit it starts from (default: the tip of the branch, or the first parent of a commit on it)',
    )
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Example:
  countersign approvals verify HEAD --base origin/main --no-fetch`,
    );
}

export function approvalsImportCommand(approvals: Parent) {
  return approvals
    .command('import')
    .description('import the reviews of a forge, signed with the key of this bot, as weaker evidence')
    .addOption(repo())
    .addOption(
      new Option('--forge <kind>', 'the API it speaks')
        .choices(['github', 'gitlab', 'gitea'] as const)
        .makeOptionMandatory(),
    )
    .requiredOption('--project <path>', 'the project there, `owner/name`')
    .requiredOption('--pull <number>', 'the pull or merge request')
    .option('--api-url <url>', 'the address of its API (default: the API at the host of the repository)')
    .option('--token-file <file>', 'a file with a token that may read it')
    .option('--branch <name>', 'the branch it is for', 'main')
    .option('--base <commit>', 'the commit it is compared with (default: the tip of the branch)')
    .option('--remote <name>', 'the remote to push to', 'origin')
    .option('--repository <url>', 'the address of the repository (default: the address of the remote)')
    .option('--environment <name...>', 'only for these environments (default: all)', [])
    .addOption(signingKey())
    .option('--no-push', 'keep it in this checkout')
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Example:
  countersign approvals import --forge github --project team/fleet \\
    --pull 12 --token-file /run/secrets/token`,
    );
}
