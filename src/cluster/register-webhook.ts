import { CountersignError } from '../model/index.ts';
import type { ApiServer } from './api-server.ts';

/** Where the API server finds the webhook, and the CA it trusts it by (PEM). */
export type WebhookAddress = { readonly url: string; readonly caBundle: string };

const PATH = '/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/countersign';

/**
 * Puts the webhook into the path of writes to the governed namespaces. Everything else stays out of it: kube-system,
 * our own namespace, leases and events, so that a gate that is down blocks neither the cluster nor its own repair.
 */
export async function registerWebhook(server: ApiServer, address: WebhookAddress, namespaces: readonly string[]): Promise<void> {
  const operations = ['CREATE', 'UPDATE', 'DELETE'];
  const configuration = {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'ValidatingWebhookConfiguration',
    metadata: { name: 'countersign' },
    webhooks: [
      {
        name: 'gate.countersign.dev',
        admissionReviewVersions: ['v1'],
        clientConfig: { url: address.url, caBundle: Buffer.from(address.caBundle).toString('base64') },
        sideEffects: 'NoneOnDryRun',
        failurePolicy: 'Fail',
        timeoutSeconds: 5,
        matchPolicy: 'Equivalent',
        namespaceSelector: { matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'In', values: [...namespaces].sort() }] },
        rules: [
          {
            operations,
            apiGroups: ['*'],
            apiVersions: ['*'],
            resources: ['*', '*/scale', 'pods/ephemeralcontainers'],
            scope: 'Namespaced',
          },
          { operations, apiGroups: [''], apiVersions: ['*'], resources: ['namespaces'], scope: 'Cluster' },
        ],
        matchConditions: [
          { name: 'not-leases', expression: '!(request.resource.group == "coordination.k8s.io" && request.resource.resource == "leases")' },
          { name: 'not-events', expression: 'request.resource.resource != "events"' },
        ],
      },
    ],
  };
  const answer = await server.request(
    'PATCH',
    `${PATH}?fieldManager=countersign&force=true`,
    configuration,
    'application/apply-patch+yaml',
  );
  if (answer.status >= 300) {
    throw new CountersignError(
      'cluster-forbidden',
      `cannot register the admission webhook: ${String(answer.body['message'] ?? answer.status)}`,
      {
        hint: 'grant `create`, `patch` on validatingwebhookconfigurations, or start with --webhook off',
      },
    );
  }
}
