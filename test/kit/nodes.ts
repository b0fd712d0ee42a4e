import { Agent, request } from 'node:https';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

/**
 * Stands in for scheduler and kubelets: binds pods to two nodes, lets them run, ends those of Jobs (with an error, if an
 * image is called `failing`) and deletes those that are to go. A pod with an image called `held` runs and is not ready until somebody says so; one with an image
 * called `broken` never starts.
 */
export async function startNodes(url: string): Promise<{ readonly stop: () => Promise<void> }> {
  // In a thread of its own: tests run `git` and wait for it.
  const worker = new Worker(new URL(import.meta.url), { workerData: { nodesOf: url } });
  await new Promise<void>((resolve, reject) => {
    worker.once('message', () => resolve());
    worker.once('error', reject);
  });
  worker.on('error', (thrown) => process.stderr.write(`nodes: ${thrown}\n`));
  return { stop: async () => void (await worker.terminate()) };
}

type Pod = {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
    readonly deletionTimestamp?: string;
    readonly ownerReferences?: readonly { readonly kind: string }[];
  };
  readonly spec: {
    readonly nodeName?: string;
    readonly containers: readonly { readonly name: string; readonly image: string; readonly resources?: object }[];
    readonly volumes?: readonly { readonly persistentVolumeClaim?: { readonly claimName: string } }[];
  };
  readonly status: { readonly phase?: string; readonly containerStatuses?: readonly object[] };
};
type Answer = { readonly status: number; readonly body: Record<string, unknown> };

const LATER: Answer = { status: 409, body: {} };
const NODES = ['node-a', 'node-b'];
const USER: Readonly<Record<string, string>> = { 'node-a': 'node', 'node-b': 'node-b' };
const BEAT_MS = 20_000;
const AGAIN_MS = 500;

class Nodes {
  readonly #url: string;
  readonly #agent = new Agent({ rejectUnauthorized: false, keepAlive: true, maxSockets: 20 });
  #serial = 0;

  constructor(url: string) {
    this.#url = url;
  }

  async run(): Promise<void> {
    for (const name of NODES)
      await this.#call('admin', 'POST', '/api/v1/nodes', {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: { name, labels: { 'kubernetes.io/hostname': name } },
      });
    await this.#beat();
    setInterval(() => void this.#beat(), BEAT_MS);
    void this.#follow();
  }

  async #beat(): Promise<void> {
    const room = { cpu: '64', memory: '256Gi', pods: '5000' };
    const conditions = [{ type: 'Ready', status: 'True', reason: 'KubeletReady', lastHeartbeatTime: now() }];
    const status = { capacity: room, allocatable: room, conditions };
    for (const name of NODES) await this.#call('admin', 'PATCH', `/api/v1/nodes/${name}/status`, { status });
  }

  // Reads all pods and watches them from there on, again and again: the API server may go away and come back.
  async #follow(): Promise<never> {
    for (;;) {
      const { status, body } = await this.#call('node', 'GET', '/api/v1/pods');
      if (status === 200) {
        for (const pod of body['items'] as Pod[]) void this.#attend(pod);
        const { resourceVersion } = body['metadata'] as { resourceVersion: string };
        await this.#watch(`/api/v1/pods?watch=1&resourceVersion=${resourceVersion}`);
      }
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }

  #watch(path: string): Promise<void> {
    return new Promise((done) => {
      const sent = request(this.#url + path, { agent: this.#agent, headers: headersOf('node') }, (response) => {
        let rest = '';
        response.setEncoding('utf8');
        response.on('data', (part: string) => {
          const lines = (rest + part).split('\n');
          rest = lines.pop() ?? '';
          for (const line of lines) {
            const { type, object } = JSON.parse(line) as { type: string; object: Pod };
            if (type === 'ADDED' || type === 'MODIFIED') void this.#attend(object);
          }
        });
        response.on('close', () => done());
      });
      sent.on('error', () => done());
      sent.end();
    });
  }

  // As a kubelet does, it tries again what was refused or not answered: a webhook may have been away.
  async #attend(pod: Pod): Promise<void> {
    for (let next: Pod | undefined = pod; next !== undefined; ) {
      const answer: Answer | undefined = await this.#tend(next);
      if (answer === undefined || answer.status === 404 || (answer.status >= 200 && answer.status < 300)) return;
      if (answer.status !== 409)
        process.stderr.write(`nodes: ${pathOf(next)}: ${answer.status} ${answer.body['message']}; trying again\n`);
      await new Promise((done) => setTimeout(done, AGAIN_MS));
      const { status, body } = await this.#call('node', 'GET', pathOf(next));
      if (status === 200) next = body as unknown as Pod;
      else if (status === 404) next = undefined;
    }
  }

  // Nothing provides volumes, unless a test made some.
  async #haveVolumes(): Promise<boolean> {
    const { body } = await this.#call('admin', 'GET', '/api/v1/persistentvolumes?limit=1');
    return ((body['items'] ?? []) as readonly unknown[]).length > 0;
  }

  async #tend(pod: Pod): Promise<Answer | undefined> {
    const { metadata, spec, status } = pod;
    const path = pathOf(pod);
    const has = (word: string) => spec.containers.some((c) => c.image.includes(word));
    const node = USER[spec.nodeName ?? ''] ?? 'node';
    if (metadata.deletionTimestamp !== undefined)
      return this.#call(node, 'DELETE', path, { gracePeriodSeconds: 0, preconditions: { uid: metadata.uid } });
    if (spec.nodeName === undefined || spec.nodeName === '') {
      const claims = (spec.volumes ?? []).flatMap((v) => v.persistentVolumeClaim?.claimName ?? []);
      if (claims.length > 0 && !(await this.#haveVolumes())) return undefined;
      for (const claim of claims) {
        const at = `/api/v1/namespaces/${metadata.namespace}/persistentvolumeclaims/${claim}`;
        const { body } = await this.#call('admin', 'GET', at);
        if ((body['status'] as { phase?: string } | undefined)?.phase !== 'Bound') return LATER;
      }
      const target = { kind: 'Node', name: NODES[this.#serial++ % NODES.length] };
      return this.#call('scheduler', 'POST', `${path}/binding`, {
        apiVersion: 'v1',
        kind: 'Binding',
        metadata: { name: metadata.name, namespace: metadata.namespace },
        target,
      });
    }
    if (status.phase === 'Pending' && !has('broken'))
      return this.#report(path, running(pod, !has('held'), `10.10.0.${1 + (this.#serial++ % 250)}`));
    if (status.phase === 'Pending' && status.containerStatuses === undefined) return this.#report(path, unpulled(pod));
    if (status.phase === 'Running' && metadata.ownerReferences?.[0]?.kind === 'Job' && !has('held'))
      return this.#report(path, ended(pod, has('failing') ? 1 : 0));
    return undefined;
  }

  #report(path: string, status: object): Promise<Answer> {
    return this.#call('node', 'PATCH', `${path}/status`, { status });
  }

  #call(user: string, method: string, path: string, body?: object): Promise<Answer> {
    return new Promise((resolve) => {
      const type = method === 'PATCH' ? 'application/strategic-merge-patch+json' : 'application/json';
      const text = body === undefined ? '' : JSON.stringify(body);
      // Node sends no length with a DELETE, and the server would take the body for the next request
      const framed = { 'content-type': type, 'content-length': Buffer.byteLength(text) };
      const sent = request(
        this.#url + path,
        { method, agent: this.#agent, headers: { ...headersOf(user), ...framed } },
        (response) => {
          const parts: Buffer[] = [];
          response.on('data', (part: Buffer) => parts.push(part));
          response.on('error', () => resolve({ status: 0, body: {} }));
          response.on('end', () => {
            resolve({ status: response.statusCode ?? 0, body: parsed(Buffer.concat(parts).toString()) });
          });
        },
      );
      sent.on('error', () => resolve({ status: 0, body: {} }));
      sent.end(text);
    });
  }
}

function pathOf({ metadata }: Pod): string {
  return `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}`;
}

function headersOf(user: string): Record<string, string> {
  return { authorization: `Bearer ${user}-token`, accept: 'application/json' };
}

function parsed(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return {};
  }
}

/** The status of a pod whose containers run. */
export function running({ spec }: Pick<Pod, 'spec'>, isReady: boolean, podIP: string): object {
  const is = isReady ? 'True' : 'False';
  return {
    phase: 'Running',
    podIP,
    startTime: now(),
    conditions: ['PodScheduled', 'Initialized', 'ContainersReady', 'Ready'].map((type) => ({
      type,
      status: type.endsWith('Ready') ? is : 'True',
      lastTransitionTime: now(),
    })),
    containerStatuses: spec.containers.map(({ name, image, resources = {} }) => ({
      ...{ name, image, imageID: '', restartCount: 0, ready: isReady, started: true, resources },
      state: { running: { startedAt: now() } },
    })),
  };
}

function unpulled({ spec }: Pod): object {
  return {
    containerStatuses: spec.containers.map(({ name, image }) => ({
      ...{ name, image, imageID: '', restartCount: 0, ready: false },
      state: { waiting: { reason: 'ErrImagePull', message: `pull access denied for ${image}` } },
    })),
  };
}

function ended({ spec }: Pod, exitCode: number): object {
  return {
    phase: exitCode === 0 ? 'Succeeded' : 'Failed',
    conditions: [{ type: 'Ready', status: 'False', reason: 'PodCompleted' }],
    containerStatuses: spec.containers.map(({ name, image }) => ({
      ...{ name, image, imageID: '', restartCount: 0, ready: false },
      state: {
        terminated: { exitCode, reason: exitCode === 0 ? 'Completed' : 'Error', startedAt: now(), finishedAt: now() },
      },
    })),
  };
}

function now(): string {
  return new Date().toISOString().replace(/\.\d+Z$/, 'Z');
}

if (!isMainThread && workerData?.nodesOf !== undefined)
  void new Nodes(workerData.nodesOf).run().then(() => parentPort?.postMessage('running'));
