import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { AwsClient } from 'aws4fetch';
import {
  addressText,
  below,
  CountersignError,
  hostText,
  httpAddress,
  type ReportDelivery,
  sha256,
} from '../model/index.ts';
import { readSecret, sendMail, signatureHeaders } from '../notify/index.ts';
import { askServer, type Limits, remoteCode } from '../outgoing/index.ts';
import type { Period } from './periods.ts';

/** A report to deliver: its identity, and the directory with its files. */
export type Issue = {
  readonly schedule: string;
  readonly period: Period;
  readonly version: number;
  readonly report: string;
  /** SHA-256 of `manifest.txt`. */
  readonly manifest: string;
  readonly directory: string;
};

/** Summary of a report for a cluster: its numbers, and the result of each control and each population check. */
export type ReportSummary = {
  readonly entity: string;
  readonly status: string;
  readonly summary: Readonly<Record<string, number>>;
  readonly controls: readonly {
    readonly id: string;
    readonly title: string;
    readonly tested: number;
    readonly passed: number;
    readonly undetermined: number;
    readonly exceptions: number;
    readonly dispositioned: number;
  }[];
  readonly reconciliation: readonly {
    readonly id: string;
    readonly check: string;
    readonly status: string;
    readonly unexplained: number;
  }[];
};
/** Writes a summary into a namespace under a name. */
export type ToCluster = (namespace: string, name: string, summary: ReportSummary) => Promise<void>;

type Kind = 'directory' | 's3' | 'email' | 'webhook' | 'cluster';
type Place<K extends Kind> = Extract<ReportDelivery, Readonly<Record<K, unknown>>>[K];

const LAST = 'manifest.txt'; // uploaded last: if it is there, so is everything else
const MAX_ATTACHED = 15 * 1024 * 1024; // the limit of most mail servers, in base64
const LIMITS: Limits = { bytes: 64 * 1024, quietMs: 30_000, totalMs: 10 * 60_000 }; // more than 100 MB over a slow line

/** Returns the kind of a destination. */
export function kindOf(place: ReportDelivery): Kind {
  return (['directory', 's3', 'email', 'webhook', 'cluster'] as const).find((kind) => kind in place) as Kind;
}

/**
 * Delivers a report to one destination; `toCluster` writes its summary into a cluster. Delivering twice has the same
 * result as once. Throws the reason if delivery fails; it contains no secrets.
 */
export async function deliver(
  place: ReportDelivery,
  issue: Issue,
  signal: AbortSignal,
  toCluster: ToCluster,
  limits: Limits = LIMITS,
): Promise<void> {
  if ('directory' in place) toDirectory(place.directory, issue);
  else if ('s3' in place) await toObjectStore(place.s3, issue, signal, limits);
  else if ('email' in place) await toMail(place.email, issue, signal);
  else if ('webhook' in place) await toWebhook(place.webhook, issue, signal, limits);
  else await toCluster(place.cluster.namespace, issue.schedule.replaceAll('/', '.'), readSummary(issue));
}

/** Returns a name that is unique among reports: `monthly-2026-10-v1`, or `team.monthly-…` for a namespace. */
function nameOf({ schedule, period, version }: Issue): string {
  return `${schedule.replaceAll('/', '.')}-${period.label}-v${version}`;
}

function toDirectory({ path }: Place<'directory'>, issue: Issue): void {
  const to = join(path, nameOf(issue));
  const complete = join(to, LAST);
  if (existsSync(complete) && sha256(readFileSync(complete)) === issue.manifest) return;
  mkdirSync(path, { recursive: true });
  rmSync(`${to}.new`, { recursive: true, force: true });
  try {
    cpSync(issue.directory, `${to}.new`, { recursive: true });
    rmSync(to, { recursive: true, force: true });
    renameSync(`${to}.new`, to);
  } finally {
    rmSync(`${to}.new`, { recursive: true, force: true });
  }
}

// Sends each file with its SHA-256, which the store compares; the manifest comes last (Amazon S3 API, PutObject;
// Signature Version 4).
async function toObjectStore(store: Place<'s3'>, issue: Issue, signal: AbortSignal, limits: Limits): Promise<void> {
  const { endpoint, region, bucket, prefix, accessKeyFile, secretKeyFile } = store;
  const credentials = { accessKeyId: readSecret(accessKeyFile), secretAccessKey: readSecret(secretKeyFile) };
  const client = new AwsClient({ ...credentials, service: 's3', region, retries: 0 });
  const at = httpAddress(endpoint);
  for (const file of filesOf(issue)) {
    const body = readFileSync(join(issue.directory, file));
    const digest = createHash('sha256').update(body).digest();
    const to = below(at, `/${bucket}/${prefix}${nameOf(issue)}/${encodeURIComponent(file)}`);
    const headers = {
      'content-type': typeOf(file),
      'x-amz-content-sha256': digest.toString('hex'),
      'x-amz-checksum-sha256': digest.toString('base64'),
    };
    const signed = await client.sign(addressText(to), { method: 'PUT', headers, body });
    const { status, body: answer } = await askServer(
      to,
      { method: 'PUT', headers: headersOf(signed), body, signal },
      limits,
    );
    if (!isGood(status))
      throw refused(hostText(at), status, remoteCode(/<Code>([^<]*)<\/Code>/.exec(answer.toString('utf8'))?.[1]));
  }
}

// Only the signed headers, without those the client library would add.
function headersOf({ headers }: Request): Record<string, string> {
  return Object.fromEntries([...headers].filter(([name]) => /^(authorization|content-type|x-amz-.*)$/.test(name)));
}

async function toMail({ attach, ...email }: Place<'email'>, issue: Issue, signal: AbortSignal): Promise<void> {
  const pdf = join(issue.directory, 'report.pdf');
  const size = statSync(pdf).size;
  const isAttached = attach && size <= MAX_ATTACHED;
  const left =
    attach && !isAttached ? [`The PDF has ${Math.ceil(size / 1024 / 1024)} MiB and is not attached.`, ''] : [];
  const name = nameOf(issue);
  const attachments = () => [
    { filename: `${name}.pdf`, content: readFileSync(pdf) },
    { filename: LAST, content: readFileSync(join(issue.directory, LAST)) },
  ];
  const mail = {
    subject: `[countersign] Change management evidence report ${name}`,
    text: [...summaryLines(issue), '', ...left, ...howToCheck(issue), ''].join('\n'),
    attachments: isAttached ? attachments() : [],
  };
  await sendMail(email, mail, signal);
}

function summaryLines(issue: Issue): string[] {
  const { summary, entity, status } = readSummary(issue);
  const { period, version, report } = issue;
  return [
    `${entity}: ${period.from.slice(0, 10)} to ${period.to.slice(0, 10)} (UTC, end not included)`,
    `Report ${report}, version ${version}, ${status}`,
    '',
    `Changes judged      ${summary['changes']}`,
    `  applied           ${summary['applied']}`,
    `  denied            ${summary['denied']}`,
    `Exceptions          ${summary['exceptions']}`,
    `  of them open      ${summary['open']}`,
    `Requests refused    ${summary['admissionsDenied']}`,
  ];
}

function howToCheck({ manifest }: Issue): string[] {
  return [
    `SHA-256 of manifest.txt, which names every file and is signed by the ledger's key:`,
    manifest,
    '',
    'With all files in one directory, `countersign verify report.pdf --key ledger.pub` checks them offline.',
  ];
}

// Signed like notifications.
async function toWebhook(
  { url, secretFile }: Place<'webhook'>,
  issue: Issue,
  signal: AbortSignal,
  limits: Limits,
): Promise<void> {
  const { schedule, period, version, report, manifest, directory } = issue;
  const files = filesOf(issue).map((name) => {
    const bytes = readFileSync(join(directory, name));
    return { name, sha256: sha256(bytes), bytes: bytes.length };
  });
  const { summary, status } = readSummary(issue);
  const { from, to, label } = period;
  const body = JSON.stringify({
    event: 'report',
    schedule,
    period: { label, from, to },
    version,
    report,
    status,
    manifest,
    summary,
    files,
  });
  const place = httpAddress(url, { query: true });
  const headers = { 'content-type': 'application/json', ...signatureHeaders(body, new Date(), readSecret(secretFile)) };
  const reply = await askServer(place, { method: 'POST', headers, body, signal }, limits);
  if (!isGood(reply.status)) throw refused(hostText(place), reply.status, undefined);
}

function isGood(status: number): boolean {
  return status >= 200 && status < 300;
}

function readSummary({ directory }: Issue): ReportSummary {
  const model = JSON.parse(readFileSync(join(directory, 'report.json'), 'utf8')) as ReportSummary;
  const { entity, status, summary, controls, reconciliation } = model;
  return { entity, status, summary, controls, reconciliation };
}

function filesOf({ directory }: Issue): readonly string[] {
  const all = readdirSync(directory).sort();
  return [...all.filter((f) => f !== LAST), LAST];
}

const TYPES: Readonly<Record<string, string>> = {
  pdf: 'application/pdf',
  json: 'application/json',
  jsonl: 'application/jsonl',
  csv: 'text/csv; charset=utf-8',
  xlsx: 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
  txt: 'text/plain; charset=utf-8',
};

function typeOf(file: string): string {
  return TYPES[basename(file).split('.').at(-1) ?? ''] ?? 'application/octet-stream';
}

function refused(host: string, status: number, code: string | undefined): CountersignError {
  return new CountersignError('forge-refused', `${host} answers ${status}${code === undefined ? '' : ` (${code})`}`, {
    recover: 'retry',
  });
}
