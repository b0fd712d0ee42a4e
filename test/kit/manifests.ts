/** Manifests of a small shop, as people write them. */
export function namespace(name: string): string {
  return `apiVersion: v1\nkind: Namespace\nmetadata:\n  name: ${name}\n`;
}

export function configMap(ns: string, name: string, data: Readonly<Record<string, string>>): string {
  return `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${name}\n  namespace: ${ns}\ndata:\n${Object.entries(data)
    .map(([k, v]) => `  ${k}: ${JSON.stringify(v)}\n`)
    .join('')}`;
}

/** Images whose pods run without being ready, and whose pods never start (`nodes.ts`). */
export const HELD = 'registry.example.test/shop/held:1.0.0';
export const BROKEN = 'registry.example.test/shop/broken:1.0.0';
/** An image whose pods end with an error. */
export const FAILING = 'registry.example.test/shop/failing:1.0.0';

export function job(ns: string, name: string, image = 'registry.example.test/shop/migrate:1.0.0'): string {
  return `apiVersion: batch/v1
kind: Job
metadata:
  name: ${name}
  namespace: ${ns}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: main
          image: ${image}
          resources: {limits: {cpu: 100m, memory: 64Mi}}
`;
}

export function deployment(
  ns: string,
  name: string,
  options: { replicas?: number; image?: string; privileged?: boolean; deadline?: number } = {},
): string {
  return `apiVersion: apps/v1
kind: Deployment
metadata:
  name: ${name}
  namespace: ${ns}
  labels:
    app: ${name}
    team: shop
spec:
  replicas: ${options.replicas ?? 2}
${options.deadline === undefined ? '' : `  progressDeadlineSeconds: ${options.deadline}\n`}  selector:
    matchLabels:
      app: ${name}
  template:
    metadata:
      labels:
        app: ${name}
    spec:
      containers:
        - name: ${name}
          image: ${options.image ?? 'registry.example.test/shop/web:1.0.0'}
${options.privileged === true ? '          securityContext:\n            privileged: true\n' : ''}          resources:
            limits:
              cpu: 1000m
              memory: 64Mi
          readinessProbe:
            httpGet:
              path: /ready
              port: 8080
`;
}

export function service(ns: string, name: string): string {
  return `apiVersion: v1\nkind: Service\nmetadata:\n  name: ${name}\n  namespace: ${ns}\nspec:\n  selector:\n    app: ${name}\n  ports:\n    - port: 80\n      targetPort: 8080\n`;
}
