import { Agent } from 'node:https';
import { setTimeout as wait } from 'node:timers/promises';
import { askAdmission } from './ask-admission.ts';

// Asks webhooks at steady rates (`PORT:RATE …`, requests a second) until its standard input ends, in a process of its
// own, so that what is measured is their time and not that of the bench. Says `ready` when connections and code are
// warm, and at the end writes the milliseconds that each answer since then took, a list for each.
const agent = new Agent({ keepAlive: true, maxSockets: 64, rejectUnauthorized: false });
const WARM_MS = 3000;
let isWarm = false;
let over = false;
process.stdin.resume().on('end', () => {
  over = true;
});
setTimeout(() => {
  isWarm = true;
  process.stdout.write('ready\n');
}, WARM_MS);
const targets = process.argv.slice(2).map((target) => target.split(':').map(Number) as [number, number]);
process.stdout.write(JSON.stringify(await Promise.all(targets.map(([port, rate]) => ask(port, rate)))));
agent.destroy();

async function ask(port: number, rate: number): Promise<number[]> {
  const times: number[] = [];
  const begun = performance.now();
  const pending = new Set<Promise<void>>();
  for (let i = 0; !over; i++) {
    const due = begun + (i * 1000) / rate;
    const early = due - performance.now();
    if (early > 1) await wait(early);
    const at = performance.now();
    const counts = isWarm;
    const one: Promise<void> = askAdmission(agent, port, review(i))
      .then(({ response }) => {
        if (!response.allowed) throw new Error(JSON.stringify(response).slice(0, 200));
        if (counts) times.push(performance.now() - at);
      })
      .finally(() => pending.delete(one));
    pending.add(one);
  }
  await Promise.all(pending);
  return times;
}

function review(i: number): string {
  const object = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: `c${i % 1000}`, namespace: 'team-a' },
    data: { text: 'x'.repeat(3000) },
  };
  return JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: `uid-${i}`,
      kind: { group: '', version: 'v1', kind: 'ConfigMap' },
      resource: { group: '', version: 'v1', resource: 'configmaps' },
      namespace: 'team-a',
      name: object.metadata.name,
      operation: 'CREATE',
      userInfo: { username: 'somebody', groups: ['system:authenticated'] },
      object,
    },
  });
}
