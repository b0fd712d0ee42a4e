/** The AdmissionReview of a Pod that a developer creates, as the API server sends it. */
export function podReview(i: number, namespace: string, privileged: boolean): string {
  const spec = {
    containers: [
      {
        name: 'c',
        image: 'registry.example.com/c:1',
        resources: { limits: { memory: '64Mi', cpu: '1' } },
        securityContext: {
          privileged,
          runAsNonRoot: true,
          allowPrivilegeEscalation: false,
          capabilities: { drop: ['ALL'] },
          readOnlyRootFilesystem: true,
        },
      },
    ],
  };
  const metadata = { name: `p-${i % 100}`, namespace, labels: { app: 'web' } };
  return JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: `uid-${i}`,
      operation: 'CREATE',
      namespace,
      name: metadata.name,
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      userInfo: { username: 'dev', groups: ['developers'] },
      object: { apiVersion: 'v1', kind: 'Pod', metadata, spec },
    },
  });
}
