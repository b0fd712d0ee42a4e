// The volume that the ServiceAccount plugin gives to pods (plugin/pkg/admission/serviceaccount).

/** Where it is mounted. */
export const TOKEN_PATH = '/var/run/secrets/kubernetes.io/serviceaccount';

/** The form of its name. */
export const TOKEN_VOLUME = /^kube-api-access-[a-z0-9]{5}$/;

/** Its source, `projected`. */
export const TOKEN_SOURCE = {
  defaultMode: 420,
  sources: [
    { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
    { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
    {
      downwardAPI: {
        items: [{ path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } }],
      },
    },
  ],
};
