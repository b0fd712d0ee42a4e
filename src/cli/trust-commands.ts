import { Option } from '@commander-js/extra-typings';
import { config, type OptionsOf, output, type Parent, trust } from './flags.ts';

export type TrustLintOptions = OptionsOf<typeof trustLintCommand>;
export type TrustListOptions = OptionsOf<typeof trustListCommand>;
export type TrustImportOptions = OptionsOf<typeof trustImportCommand>;

export function trustLintCommand(trusts: Parent) {
  return trusts
    .command('lint')
    .description('find parts of a TrustPolicy that will not work, or not as you expect')
    .addOption(config())
    .addOption(trust())
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign trust lint --trust countersign/trust.yaml');
}

export function trustListCommand(trusts: Parent) {
  return trusts
    .command('list')
    .description('list the principals with their keys and how long each key is valid')
    .addOption(config())
    .addOption(trust())
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign trust list');
}

export function trustImportCommand(trusts: Parent) {
  return trusts
    .command('import')
    .description('turn keys from elsewhere into principals of a TrustPolicy')
    .argument('<file...>', 'files with keys')
    .option('--principal <name>', 'the principal that owns them (default: by their address)')
    .addOption(
      new Option('--kind <kind>', 'the kind of principal')
        .choices(['person', 'bot', 'platform'] as const)
        .default('person' as const),
    )
    .option('--email <address...>', 'addresses that the principal commits under', [])
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign trust import ~/.config/git/allowed_signers
  countersign trust import dana.keys dana.gpg --principal dana \\
    --email dana@example.com

It reads allowed_signers, OpenPGP keys and keyrings, and files saved from a
forge: NAME.keys, NAME.gpg and its key listings.`,
    );
}
