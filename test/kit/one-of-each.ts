const LABELS = { app: 'one-of-each' };
const POD = {
  metadata: { labels: LABELS },
  spec: { containers: [{ name: 'a', image: 'registry.example.test/a:1' }], nodeSelector: { nothing: 'here' } },
};
const SELECTOR = { matchLabels: LABELS };

/**
 * One valid object of each kind that Kubernetes stores in a namespace, without `metadata`, by group and plural. Nothing
 * starts because of them. Undefined: it cannot be made without the key of a pod.
 */
export const ONE_OF_EACH: Readonly<Record<string, Readonly<Record<string, unknown>> | undefined>> = {
  'apps/controllerrevisions': { revision: 1, data: {} },
  'apps/daemonsets': { spec: { selector: SELECTOR, template: POD } },
  'apps/deployments': { spec: { replicas: 0, selector: SELECTOR, template: POD } },
  'apps/replicasets': { spec: { replicas: 0, selector: SELECTOR, template: POD } },
  'apps/statefulsets': { spec: { replicas: 0, serviceName: 'a', selector: SELECTOR, template: POD } },
  'autoscaling/horizontalpodautoscalers': {
    spec: { maxReplicas: 1, scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'nothing' } },
  },
  'batch/cronjobs': {
    spec: { schedule: '0 0 1 1 *', suspend: true, jobTemplate: { spec: { template: ofJob() } } },
  },
  'batch/jobs': { spec: { suspend: true, template: ofJob() } },
  'certificates.k8s.io/podcertificaterequests': undefined,
  configmaps: {},
  'coordination.k8s.io/leases': { spec: {} },
  'discovery.k8s.io/endpointslices': { addressType: 'IPv4', endpoints: [] },
  endpoints: {},
  events: { involvedObject: { kind: 'Pod', namespace: 'resources', name: 'a' } },
  'events.k8s.io/events': {
    eventTime: '2026-01-01T00:00:00.000000Z',
    reportingController: 'example.test/a',
    reportingInstance: 'a',
    action: 'Wait',
    reason: 'Waiting',
    type: 'Normal',
    regarding: { kind: 'Pod', namespace: 'resources', name: 'a' },
  },
  limitranges: { spec: { limits: [] } },
  'networking.k8s.io/ingresses': { spec: { defaultBackend: { service: { name: 'a', port: { number: 80 } } } } },
  'networking.k8s.io/networkpolicies': { spec: { podSelector: {} } },
  persistentvolumeclaims: { spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } } },
  pods: { spec: POD.spec },
  podtemplates: { template: POD },
  'policy/poddisruptionbudgets': { spec: { minAvailable: 0, selector: SELECTOR } },
  'rbac.authorization.k8s.io/rolebindings': {
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'view' },
  },
  'rbac.authorization.k8s.io/roles': { rules: [] },
  replicationcontrollers: { spec: { replicas: 0, selector: LABELS, template: POD } },
  'resource.k8s.io/resourceclaims': { spec: {} },
  'resource.k8s.io/resourceclaimtemplates': { spec: { spec: {} } },
  resourcequotas: { spec: {} },
  secrets: {},
  serviceaccounts: {},
  services: { spec: { ports: [{ port: 80 }] } },
  'storage.k8s.io/csistoragecapacities': { storageClassName: 'a' },
};

function ofJob(): object {
  return { ...POD, spec: { ...POD.spec, restartPolicy: 'Never' } };
}
