import { CountersignError } from '../model/index.ts';
import type { Answer, ApiServer } from './api-server.ts';

const KEY = 'checkpoint';

/**
 * Keeps the newest checkpoint in a ConfigMap: close to the store, but not controlled by the owner of the disk, and
 * visible to operators.
 */
export class CheckpointMap {
  readonly #server: ApiServer;
  readonly #path: string;
  readonly #name: string;
  readonly #namespace: string;

  constructor(server: ApiServer, namespace: string, name: string) {
    this.#server = server;
    this.#namespace = namespace;
    this.#name = name;
    this.#path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/configmaps/${encodeURIComponent(name)}`;
  }

  async read(): Promise<string | undefined> {
    const answer = await this.#server.request('GET', this.#path);
    if (answer.status === 404) return undefined;
    return (this.#fine(answer, 'read') as { data?: Record<string, string> }).data?.[KEY];
  }

  async write(note: string): Promise<void> {
    const body = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: this.#name, namespace: this.#namespace },
      data: { [KEY]: note },
    };
    const query = '?fieldManager=countersign-ledger&force=true';
    this.#fine(
      await this.#server.request('PATCH', `${this.#path}${query}`, body, 'application/apply-patch+yaml'),
      'written',
    );
  }

  #fine(answer: Answer, what: string): unknown {
    if (answer.status < 300) return answer.body;
    throw new CountersignError(
      'cluster-refused',
      `the ConfigMap ${this.#namespace}/${this.#name} cannot be ${what}: the API server answers ${answer.status}`,
      {
        recover: 'retry',
        hint: 'check that the service may get, create and patch it, and that its namespace exists',
      },
    );
  }
}
