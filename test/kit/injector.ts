import { createServer } from 'node:https';
import { json } from 'node:stream/consumers';
import type { ApiServer } from '../../src/cluster/index.ts';
import { makeCertificates } from '../../src/webhook/certificates.ts';
import { freePorts } from './control-plane.ts';

type Json = Readonly<Record<string, unknown>>;
type Review = {
  readonly request: { readonly uid: string; readonly object: { readonly metadata: Json; readonly spec: Json } };
};

/** What it adds to each new pod. */
export type Injected = {
  readonly container: Json;
  readonly volume: Json;
  readonly annotations: Readonly<Record<string, string>>;
};

/**
 * Starts a sidecar injector, as meshes have one: a mutating webhook for the pods of one namespace. `adds` is asked for
 * each pod.
 */
export async function startInjector(
  admin: ApiServer,
  directory: string,
  namespace: string,
  adds: () => Injected,
): Promise<{ readonly stop: () => Promise<void> }> {
  const [port] = (await freePorts(1)) as [number];
  const { cert, key, ca } = await makeCertificates(directory, '127.0.0.1', new Date());
  const server = createServer({ cert, key }, async (request, response) => {
    const { uid, object } = ((await json(request)) as Review).request;
    const patch = Buffer.from(JSON.stringify(patchFor(object, adds()))).toString('base64');
    response.setHeader('content-type', 'application/json');
    response.end(
      JSON.stringify({
        apiVersion: 'admission.k8s.io/v1',
        kind: 'AdmissionReview',
        response: { uid, allowed: true, patchType: 'JSONPatch', patch },
      }),
    );
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  const at = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
  const name = `injector-${namespace}`;
  await admin.request('POST', at, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name },
    webhooks: [
      {
        name: 'injector.example.test',
        clientConfig: { url: `https://127.0.0.1:${port}/`, caBundle: Buffer.from(ca).toString('base64') },
        rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
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

function patchFor(pod: Review['request']['object'], { container, volume, annotations }: Injected): readonly Json[] {
  const { metadata, spec } = pod;
  const add = (path: string, value: unknown) => ({ op: 'add', path, value });
  return [
    add('/spec/containers/-', container),
    spec['volumes'] === undefined ? add('/spec/volumes', [volume]) : add('/spec/volumes/0', volume),
    add('/metadata/annotations', { ...(metadata['annotations'] as Json | undefined), ...annotations }),
  ];
}
