import { createServer } from 'node:https';
import { join } from 'node:path';
import { registerWebhook } from '../cluster/index.ts';
import type { Configuration } from '../config/index.ts';
import { type AdmissionScope, AuditAccount, rememberedState } from '../gate/index.ts';
import { CountersignError, messageOf } from '../model/index.ts';
import { type AdmissionScopes, addAuditEndpoint, type Certificates, createWebhook, makeCertificates } from '../webhook/index.ts';
import { closeServer, listen, listenAddress } from './listen.ts';
import { readSecret } from './read-secret.ts';
import { type ClusterLink, linkOf, type Serving } from './serving.ts';

/** The admission webhook, and the API server's audit events beside it. */
export async function openWebhook(serving: Serving): Promise<void> {
  const { configuration, links, options, log, closing, metrics, trace } = serving;
  if (options.listen === 'off') {
    if (options.auditTokenFile !== undefined)
      throw new CountersignError('usage', 'audit events are taken where the webhook listens, and that is off', {
        hint: 'use --webhook HOST:PORT',
      });
    return log.warn({}, 'the admission webhook is off: only Countersign’s own writes are judged');
  }
  const { host, port } = listenAddress(options.listen);
  const url = options.webhookUrl ?? `https://${host}:${port}/validate`;
  const certificates = await makeCertificates(join(options.data, 'tls'), new URL(url).hostname.replace(/^\[|\]$/g, ''), new Date());
  const app = createWebhook(
    scopesOf(serving),
    () => true,
    log,
    (environment, operation, decision) => metrics.decided(environment, operation, decision),
    trace,
  );
  if (options.auditTokenFile !== undefined) takeAuditEvents(app, options.auditTokenFile, serving);
  const server = createServer({ cert: certificates.cert, key: certificates.key, minVersion: 'TLSv1.3' }, app);
  await listen(server, host, port);
  closing.push(() => closeServer(server));
  await registerAll(configuration, links, url, certificates);
  log.info({ url }, 'the admission webhook is in place');
}

const COVERED_EVERY_MS = 60_000;

// The API server's own audit log, as a second witness of what was written: what the ledger does not account for goes on it.
function takeAuditEvents(
  app: Parameters<typeof addAuditEndpoint>[0],
  tokenFile: string,
  { configuration, links, recorder, log, closing }: Serving,
): void {
  const scopes = configuration.environments.map((environment) => ({
    environment,
    applier: linkOf(links, environment.metadata.name).user,
  }));
  const account = new AuditAccount(scopes, recorder);
  const take = async (events: readonly unknown[]) => {
    for (const { environment, write } of await account.take(events))
      log.warn({ environment, write }, 'the API server’s audit log shows a write that nothing on the ledger accounts for');
  };
  addAuditEndpoint(
    app,
    readSecret(tokenFile, 'token', 'the API server is given the same in its audit webhook’s kubeconfig'),
    take,
    (message) => log.warn({}, message),
  );
  const settle = () =>
    account.settle().catch((thrown) => log.error({}, `what the audit log covers could not be recorded: ${messageOf(thrown)}`));
  const timer = setInterval(() => void settle(), COVERED_EVERY_MS);
  closing.push(async () => {
    clearInterval(timer);
    await settle();
  });
}

async function registerAll(
  configuration: Configuration,
  links: ReadonlyMap<string, ClusterLink>,
  url: string,
  certificates: Certificates,
): Promise<void> {
  for (const link of new Set(links.values())) {
    const governed = configuration.environments.filter((e) => e.spec.admission.mode !== 'off' && links.get(e.metadata.name) === link);
    const namespaces = governed.flatMap((e) => e.spec.target.namespaces);
    if (namespaces.length === 0) continue;
    refuseUnreachable(url, link.server.url);
    await registerWebhook(link.server, { url, caBundle: certificates.ca }, namespaces);
  }
}

// Registered all the same, it would close the governed namespaces: the API server would call itself and hear nothing.
function refuseUnreachable(webhook: string, apiServer: string): void {
  const isLoopback = (url: string) => /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(url).hostname);
  if (!isLoopback(webhook) || isLoopback(apiServer)) return;
  throw new CountersignError('usage', `the API server at \`${apiServer}\` cannot reach a webhook at \`${webhook}\``, {
    hint: 'use --webhook with an address of this machine that the cluster reaches, or --webhook-url; --webhook off runs without admission',
  });
}

function scopesOf({ configuration, links, recorder }: Serving): AdmissionScopes {
  const scopes = new Map<string, AdmissionScope>();
  for (const environment of configuration.environments) {
    const { user } = linkOf(links, environment.metadata.name);
    const scope: AdmissionScope = {
      environment,
      state: rememberedState(recorder, environment.metadata.name),
      applier: user,
      recorder,
      clock: () => new Date(),
    };
    for (const namespace of environment.spec.target.namespaces) scopes.set(namespace, scope);
  }
  return (namespace) => scopes.get(namespace);
}
