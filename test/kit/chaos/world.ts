import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createKey } from '../../../src/ledger/index.ts';
import { type ApiProxy, startApiProxy } from '../api-proxy.ts';
import { freePorts } from '../control-plane.ts';
import type { Fleet } from '../fleet.ts';
import { configMap, namespace } from '../manifests.ts';
import { PostgresProxy } from '../postgres-proxy.ts';
import { type Service, until } from '../service.ts';
import { mountSmallDisk, type SmallDisk } from '../small-disk.ts';
import { Stage } from '../stage.ts';
import { Balancer } from './balancer.ts';
import { type DatabaseNetwork, Databases } from './databases.ts';

export const ENVIRONMENTS = ['alpha', 'beta'] as const;
export type EnvironmentName = (typeof ENVIRONMENTS)[number];
/** A namespace in which only rules decide. */
export const RULED = 'ruled-team';
const PATH = 'clusters/production';
const LEASES = 'chaos-leases';
const NAMES = ['a', 'b', 'c'] as const;
const DISK_MIB = 96;

/** One of three replicas, and the network around it. */
export type Replica = {
  readonly name: string;
  readonly database: DatabaseNetwork;
  readonly api: ApiProxy;
  readonly port: number;
  readonly http: number;
  /** The disk of its data; the reason, if this machine does not permit one of its own. */
  readonly disk: SmallDisk | string;
  service: Service;
  /** Times it was started. */
  starts: number;
};

/** Three replicas on one PostgreSQL with a standby, two environments, and a control plane with controllers. */
export class World {
  readonly stage: Stage;
  readonly databases: Databases;
  readonly replicas: Replica[] = [];
  readonly #fleets: Readonly<Record<EnvironmentName, Fleet>>;
  readonly #arguments: readonly string[];
  readonly #directory: string;
  readonly #git: PostgresProxy;
  #balancer: Balancer | undefined;

  private constructor(
    directory: string,
    stage: Stage,
    databases: Databases,
    fleets: Readonly<Record<EnvironmentName, Fleet>>,
    args: readonly string[],
    git: PostgresProxy,
  ) {
    this.#git = git;
    this.#directory = directory;
    this.stage = stage;
    this.databases = databases;
    this.#fleets = fleets;
    this.#arguments = args;
  }

  static async open(directory: string): Promise<World> {
    const [stage, databases] = await Promise.all([Stage.open(directory, { own: true }), Databases.open()]);
    const key = join(directory, 'ledger.key');
    writeFileSync(key, createKey(), { mode: 0o600 });
    const git = await PostgresProxy.open(stage.git.url);
    const fleets = { alpha: stage.fleet('alpha'), beta: stage.fleet('beta') };
    for (const name of ENVIRONMENTS) fleets[name].remote(`${git.url}/${name}.git`);
    const configuration = stage.configuration(
      'chaos',
      ENVIRONMENTS.map((name) => ({
        ...{ name, url: fleets[name].url, namespaces: [name], interval: '1s' },
        ...(name === 'alpha' ? { admission: { policy: { namespaces: [RULED], mode: 'enforce' } } } : {}),
      })),
    );
    for (const name of [LEASES, RULED])
      await stage.admin.request('POST', '/api/v1/namespaces', {
        ...{ apiVersion: 'v1', kind: 'Namespace', metadata: { name } },
      });
    const args = [
      ...['--config', configuration, '--ledger-key', key, '--lease', LEASES, '--heartbeat', '30s'],
      ...['--webhook-tls', `secret:${LEASES}/webhook-tls`, '--webhook-threads', '1', '--rescan', '1m'],
    ];
    const world = new World(directory, stage, databases, fleets, args, git);
    const [front = 0, ...ports] = await freePorts(7);
    for (const [i, name] of NAMES.entries()) {
      const database = await databases.network();
      const api = await startApiProxy(stage.controlPlane, 'countersign');
      const [port = 0, http = 0] = [ports[i * 2], ports[i * 2 + 1]];
      const disk = mountSmallDisk(stage.data(name), DISK_MIB);
      const replica = { name, database, api, port, http, disk, starts: 0 } as Replica;
      world.replicas.push(replica);
      world.start(replica, front);
    }
    world.#balancer = await Balancer.open(front, () =>
      world.replicas
        .filter((r) => world.runs(r))
        .map(({ port, http }) => ({ port, probes: `http://127.0.0.1:${http}` })),
    );
    return world;
  }

  get directory(): string {
    return this.#directory;
  }

  start(replica: Replica, front = this.#balancer?.port ?? 0): void {
    const { name, api, database, port, http } = replica;
    replica.starts++;
    replica.service = this.stage.start(this.#arguments, name, [
      ...['--kubeconfig', api.kubeconfig, '--ledger', database.url, '--http', `127.0.0.1:${http}`],
      ...['--webhook', `127.0.0.1:${port}`, '--webhook-url', `https://127.0.0.1:${front}/validate`],
    ]);
    const { service, starts } = replica;
    void service.ended.then(() => writeFileSync(join(this.#directory, `${name}-${starts}.log`), service.log));
  }

  /** Starts every replica that ended by itself or was killed. */
  startEnded(): void {
    for (const replica of this.replicas) if (!this.runs(replica)) this.start(replica);
  }

  runs({ service }: Replica): boolean {
    try {
      process.kill(service.pid, 0);
      return service.isRunning;
    } catch {
      return false;
    }
  }

  /** Who runs an environment, by the logs. */
  leader(environment: EnvironmentName): Replica | undefined {
    const taken = this.replicas.flatMap((replica) => {
      const said = `"msg":"this replica has \`${environment}\` now"`;
      const line = replica.service.log.split('\n').findLast((l) => l.includes(said));
      return line === undefined || !this.runs(replica)
        ? []
        : [{ replica, time: /"time":"([^"]+)"/.exec(line)?.[1] ?? '' }];
    });
    return taken.sort((x, y) => (x.time < y.time ? 1 : -1))[0]?.replica;
  }

  /** Who numbers the ledger's entries, by the database. */
  async sequencer(): Promise<Replica | undefined> {
    const sql = 'SELECT client_port AS port FROM countersign.term JOIN pg_stat_activity USING (pid)';
    const [row] = await this.databases.ask(sql).catch(() => []);
    return this.replicas.find((r) => r.database.ports.includes(Number(row?.['port'])));
  }

  /** Takes the Git server away; the result brings it back. */
  gitAway(): () => Promise<void> {
    this.#git.mode = 'cut';
    return async () => {
      this.#git.mode = 'pass';
    };
  }

  lease(environment: EnvironmentName): string {
    return `/apis/coordination.k8s.io/v1/namespaces/${LEASES}/leases/countersign-${environment}`;
  }

  /** Pushes a change that sets the counter of an environment. */
  async push(environment: EnvironmentName, count: number): Promise<string> {
    return this.stage.change(this.#fleets[environment], `count ${count}`, {
      ...(count === 0 ? { [`${PATH}/ns.yaml`]: namespace(environment) } : {}),
      [`${PATH}/cm.yaml`]: configMap(environment, 'settings', { count: String(count) }),
    });
  }

  /** The counter in the cluster; undefined while it has none, or does not answer. */
  async count(environment: EnvironmentName): Promise<number | undefined> {
    const data = await this.stage.dataOf(environment, 'settings').catch(() => undefined);
    return data?.['count'] === undefined ? undefined : Number(data['count']);
  }

  /** Pushes the first change of each environment, and waits until it is in the cluster. */
  async begin(): Promise<void> {
    for (const name of ENVIRONMENTS) await this.push(name, 0);
    for (const name of ENVIRONMENTS)
      await until(
        async () => (await this.count(name)) === 0,
        120_000,
        () => `nobody applied ${name}:\n${this.replicas.map((r) => r.service.log.slice(-1500)).join('\n')}`,
      );
  }

  async close(): Promise<void> {
    this.#balancer?.close();
    await this.stage.close();
    for (const { api, database } of this.replicas) {
      await api.stop();
      database.close();
    }
    this.#git.close();
    for (const { disk } of this.replicas) if (typeof disk !== 'string') disk.unmount();
    await this.databases.stop();
  }
}
