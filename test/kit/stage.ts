import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tool } from '../../scripts/tools.ts';
import { type Answer, type ApiServer, connect } from '../../src/cluster/index.ts';
import { NO_REVISION } from '../../src/model/index.ts';
import { approveAs } from './approve.ts';
import { type AuditSink, type ControlPlane, freePorts, startControlPlane } from './control-plane.ts';
import { type EnvironmentOptions, environmentDocument, trustDocument, writeConfiguration } from './documents.ts';
import { Fleet, type Person, sshPerson } from './fleet.ts';
import { type GitServer, startGitServer } from './git-server.ts';
import { configMap, namespace } from './manifests.ts';
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

/** A control plane, a Git server, two people and a fleet: everything a service needs around it. */
export class Stage {
  readonly directory: string;
  readonly controlPlane: ControlPlane;
  readonly git: GitServer;
  readonly dana: Person;
  readonly lee: Person;
  readonly admin: ApiServer;
  #services: Service[] = [];

  private constructor(directory: string, controlPlane: ControlPlane, git: GitServer, admin: ApiServer) {
    this.directory = directory;
    this.controlPlane = controlPlane;
    this.git = git;
    this.admin = admin;
    this.dana = sshPerson(directory, 'dana');
    this.lee = sshPerson(directory, 'lee');
  }

  static async open(directory: string, audit?: AuditSink): Promise<Stage> {
    const controlPlane = await startControlPlane(
      { etcd: await tool('etcd'), apiserver: await tool('kube-apiserver') },
      audit,
    );
    const git = await startGitServer(directory);
    const { server } = await connect({
      kubeconfig: controlPlane.kubeconfig('admin'),
      context: undefined,
      namedBy: 'operator',
    });
    return new Stage(directory, controlPlane, git, server);
  }

  /** Ends whatever a test left running. */
  async stopServices(): Promise<void> {
    for (const service of this.#services.splice(0)) await service.stop();
  }

  async close(): Promise<void> {
    await this.stopServices();
    this.admin.close();
    await this.git.stop();
    await this.controlPlane.stop();
  }

  fleet(name: string): Fleet {
    const fleet = new Fleet(this.directory, name);
    fleet.remote(`${this.git.url}/${name}.git`);
    return fleet;
  }

  configuration(name: string, environments: readonly EnvironmentOptions[]): string {
    return writeConfiguration(join(this.directory, `config-${name}`), [
      ...environments.map(environmentDocument),
      trustDocument([this.dana, this.lee]),
    ]);
  }

  async arguments(configuration: string, kubeconfig = this.controlPlane.kubeconfig('countersign')): Promise<string[]> {
    const [port] = await freePorts(1);
    return ['--config', configuration, '--kubeconfig', kubeconfig, '--webhook', `127.0.0.1:${port}`];
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
    const service = new Service(
      fileURLToPath(new URL('serve-killed.ts', import.meta.url)),
      [step, ...(await this.arguments(configuration))],
      this.data(name),
    );
    this.#services.push(service);
    const code = await service.ended;
    if (code !== 137) throw new Error(`the service was not killed at ${step} but ended with ${code}:\n${service.log}`);
    return service;
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
    return until(test, 20_000, () => `${what} did not happen`);
  }
}
