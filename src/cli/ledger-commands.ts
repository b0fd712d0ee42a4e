import {
  applier,
  archive,
  config,
  data,
  ledgerData,
  ledgerKey,
  ledgerKeyCommand,
  ledgerKeyPublic,
  ledgerUrl,
  type OptionsOf,
  output,
  type Parent,
  signingKey,
} from './flags.ts';

export type LedgerVerifyOptions = OptionsOf<typeof ledgerVerifyCommand>;
export type LedgerShowOptions = OptionsOf<typeof ledgerShowCommand>;
export type LedgerProveOptions = OptionsOf<typeof ledgerProveCommand>;
export type LedgerExportOptions = OptionsOf<typeof ledgerExportCommand>;
export type LedgerImportOptions = OptionsOf<typeof ledgerImportCommand>;
export type LedgerAuditOptions = OptionsOf<typeof ledgerAuditCommand>;
export type LedgerArchiveOptions = OptionsOf<typeof ledgerArchiveCommand>;
export type RotateKeyOptions = OptionsOf<typeof rotateKeyCommand>;
export type NewEpochOptions = OptionsOf<typeof newEpochCommand>;
export type ForgetOptions = OptionsOf<typeof forgetCommand>;

export function ledgerVerifyCommand(ledger: Parent) {
  return ledger
    .command('verify')
    .description('check every entry, tile and checkpoint, and the file that holds them')
    .addOption(ledgerData())
    .addOption(archive())
    .option('--key <file>', 'the public key of the ledger (default: beside it)')
    .option('--checkpoint <file...>', 'checkpoints kept elsewhere, which the ledger must extend', [])
    .option('--against <place...>', 'another copy (directory, ledger file or checkpoint) to compare with', [])
    .option('--from <index>', 'only entries from this one on; tiles stand for the rest')
    .option('--to <index>', 'only entries before this one')
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign ledger verify --data /var/lib/countersign
  countersign ledger verify --from 90000 --to 91000
  countersign ledger verify --archive /mnt/archive
  countersign ledger verify --data copy/ledger.db --key ledger.pub \\
    --checkpoint last-month.txt

It reads every entry, compares it with the signed roots, and lets SQLite check
the file itself. If something is damaged, it says what still stands and prints
the commands that help. Without --checkpoint, it takes the checkpoints beside
the ledger: the last one that was signed, and those that an anchor left.`,
    );
}

export function ledgerShowCommand(ledger: Parent) {
  return ledger
    .command('show')
    .description('show one entry, or the entries that match')
    .argument('[index]', 'one entry')
    .addOption(ledgerData())
    .addOption(archive())
    .option('--type <type...>', 'types such as `apply.intent`, or families such as `apply`')
    .option('--environment <name>', 'about one environment')
    .option('--since <time>', 'from this time on, UTC')
    .option('--until <time>', 'before this time, UTC')
    .option('--principal <name>', 'that name this person or account')
    .option('--commit <id>', 'that name this commit; its first digits suffice')
    .option('--object <name>', 'that name an object of this name')
    .option('--last <number>', 'only the newest of them')
    .option('--evidence', 'include what the entries name by digest', false)
    .addOption(output('text', 'json', 'jsonl'))
    .addHelpText(
      'after',
      `
Examples:
  countersign ledger show --last 20
  countersign ledger show 118 --evidence
  countersign ledger show --type apply --environment production \\
    --since 2026-11-01
  countersign ledger show --commit 3f2a91c --output jsonl`,
    );
}

export function ledgerProveCommand(ledger: Parent) {
  return ledger
    .command('prove')
    .description('write or check a receipt for an entry, or prove that the ledger extends a checkpoint')
    .argument('[index]', 'the entry')
    .addOption(ledgerData())
    .addOption(archive())
    .option('--out <dir>', 'the directory for entry and receipt', '.')
    .option('--since <file>', 'an older checkpoint: prove that nothing before it changed')
    .option('--check <file>', 'a receipt to check; needs --key, but no ledger')
    .option('--entry <file>', 'the entry that the receipt is for (default: beside it)')
    .option('--key <file>', 'the public key of the ledger')
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign ledger prove 118 --out receipts
  countersign ledger prove --check receipts/118.tlog-proof --key ledger.pub
  countersign ledger prove --since last-month.txt`,
    );
}

export function ledgerExportCommand(ledger: Parent) {
  return ledger
    .command('export')
    .description('write the whole ledger as files, with a checker that needs only Node')
    .argument('<dir>', 'an empty or new directory')
    .addOption(ledgerData())
    .addOption(archive())
    .option('--receipt <index...>', 'entries to include with their proofs')
    .option('--no-names', 'leave out the names behind commitments; every proof still holds')
    .addOption(output('text', 'json'))
    .addHelpText('after', '\nExample:\n  countersign ledger export ledger-2026-11 --receipt 118 204');
}

export function ledgerImportCommand(ledger: Parent) {
  return ledger
    .command('import')
    .description('make a data directory from an export, or rebuild the store of one')
    .argument('<dir>', 'the export')
    .requiredOption('--key <file>', 'the public key of the ledger, from elsewhere')
    .addOption(data())
    .option('--replace', 'rebuild only the store in that data directory; the old one is kept', false)
    .option('--behind', 'even if a checkpoint there covers more; `new-epoch` then records the loss', false)
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign ledger import ledger-2026-11 --key ledger.pub \\
    --data /var/lib/countersign
  countersign ledger import ledger-2026-11 --replace \\
    --key /var/lib/countersign/ledger.pub --data /var/lib/countersign

The export must contain what it replaces. If a service would still refuse the
result, the command exits with 1 and prints the next line to type.`,
    );
}

export function ledgerAuditCommand(ledger: Parent) {
  return ledger
    .command('audit')
    .description('compare the API server’s audit log with the ledger and list writes that nothing accounts for')
    .argument('<file...>', 'audit logs in JSON, one event per line')
    .addOption(config())
    .addOption(ledgerData())
    .addOption(applier())
    .option('--record', 'record unaccounted writes on the ledger; the service must be stopped', false)
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .addOption(output('text', 'jsonl'))
    .addHelpText('after', '\nExample:\n  countersign ledger audit /var/log/kubernetes/audit.log --config countersign');
}

export function ledgerArchiveCommand(ledger: Parent) {
  return ledger
    .command('archive')
    .description('move old records of machinery, refusals and heartbeats to a file elsewhere, still proven')
    .requiredOption('--before <time>', 'entries older than this, UTC; at least 30 days ago')
    .requiredOption('--to <dir>', 'the directory for the file, such as a mount of cheap storage')
    .addOption(data())
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Example:
  countersign ledger archive --before 2026-01-01 --to /mnt/archive \\
    --data /var/lib/countersign

It moves entries of the types admission.allowed, admission.proven,
admission.denied (of enforce) and heartbeat, and evidence that only they name.
Verdicts, applies, exceptions, names, leaf hashes and checkpoints stay. Nothing
is removed before the file is read back and proven; an interrupted run is
finished by the same command. A running service does it itself, while requests
wait. Keep a copy of the file: reports of that time need it.`,
    );
}

export function rotateKeyCommand(ledger: Parent) {
  return ledger
    .command('rotate-key')
    .description('sign with a new key beside the old one, and later without the old one')
    .addOption(data())
    .option('--drop-old', 'stop signing with the old key; its signature alone counts no more', false)
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Examples:
  countersign ledger rotate-key --data /var/lib/countersign
  countersign ledger rotate-key --data /var/lib/countersign --drop-old

A running service does it itself, while requests wait. If you give it keys with
--ledger-key, use no command: restart it, replica by replica, with the new key
followed by the old one, and later with the new key alone.`,
    );
}

export function newEpochCommand(ledger: Parent) {
  return ledger
    .command('new-epoch')
    .description('continue after the store was restored to an older state, and record what was lost')
    .requiredOption('--reason <text>', 'why; it appears in every report')
    .option('--checkpoint <file...>', 'the newest checkpoints known elsewhere, beside those in --data', [])
    .option('--without-checkpoint <count>', 'about so many entries are lost, and no one kept a checkpoint over them')
    .addOption(data())
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Example:
  countersign ledger new-epoch \\
    --reason "disk lost on 3 November, restored from the nightly backup"

It takes the checkpoint that an anchor left in --data (newer-checkpoint), checks
that every known checkpoint will fit, and refuses if nothing is lost. A running
service opens the epoch itself. Afterwards, give the new first line of
ledger.pub to everyone who checks this ledger.`,
    );
}

export function ledgerSchemaCommand(ledger: Parent) {
  return ledger
    .command('schema')
    .description('print the SQL that creates the tables of a ledger in PostgreSQL, for its owner to run')
    .requiredOption('--role <name>', 'the role that the service uses; it gets read and insert, nothing else')
    .addHelpText('after', '\nExample:\n  countersign ledger schema --role gate | psql --dbname countersign');
}

export function forgetCommand(ledger: Parent) {
  return ledger
    .command('forget')
    .description('erase a name or address from the table beside the entries; every proof still holds')
    .argument('<text>', 'a name or address; every stored text that contains it is erased')
    .requiredOption('--reason <text>', 'why; it is recorded, so it must not name the person')
    .addOption(data())
    .addOption(archive())
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .option('--approved-by <file>', 'the file that a second person signed with --sign')
    .addOption(config())
    .option('--sign <file>', 'as that second person: approve the erasure and write the signature to this file')
    .option('--repo <dir>', 'a checkout whose Git configuration names your key, for --sign', '.')
    .addOption(signingKey())
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
The reason and the time are recorded, the text is not. If exceptions that name
the person are open, a second person signs first. Archives hold no names; they
are only read, to find such exceptions.

Examples:
  countersign ledger forget dana@example.com \\
    --reason "left the company, HR-311"
  countersign ledger forget dana@example.com --reason "HR-311" \\
    --sign approval.sig`,
    );
}
