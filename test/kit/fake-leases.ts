import type { Answer } from '../../src/cluster/index.ts';

type LeaseObject = {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly resourceVersion: string };
  readonly spec: object;
};

/** Leases as the API server keeps them: `isAway` answers nothing, `isForbidden` says 403. */
export class FakeLeases {
  readonly leases = new Map<string, LeaseObject>();
  isAway = false;
  isForbidden = false;
  #version = 0;

  async request(method: string, path: string, given?: object): Promise<Answer> {
    if (this.isAway) throw new Error('connect ECONNREFUSED');
    const answer = (status: number, content: object) =>
      ({ status, body: content, warnings: [], retryAfter: undefined }) as unknown as Answer;
    if (this.isForbidden) return answer(403, {});
    const lease = given as { metadata: { name: string; resourceVersion?: string }; spec: object } | undefined;
    const name = lease?.metadata.name ?? path.split('/').at(-1) ?? '';
    const there = this.leases.get(name);
    if (method === 'GET') return there === undefined ? answer(404, {}) : answer(200, there);
    if (method === 'POST' ? there !== undefined : there?.metadata.resourceVersion !== lease?.metadata.resourceVersion)
      return answer(409, {});
    const metadata = { name, resourceVersion: String(++this.#version) };
    const written = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata, spec: lease?.spec ?? {} };
    this.leases.set(name, written);
    return answer(200, written);
  }
}
