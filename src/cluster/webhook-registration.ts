import {
  ANNOTATION,
  CountersignError,
  FIELD_MANAGER,
  type KubernetesObject,
  messageOf,
  type ObjectRef,
  objectDigest,
  policyNames,
} from '../model/index.ts';
import type { ApiServer } from './api-server.ts';
import { lastWriter } from './fields.ts';
import { KindFollow, TIMES } from './kind-follow.ts';
import { objectIn } from './read-answer.ts';
import { MANAGED, protectingPolicies, type WebhookPlan, webhookConfiguration } from './webhook-objects.ts';

/**
 * Someone changed or removed an object that registers or protects the gate. It is already restored when this is
 * reported.
 */
export type Tampering = {
  readonly object: ObjectRef;
  readonly change: 'changed' | 'removed';
  readonly manager: string;
};

type Log = { warn(fields: object, message: string): void; error(fields: object, message: string): void };

const API = '/apis/admissionregistration.k8s.io/v1';
const PLURALS: Readonly<Record<string, string>> = {
  ValidatingWebhookConfiguration: 'validatingwebhookconfigurations',
  ValidatingAdmissionPolicy: 'validatingadmissionpolicies',
  ValidatingAdmissionPolicyBinding: 'validatingadmissionpolicybindings',
};
const AGAIN_MS = 60_000; // during an update, replicas of two versions would overwrite each other: at most this often

/** Registers the webhook in one cluster, with the policies that protect it, watches those objects and restores them. */
export class WebhookRegistration {
  readonly #server: ApiServer;
  readonly #log: Log;
  readonly #tampered: (what: Tampering) => void;
  readonly #stopped = new AbortController();
  #plan: WebhookPlan;
  readonly #put = new Map<string, { digest: string; restored: number }>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(server: ApiServer, plan: WebhookPlan, log: Log, tampered: (what: Tampering) => void) {
    this.#server = server;
    this.#plan = plan;
    this.#log = log;
    this.#tampered = tampered;
  }

  /** Writes all objects. Throws `cluster-forbidden`; if only the policies fail, that is logged. */
  async put(plan: WebhookPlan = this.#plan): Promise<void> {
    this.#plan = plan;
    await this.#queue(async () => {
      await this.#apply(webhookConfiguration(plan, await this.#authority()));
      for (const object of protectingPolicies(plan))
        await this.#apply(object).catch((thrown) =>
          this.#log.warn({}, `the gate’s own objects are not protected while it is unavailable: ${messageOf(thrown)}`),
        );
      if (!plan.isProtected) await this.#unprotect();
    });
  }

  /** Watches the objects until closed. */
  async follow(): Promise<void> {
    for (const [kind, plural] of Object.entries(PLURALS)) {
      const names = new Set<string>();
      const sink = {
        put: (object: KubernetesObject) => {
          names.add(object.metadata.name);
          this.#look(kind, object);
        },
        drop: (place: string) => {
          const name = place.slice(1);
          names.delete(name);
          this.#gone(kind, name);
        },
        places: () => [...names].map((name) => `/${name}`),
        listed: () => {},
      };
      const labelSelector = Object.entries(MANAGED)
        .map((pair) => pair.join('='))
        .join(',');
      const follow = new KindFollow(
        this.#server,
        { apiVersion: 'admissionregistration.k8s.io/v1', kind, plural, namespaced: false },
        { namespace: '', labelSelector },
        TIMES,
        this.#stopped.signal,
        this.#log,
        sink,
      );
      await follow.begin().catch((thrown) => this.#log.warn({ kind }, `is not watched: ${messageOf(thrown)}`));
    }
  }

  close(): void {
    this.#stopped.abort();
  }

  #look(kind: string, object: KubernetesObject): void {
    const put = this.#put.get(`${kind}/${object.metadata.name}`);
    if (put === undefined || put.digest === objectDigest(object)) return;
    const manager = lastWriter(object, FIELD_MANAGER)?.manager ?? FIELD_MANAGER;
    const restore = () => this.#restore(kind, object.metadata.name, 'changed', manager);
    // A writer with our name may be a replica of another version: the two would overwrite each other endlessly.
    const since = performance.now() - put.restored;
    if (manager !== FIELD_MANAGER || since > AGAIN_MS) restore();
    else setTimeout(() => !this.#stopped.signal.aborted && restore(), AGAIN_MS - since).unref();
  }

  #gone(kind: string, name: string): void {
    if (this.#put.has(`${kind}/${name}`)) this.#restore(kind, name, 'removed', '');
  }

  #restore(kind: string, name: string, change: Tampering['change'], manager: string): void {
    const key = `${kind}/${name}`;
    void this.#queue(async () => {
      if (this.#stopped.signal.aborted || !this.#put.has(key)) return;
      const before = await this.#digestNow(kind, name);
      // the reported change is already undone
      if (before !== undefined && before === this.#put.get(key)?.digest) return;
      const wanted =
        kind === 'ValidatingWebhookConfiguration'
          ? [webhookConfiguration(this.#plan, await this.#authority())]
          : protectingPolicies(this.#plan);
      const object = wanted.find(
        (o) => (o as KubernetesObject).kind === kind && (o as KubernetesObject).metadata.name === name,
      );
      if (object === undefined) return;
      await this.#apply(object, performance.now());
      if (this.#put.get(key)?.digest === before) return; // it contains the authority of another replica
      const ref = { apiVersion: 'admissionregistration.k8s.io/v1', kind, namespace: '', name };
      this.#log.warn(
        { object: ref, change, ...(manager === '' ? {} : { by: manager }) },
        'someone changed an object that keeps the gate in place; restored it',
      );
      this.#tampered({ object: ref, change, manager });
    }).catch((thrown) =>
      this.#log.error(
        { kind, name, change },
        `cannot restore an object that keeps the gate in place: ${messageOf(thrown)}`,
      ),
    );
  }

  async #digestNow(kind: string, name: string): Promise<string | undefined> {
    const { status, body } = await this.#server.request('GET', `${API}/${PLURALS[kind]}/${name}`);
    return status === 200 ? objectDigest(objectIn({ status, body })) : undefined;
  }

  // Replaced as a whole: with a field-wise apply, a condition or selector added by someone else would stay and let
  // requests bypass the gate.
  async #apply(object: object, restored = Number.NEGATIVE_INFINITY): Promise<void> {
    const { kind, metadata } = object as KubernetesObject;
    const path = `${API}/${PLURALS[kind]}`;
    for (let attempt = 1; ; attempt++) {
      const there = await this.#server.request('GET', `${path}/${metadata.name}`);
      const { resourceVersion } = (there.body['metadata'] ?? {}) as { resourceVersion?: string };
      const { status, body } =
        there.status === 404
          ? await this.#server.request('POST', `${path}?fieldManager=${FIELD_MANAGER}`, object)
          : await this.#server.request('PUT', `${path}/${metadata.name}?fieldManager=${FIELD_MANAGER}`, {
              ...object,
              metadata: { ...metadata, resourceVersion },
            });
      if (status === 409 && attempt < ATTEMPTS) continue;
      if (status >= 300)
        throw new CountersignError(
          'cluster-forbidden',
          `cannot register the admission webhook (${kind}): ${String(body['message'] ?? status)}`,
          {
            hint:
              'grant `get`, `list`, `watch`, ' +
              `\`create\` and \`update\` on ${PLURALS[kind]}, or start with --webhook off`,
          },
        );
      this.#put.set(`${kind}/${metadata.name}`, {
        digest: objectDigest(objectIn({ status, body })),
        restored,
      });
      return;
    }
  }

  // Removes the protection if it is no longer wanted.
  async #unprotect(): Promise<void> {
    for (const name of policyNames(this.#plan.name))
      for (const kind of ['ValidatingAdmissionPolicyBinding', 'ValidatingAdmissionPolicy']) {
        const path = `${API}/${PLURALS[kind]}/${name}`;
        const { status, body } = await this.#server.request('GET', path);
        if (
          status === 200 &&
          objectIn({ status, body }).metadata.annotations?.[ANNOTATION.ledger] === this.#plan.ledger
        )
          await this.#server.request('DELETE', path);
      }
  }

  async #authority(): Promise<string> {
    const { status, body } = await this.#server.request(
      'GET',
      `${API}/validatingwebhookconfigurations/${this.#plan.name}`,
    );
    if (status !== 200) return '';
    const bundles = ((body as { webhooks?: { clientConfig?: { caBundle?: string } }[] }).webhooks ?? []).map(
      (w) => w.clientConfig?.caBundle ?? '',
    );
    return [...new Set(bundles)].map((b) => Buffer.from(b, 'base64').toString('utf8')).join('\n');
  }

  #queue(task: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(task, task);
    this.#turn = done.catch(() => {});
    return done;
  }
}

const ATTEMPTS = 5;
