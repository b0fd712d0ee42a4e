import { type Cluster, type Tampering, type WebhookPlan, WebhookRegistration } from '../cluster/index.ts';
import {
  AdmissionRecords,
  AuditAccount,
  BreakGlass,
  ContentAccount,
  type EnvironmentState,
  type LiveReason,
  proveContent,
  proveMachinery,
  RulesInForce,
  rememberedState,
  rulesOf,
} from '../gate/index.ts';
import { CONTROL_PLANE, type MachineryFacts } from '../machinery/index.ts';
import {
  ANNOTATION,
  CountersignError,
  isOwnBinding,
  messageOf,
  parseDuration,
  Recent,
  within,
} from '../model/index.ts';
import type { Reconciler } from '../reconcile/index.ts';
import type { AdmissionFront, ServedScope } from './admission-front.ts';
import { type OpenGate, teller } from './loops.ts';
import { type ClusterLink, ledgerId, linkOf, type Serving } from './open-serving.ts';
import type { ServeOptions } from './options.ts';
import { keepRescanning } from './rescan.ts';
import { RulesAtHand } from './rules-at-hand.ts';

/** Puts these environments behind the webhook: decisions, registration with the API server, and audit events. */
export async function openAdmission(
  serving: Serving<ServeOptions>,
  front: AdmissionFront | undefined,
  gates: readonly OpenGate[],
  clusters: ReadonlyMap<ClusterLink, Cluster>,
  loops: readonly Pick<Reconciler, 'name' | 'status' | 'stir'>[],
): Promise<void> {
  if (front === undefined) return;
  const { log, closing, metrics, links, ledger } = serving;
  const isHere = (name: string) => loops.some((l) => l.name === name && l.status.state !== 'standby');
  const stir = (name: string) => loops.find((l) => l.name === name)?.stir();
  const lineages = await followLineages(serving, gates, clusters);
  const scopes = gates.map((open) => {
    const link = linkOf(links, open.environment.metadata.name);
    const here = () => isHere(open.environment.metadata.name);
    return scopeOf(serving, open, clusters.get(link) as Cluster, lineages.get(link) as MachineryFacts, stir, here);
  });
  await keepRules(serving, front, scopes);
  front.metrics = metrics;
  front.demand.ours = new Set([...links.values()].map((l) => l.user));
  await front.decideBy(scopes, ledger);
  front.grants = (name) => scopes.find((s) => s.environment.metadata.name === name)?.breakGlass.open() ?? [];
  closing.push(async () => {
    await front.decideBy(undefined);
    front.grants = undefined;
    front.rules = () => undefined;
    for (const scope of scopes) await scope.records.close();
  });
  if (serving.options.auditTokenFile !== undefined) takeAuditEvents(front, serving);
  await registerAll(serving, front);
  rescanAll(serving, scopes, isHere);
  confirmGrants(serving, scopes, isHere);
  log.info('url' in front.place ? { url: front.place.url } : front.place, 'the admission webhook is in place');
}

// Follows the objects from which controllers make others, to compare the two.
async function followLineages(
  { links, log, closing }: Serving,
  gates: readonly OpenGate[],
  clusters: ReadonlyMap<ClusterLink, Cluster>,
): Promise<ReadonlyMap<ClusterLink, MachineryFacts>> {
  const byLink = Map.groupBy(
    gates.map((g) => g.environment),
    (e) => linkOf(links, e.metadata.name),
  );
  const opened = [...byLink].map(([link, environments]) => {
    const governed = environments.filter((e) => e.spec.admission.mode !== 'off');
    const namespaces = governed.flatMap((e) => e.spec.target.namespaces);
    return { link, lineage: (clusters.get(link) as Cluster).lineage(namespaces, log), isNeeded: governed.length > 0 };
  });
  for (const { lineage } of opened) closing.push(() => lineage.close());
  await Promise.all(opened.map(({ lineage, isNeeded }) => (isNeeded ? lineage.follow() : undefined)));
  return new Map(opened.map(({ link, lineage }) => [link, lineage]));
}

type Scope = ServedScope & {
  readonly state: () => EnvironmentState;
  readonly content: ConstructorParameters<typeof ContentAccount>[2];
  /** Names what is approved now. */
  readonly basis: () => string;
  readonly wasProven: (uid: string) => boolean;
  readonly rules: RulesAtHand;
};

function scopeOf(
  { recorder, log, metrics, notifications, signing, clock: witness }: Serving,
  { environment, gate, look }: OpenGate,
  cluster: Cluster,
  lineage: MachineryFacts,
  stir: (environment: string) => void,
  isHere: () => boolean,
): Scope {
  const name = environment.metadata.name;
  const clock = () => witness.now();
  const state = rememberedState(recorder, name);
  const proven = new Recent<true>(5000); // by uid
  const live = { reasonIn: (namespace: string) => reasonIn(cluster, namespace), ended: () => stir(name) };
  const breakGlass = new BreakGlass(environment, recorder, clock, live, teller(metrics, notifications, cluster));
  const rules = new RulesAtHand({ environment, look, state, load: rulesOf(gate), isHere, log });
  return {
    environment,
    state,
    applier: cluster.user,
    // Without a database, one service records.
    isShared: signing === undefined,
    records: new AdmissionRecords(name, recorder, clock, log),
    breakGlass,
    facts: cluster,
    prove: async (request) => {
      const proof = await proveMachinery(request, lineage, environment, state(), breakGlass.templates());
      const uid = request.object?.metadata['uid'];
      const isMade = request.operation === 'CREATE' && request.subresource === '' && !request.dryRun;
      if (proof?.kind === 'proven' && isMade && typeof uid === 'string') proven.set(uid, true);
      return proof;
    },
    wasProven: (uid) => {
      const was = proven.get(uid) === true;
      proven.delete(uid);
      return was;
    },
    content: async (object) =>
      isOwnBinding(object, cluster.user)
        ? { kind: 'proven' }
        : proveContent(object, lineage, environment, state(), breakGlass.templates()),
    basis: () => JSON.stringify([state().revision, [...breakGlass.templates()]]),
    rules,
    loadRules: rules.load,
  };
}

// Each replica answers requests about every environment, so each keeps the rules of all of them.
async function keepRules(
  { closing, metrics }: Serving,
  front: AdmissionFront,
  scopes: readonly Scope[],
): Promise<void> {
  const look = () => Promise.all(scopes.map((s) => s.rules.look()));
  metrics.rules = () =>
    scopes
      .filter((s) => s.rules.isAsked)
      .map(({ environment, rules }) => ({
        environment: environment.metadata.name,
        isLoaded: rules.missing === undefined,
      }));
  front.rules = (name) => scopes.find((s) => s.environment.metadata.name === name)?.rules;
  let looking = within(RULES_MS, look(), () => undefined);
  await looking;
  let isLooking = false;
  const timer = setInterval(() => {
    if (isLooking) return;
    isLooking = true;
    looking = look().finally(() => {
      isLooking = false;
    });
  }, LOOK_MS).unref();
  closing.push(async () => {
    metrics.rules = () => [];
    clearInterval(timer);
    await within(RULES_MS, looking, () => undefined);
  });
}

const LOOK_MS = 1000;
const RULES_MS = 10_000; // afterwards it goes on without them: break-glass needs none

async function reasonIn(cluster: Cluster, namespace: string): Promise<LiveReason> {
  const object = await cluster.read({ apiVersion: 'v1', kind: 'Namespace', namespace: '', name: namespace });
  const annotations = object?.metadata.annotations ?? {};
  return { reason: annotations[ANNOTATION.breakGlass], approved: annotations[ANNOTATION.breakGlassApproved] };
}

// Grants are read again now and then: they may have ended without a request.
function confirmGrants(
  { closing, log }: Serving,
  scopes: readonly Scope[],
  isHere: (environment: string) => boolean,
): void {
  const timer = setInterval(() => {
    for (const { breakGlass, environment } of scopes.filter((s) => isHere(s.environment.metadata.name)))
      breakGlass
        .confirm()
        .catch((thrown) =>
          log.warn({ environment: environment.metadata.name }, `cannot confirm break-glass: ${messageOf(thrown)}`),
        );
  }, CONFIRM_EVERY_MS).unref();
  closing.push(() => clearInterval(timer));
}

const CONFIRM_EVERY_MS = 10_000;

// Existing objects, and objects created in other ways, are judged like requested ones.
function rescanAll(
  { links, recorder, log, options, closing, clock: witness }: Serving<ServeOptions>,
  scopes: readonly Scope[],
  isHere: (environment: string) => boolean,
): void {
  if (options.rescan === 'off') return;
  const every = parseDuration(options.rescan);
  if (every === undefined || every < 1000)
    throw new CountersignError('usage', `\`${options.rescan}\` is not a duration for --rescan`, {
      hint: 'give a second or more, for example 10m; or off',
    });
  const clock = () => witness.now();
  const parts = scopes
    .filter((s) => s.environment.spec.admission.mode !== 'off')
    .map(({ environment, state, loadRules, content, basis, wasProven }) => ({
      wasProven,
      content: new ContentAccount(
        environment.metadata.name,
        recorder,
        content,
        basis,
        clock,
        environment.spec.admission.mode === 'enforce',
      ),
      environment,
      state,
      rules: new RulesInForce(environment, state, loadRules, clock),
      server: linkOf(links, environment.metadata.name).server,
      user: linkOf(links, environment.metadata.name).user,
      ledger: recorder,
      log,
      clock,
      isHere: () => isHere(environment.metadata.name),
    }));
  closing.push(keepRescanning(parts, every));
}

const COVERED_EVERY_MS = 60_000;

// The API server's own audit log is a second witness of writes: those the ledger does not account for are recorded on
// it.
function takeAuditEvents(
  front: AdmissionFront,
  { configuration, links, recorder, log, closing, options }: Serving<ServeOptions>,
): void {
  const scopes = configuration.environments.map((environment) => ({
    environment,
    applier: linkOf(links, environment.metadata.name).user,
  }));
  const account = new AuditAccount(scopes, recorder, options.webhookName);
  front.takeEvents = async (events) => {
    for (const { environment, write } of await account.take(events))
      log.warn(
        { environment, write },
        'the API server’s audit log shows a write that nothing on the ledger accounts for',
      );
  };
  const settle = () =>
    account
      .settle()
      .catch((thrown) => log.error({}, `cannot record the coverage of the audit log: ${messageOf(thrown)}`));
  const timer = setInterval(() => void settle(), COVERED_EVERY_MS);
  closing.push(async () => {
    front.takeEvents = undefined;
    clearInterval(timer);
    await settle();
  });
}

async function registerAll(serving: Serving<ServeOptions>, front: AdmissionFront): Promise<void> {
  const { links, log, recorder, closing } = serving;
  const registrations: { registration: WebhookRegistration; plan: () => WebhookPlan }[] = [];
  // Accounts of one cluster share its configuration.
  for (const [url, here] of byCluster(links)) {
    const plan = () => planOf(serving, front, here);
    if (plan().environments.length === 0) continue;
    if ('url' in front.place) refuseUnreachable(front.place.url, url);
    const tampered = ({ object, change, manager }: Tampering) =>
      void recorder
        .record({ type: 'protection.changed', object, change, manager }, [])
        .catch((thrown) => log.error({}, `cannot record this: ${messageOf(thrown)}`));
    const registration = new WebhookRegistration((here[0] as ClusterLink).server, plan(), log, tampered);
    await registration.put();
    await registration.follow();
    registrations.push({ registration, plan });
    closing.push(() => registration.close());
  }
  front.renewed = async () => {
    for (const { registration, plan } of registrations) await registration.put(plan());
  };
  closing.push(() => {
    front.renewed = () => Promise.resolve();
  });
}

function byCluster(links: Serving['links']): ReadonlyMap<string, readonly ClusterLink[]> {
  const found = new Map<string, ClusterLink[]>();
  for (const link of new Set(links.values())) found.set(link.server.url, [...(found.get(link.server.url) ?? []), link]);
  return found;
}

function planOf(
  { configuration, links, options, settings, ledger }: Serving<ServeOptions>,
  front: AdmissionFront,
  here: readonly ClusterLink[],
): WebhookPlan {
  const environments = configuration.environments.filter(
    (e) => e.spec.admission.mode !== 'off' && here.includes(linkOf(links, e.metadata.name)),
  );
  const own = [
    ...new Set([
      ...(options.configNamespace ?? []),
      ...(settings.podNamespace === undefined ? [] : [settings.podNamespace]),
    ]),
  ];
  return {
    name: options.webhookName,
    place: front.place,
    ca: front.ca,
    environments,
    controlPlane: CONTROL_PLANE,
    ours: here.map((l) => l.user),
    genuine: here.filter((l) => l.hasCredentialId).map((l) => l.user),
    own: own.filter((n) => !environments.some((e) => e.spec.target.namespaces.includes(n))),
    ledger: ledgerId(ledger),
    isProtected: options.protect && environments.some((e) => e.spec.admission.mode === 'enforce'),
  };
}

// Registering it would block the governed namespaces: the API server would call itself and get no answer.
function refuseUnreachable(webhook: string, apiServer: string): void {
  const isLoopback = (url: string) => /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(url).hostname);
  if (!isLoopback(webhook) || isLoopback(apiServer)) return;
  throw new CountersignError('usage', `the API server at \`${apiServer}\` cannot reach a webhook at \`${webhook}\``, {
    hint:
      'give --webhook an address of this machine that the cluster can reach, ' +
      'or use --webhook-service or --webhook-url; --webhook off runs without admission',
  });
}
