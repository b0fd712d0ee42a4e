import { createServer } from 'node:https';
import { json } from 'node:stream/consumers';
import type { ApiServer } from '../../src/cluster/index.ts';
import type { KubernetesObject } from '../../src/model/index.ts';
import { makeCertificates } from '../../src/webhook/certificates.ts';
import { freePorts } from './control-plane.ts';

type Json = Readonly<Record<string, unknown>>;
type Review = {
  readonly request: { readonly uid: string; readonly object: KubernetesObject; readonly dryRun: boolean };
};

/** What it adds to each new pod. */
export type Injected = {
  readonly container: Json;
  readonly volume: Json;
  readonly annotations: Readonly<Record<string, string>>;
};

/** A mutating webhook: for which requests of one namespace it is asked, and the JSON patch it gives to each object. */
export type Mutator = {
  readonly name: string;
  readonly namespace: string;
  readonly rule: {
    readonly apiGroups: readonly string[];
    readonly resources: readonly string[];
    readonly operations: readonly string[];
  };
  readonly patch: (object: KubernetesObject, isDryRun: boolean) => readonly Json[];
  readonly warnings?: readonly string[];
};

/**
 * Starts a sidecar injector, as meshes have one: a mutating webhook for the pods of one namespace. `adds` is asked for
 * each pod.
 */
export function startInjector(
  admin: ApiServer,
  directory: string,
  namespace: string,
  adds: () => Injected,
): Promise<{ readonly stop: () => Promise<void> }> {
  return startMutator(admin, directory, {
    name: `injector-${namespace}`,
    namespace,
    rule: { apiGroups: [''], operations: ['CREATE'], resources: ['pods'] },
    patch: (pod) => patchFor(pod, adds()),
  });
}

/** Starts a mutating webhook and registers it under its name. */
export async function startMutator(
  admin: ApiServer,
  directory: string,
  { name, namespace, rule, patch, warnings = [] }: Mutator,
): Promise<{ readonly stop: () => Promise<void> }> {
  const [port] = (await freePorts(1)) as [number];
  const { cert, key, ca } = await makeCertificates(directory, '127.0.0.1', new Date());
  const server = createServer({ cert, key }, async (request, response) => {
    const { uid, object, dryRun } = ((await json(request)) as Review).request;
    response.setHeader('content-type', 'application/json');
    response.end(
      JSON.stringify({
        apiVersion: 'admission.k8s.io/v1',
        kind: 'AdmissionReview',
        response: {
          uid,
          allowed: true,
          warnings,
          patchType: 'JSONPatch',
          patch: Buffer.from(JSON.stringify(patch(object, dryRun))).toString('base64'),
        },
      }),
    );
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const at = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
  await admin.request('POST', at, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name },
    webhooks: [
      {
        name: 'injector.example.test',
        clientConfig: { url: `https://127.0.0.1:${port}/`, caBundle: Buffer.from(ca).toString('base64') },
        rules: [{ ...rule, apiVersions: ['v1'] }],
        namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } },
        sideEffects: 'None',
        admissionReviewVersions: ['v1'],
        timeoutSeconds: 30,
      },
    ],
  });
  return {
    stop: async () => {
      await admin.request('DELETE', `${at}/${name}`);
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function patchFor(pod: KubernetesObject, { container, volume, annotations }: Injected): readonly Json[] {
  const { metadata } = pod;
  const spec = pod['spec'] as Json;
  const add = (path: string, value: unknown) => ({ op: 'add', path, value });
  return [
    add('/spec/containers/-', container),
    spec['volumes'] === undefined ? add('/spec/volumes', [volume]) : add('/spec/volumes/0', volume),
    add('/metadata/annotations', { ...metadata.annotations, ...annotations }),
  ];
}
