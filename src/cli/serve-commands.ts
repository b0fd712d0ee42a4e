import { Option } from '@commander-js/extra-typings';
import {
  cluster,
  config,
  context,
  data,
  environment,
  kubeconfig,
  ledgerKey,
  ledgerKeyCommand,
  ledgerKeyPublic,
  ledgerUrl,
  type OptionsOf,
  origin,
  output,
  type Parent,
} from './flags.ts';

export type ApplyOptions = OptionsOf<typeof applyCommand>;
export type ManifestsOptions = OptionsOf<typeof manifestsCommand>;

export function serveCommand(program: Parent) {
  return program
    .command('serve')
    .description('run the reconcilers and the admission webhook')
    .addOption(config())
    .option(
      '--config-namespace <name...>',
      'also take documents from objects in these namespaces and follow them (see `countersign crds`)',
    )
    .option('--config-files <dir>', 'where files are that such objects name: DIR/NAMESPACE/FILE')
    .option('--allow-cross-namespace', 'let such objects refer to objects in other namespaces', false)
    .addOption(data())
    .addOption(kubeconfig())
    .addOption(context())
    .addOption(cluster())
    .option('--webhook <address>', 'the HOST:PORT that the admission webhook listens on, or `off`', '127.0.0.1:9443')
    .option('--webhook-url <url>', 'where the API server reaches it (default: https://HOST:PORT/validate)')
    .option('--webhook-service <service>', 'or the Service it is behind: NAMESPACE/NAME, or NAMESPACE/NAME:PORT')
    .option(
      '--webhook-tls <source>',
      'its certificate: a directory with tls.crt, tls.key and ca.crt, ' +
        'or secret:NAMESPACE/NAME for replicas (default: made in --data)',
    )
    .option('--webhook-client-ca <file>', 'accept only clients with a certificate from this authority')
    .option('--webhook-threads <n>', 'most threads that answer requests; each has its own threads for rules', '2')
    .option('--webhook-name <name>', 'the name of its configuration; two services in a cluster need two', 'countersign')
    .option('--rescan <duration>', 'how often the governed namespaces are checked against the rules, or `off`', '10m')
    .option('--no-protect', 'do not protect the gate’s own objects with a ValidatingAdmissionPolicy')
    .option(
      '--lease <namespace>',
      'share the environments between replicas: each runs on the replica that holds its Lease in this namespace',
    )
    .option('--selector <labels>', 'run only environments with these labels (`shard=a`); admission covers all of them')
    .option('--http <address>', 'HOST:PORT for probes, metrics and calls from forges, in plain HTTP, or `off`', 'off')
    .option('--http-name <host...>', 'host names under which /metrics answers, beside localhost and IP addresses', [])
    .option(
      '--dashboard <address>',
      'HOST:PORT of a read-only dashboard without sign-in, such as 127.0.0.1:8090, or `off`',
      'off',
    )
    .option('--traces <url>', 'send traces there as OTLP over HTTP, such as http://collector:4318/v1/traces')
    .addOption(origin())
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .option(
      '--anchor <place...>',
      'also keep checkpoints there: file:PATH, configmap:NAMESPACE/NAME, ' +
        'git:URL, witness:URL#KEY, timestamp:URL#CERTIFICATE',
    )
    .option('--anchor-every <duration>', 'how often to do so', '10m')
    .option(
      '--write-ahead <dir>',
      'keep records there while the ledger cannot be written; best on another disk (default: --data)',
    )
    .option('--heartbeat <duration>', 'how often to record that the service is alive', '1m')
    .option('--audit-token-file <file>', 'accept the API server’s audit events at /audit from callers with this token')
    .addHelpText(
      'after',
      `
Examples:
  countersign serve --config countersign --data /var/lib/countersign \\
    --webhook 127.0.0.1:9443
  countersign serve --config-namespace countersign-system \\
    --data /var/lib/countersign
  countersign serve --kubeconfig ~/.kube/config --webhook off`,
    );
}

export function applyCommand(program: Parent) {
  return program
    .command('apply')
    .description('apply what the gate allows, once, with the same checks and records as the service; for pipelines')
    .addOption(config())
    .addOption(environment())
    .addOption(data())
    .addOption(kubeconfig())
    .addOption(context())
    .addOption(cluster())
    .addOption(origin())
    .addOption(ledgerUrl())
    .addOption(ledgerKey())
    .addOption(ledgerKeyCommand())
    .addOption(ledgerKeyPublic())
    .option('--verbose', 'show the log', false)
    .addOption(output('text', 'json'))
    .addHelpText(
      'after',
      `
Example:
  countersign apply --environment production --data /var/lib/countersign

Exit codes: 0 at the newest commit, 1 the gate or the cluster says no, 2 it
could not be determined.`,
    );
}

export function crdsCommand(program: Parent) {
  return program
    .command('crds')
    .description('print the CustomResourceDefinitions of our documents: Environment, EnvironmentSet, TrustPolicy, …')
    .addHelpText('after', '\nExample:\n  countersign crds | kubectl apply -f -');
}

export function manifestsCommand(program: Parent) {
  return program
    .command('manifests')
    .description('print the objects that run the service in a cluster: account, workload, Service, NetworkPolicy')
    .option('--image <image>', 'the container image, with a tag or digest')
    .option('--namespace <name>', 'the namespace it runs in', 'countersign')
    .option('--replicas <number>', 'the number of replicas, with --ledger-secret', '2')
    .option('--ledger-secret <name>', 'the Secret whose key `url` is the PostgreSQL that replicas share')
    .option('--key-secret <name>', 'the Secret whose key `ledger.key` is the ledger key that replicas share')
    .option('--storage <size>', 'the size of the volume of a single replica', '10Gi')
    .addOption(
      new Option(
        '--rights <which>',
        'the rights of its account: `all` objects of the cluster, or those `derived` from what the environments render',
      )
        .choices(['all', 'derived'] as const)
        .default('all' as const),
    )
    .option('--rights-only', 'print only these rights, to apply them again after Git has new kinds', false)
    .option(
      '--repo <dir...>',
      'with --rights derived: checkouts of the repositories of the environments, read at the tips of their branches',
      ['.'],
    )
    .option(
      '--revision <commit...>',
      'with --rights derived: also read these commits, such as the one that is applied now',
    )
    .option('--remote <name>', 'with --rights derived: the remote of the checkouts', 'origin')
    .option(
      '--kubeconfig <file>',
      'with --rights derived: the cluster to ask for kinds that no environment defines, and for its namespaces',
    )
    .addOption(context())
    .option(
      '--cluster <name>',
      'with --rights derived: only environments whose `spec.target.cluster` is this one or not set',
    )
    .option('--grant-roles', 'let it apply roles that grant more than it has itself (`escalate`, `bind`)', false)
    .option(
      '--api-server-cidr <cidr...>',
      'only these addresses reach the webhook (default: all; see the NetworkPolicy)',
    )
    .option(
      '--static <dir>',
      'write policies there instead, as files that kube-apiserver 1.37 or newer reads itself (docs/operations.md)',
    )
    .option('--static-path <dir>', 'where the API server finds that directory (default: the same)')
    .option('--fence', 'with --static: keep people out of governed namespaces even if the webhook is gone', false)
    .option(
      '--check',
      'with --static: write nothing, and say how the directory differs from what would be written',
      false,
    )
    .addOption(config())
    .option(
      '--environment <name...>',
      'with --static or --rights derived: the environments of this cluster (default: all)',
    )
    .option('--applier <user...>', 'with --static: the users that apply from Git (default: the account in --namespace)')
    .option(
      '--webhook-name <name>',
      'with --static or --rights derived: the name of the webhook’s configuration',
      'countersign',
    )
    .addHelpText(
      'after',
      `
Examples:
  countersign manifests --image registry.example.com/countersign:0.1.0 \\
    | kubectl apply -f -
  countersign manifests --image registry.example.com/countersign:0.1.0 \\
    --replicas 3 --ledger-secret ledger-url --key-secret ledger-key \\
    | kubectl apply -f -
  countersign manifests --image registry.example.com/countersign:0.1.0 \\
    --rights derived --repo fleet --kubeconfig ~/.kube/config \\
    | kubectl apply -f -
  countersign manifests --rights derived --rights-only --revision HEAD \\
    | kubectl apply -f -
  countersign manifests --static /etc/kubernetes/countersign --fence
  countersign manifests --static /etc/kubernetes/countersign --fence --check`,
    );
}
