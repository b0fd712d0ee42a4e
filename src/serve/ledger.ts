import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve, sep } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { version } from '../config/index.ts';
import { withoutAddresses } from '../gate/index.ts';
import { redactUrl } from '../git/index.ts';
import { AnchorKeeper, LEDGER_FILES } from '../ledger/index.ts';
import {
  CountersignError,
  type EntryBody,
  messageOf,
  parseDuration,
  type StatedConfiguration,
  stated,
  statedChanges,
} from '../model/index.ts';
import { gitProgram, ledgerKey, sourceAccess, trustOf } from '../open/index.ts';
import type { Reconciler } from '../reconcile/index.ts';
import { type AnchorParts, parseAnchor } from './open-anchor.ts';
import type { ClusterLink, Serving } from './open-serving.ts';
import type { ServeOptions } from './options.ts';

/**
 * Checks the checkpoints kept elsewhere before anything is signed; from then on the newest checkpoint is stored there.
 */
export async function keepAnchors({
  configuration,
  links,
  ledger,
  options,
  settings,
  log,
  closing,
}: Serving<ServeOptions>): Promise<AnchorKeeper> {
  const every = interval(options.anchorEvery, '--anchor-every');
  const data = resolve(options.data);
  if (!hasAnchorOutside(options.anchor ?? [], data))
    log.warn(
      {},
      'there is no anchor outside of the data directory: a backup that is restored there would go on unnoticed; ' +
        'give one with --anchor, for example `--anchor configmap:NAMESPACE/countersign-ledger`',
    );
  const parts: AnchorParts = {
    data,
    ledger,
    key: ledgerKey(options),
    server: ([...links.values()][0] as ClusterLink).server,
    git: gitProgram(settings),
    access: (url) =>
      sourceAccess(configuration.environments.find((e) => e.spec.source.url === url)?.spec.source.credentials),
  };
  const keeper = new AnchorKeeper({
    ledger,
    keyText: readFileSync(join(data, LEDGER_FILES.verifier), 'utf8'),
    anchors: (options.anchor ?? []).map((text) => parseAnchor(text)(parts)),
    clock: () => new Date(),
    warn: (message) => log.warn({}, message),
    isShared: options.ledger !== undefined,
    onConflict: (note) => {
      const file = join(data, 'newer-checkpoint');
      writeFileSync(file, note, { mode: 0o600 });
      log.error({ file }, 'the checkpoint that the ledger does not extend');
    },
  });
  await keeper.check();
  const timer = setInterval(() => void keeper.keep(), every);
  const first = setTimeout(() => void keeper.keep(), Math.min(every, 5000)); // after the start is recorded
  closing.push(async () => {
    clearInterval(timer);
    clearTimeout(first);
    // The last one is stored there too, if that does not delay the shutdown.
    const patience = new AbortController();
    await Promise.race([keeper.keep(), wait(LAST_ANCHOR_MS, undefined, { signal: patience.signal }).catch(() => {})]);
    patience.abort();
  });
  return keeper;
}

const LAST_ANCHOR_MS = 5000;

/** Tests whether one of the anchors is outside of a data directory, and would notice that it was restored. */
export function hasAnchorOutside(anchors: readonly string[], data: string): boolean {
  return anchors.some((anchor) => isOutside(anchor, resolve(data)));
}

function isOutside(anchor: string, data: string): boolean {
  if (!anchor.startsWith('file:')) return true;
  const path = resolve(anchor.slice('file:'.length));
  return path !== data && !path.startsWith(`${data}${sep}`);
}

/** Records the state found, the changes since the last start, and the start itself. */
export async function recordStart({ configuration, ledger, log }: Serving): Promise<void> {
  const before = ledger.read.latest(['service.started'], '')?.entry.configuration;
  const { entries, unanchored, lastTime } = ledger.found;
  if (Date.parse(lastTime) > Date.now() + 60_000)
    log.warn(
      { newest: lastTime },
      'the newest entry has a later time than the clock: entries get that time until the clock has passed it',
    );
  if (unanchored > 0 && entries > unanchored)
    log.warn({ entries, unanchored }, 'the ledger has entries that were committed when it was last interrupted');
  await ledger.record({
    type: 'service.started',
    version: version(),
    environments: configuration.environments.map((e) => e.metadata.name),
    configuration: configuration.digest,
    found: { entries, unanchored },
  });
  if (before !== undefined && before !== configuration.digest)
    await ledger.record({ type: 'config.changed', before, after: configuration.digest });
}

const STATED_EVERY_MS = 24 * 3_600_000;

/**
 * Records who governs what, and the changes since the last record; now and once a day, so that every report contains
 * it.
 */
export async function keepStated({ configuration, recorder, log, closing }: Serving): Promise<void> {
  const environments = configuration.environments.map((e) => stated(e, trustOf(configuration, e), redactUrl));
  const named = new Set(configuration.environments.map((e) => e.spec.trust));
  const policies = configuration.trustPolicies
    .filter((t) => named.has(t.metadata.name))
    .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  const state = async () => {
    const before = recorder.latest(['config.stated'], '')?.entry;
    const was = before === undefined ? [] : (recorder.evidence(before.evidence) as StatedConfiguration).environments;
    const changes = statedChanges(was, environments);
    // Another replica, or the previous process, may have just recorded the same.
    if (
      before !== undefined &&
      changes.length === 0 &&
      Date.now() - Date.parse(before.time) < STATED_EVERY_MS - LOOK_MS
    )
      return;
    const trustPolicies = policies.map((policy) => withoutAddresses(policy, recorder));
    const evidence = recorder.asEvidence({ environments, changes, trustPolicies } satisfies StatedConfiguration);
    await recorder.record({ type: 'config.stated', configuration: configuration.digest, evidence: evidence.ref }, [
      evidence,
    ]);
  };
  await state();
  const again = () =>
    void state().catch((thrown) => log.error({}, `cannot record the configuration: ${messageOf(thrown)}`));
  const timer = setInterval(again, LOOK_MS);
  closing.push(() => clearInterval(timer));
}

const LOOK_MS = 3_600_000;

/** Parses the duration in an option. Throws `usage`. */
export function interval(text: string, option: string): number {
  const ms = parseDuration(text);
  if (ms !== undefined && ms >= 1000) return ms;
  throw new CountersignError('usage', `\`${text}\` is not a duration for ${option}`, {
    hint: 'give a second or more, for example 10m',
  });
}

/** Records that the service is alive. A gap means that it was away, and a report can tell for how long. */
export function beat(loops: readonly Reconciler[], { recorder, options, log, closing }: Serving<ServeOptions>): void {
  const every = interval(options.heartbeat, '--heartbeat');
  const timer = setInterval(() => {
    recorder
      .record(heartbeat(loops, every), [])
      .catch((thrown) => log.error({}, `cannot record the heartbeat: ${messageOf(thrown)}`));
  }, every);
  closing.push(() => clearInterval(timer));
}

/** Returns the entry that says that the service is alive, and what its loops have observed. */
export function heartbeat(loops: readonly Reconciler[], everyMs: number): EntryBody {
  const environments = loops.map(({ status: { environment, revision, state, healthyMs } }) => ({
    name: environment,
    revision,
    state,
    ...(healthyMs === undefined ? {} : { healthySeconds: Math.floor(healthyMs / 1000) }),
  }));
  return { type: 'heartbeat', everySeconds: Math.round(everyMs / 1000), environments };
}
