import { mkdirSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tool } from '../../scripts/tools.ts';
import { type Answer, type ApiServer, connect } from '../../src/cluster/index.ts';
import { clusterScopes, NO_REVISION, policyNames } from '../../src/model/index.ts';
import type { ToolName } from '../../src/tools/index.ts';
import { approveAs } from './approve.ts';
import { type AuditSink, type ControlPlane, freePorts, startControlPlane } from './control-plane.ts';
import { type EnvironmentOptions, environmentDocument, trustDocument, writeConfiguration } from './documents.ts';
import { Fleet, type Person, sshPerson } from './fleet.ts';
import { type GitServer, startGitServer } from './git-server.ts';
import { configMap, namespace } from './manifests.ts';
import { livingPlane, sharedPlane } from './plane.ts';
import { runDirectory } from './run-directory.ts';
import { Service, until } from './service.ts';

/** A service at work: its first revision, `first`, is applied. */
export type Running = {
  readonly fleet: Fleet;
  readonly service: Service;
  readonly configuration: string;
  readonly first: string;
};

type RunningOptions = {
  /** Files beside the Namespace and the ConfigMap `settings`. */
  readonly files?: Readonly<Record<string, string>>;
  readonly environment?: Omit<EnvironmentOptions, 'url' | 'namespaces' | 'spec'>;
  readonly arguments?: readonly string[];
  readonly kubeconfig?: string;
};

/**
 * `own`: a control plane that no other file is in; `audit`: such a one whose audit events go somewhere; `qps`: the
 * requests a second its controllers may send; `flags`: more flags for its API server; `grantRoles`: the service may
 * apply any role.
 */
export type StageOptions = {
  readonly own?: boolean;
  readonly audit?: AuditSink;
  readonly qps?: number;
  readonly flags?: readonly string[];
  readonly grantRoles?: boolean;
};

/**
 * A control plane, a Git server, two people and a fleet: everything a service needs around it. Unless it is its own, the
 * control plane is shared with the other files of the run: namespaces have names that no other file uses.
 */
export class Stage {
  /** The name of its services' webhook configuration, which no other file's have. */
  readonly webhook: string;
  readonly directory: string;
  readonly controlPlane: ControlPlane;
  readonly git: GitServer;
  readonly dana: Person;
  readonly lee: Person;
  readonly admin: ApiServer;
  readonly #isOwn: boolean;
  #services: Service[] = [];
  readonly #kept: Service[] = [];
  #serial = 0;

  private constructor(directory: string, controlPlane: ControlPlane, git: GitServer, admin: ApiServer, isOwn: boolean) {
    this.directory = directory;
    this.#isOwn = isOwn;
    const file = basename(process.argv[1] ?? '').replace('.test.ts', '');
    this.webhook = isOwn ? 'countersign' : `countersign-${file}`;
    this.controlPlane = controlPlane;
    this.git = git;
    this.admin = admin;
    this.dana = sshPerson(directory, 'dana');
    this.lee = sshPerson(directory, 'lee');
  }

  static async open(
    directory: string,
    { own = false, audit, qps, flags = [], grantRoles = false }: StageOptions = {},
  ): Promise<Stage> {
    const isOwn = own || grantRoles || audit !== undefined || flags.length > 0;
    return Stage.#at(directory, isOwn ? await livingPlane(audit, qps, flags, grantRoles) : await sharedPlane(), isOwn);
  }

  /** Without controllers and nodes, and with a service that may do everything: for measurements, and other versions. */
  static async bare(
    directory: string,
    {
      apiserver = 'kube-apiserver',
      flags = [],
    }: { readonly apiserver?: ToolName; readonly flags?: readonly string[] } = {},
  ): Promise<Stage> {
    const programs = { etcd: await tool('etcd'), apiserver: await tool(apiserver) };
    return Stage.#at(directory, await startControlPlane(programs, undefined, flags), true);
  }

  static async #at(directory: string, controlPlane: ControlPlane, isOwn: boolean): Promise<Stage> {
    const git = await startGitServer(directory);
    const { server } = await connect({
      kubeconfig: controlPlane.kubeconfig('admin'),
      context: undefined,
      namedBy: 'operator',
    });
    return new Stage(directory, controlPlane, git, server, isOwn);
  }

  /** Ends whatever a test left running. */
  async stopServices(): Promise<void> {
    for (const service of this.#services.splice(0)) await service.stop();
  }

  async close(): Promise<void> {
    await this.stopServices();
    for (const service of this.#kept) await service.stop();
    if (!this.#isOwn) await this.#unregister();
    this.admin.close();
    await this.git.stop();
    await this.controlPlane.stop();
  }

  // The governed namespaces would stay closed, and the gate's own objects protected.
  async #unregister(): Promise<void> {
    const oncall = await this.as('oncall');
    const at = '/apis/admissionregistration.k8s.io/v1';
    for (const name of policyNames(this.webhook))
      for (const kind of ['validatingadmissionpolicybindings', 'validatingadmissionpolicies'])
        await oncall.request('DELETE', `${at}/${kind}/${name}`);
    await oncall.request('DELETE', `${at}/validatingwebhookconfigurations/${this.webhook}`);
    oncall.close();
  }

  fleet(name: string): Fleet {
    const fleet = new Fleet(this.directory, name);
    fleet.remote(`${this.git.url}/${name}.git`);
    return fleet;
  }

  configuration(name: string, environments: readonly EnvironmentOptions[]): string {
    if (!this.#isOwn) for (const environment of environments) claim(environment);
    return writeConfiguration(join(this.directory, `config-${name}`), [
      ...environments.map(environmentDocument),
      trustDocument([this.dana, this.lee]),
    ]);
  }

  async arguments(configuration: string, kubeconfig = this.controlPlane.kubeconfig('countersign')): Promise<string[]> {
    const [port] = await freePorts(1);
    return [
      ...['--config', configuration, '--kubeconfig', kubeconfig],
      ...['--webhook', `127.0.0.1:${port}`, '--webhook-name', this.webhook, '--webhook-threads', '1'],
    ];
  }

  /** A service of which nothing is waited for. */
  start(args: readonly string[], name: string, more: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Service {
    const service = Service.start([...args, ...more], this.data(name), env);
    this.#services.push(service);
    return service;
  }

  async serve(
    configuration: string,
    name: string,
    more: readonly string[] = [],
    kubeconfig?: string,
  ): Promise<Service> {
    const service = this.start(await this.arguments(configuration, kubeconfig), name, more);
    await service.says('countersign is running');
    return service;
  }

  /**
   * A service whose environment `production` has a Namespace called `name` and a ConfigMap `settings` in it, applied.
   */
  async running(
    name: string,
    spec: Readonly<Record<string, unknown>> = {},
    options: RunningOptions = {},
  ): Promise<Running> {
    const fleet = this.fleet(name);
    const configuration = this.configuration(name, [
      { url: fleet.url, namespaces: [name], spec, ...options.environment },
    ]);
    const first = await this.change(fleet, 'first', {
      'clusters/production/ns.yaml': namespace(name),
      'clusters/production/cm.yaml': configMap(name, 'settings', { colour: 'blue' }),
      ...options.files,
    });
    const service = await this.serve(configuration, name, options.arguments, options.kubeconfig);
    await service.entry('apply.result', 'production', (e) => e.revision === first && e.outcome === 'applied');
    return { fleet, service, configuration, first };
  }

  /** A service that kills itself at a step; waits until it has. */
  async serveUntil(step: string, configuration: string, name: string): Promise<Service> {
    const { service, killAt } = await this.killable(configuration, name);
    killAt(step);
    await service.killed(step);
    return service;
  }

  /** A service that kills itself at a step, once it is said at which. */
  async killable(
    configuration: string,
    name: string,
  ): Promise<{ readonly service: Service; readonly killAt: (step: string) => void }> {
    const file = join(this.directory, `step-${this.#serial++}`);
    writeFileSync(file, '');
    const service = new Service(
      fileURLToPath(new URL('serve-killed.ts', import.meta.url)),
      [file, ...(await this.arguments(configuration))],
      this.data(name),
    );
    this.#services.push(service);
    return { service, killAt: (step) => writeFileSync(file, step) };
  }

  /** Leaves a service running after the test: it ends with the stage. */
  keep(service: Service): void {
    this.#services = this.#services.filter((s) => s !== service);
    this.#kept.push(service);
  }

  data(name: string): string {
    const data = join(this.directory, `data-${name}`);
    mkdirSync(data, { recursive: true });
    return data;
  }

  /** Commits, pushes and has it approved. Gives the commit. */
  async change(fleet: Fleet, message: string, files: Readonly<Record<string, string | undefined>>): Promise<string> {
    const commit = await this.prepare(fleet, message, files);
    fleet.push();
    return commit;
  }

  /** The same, all but pushed. */
  async prepare(fleet: Fleet, message: string, files: Readonly<Record<string, string | undefined>>): Promise<string> {
    const before = fleet.git(undefined, 'rev-list', '--all', '--max-count=1') === '' ? NO_REVISION : fleet.head();
    const commit = fleet.commit(this.dana, message, files);
    await approveAs(this.lee, fleet, before, commit);
    return commit;
  }

  get(path: string): Promise<Answer> {
    return this.admin.request('GET', path);
  }

  async dataOf(namespace: string, name: string): Promise<Record<string, string> | undefined> {
    const { status, body } = await this.get(`/api/v1/namespaces/${namespace}/configmaps/${name}`);
    return status === 200 ? (body['data'] as Record<string, string>) : undefined;
  }

  async as(user: string): Promise<ApiServer> {
    return (await connect({ kubeconfig: this.controlPlane.kubeconfig(user), context: undefined, namedBy: 'operator' }))
      .server;
  }

  waitFor(test: () => Promise<boolean>, what: string): Promise<void> {
    return until(test, 120_000, () => `${what} did not happen`);
  }
}

/**
 * Fails where an environment would be in the way of another file's: a namespace that it has too, or an admission that
 * the API server would ask about objects of all files.
 */
function claim({ namespaces, mode, clusterScoped = [], admission, spec }: EnvironmentOptions): void {
  const { policy } = (admission ?? {}) as { policy?: { namespaces: readonly string[] } };
  const { target } = (spec ?? {}) as { target?: Pick<EnvironmentOptions, 'namespaces' | 'clusterScoped'> };
  const kinds = clusterScopes([...clusterScoped, ...(target?.clusterScoped ?? [])])
    .map(({ kind, names }) => (names.includes('*') ? kind : `${kind}-${names.join('-')}`))
    .filter((kind) => kind !== 'Namespace');
  const globs = policy?.namespaces ?? [];
  if (globs.some((glob) => glob.startsWith('*')))
    throw new Error('rules for all namespaces: open the stage with `own`');
  if (mode !== 'off' && kinds.includes('CustomResourceDefinition'))
    throw new Error('a governed kind that other files write: open the stage with `own`');
  const run = runDirectory();
  if (run === undefined) return;
  for (const name of [...namespaces, ...(target?.namespaces ?? []), ...globs, ...(mode === 'off' ? [] : kinds)]) {
    const file = join(run, `claim-${name}`);
    try {
      symlinkSync(String(process.pid), file); // which is there at once, with what it says
    } catch {
      if (readlinkSync(file) !== String(process.pid))
        throw new Error(`\`${name}\` is used by another test file: choose another name`);
    }
  }
}
