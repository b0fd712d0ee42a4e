import { type CommandUnknownOpts, Option } from '@commander-js/extra-typings';

/** The options that a command takes, derived from its flags. */
export type OptionsOf<F extends (...args: never[]) => { opts(): unknown }> = ReturnType<ReturnType<F>['opts']>;

/** The command that a group of commands is added to. */
export type Parent = CommandUnknownOpts;

const DATA = 'countersign-data';
const CONFIG: string[] = ['countersign'];

// Flags that several commands share. A new one is created for each command, because a command owns its options.

export const repo = () => new Option('--repo <dir>', 'the checkout to work in').default('.');

export const config = () =>
  new Option('--config <path...>', 'files or directories with Environment and TrustPolicy documents').default(CONFIG);

export const trust = () => new Option('--trust <file>', 'a file with the TrustPolicy');

export const environment = () => new Option('--environment <name>', 'the environment, if there are several');

export const output = <const T extends readonly ['text', ...string[]]>(...forms: T) =>
  new Option('--output <format>', 'how to print the result').choices(forms).default('text' as const);

/** The data directory of a service, for commands that write to it or call the service. */
export const data = () => new Option('--data <dir>', 'the data directory of the service').default(DATA);

/** A data directory or a ledger file, for commands that only read. */
export const ledgerData = () =>
  new Option('--data <path>', 'the data directory of the service, or a ledger file').default(DATA);

/** The account of the service, whose writes its ledger accounts for. */
export const applier = () =>
  new Option('--applier <user>', 'the user of the service').default(
    'system:serviceaccount:countersign:countersign',
    'the ServiceAccount countersign/countersign',
  );

export const archive = () =>
  new Option('--archive <dir>', 'where archived entries are (default: where the ledger says they were put)');

export const kubeconfig = () =>
  new Option('--kubeconfig <file>', 'the kubeconfig for environments that name none (default: KUBECONFIG)');

export const context = () => new Option('--context <name>', 'the context in the kubeconfig');

export const cluster = () =>
  new Option('--cluster <name>', 'run only environments whose `spec.target.cluster` is this one, or is not set');

export const origin = () =>
  new Option('--origin <name>', 'the name of a new ledger (default: derived from the cluster’s id)');

// A command that opens a ledger for writing takes all four of these; a test checks that.

export const ledgerUrl = () =>
  new Option('--ledger <url>', 'a PostgreSQL that replicas share, as postgres://USER@HOST/DATABASE');

export const ledgerKey = () =>
  new Option(
    '--ledger-key <file...>',
    'the signing key of the ledger in PEM, then an older one that still signs (default: in --data)',
  );

export const ledgerKeyCommand = () =>
  new Option('--ledger-key-command <command>', 'a program that signs: text on its input, signature on its output');

export const ledgerKeyPublic = () =>
  new Option('--ledger-key-public <file>', 'the public key of that program, in the form of `ledger.pub`');

export const remote = () =>
  new Option('--remote <name>', 'the remote that approvals are fetched from').default('origin');

export const noFetch = () => new Option('--no-fetch', 'use only the approvals in this checkout; needs no network');

export const reason = () => new Option('--reason <text>', 'why; it is recorded on the ledger').makeOptionMandatory();

export const signingKey = () => new Option('--key <file>', 'an SSH key to sign with (default: the key Git signs with)');
