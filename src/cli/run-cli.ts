import { Command, CommanderError, Option } from 'commander';
import { readProcessSettings, version } from '../config/index.ts';
import { FORMS } from '../findings/index.ts';
import type { ServeHooks, ServeOptions } from '../serve/index.ts';
import { EXIT, fail, type Io } from '../terminal/index.ts';
import type { AdmissionPreviewOptions } from './admission-preview.ts';
import type { AdmissionScanOptions } from './admission-scan.ts';
import type { ApplyOptions } from './apply.ts';
import type { ApprovalsImportOptions, ApprovalsListOptions, ApprovalsVerifyOptions } from './approvals.ts';
import type { ApproveOptions } from './approve.ts';
import type {
  BreakGlassCloseOptions,
  BreakGlassListOptions,
  BreakGlassOpenOptions,
  BreakGlassSettleOptions,
} from './break-glass.ts';
import type { CheckOptions } from './check-options.ts';
import type { DiffOptions } from './diff.ts';
import type {
  ExceptionAssignOptions,
  ExceptionExplainOptions,
  ExceptionListOptions,
  ExceptionSettleOptions,
} from './exceptions.ts';
import type { ExplainOptions } from './explain-object.ts';
import type { InitOptions } from './init.ts';
import type { LedgerVerifyOptions } from './ledger.ts';
import type { LedgerAuditOptions } from './ledger-audit.ts';
import type { ForgetOptions } from './ledger-forget.ts';
import type { NewEpochOptions, RotateKeyOptions } from './ledger-keys.ts';
import type { LedgerExportOptions, LedgerImportOptions, LedgerProveOptions } from './ledger-prove.ts';
import type { LedgerShowOptions } from './ledger-show.ts';
import type { ManifestsOptions } from './manifests.ts';
import type { OperateOptions, ReconcileOptions, RollbackOptions, StatusOptions } from './operate.ts';
import type { PolicyBuildOptions, PolicyListOptions, PolicySignOptions, PolicyWaiveOptions } from './policy.ts';
import type { PolicyReplayOptions } from './policy-replay.ts';
import type { PolicyTestOptions } from './policy-test.ts';
import type { PreReceiveOptions } from './pre-receive.ts';
import type { ProvenanceOptions } from './provenance.ts';
import type { ReportOptions } from './report.ts';
import type { ReportListOptions, ReportRunOptions } from './report-schedules.ts';
import type { ReportSignOffOptions } from './report-sign-off.ts';
import type { TrustImportOptions, TrustLintOptions, TrustListOptions } from './trust.ts';
import type { VerifyOptions } from './verify.ts';

const DATA = 'countersign-data';
const CONFIG = ['countersign'];

// Commands are loaded when they are called: a check in CI should not wait for the API server's client and the PDF
// writer.

/** Runs one command line (without program name) and gives its exit code; never throws. */
export async function runCli(args: readonly string[], io: Io, hooks: ServeHooks = {}): Promise<number> {
  let code: number = EXIT.yes;
  const program = build(io, hooks, (result) => {
    code = result;
  });
  try {
    await program.parseAsync(args as string[], { from: 'user' });
    return code;
  } catch (thrown) {
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? EXIT.yes : EXIT.undecided;
    return fail(thrown, io);
  }
}

function build(io: Io, hooks: ServeHooks, done: (code: number) => void): Command {
  const settings = readProcessSettings();
  const program = new Command('countersign')
    .description(
      'The change-control gate for GitOps: a cluster runs only what came from signed, approved and policy-checked commits.',
    )
    .version(version())
    .configureOutput({ writeOut: io.out, writeErr: io.err })
    .exitOverride()
    .showHelpAfterError('(use --help to see what there is)')
    .addHelpText('after', '\nExit codes: 0 the gate says yes, 1 it says no, 2 it could not be judged.');
  const repo = () => new Option('--repo <dir>', 'the checkout to work in').default('.');
  const config = () =>
    new Option('--config <path...>', 'files or directories with Environment and TrustPolicy documents').default(CONFIG);
  const trust = () => new Option('--trust <file>', 'a file with the TrustPolicy');
  const environment = () => new Option('--environment <name>', 'which environment, where there are several');
  const output = (...kinds: string[]) =>
    new Option('--output <form>', 'how to print the result').choices(kinds).default('text');

  add(
    program,
    'check',
    'say before the merge what the gate will say after it',
    '\nExamples:\n  countersign check --base origin/main --head HEAD\n  countersign check --output github --report sarif=countersign.sarif\n  countersign check --manifests deploy/ --policy policy/\n  helm template chart/ | countersign check --manifests -\n  countersign check --explain privileged',
  )
    .addOption(repo())
    .addOption(config())
    .addOption(trust())
    .addOption(environment())
    .option('--base <commit>', 'what is applied now (default: told by the CI, or where the head left the branch)')
    .option('--head <commit>', 'what is to be applied', 'HEAD')
    .option('--remote <name>', 'where approvals are fetched from', 'origin')
    .option('--no-fetch', 'use only the approvals that are here already')
    .option('--all', 'show everything, also what was there before the change', false)
    .option('--fail-on-warn', 'say no to warnings as well', false)
    .option('--explain <rule>', 'tell what a rule asks and how to meet it')
    .option('--trace', 'show what rules print with `print` and `trace`', false)
    .option('--manifests <path...>', 'check plain files instead: directories, files, or `-` for what is piped in')
    .option(
      '--policy <path...>',
      'rules for --manifests: bundles, or directories with Rego, templates and constraints (default: the shipped library)',
    )
    .option('--data <path...>', 'data for the rules of --policy')
    .option('--parameters <name=value...>', 'parameters for the rules of --policy, or a YAML file with them')
    .option('--combine', 'give the rules of --policy all documents at once, as Conftest does', false)
    .option('--report <form=file...>', 'write the findings into files as well')
    .addOption(output(...FORMS))
    .action(async (options: CheckOptions) => done(await (await import('./check.ts')).check(options, settings, io)));

  add(
    program,
    'pre-receive',
    'judge a push before a Git server takes it (Git’s hook of that name)',
    '\nExample, as the hook `pre-receive` of a bare repository:\n  #!/bin/sh\n  exec countersign pre-receive --config /etc/countersign',
  )
    .addOption(repo())
    .addOption(config())
    .addOption(trust())
    .action(async (options: PreReceiveOptions) =>
      done(await (await import('./pre-receive.ts')).preReceive(process.stdin, options, settings, io)),
    );

  add(
    program,
    'provenance',
    'say who signed each commit of a range',
    '\nExamples:\n  countersign provenance main~20..main\n  countersign provenance --trust countersign/trust.yaml --output jsonl\n  countersign provenance --tag v1.4.0',
  )
    .argument('[range]', 'a commit (with all of its history) or FROM..TO', 'HEAD')
    .addOption(repo())
    .addOption(config())
    .addOption(trust())
    .addOption(environment())
    .addOption(
      new Option(
        '--time <whose>',
        'judge keys as of `now`, or at the time each commit `claimed`, which its maker chose',
      )
        .choices(['now', 'claimed'])
        .default('now'),
    )
    .option('--data <path>', 'a service’s ledger: judge each commit at the time it was first seen there')
    .option('--tag', 'the argument is the name of a signed tag', false)
    .addOption(output('text', 'json', 'jsonl'))
    .action(async (range: string, options: ProvenanceOptions) =>
      done(await (await import('./provenance.ts')).provenance(range, options, settings, io)),
    );

  addSigning(
    add(
      program,
      'approve',
      'approve a change with the key you sign commits with',
      '\nExamples:\n  countersign approve origin/feature --reason "reviewed, see CHG-12"\n  countersign approve 3f2a91c --base 91bc0de --environment production\n  countersign approve 91bc0de --rollback --reason "INC-7: back to the last good one"',
    ),
  ).action(async (commit: string, options: ApproveOptions) =>
    done(await (await import('./approve.ts')).approve(commit, options, settings, io)),
  );

  const approvals = add(program, 'approvals', 'look at approvals, stand against a change, import reviews', '');
  const kept = (command: Command) =>
    command
      .addOption(repo())
      .addOption(config())
      .addOption(trust())
      .addOption(environment())
      .option('--remote <name>', 'where approvals are fetched from', 'origin')
      .option('--no-fetch', 'use only the approvals that are here already; needs no network');
  kept(
    add(
      approvals,
      'list',
      'every stored statement, and whether it counts',
      '\nExample:\n  countersign approvals list --environment production --no-fetch',
    ),
  )
    .addOption(output('text', 'json', 'jsonl'))
    .action(async (options: ApprovalsListOptions) =>
      done(await (await import('./approvals.ts')).approvalsList(options, settings, io)),
    );
  kept(
    add(
      approvals,
      'verify',
      'whether signatures and approvals let a change through',
      '\nExample:\n  countersign approvals verify HEAD --base origin/main --no-fetch',
    ).argument('<commit>', 'the end of the change'),
  )
    .option('--base <commit>', 'its start (default: the tip of the branch, or the first parent of a commit on it)')
    .addOption(output('text', 'json'))
    .action(async (commit: string, options: ApprovalsVerifyOptions) =>
      done(await (await import('./approvals.ts')).approvalsVerify(commit, options, settings, io)),
    );
  for (const [decision, what, example] of [
    [
      'reject',
      'stand against a change: it is refused until you approve it or take that back',
      'countersign approvals reject origin/feature --reason "opens port 22"',
    ],
    [
      'revoke',
      'take back what you said on a change',
      'countersign approvals revoke origin/feature --reason "wrong base"',
    ],
  ] as const)
    addSigning(add(approvals, decision, what, `\nExample:\n  ${example}`)).action(
      async (commit: string, options: ApproveOptions) =>
        done(await (await import('./approve.ts')).approve(commit, options, settings, io, decision)),
    );
  add(
    approvals,
    'import',
    'bring in a forge’s reviews, signed with this bot’s key and labelled as weaker evidence',
    '\nExample:\n  countersign approvals import --forge github --project team/fleet --pull 12 --token-file /run/secrets/token',
  )
    .addOption(repo())
    .addOption(
      new Option('--forge <kind>', 'which API it speaks').choices(['github', 'gitlab', 'gitea']).makeOptionMandatory(),
    )
    .requiredOption('--project <path>', 'the project there, `owner/name`')
    .requiredOption('--pull <number>', 'the pull or merge request')
    .option('--api-url <url>', 'its API (default: that of the repository’s host)')
    .option('--token-file <file>', 'a file with a token that may read it')
    .option('--branch <name>', 'the branch it goes to', 'main')
    .option('--base <commit>', 'what it is compared with (default: the tip of the branch)')
    .option('--remote <name>', 'where to push', 'origin')
    .option('--repository <url>', 'the repository’s address (default: that of the remote)')
    .option('--environment <name...>', 'only for these environments (default: all)', [])
    .option('--key <file>', 'an SSH key instead of the one git signs with')
    .option('--no-push', 'keep it in this checkout')
    .addOption(output('text', 'json'))
    .action(async (options: ApprovalsImportOptions) =>
      done(await (await import('./approvals.ts')).approvalsImport(options, settings, io)),
    );

  const policy = add(program, 'policy', 'work on policies: build, test, list, sign, waive, replay', '');
  add(
    policy,
    'build',
    'compile Rego, Gatekeeper templates and constraints into a bundle',
    '\nExamples:\n  countersign policy build policy/\n  countersign policy build policy/ gatekeeper/ --data data/ --bundle dist/rules.tar.gz',
  )
    .argument('<root...>', 'files or directories')
    .option('--bundle <file>', 'where to write it', 'bundle.tar.gz')
    .option('--data <path...>', 'data files; the path of a directory is the path of its data')
    .option('--v0', 'read all Rego as version 0 (files that are no version 1 are found without it)', false)
    .addOption(output('text', 'json'))
    .action(async (roots: string[], options: PolicyBuildOptions) =>
      done(await (await import('./policy.ts')).policyBuild(roots, options, settings, io)),
    );
  add(
    policy,
    'test',
    'run Rego tests, Gatekeeper suites and examples, on the build as it will run',
    '\nExamples:\n  countersign policy test policy/ --coverage\n  countersign policy test policy/ --run privileged --watch',
  )
    .argument('<root...>', 'directories with rules and their tests')
    .option('--data <path...>', 'data files')
    .option('--run <part>', 'only tests whose name has this in it')
    .option('--coverage', 'tell which lines the Rego tests never reached', false)
    .option('--watch', 'run again whenever a file changes', false)
    .addOption(output('text', 'json'))
    .action(async (roots: string[], options: PolicyTestOptions) =>
      done(await (await import('./policy-test.ts')).policyTest(roots, options, settings, io)),
    );
  add(
    policy,
    'list',
    'every rule, with severity, controls and title',
    '\nExample:\n  countersign policy list --policy dist/rules.tar.gz',
  )
    .option('--policy <path...>', 'bundles or directories (default: the shipped library)')
    .addOption(output('text', 'json'))
    .action(async (options: PolicyListOptions) =>
      done(await (await import('./policy.ts')).policyList(options, settings, io)),
    );
  add(
    policy,
    'sign',
    'sign a bundle with the key you sign commits with',
    '\nExample:\n  countersign policy sign dist/rules.tar.gz',
  )
    .argument('<bundle>', 'the file')
    .addOption(repo())
    .option('--key <file>', 'another SSH key')
    .addOption(output('text', 'json'))
    .action(async (file: string, options: PolicySignOptions) =>
      done(await (await import('./policy.ts')).policySign(file, options, settings, io)),
    );
  add(
    policy,
    'waive',
    'sign a waiver: one rule, one subject, until a day',
    '\nExample:\n  countersign policy waive host-path --kind DaemonSet --object node-agent --reason "reads node logs" --ticket OPS-12 --until 2026-12-31',
  )
    .argument('<rule>', 'the rule, as findings name it')
    .addOption(repo())
    .addOption(config())
    .addOption(environment())
    .option('--kind <kind>', 'the kind of the object')
    .option('--namespace <name>', 'its namespace')
    .option('--object <name>', 'its name')
    .option('--file <path>', 'the file it stands in')
    .requiredOption('--reason <text>', 'why')
    .requiredOption('--ticket <id>', 'where it is being worked on')
    .requiredOption('--until <day>', 'the first day on which it no longer counts, as 2026-12-31')
    .option('--name <name>', 'the name of the waiver (default: from rule and object)')
    .option('--key <file>', 'another SSH key')
    .addOption(output('text', 'json'))
    .action(async (rule: string, options: PolicyWaiveOptions) =>
      done(await (await import('./policy.ts')).policyWaive(rule, options, settings, io)),
    );
  add(
    policy,
    'replay',
    'judge a recorded change again: same commits, same moment, same answer',
    '\nExample:\n  countersign policy replay 118 --data /var/lib/countersign',
  )
    .argument('<entry>', 'the index of a `change.judged` entry on the ledger')
    .addOption(config())
    .option('--data <path>', 'where the service keeps its ledger', DATA)
    .addOption(output('text', 'json'))
    .action(async (entry: string, options: PolicyReplayOptions) =>
      done(await (await import('./policy-replay.ts')).policyReplay(entry, options, settings, io)),
    );
  add(
    policy,
    'capabilities',
    'the builtins that rules may call, for `opa build --capabilities`',
    '\nExample:\n  countersign policy capabilities > capabilities.json',
  ).action(async () => done((await import('./policy.ts')).policyCapabilities(io)));

  const trustCommand = add(program, 'trust', 'work on TrustPolicies', '');
  add(
    trustCommand,
    'lint',
    'what in a TrustPolicy will not work, or will surprise',
    '\nExample:\n  countersign trust lint --trust countersign/trust.yaml',
  )
    .addOption(config())
    .addOption(trust())
    .addOption(output('text', 'json'))
    .action(async (options: TrustLintOptions) => done(await (await import('./trust.ts')).trustLint(options, io)));
  add(trustCommand, 'list', 'who is who, by which keys, until when', '\nExample:\n  countersign trust list')
    .addOption(config())
    .addOption(trust())
    .addOption(output('text', 'json'))
    .action(async (options: TrustListOptions) => done(await (await import('./trust.ts')).trustList(options, io)));
  add(
    trustCommand,
    'import',
    'turn keys from elsewhere into principals of a TrustPolicy',
    '\nExamples:\n  countersign trust import ~/.config/git/allowed_signers\n  countersign trust import dana.keys dana.gpg --principal dana --email dana@example.com\n\nIt takes allowed_signers, OpenPGP keys and keyrings, and what a forge gives:\nNAME.keys, NAME.gpg and its key listings, saved as files.',
  )
    .argument('<file...>', 'files with keys')
    .option('--principal <name>', 'whose they are (default: by their address)')
    .addOption(new Option('--kind <kind>', 'what they are').choices(['person', 'bot', 'platform']).default('person'))
    .option('--email <address...>', 'addresses they commit under', [])
    .addOption(output('text', 'json'))
    .action(async (files: string[], options: TrustImportOptions) =>
      done(await (await import('./trust.ts')).trustImport(files, options, io)),
    );

  add(
    program,
    'serve',
    'run the reconcilers and the admission webhook',
    '\nExamples:\n  countersign serve --config countersign --data /var/lib/countersign --webhook 127.0.0.1:9443\n  countersign serve --config-namespace countersign-system --data /var/lib/countersign\n  countersign serve --kubeconfig ~/.kube/config --webhook off',
  )
    .addOption(config())
    .option(
      '--config-namespace <name...>',
      'take documents also from the objects in these namespaces, and follow them (see `countersign crds`)',
    )
    .option('--config-files <dir>', 'where files are that such objects name: DIR/NAMESPACE/FILE')
    .option('--allow-cross-namespace', 'such objects may name what is in other namespaces than their own', false)
    .option('--data <dir>', 'ledger, keys and repositories', DATA)
    .option('--kubeconfig <file>', 'for environments that name none (default: KUBECONFIG, or the pod’s account)')
    .option('--context <name>', 'the kubeconfig’s context')
    .option('--webhook <address>', 'HOST:PORT the admission webhook listens on, or `off`', '127.0.0.1:9443')
    .option('--webhook-url <url>', 'where the API server reaches it (default: https://HOST:PORT/validate)')
    .option('--webhook-service <service>', 'or the Service by which it does: NAMESPACE/NAME, or NAMESPACE/NAME:PORT')
    .option(
      '--webhook-tls <source>',
      'its certificate: a directory with tls.crt, tls.key and ca.crt, or secret:NAMESPACE/NAME that replicas share (default: made in --data)',
    )
    .option('--webhook-client-ca <file>', 'take requests only from clients with a certificate of this authority')
    .option('--webhook-threads <n>', 'threads that answer; each has threads of its own for rules', '2')
    .option('--webhook-name <name>', 'of its configuration; two services in one cluster need two', 'countersign')
    .option('--rescan <duration>', 'how often everything in the governed namespaces is judged, or off', '10m')
    .option('--no-protect', 'do not keep others from the gate’s own objects by a ValidatingAdmissionPolicy')
    .option(
      '--lease <namespace>',
      'replicas share the environments: each is run by the one that holds its Lease in this namespace',
    )
    .option('--selector <labels>', 'run only environments with these labels (`shard=a`); admission is for all of them')
    .option(
      '--http <address>',
      'probes, metrics and calls of forges (plain HTTP, for behind an ingress): HOST:PORT, or off',
      'off',
    )
    .option('--http-name <host...>', 'names by which /metrics may be asked, beside localhost and IP addresses', [])
    .option(
      '--dashboard <address>',
      'a page to look at, which asks nobody who they are: HOST:PORT (127.0.0.1:8090), or off',
      'off',
    )
    .option('--traces <url>', 'send traces there, as OTLP over HTTP (`http://collector:4318/v1/traces`)')
    .option('--origin <name>', 'the ledger’s name when it is begun (default: by the cluster’s id)')
    .option(
      '--ledger <url>',
      'a PostgreSQL that several replicas share, as postgres://USER@HOST/DATABASE (default: a file in --data)',
    )
    .option(
      '--ledger-key <file...>',
      'the ledger’s key in PEM, and after it an older one that still signs (default: in --data)',
    )
    .option(
      '--ledger-key-command <command>',
      'a program that signs: text on its standard input, signature on its output',
    )
    .option('--ledger-key-public <file>', 'the public key of that program, as in `ledger.pub`')
    .option(
      '--anchor <place...>',
      'keep checkpoints there too: file:PATH, configmap:NAMESPACE/NAME, git:URL, witness:URL#KEY, timestamp:URL#CERTIFICATE',
    )
    .option('--anchor-every <duration>', 'how often', '10m')
    .option('--heartbeat <duration>', 'how often to record that the service is alive', '1m')
    .option('--audit-token-file <file>', 'take the API server’s audit events at /audit from whoever has this token')
    .action(async (given: Omit<ServeOptions, 'listen'> & { webhook: string }, command: Command) => {
      // Whoever keeps documents in the cluster need not have a directory of them as well.
      const isDefault = given.configNamespace !== undefined && command.getOptionValueSource('config') === 'default';
      const options = { ...given, listen: given.webhook, ...(isDefault ? { config: [] } : {}) };
      done(await (await import('../serve/index.ts')).serve(options, settings, io, hooks));
    });

  add(
    program,
    'crds',
    'print the CustomResourceDefinitions of Environment, TrustPolicy, Notifier and ReportSchedule',
    '\nExamples:\n  countersign crds | kubectl apply -f -',
  ).action(async () => done(await (await import('./crds.ts')).crds(io)));

  add(
    program,
    'manifests',
    'print what the service needs to run in a cluster: account, workload, Service, disruption budget',
    '\nExamples:\n  countersign manifests --image registry.example.com/countersign:0.1.0 | kubectl apply -f -\n  countersign manifests --image registry.example.com/countersign:0.1.0 --replicas 3 --ledger-secret ledger-url --key-secret ledger-key | kubectl apply -f -',
  )
    .requiredOption('--image <image>', 'the container image, with a tag or digest')
    .option('--namespace <name>', 'where it runs', 'countersign')
    .option('--replicas <number>', 'how many, with --ledger-secret', '2')
    .option('--ledger-secret <name>', 'the Secret whose key `url` is the PostgreSQL that replicas share')
    .option('--key-secret <name>', 'the Secret whose key `ledger.key` is the ledger’s key that they share')
    .option('--storage <size>', 'of the volume of a single replica', '10Gi')
    .action(async (options: ManifestsOptions) => done((await import('./manifests.ts')).manifests(options, io)));

  const ledger = add(program, 'ledger', 'read and check the ledger', '');
  add(
    ledger,
    'verify',
    'check every entry, tile and checkpoint',
    '\nExamples:\n  countersign ledger verify --data /var/lib/countersign\n  countersign ledger verify --from 90000 --to 91000\n  countersign ledger verify --data copy/ledger.db --key ledger.pub --checkpoint last-month.txt',
  )
    .option('--data <path>', 'the service’s data directory, or a ledger file', DATA)
    .option('--key <file>', 'the ledger’s public key (default: beside it)')
    .option('--checkpoint <file...>', 'checkpoints kept elsewhere, which the ledger must extend', [])
    .option('--against <place...>', 'another copy (a directory, ledger file or checkpoint): where the two part', [])
    .option('--from <index>', 'only entries from this one on; the rest is taken from its tiles')
    .option('--to <index>', 'only entries before this one')
    .addOption(output('text', 'json'))
    .action(async (options: LedgerVerifyOptions) => done((await import('./ledger.ts')).ledgerVerify(options, io)));
  add(
    ledger,
    'show',
    'entries, by what they are about',
    '\nExamples:\n  countersign ledger show --last 20\n  countersign ledger show 118 --evidence\n  countersign ledger show --type apply --environment production --since 2026-11-01\n  countersign ledger show --commit 3f2a91c --output jsonl',
  )
    .argument('[index]', 'one entry')
    .option('--data <path>', 'the service’s data directory, or a ledger file', DATA)
    .option('--type <type...>', 'types as `apply.intent`, or families as `apply`')
    .option('--environment <name>', 'one environment')
    .option('--since <time>', 'from this time on, UTC')
    .option('--until <time>', 'before this time, UTC')
    .option('--principal <name>', 'with this person or account in it')
    .option('--commit <id>', 'with this commit in it; its first digits do')
    .option('--object <name>', 'with an object of this name in it')
    .option('--last <number>', 'only the newest of them')
    .option('--evidence', 'with what the entries name by digest', false)
    .addOption(output('text', 'json', 'jsonl'))
    .action(async (index: string | undefined, options: LedgerShowOptions) =>
      done((await import('./ledger-show.ts')).ledgerShow(index, options, io)),
    );
  add(
    ledger,
    'prove',
    'a receipt for an entry, or its check; or that the ledger extends a checkpoint',
    '\nExamples:\n  countersign ledger prove 118 --out receipts\n  countersign ledger prove --check receipts/118.tlog-proof --key ledger.pub\n  countersign ledger prove --since last-month.txt',
  )
    .argument('[index]', 'the entry')
    .option('--data <path>', 'the service’s data directory, or a ledger file', DATA)
    .option('--out <dir>', 'where entry and receipt go', '.')
    .option('--since <file>', 'an older checkpoint: prove that nothing before it changed')
    .option('--check <file>', 'a receipt to check; needs --key, and no ledger')
    .option('--entry <file>', 'the entry it is for (default: beside it)')
    .option('--key <file>', 'the ledger’s public key')
    .addOption(output('text', 'json'))
    .action(async (index: string | undefined, options: LedgerProveOptions) =>
      done((await import('./ledger-prove.ts')).ledgerProve(index, options, io)),
    );
  add(
    ledger,
    'export',
    'the whole ledger as files, with a checker that needs only Node',
    '\nExample:\n  countersign ledger export ledger-2026-11 --receipt 118 204',
  )
    .argument('<dir>', 'where to; it must not exist yet, or be empty')
    .option('--data <path>', 'the service’s data directory, or a ledger file', DATA)
    .option('--receipt <index...>', 'entries to put in with their proofs')
    .option('--no-names', 'leave out the names behind commitments; proofs hold all the same')
    .addOption(output('text', 'json'))
    .action(async (directory: string, options: LedgerExportOptions) =>
      done((await import('./ledger-prove.ts')).ledgerExport(directory, options, io)),
    );
  add(
    ledger,
    'import',
    'a data directory from an export, on a new machine',
    '\nExample:\n  countersign ledger import ledger-2026-11 --data /var/lib/countersign --key ledger.pub',
  )
    .argument('<dir>', 'the export')
    .requiredOption('--key <file>', 'the ledger’s public key, from elsewhere')
    .option('--data <dir>', 'the data directory to make', DATA)
    .addOption(output('text', 'json'))
    .action(async (from: string, options: LedgerImportOptions) =>
      done(await (await import('./ledger-prove.ts')).ledgerImport(from, options, io)),
    );
  add(
    ledger,
    'audit',
    'hold the API server’s audit log against the ledger: every write is accounted for, or named',
    '\nExample:\n  countersign ledger audit /var/log/kubernetes/audit.log --config countersign',
  )
    .argument('<file...>', 'audit logs in JSON, one event a line')
    .addOption(config())
    .option('--data <path>', 'the service’s data directory, or a ledger file', DATA)
    .option('--applier <user>', 'who the service is in the cluster', 'system:serviceaccount:countersign:countersign')
    .option('--record', 'put what is not accounted for on the ledger; the service must be stopped', false)
    .addOption(output('text', 'jsonl'))
    .action(async (files: string[], options: LedgerAuditOptions) =>
      done(await (await import('./ledger-audit.ts')).ledgerAudit(files, options, io)),
    );
  add(
    ledger,
    'rotate-key',
    'sign with a new key beside the old one; later without the old one',
    '\nExamples:\n  countersign ledger rotate-key --data /var/lib/countersign\n  countersign ledger rotate-key --data /var/lib/countersign --drop-old\n\nThe service must be stopped meanwhile. With keys that are given to it (--ledger-key),\ngive the new key first and the old one after it, and later the new one alone.',
  )
    .option('--data <dir>', 'the service’s data directory', DATA)
    .option('--drop-old', 'the old key signs no more, and what it alone signs from here on does not count', false)
    .addOption(output('text', 'json'))
    .action(async (options: RotateKeyOptions) =>
      done(await (await import('./ledger-keys.ts')).ledgerRotateKey(options, io)),
    );
  add(
    ledger,
    'new-epoch',
    'go on after the store was put back to an older state, and record what was lost',
    '\nExample:\n  countersign ledger new-epoch --reason "disk lost on 3 November, restored from the nightly backup"',
  )
    .requiredOption('--reason <text>', 'why; it will be in every report')
    .option('--checkpoint <file>', 'the newest checkpoint that is known, where it was kept elsewhere')
    .option('--data <dir>', 'the service’s data directory', DATA)
    .option('--ledger <url>', 'the PostgreSQL that replicas share')
    .option('--ledger-key <file...>', 'the ledger’s key (default: in --data)')
    .addOption(output('text', 'json'))
    .action(async (options: NewEpochOptions) =>
      done(await (await import('./ledger-keys.ts')).ledgerNewEpoch(options, io)),
    );
  add(
    ledger,
    'schema',
    'the SQL that makes the tables of a ledger in PostgreSQL, for its owner to run',
    '\nExample:\n  countersign ledger schema --role gate | psql --dbname countersign',
  )
    .requiredOption('--role <name>', 'the role that the service uses; it may read and add, and nothing else')
    .action(async (options: { role: string }) => done((await import('./ledger-keys.ts')).ledgerSchema(options, io)));
  add(
    ledger,
    'forget',
    'erase a name or address from the table beside the entries; every proof still holds',
    '\nThe reason and the time are recorded, the text is not. Where exceptions that name the person\nare open, somebody else signs first.\n\nExample:\n  countersign ledger forget dana@example.com --reason "left the company, HR-311"\n  countersign ledger forget dana@example.com --reason "HR-311" --sign approval.sig',
  )
    .argument('<text>', 'a name or address; every kept text that holds it whole is erased')
    .requiredOption('--reason <text>', 'why; it is recorded, so it must not name the person')
    .option('--data <dir>', 'the service’s data directory', DATA)
    .option('--ledger <url>', 'the PostgreSQL that replicas share, where no service runs on --data')
    .option('--ledger-key <file...>', 'the ledger’s key (default: in --data)')
    .option('--approved-by <file>', 'what a second person signed with --sign')
    .addOption(config())
    .option('--sign <file>', 'as that second person: sign that it may be erased, and write the signature there')
    .option('--repo <dir>', 'a checkout whose Git configuration names your key, for --sign', '.')
    .option('--key <file>', 'the key to sign with (default: as Git signs)')
    .addOption(output('text', 'json'))
    .action(async (text: string, options: ForgetOptions) =>
      done(await (await import('./ledger-forget.ts')).ledgerForget(text, options, settings, io)),
    );

  add(
    program,
    'apply',
    'apply what is allowed once, and end: for pipelines that push; the same gate and the same records as the service',
    '\nExample:\n  countersign apply --environment production --data /var/lib/countersign\n\nExit codes: 0 at the newest commit, 1 the gate or the cluster says no, 2 it could not be told.',
  )
    .addOption(config())
    .addOption(environment())
    .option('--data <dir>', 'where the ledger and fetched commits are kept', DATA)
    .option('--kubeconfig <file>', 'the kubeconfig for environments that name none')
    .option('--context <name>', 'the context in it')
    .option('--origin <name>', 'the ledger’s name, for a new one (default: from the cluster’s id)')
    .option('--ledger <url>', 'a PostgreSQL that replicas share')
    .option('--ledger-key <file...>', 'the ledger’s key (default: in --data)')
    .option('--verbose', 'show the log as well', false)
    .addOption(output('text', 'json'))
    .action(async (options: ApplyOptions) => done(await (await import('./apply.ts')).apply(options, settings, io)));

  add(
    program,
    'diff',
    'what a revision would change in the cluster, by the API server’s own dry run; values of Secrets are hidden',
    '\nExamples:\n  countersign diff\n  countersign diff --environment production --revision origin/main\n\nExit codes: 0 nothing is different, 1 something is, 2 it could not be told.',
  )
    .addOption(repo())
    .addOption(config())
    .addOption(trust())
    .addOption(environment())
    .option('--revision <commit>', 'what the cluster is held against', 'HEAD')
    .option('--kubeconfig <file>', 'the kubeconfig for environments that name none')
    .option('--context <name>', 'the context in it')
    .addOption(output('text', 'json'))
    .action(async (options: DiffOptions) => done(await (await import('./diff.ts')).diff(options, settings, io)));

  add(
    program,
    'status',
    'where each environment stands; 1 where one is not as Git has it',
    '\nExamples:\n  countersign status --data /var/lib/countersign\n  kubectl -n countersign exec deploy/countersign -- countersign status',
  )
    .addOption(environment())
    .option('--data <dir>', 'the service’s data directory', DATA)
    .addOption(output('text', 'json'))
    .action(async (options: StatusOptions) => done(await (await import('./operate.ts')).status(options, io)));

  add(
    program,
    'explain',
    'where a live object comes from: file, commit, signer, approvals, rules, ledger entries and their proof',
    '\nExamples:\n  countersign explain deployment/web -n shop\n  countersign explain deployment/web -n shop --proof\n  countersign explain configmap/settings --output json',
  )
    .argument('<kind/name>', 'the object')
    .option('-n, --namespace <name>', 'its namespace, where there are several of that name')
    .addOption(environment())
    .option('--proof', 'print the proof that the verdict is in the ledger as well', false)
    .option('--data <path>', 'the service’s data directory, or a ledger file', DATA)
    .addOption(output('text', 'json'))
    .action(async (what: string, options: ExplainOptions) =>
      done((await import('./explain-object.ts')).explainObject(what, options, io)),
    );

  for (const [name, description] of [
    ['suspend', 'apply nothing to an environment, and put no drift right, until it is resumed'],
    ['resume', 'end a suspension'],
  ] as const)
    addOperating(
      add(
        program,
        name,
        description,
        `\nExample:\n  countersign ${name} production --reason "INC-7: moving the database"`,
      ),
    ).action(async (named: string, options: OperateOptions) =>
      done(await (await import('./operate.ts')).suspendOrResume(name, named, options, io)),
    );
  addOperating(
    add(
      program,
      'reconcile',
      'look now instead of at the end of the interval; or write everything again into a cluster that lost it',
      '\nExamples:\n  countersign reconcile production --reason "the forge’s call was lost"\n  countersign reconcile production --from-scratch --reason "INC-9: the cluster was rebuilt"',
    ),
  )
    .option('--from-scratch', 'write every object of the last good revision again', false)
    .action(async (named: string, options: ReconcileOptions) =>
      done(await (await import('./operate.ts')).reconcile(named, options, io)),
    );
  addOperating(
    add(
      program,
      'rollback',
      'go back to an earlier good revision, after the same checks, and stay there until a new commit comes',
      '\nExample:\n  countersign rollback production --to 91bc0de --reason "INC-7: checkout fails"',
    ),
  )
    .requiredOption('--to <revision>', 'a revision that the environment was at')
    .action(async (named: string, options: RollbackOptions) =>
      done(await (await import('./operate.ts')).rollback(named, options, io)),
    );

  const admission = add(program, 'admission', 'look at admission before it is enforced', '');
  add(
    admission,
    'preview',
    'what `enforce` would refuse, by what was recorded in `audit` or `warn`, or by the API server’s audit log',
    '\nExamples:\n  countersign admission preview --data /var/lib/countersign --since 7d\n  countersign admission preview --audit-log audit.log --config countersign --applier system:serviceaccount:countersign:countersign',
  )
    .option('--data <path>', 'the service’s data directory, or a ledger file', DATA)
    .addOption(environment())
    .option('--since <duration>', 'how far back on the ledger', '7d')
    .option(
      '--audit-log <file...>',
      'take the API server’s audit log instead, for environments whose admission is still `off`',
    )
    .addOption(config())
    .option('--applier <user>', 'who applies from Git, with --audit-log', 'countersign')
    .addOption(output('text', 'json'))
    .action(async (options: AdmissionPreviewOptions) =>
      done(await (await import('./admission-preview.ts')).admissionPreview(options, io)),
    );

  add(
    admission,
    'scan',
    'what the newest look at the governed namespaces found: what no commit has, and what the rules deny',
    '\nExample:\n  countersign admission scan --data /var/lib/countersign',
  )
    .option('--data <path>', 'the service’s data directory, or a ledger file', DATA)
    .addOption(environment())
    .addOption(output('text', 'json'))
    .action(async (options: AdmissionScanOptions) =>
      done((await import('./admission-scan.ts')).admissionScan(options, io)),
    );

  const glass = add(program, 'break-glass', 'act outside the gate in an emergency: open, close, list, settle', '');
  const reached = (command: Command) =>
    command
      .option('-n, --namespace <name...>', 'the namespaces (default: those of the environment)')
      .addOption(config())
      .addOption(environment())
      .option('--kubeconfig <file>', 'who you are in the cluster (default: KUBECONFIG)')
      .option('--context <name>', 'the kubeconfig’s context')
      .addOption(output('text', 'json'));
  reached(
    add(
      glass,
      'open',
      'let members of the break-glass groups write and connect in namespaces, for a time',
      '\nExamples:\n  countersign break-glass open -n shop --reason "checkout is down" --ticket INC-4711 --for 30m\n  countersign break-glass open --environment production --reason "restore the database" --ticket INC-12 --for 1h',
    ),
  )
    .requiredOption('--reason <text>', 'why; it goes on the ledger and into every report')
    .requiredOption('--ticket <id>', 'where it is being worked on')
    .option('--for <duration>', 'for how long; no longer than the environment allows', '30m')
    .action(async (options: BreakGlassOpenOptions) =>
      done(await (await import('./break-glass.ts')).breakGlassOpen(options, settings, io)),
    );
  reached(
    add(glass, 'close', 'give it back before its time', '\nExample:\n  countersign break-glass close -n shop'),
  ).action(async (options: BreakGlassCloseOptions) =>
    done(await (await import('./break-glass.ts')).breakGlassClose(options, settings, io)),
  );
  add(
    glass,
    'list',
    'what is open, and which uses wait for their review',
    '\nExample:\n  countersign break-glass list --data /var/lib/countersign',
  )
    .option('--data <path>', 'the service’s data directory, or a ledger file', DATA)
    .addOption(environment())
    .addOption(output('text', 'json'))
    .action(async (options: BreakGlassListOptions) =>
      done((await import('./break-glass.ts')).breakGlassList(options, io)),
    );
  addOperating(
    add(
      glass,
      'settle',
      'end the review of uses: by the commit that made Git agree, or because all is undone',
      '\nExamples:\n  countersign break-glass settle production --commit 91bc0de --reason "reviewed with the team, CHG-88"\n  countersign break-glass settle production --use 412 413 --reverted --reason "INC-4711 review"',
    ),
  )
    .option('--use <entry...>', 'only these, by their entries (default: all that are left)')
    .option('--commit <id>', 'the commit that brought Git in line; it must have been applied since')
    .option('--reverted', 'what was done is undone: everything is as Git has it', false)
    .action(async (named: string, options: BreakGlassSettleOptions) =>
      done(await (await import('./break-glass.ts')).breakGlassSettle(named, options, io)),
    );

  const exception = add(
    program,
    'exception',
    'what a reader of a report should ask about: list, explain, assign, settle',
    '',
  );
  const ofLedger = (command: Command) =>
    command
      .option('--data <dir>', 'the service’s data directory', DATA)
      .option('--from <time>', 'start of the period, UTC (default: the beginning)')
      .option('--to <time>', 'end of the period, not included (default: now)')
      .addOption(output('text', 'json'));
  ofLedger(
    add(
      exception,
      'list',
      'those that are open, as a report would have them now',
      '\nExamples:\n  countersign exception list --data /var/lib/countersign\n  countersign exception list --from 2026-10-01 --all --type out-of-band-change',
    ),
  )
    .option('--all', 'those that are dealt with too', false)
    .option('--type <type>', 'only these')
    .addOption(environment())
    .action(async (options: ExceptionListOptions) =>
      done((await import('./exceptions.ts')).exceptionList(options, io)),
    );
  ofLedger(
    add(exception, 'explain', 'everything that is known of one', '\nExample:\n  countersign exception explain E412'),
  )
    .argument('<id>', 'as the list has it')
    .action(async (id: string, options: ExceptionExplainOptions) =>
      done((await import('./exceptions.ts')).exceptionExplain(id, options, io)),
    );
  add(
    exception,
    'assign',
    'put on the ledger who is to see to one; every report says so',
    '\nExample:\n  countersign exception assign E412 --to "Robin Platform" --reason "on call that night"',
  )
    .argument('<id>', 'as the list has it')
    .requiredOption('--to <name>', 'who')
    .requiredOption('--reason <text>', 'why; it goes on the ledger with who says it')
    .option('--data <dir>', 'the service’s data directory', DATA)
    .addOption(output('text', 'json'))
    .action(async (id: string, options: ExceptionAssignOptions) =>
      done(await (await import('./exceptions.ts')).exceptionAssign(id, options, io)),
    );
  ofLedger(
    add(
      exception,
      'settle',
      'put on the ledger what became of one; every report says who did',
      '\nExamples:\n  countersign exception settle E412 --as remediated --reason "scaled back again" --ticket INC-4711\n  countersign exception settle E98 --as accepted --reason "planned" --link https://wiki.example.com/9',
    ),
  )
    .argument('<id>', 'as the list has it')
    .addOption(
      new Option('--as <disposition>', 'what became of it')
        .choices(['accepted', 'remediated', 'false-positive'])
        .makeOptionMandatory(),
    )
    .requiredOption('--reason <text>', 'why; it goes on the ledger with who says it')
    .option('--ticket <id>', 'where it was worked on')
    .option('--link <url>', 'where evidence of it is')
    .action(async (id: string, options: ExceptionSettleOptions) =>
      done(await (await import('./exceptions.ts')).exceptionSettle(id, options, io)),
    );

  const report = add(
    program,
    'report',
    'make the evidence report of a period',
    '\nExamples:\n  countersign report --data /var/lib/countersign --from 2026-10-01 --to 2026-11-01 --out october\n  countersign report --from 2026-07-01 --to 2026-10-01 --framework soc2 iso27001 --entity Example --out q3\n  countersign report --from 2026-07-01 --to 2026-10-01 --seed "of the auditor" --sample 25 --out sample',
  )
    .option('--data <dir>', 'the service’s data directory', DATA)
    .option('--from <time>', 'start of the period, UTC (default: the beginning)')
    .option('--to <time>', 'end of the period, not included (default: now)')
    .option('--environment <name...>', 'only these; the others are named as left out')
    .option('--entity <name>', 'whose report it is (default: the ledger’s name)')
    .option('--classification <text>', 'stands on every page', 'confidential')
    .option(
      '--framework <name...>',
      'soc2, iso27001, nist-800-53, pci-dss, nis2, dora, or a file of your own (default: soc2)',
    )
    .option(
      '--seed <text>',
      'draw the auditor’s sample by a seed that the auditor chose after the checkpoint was known',
    )
    .option('--sample <number>', 'how many of each stratum are drawn', '25')
    .option('--failure-hours <number>', 'a rollback or emergency within them makes a deployment a failed one', '24')
    .option('--review-hours <number>', 'within which a use of break-glass is to be reviewed', '72')
    .option(
      '--repo <dir...>',
      'checkouts that signed commits and approvals may be had from, where the service has them no more',
    )
    .option('--out <dir>', 'where the files go', 'countersign-report')
    .addOption(output('text', 'json'))
    .action(async (options: ReportOptions) => done(await (await import('./report.ts')).report(options, settings, io)));

  add(
    report,
    'run',
    'make and deliver what is due of a ReportSchedule, or its newest period once more',
    '\nExamples:\n  countersign report run monthly --data /var/lib/countersign\n  countersign report run monthly --again\n\nThe running service does it; where none runs, it is done here, for example by a CronJob.\nExit codes: 0 made and delivered, or nothing due; 1 not delivered everywhere yet; 2 it could not be made.',
  )
    .argument('<schedule>', 'its name')
    .addOption(config())
    .option('--data <dir>', 'the service’s data directory', DATA)
    .option('--again', 'a new version of the newest period; it names the one it supersedes, and what changed', false)
    .option('--ledger <url>', 'the PostgreSQL that replicas share')
    .option('--ledger-key <file...>', 'the ledger’s key (default: in --data)')
    .option('--ledger-key-command <command>', 'a program that signs')
    .option('--ledger-key-public <file>', 'the public key of that program')
    .addOption(output('text', 'json'))
    .action(async (name: string, _: unknown, command: Command) =>
      done(
        await (await import('./report-schedules.ts')).reportRun(
          name,
          command.optsWithGlobals<ReportRunOptions>(),
          settings,
          io,
        ),
      ),
    );
  add(
    report,
    'list',
    'the reports that the ledger has, and where they are',
    '\nExample:\n  countersign report list --data /var/lib/countersign',
  )
    .option('--data <dir>', 'the service’s data directory', DATA)
    .addOption(output('text', 'json'))
    .action(async (_: unknown, command: Command) =>
      done((await import('./report-schedules.ts')).reportList(command.optsWithGlobals<ReportListOptions>(), io)),
    );

  add(
    report,
    'sign-off',
    'put on the ledger that somebody answers for a report, and what they say of it',
    '\nExample:\n  countersign report sign-off 2615937355838472 --name "Robin Example" --role "Head of Platform" --remarks "no findings"',
  )
    .argument('<report>', 'its id, as `report list` and its cover have it')
    .option('--data <dir>', 'the service’s data directory', DATA)
    .requiredOption('--name <text>', 'who answers for it')
    .requiredOption('--role <text>', 'as what')
    .option('--remarks <text>', 'what they say of it', '')
    .addOption(output('text', 'json'))
    .action(async (id: string, _: unknown, command: Command) =>
      done(
        await (await import('./report-sign-off.ts')).reportSignOff(
          id,
          command.optsWithGlobals<ReportSignOffOptions>(),
          io,
        ),
      ),
    );

  add(
    program,
    'verify',
    'check a report offline',
    '\nExamples:\n  countersign verify october/report.pdf --key ledger.pub\n  countersign verify october --key ledger.pub --seen september/checkpoint',
  )
    .argument('<file>', 'the report, whose other files lie beside it, or their directory')
    .option('--key <file>', 'the ledger’s public key')
    .option('--seen <file...>', 'checkpoints that you kept from before: whether the log only grew since')
    .addOption(output('text', 'json'))
    .action(async (file: string, options: VerifyOptions) =>
      done(await (await import('./verify.ts')).verify(file, options, io)),
    );

  add(
    program,
    'init',
    'write first documents and a CI job for a fleet repository',
    '\nExample:\n  countersign init --environment production --namespace shop --path clusters/production',
  )
    .addOption(repo())
    .option('--environment <name>', 'its first environment', 'production')
    .option('--namespace <name...>', 'the namespaces it governs', ['default'])
    .option('--path <dir>', 'the directory of its manifests', 'clusters/production')
    .option('--force', 'write over files that are there', false)
    .addOption(output('text', 'json'))
    .action(async (options: InitOptions) => done(await (await import('./init.ts')).init(options, settings, io)));
  return program;
}

// What every command that signs a statement on a change takes.
function addSigning(command: Command): Command {
  return command
    .argument('<commit>', 'the commit it is about')
    .option('--repo <dir>', 'the checkout to work in', '.')
    .option('--branch <name>', 'the branch it is for', 'main')
    .option(
      '--base <commit>',
      'what it is compared with (default: the tip of the branch, or the first parent of a commit on it)',
    )
    .option('--remote <name>', 'where to push it', 'origin')
    .option('--repository <url>', 'the repository’s address (default: that of the remote)')
    .option('--environment <name...>', 'only for these environments (default: all)', [])
    .option('--reason <text>', 'why; it will be in the report', '')
    .option('--rollback', 'it is about the branch going back to this commit; counts for nothing else', false)
    .option('--override', 'let it through a window that is closed; the reason goes on the ledger', false)
    .option('--expires <duration>', 'for how long an approval counts, for example 7d')
    .option('--key <file>', 'an SSH key instead of the one git signs with')
    .option('--no-push', 'keep it in this checkout')
    .option('--yes', 'do not ask', false)
    .addOption(new Option('--output <form>', 'how to print the result').choices(['text', 'json']).default('text'));
}

// What every command takes that asks a running service for something.
function addOperating(command: Command): Command {
  return command
    .argument('<environment>', 'which environment')
    .requiredOption('--reason <text>', 'why; it goes on the ledger with who asked')
    .option('--data <dir>', 'the service’s data directory', DATA)
    .addOption(new Option('--output <form>', 'how to print the result').choices(['text', 'json']).default('text'));
}

function add(parent: Command, name: string, description: string, examples: string): Command {
  const command = parent.command(name).description(description);
  return examples === '' ? command : command.addHelpText('after', examples);
}
