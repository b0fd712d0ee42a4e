import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import express from 'express';
import pino from 'pino';
import { readBundle } from '../../src/bundle/index.ts';
import { readProcessSettings } from '../../src/config/index.ts';
import { AdmissionRecords, BreakGlass } from '../../src/gate/index.ts';
import { openLedger, openSeal, WriteAhead } from '../../src/ledger/index.ts';
import { environmentSchema } from '../../src/model/index.ts';
import { recorderOf } from '../../src/open/read-ledger.ts';
import { PolicyPool } from '../../src/policy/index.ts';
import { AdmissionFront } from '../../src/serve/admission-front.ts';
import { environmentDocument } from '../../test/kit/documents.ts';

// One server of the benchmark in a process of its own: `bare` only parses and answers, `ours` decides by the rules of a
// bundle.
const [kind, port, tls, bundleFile, data, threads = '2'] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
  string?,
];
if (kind === 'bare') {
  const app = express();
  app.disable('x-powered-by');
  app.post('/validate', express.json({ limit: '8mb', type: () => true }), (request, response) => {
    const { uid } = (request.body as { request: { uid: string } }).request;
    response.json({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: { uid, allowed: true } });
  });
  const read = (name: string) => readFileSync(join(tls, name), 'utf8');
  createServer({ cert: read('tls.crt'), key: read('tls.key'), minVersion: 'TLSv1.3' }, app).listen(
    Number(port),
    '127.0.0.1',
    ready,
  );
} else {
  const bundle = await readBundle(readFileSync(bundleFile), 'ten rules');
  const pool = new PolicyPool([bundle]);
  const ledger = await openLedger(data, 'bench');
  const clock = () => new Date();
  const ahead = new WriteAhead(join(data, 'write-ahead.jsonl'), recorderOf(ledger), {
    seal: openSeal(data, 'bench', undefined, console.error),
    warn: console.error,
    clock,
  });
  const recorder = {
    ...recorderOf(ledger),
    record: ahead.record.bind(ahead),
    recordSurely: ahead.recordSurely.bind(ahead),
    subject: ahead.subject.bind(ahead),
  };
  const environment = environmentSchema.parse(
    environmentDocument({
      url: 'https://git.example.com/fleet',
      namespaces: ['shop'],
      admission: { policy: { namespaces: ['team-*'] } },
    }),
  );
  const load = async () => ({ pool, waivers: [], images: { digest: '', of: new Map() }, bundle: bundle.digest });
  const log = pino({ level: 'warn' });
  const options = { listen: `127.0.0.1:${port}`, webhookTls: tls, webhookThreads: threads, data };
  const front = (await AdmissionFront.open(options, readProcessSettings({}), log)) as AdmissionFront;
  const scope = {
    environment,
    applier: 'countersign',
    records: new AdmissionRecords(environment.metadata.name, recorder, clock),
    breakGlass: new BreakGlass(environment, recorder, clock, {
      reasonIn: async () => ({ reason: undefined, approved: undefined }),
      ended: () => {},
    }),
    facts: { owner: async () => undefined, labelsOf: async () => ({ team: 'a' }) },
    isShared: false,
    prove: async () => ({ kind: 'proven' as const }),
    loadRules: load,
  };
  await front.decideBy([scope], ledger);
  ready();
}

function ready(): void {
  process.stdout.write('ready\n');
}

process.on('SIGTERM', () => process.exit(0));
