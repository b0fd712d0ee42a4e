import { messageOf, type ObjectRef, type Told } from '../model/index.ts';
import type { ApiServer } from './api-server.ts';

const AT_ONCE = 10; // objects per incident that get an Event; a flood of Events fills etcd (Argo CD 10529)
const A_MINUTE = 60;
const WARNINGS = new Set(['drift', 'contested', 'failed', 'refused', 'break-glass']);

/** Writes Kubernetes Events on objects, for people who run `kubectl describe`. A few per minute; never the record. */
export class ObjectEvents {
  readonly #server: ApiServer;
  readonly #log: { warn(fields: object, message: string): void };
  #sent: number[] = [];
  #refused = false;

  constructor(server: ApiServer, log: { warn(fields: object, message: string): void }) {
    this.#server = server;
    this.#log = log;
  }

  tell({ event, message, revision, objects = [] }: Told): void {
    const now = performance.now();
    this.#sent = this.#sent.filter((t) => t > now - 60_000);
    for (const ref of objects.slice(0, AT_ONCE)) {
      if (this.#refused || this.#sent.length >= A_MINUTE) return;
      this.#sent.push(now);
      void this.#send(ref, event, `${message} (revision ${revision.slice(0, 12)})`, new Date().toISOString());
    }
  }

  async #send(ref: ObjectRef, event: string, note: string, at: string): Promise<void> {
    const namespace = ref.namespace === '' ? 'default' : ref.namespace;
    const body = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { generateName: 'countersign-', namespace },
      eventTime: at.replace('Z', '000Z'),
      reportingController: 'countersign.dev/countersign',
      reportingInstance: 'countersign',
      action: 'Reconcile',
      reason: reasonOf(event),
      type: WARNINGS.has(event) ? 'Warning' : 'Normal',
      regarding: {
        apiVersion: ref.apiVersion,
        kind: ref.kind,
        name: ref.name,
        ...(ref.namespace === '' ? {} : { namespace }),
      },
      note: note.slice(0, 1000),
    };
    const path = `/apis/events.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/events`;
    const answer = await this.#server.request('POST', path, body).catch((thrown: unknown) => messageOf(thrown));
    if (typeof answer === 'string' || answer.status < 400) return;
    this.#refused = answer.status === 403 || answer.status === 401;
    if (this.#refused)
      this.#log.warn({ status: answer.status }, 'cannot write Events on objects; grant `create` on events to get them');
  }
}

function reasonOf(event: string): string {
  return `${event.charAt(0).toUpperCase()}${event.slice(1).replaceAll(/-(\w)/g, (_, c: string) => c.toUpperCase())}`;
}
