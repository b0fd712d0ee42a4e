import {
  below,
  CountersignError,
  type HttpAddress,
  httpAddress,
  type Notifier,
  parseHttpAddress,
  projectParts,
  type Told,
} from '../model/index.ts';
import { signatureHeaders } from './secret.ts';

/** An HTTP request that delivers one event. */
export type Outgoing = {
  readonly to: HttpAddress;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
};

type To = Notifier['spec']['to'];
/** Reads a secret when it is used, so that it can be rotated. */
export type Secrets = (file: string) => string;

const BAD = new Set([
  'failed',
  'refused',
  'denied',
  'contested',
  'drift',
  'trouble',
  'rewritten',
  'stale',
  'break-glass',
]);
const SHOWN = 500;

/**
 * Fills a template: `{environment}`, `{event}`, `{revision}`, `{short}`, `{message}` and `{at}` are replaced by the
 * event's values.
 */
export function sentence(happened: Told, template = '{environment}: {event} {short}: {message}'): string {
  const values: Readonly<Record<string, string>> = {
    environment: happened.environment,
    event: happened.event,
    revision: happened.revision,
    short: happened.revision.slice(0, 12),
    message: plainText(happened.message),
    at: happened.at,
  };
  return template.replaceAll(/\{(\w+)\}/g, (whole, name: string) =>
    Object.hasOwn(values, name) ? (values[name] as string) : whole,
  );
}

/** Returns the request for an HTTP target; undefined if the target has nothing to say about the event. */
export function request(
  to: Exclude<To, { email: unknown } | { deployment: unknown }>,
  happened: Told,
  template: string | undefined,
  secret: Secrets,
): Outgoing | undefined {
  const text = sentence(happened, template);
  const json = { 'content-type': 'application/json' };
  if ('slack' in to)
    return {
      to: addressIn(to.slack.urlFile, secret),
      headers: json,
      body: JSON.stringify({ text: escapeSlack(text) }),
    };
  if ('teams' in to) {
    const content = {
      type: 'AdaptiveCard',
      version: '1.4',
      body: [{ type: 'TextBlock', text: escapeMarkdown(text), wrap: true }],
    };
    const attachments = [{ contentType: 'application/vnd.microsoft.card.adaptive', content }];
    return {
      to: addressIn(to.teams.urlFile, secret),
      headers: json,
      body: JSON.stringify({ type: 'message', attachments }),
    };
  }
  if ('webhook' in to) {
    const body = JSON.stringify({ ...happened, text });
    const signed = signatureHeaders(body, new Date(happened.at), secret(to.webhook.secretFile));
    return { to: httpAddress(to.webhook.url, { query: true }), headers: { ...json, ...signed }, body };
  }
  if ('alertmanager' in to) return alert(to.alertmanager.url, happened, text);
  return commitStatus(to.commitStatus, happened, secret);
}

// An alert is active while the environment differs from Git; a successful apply or rollback resolves it.
function alert(url: string, happened: Told, text: string): Outgoing | undefined {
  const ends = ['applied', 'corrected', 'restored', 'rolled-back'].includes(happened.event);
  if (!ends && !BAD.has(happened.event)) return undefined;
  const one = (event: string) => ({
    labels: {
      alertname: 'Countersign',
      environment: happened.environment,
      event,
      severity: event === 'drift' ? 'warning' : 'critical',
    },
    annotations: { summary: text },
    ...(ends ? { endsAt: happened.at } : { startsAt: happened.at }),
  });
  const body = JSON.stringify(ends ? [...BAD].map(one) : [one(happened.event)]);
  return { to: below(httpAddress(url), '/api/v2/alerts'), headers: { 'content-type': 'application/json' }, body };
}

// Such an address is a secret: a message names the problem but quotes nothing.
function addressIn(file: string, secret: Secrets): HttpAddress {
  const parsed = parseHttpAddress(secret(file), { query: true });
  if (parsed.kind === 'parsed') return parsed.value;
  throw new CountersignError('config-invalid', `the file \`${file}\` does not contain an address: ${parsed.why}`);
}

type CommitStatus = Extract<To, { commitStatus: unknown }>['commitStatus'];

/** Commit states by event; other events set none. */
export const STATES: Readonly<Record<string, 'pending' | 'success' | 'failure'>> = {
  applying: 'pending',
  blocked: 'pending',
  applied: 'success',
  denied: 'failure',
  refused: 'failure',
  failed: 'failure',
};

function commitStatus(
  { forge, apiUrl, repository, tokenFile }: CommitStatus,
  happened: Told,
  secret: Secrets,
): Outgoing | undefined {
  const state = STATES[happened.event];
  if (state === undefined || !/^[0-9a-f]{40,64}$/.test(happened.revision) || /^0+$/.test(happened.revision))
    return undefined;
  const context = `countersign/${happened.environment}`;
  const description = plainText(happened.message).slice(0, 140);
  const token = secret(tokenFile);
  const base = httpAddress(apiUrl);
  const json = { 'content-type': 'application/json' };
  if (forge === 'gitlab')
    return {
      to: below(base, `/projects/${projectParts(repository).join('%2F')}/statuses/${happened.revision}`),
      headers: { ...json, 'private-token': token },
      body: JSON.stringify({ state: state === 'failure' ? 'failed' : state, name: context, description }),
    };
  return {
    to: below(base, `/repos/${projectParts(repository).join('/')}/statuses/${happened.revision}`),
    headers: { ...json, authorization: `${forge === 'gitea' ? 'token' : 'Bearer'} ${token}` },
    body: JSON.stringify({ state, context, description }),
  };
}

/** Returns one line without control characters, at a readable length. */
export function plainText(text: string): string {
  return text
    .replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ')
    .trim()
    .slice(0, SHOWN);
}

function escapeSlack(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function escapeMarkdown(text: string): string {
  return text.replaceAll(/([\\`*_[\]<>#])/g, '\\$1');
}
