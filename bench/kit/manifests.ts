import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Writes manifests as fleets have them, 1 to 3 kB each, some of them with faults; the same number gives the same files.
 */
export function writeManifests(directory: string, count: number): void {
  mkdirSync(directory, { recursive: true });
  for (let i = 0; i < count; i++)
    writeFileSync(join(directory, `app-${String(i).padStart(5, '0')}.yaml`), i % 5 === 4 ? service(i) : workload(i));
}

function workload(i: number): string {
  const kind = ['Deployment', 'StatefulSet', 'DaemonSet', 'Deployment'][i % 4];
  const container = (n: number) => `        - name: app-${n}
          image: ${i % 7 === 0 ? 'docker.io' : 'registry.example.com'}/team-${i % 13}/app-${n}:${i % 11 === 0 ? 'latest' : `1.${i % 40}.${n}`}
          args: ["--listen", ":8080", "--log-level", "info", "--shard", "${i}"]
          ports:
            - name: http
              containerPort: 8080
          env:
            - name: LOG_FORMAT
              value: json
            - name: REGION
              value: eu-${i % 3}
          resources:
            requests: {cpu: 100m, memory: 128Mi}
${i % 9 === 0 ? '' : '            limits: {cpu: 500m, memory: 256Mi}\n'}          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: ${i % 6 !== 0}
${i % 50 === 0 ? '            privileged: true\n' : ''}            capabilities:
              drop: ["ALL"]
          readinessProbe:
            httpGet: {path: /ready, port: http}
            periodSeconds: 5
`;
  return `apiVersion: apps/v1
kind: ${kind}
metadata:
  name: app-${i}
  namespace: team-${i % 13}
  labels:
    app: app-${i}
${i % 8 === 0 ? '' : `    team: team-${i % 13}\n`}spec:
${kind === 'DaemonSet' ? '' : `  replicas: ${1 + (i % 4)}\n`}  selector:
    matchLabels:
      app: app-${i}
  template:
    metadata:
      labels:
        app: app-${i}
        team: team-${i % 13}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "8080"
    spec:
      serviceAccountName: app-${i}
      securityContext:
        runAsNonRoot: ${i % 10 !== 0}
        seccompProfile: {type: RuntimeDefault}
${i % 25 === 0 ? '      hostNetwork: true\n' : ''}      containers:
${container(0)}${i % 3 === 0 ? container(1) : ''}      volumes:
        - name: tmp
          emptyDir: {}
${i % 40 === 0 ? '        - name: host\n          hostPath: {path: /var/log}\n' : ''}`;
}

function service(i: number): string {
  return `apiVersion: v1
kind: Service
metadata:
  name: app-${i}
  namespace: team-${i % 13}
  labels:
    app: app-${i}
    team: team-${i % 13}
spec:
  type: ${i % 15 === 4 ? 'LoadBalancer' : 'ClusterIP'}
  selector:
    app: app-${i}
  ports:
    - name: http
      port: 80
      targetPort: http
`;
}
