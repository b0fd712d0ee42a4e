import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { version } from '../config/index.ts';
import { withoutAddresses } from '../gate/index.ts';
import { redactUrl } from '../git/index.ts';
import { AnchorKeeper, LEDGER_FILES } from '../ledger/index.ts';
import {
  CountersignError,
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

/** What was kept elsewhere is looked at before anything is signed; from then on the newest checkpoint goes there. */
export async function keepAnchors({
  configuration,
  links,
  ledger,
  options,
  settings,
  log,
  closing,
}: Serving<ServeOptions>): Promise<void> {
  const every = interval(options.anchorEvery, '--anchor-every');
  const data = resolve(options.data);
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
  const first = setTimeout(() => void keeper.keep(), Math.min(every, 5000)); // once the start is on record
  closing.push(async () => {
    clearInterval(timer);
    clearTimeout(first);
    // The last one goes there too, where that does not hold up the end.
    const patience = new AbortController();
    await Promise.race([keeper.keep(), wait(LAST_ANCHOR_MS, undefined, { signal: patience.signal }).catch(() => {})]);
    patience.abort();
  });
}

const LAST_ANCHOR_MS = 5000;

/** What was there, what is different since the last start, and that this is a start. */
export async function recordStart({ configuration, ledger, log }: Serving): Promise<void> {
  const before = ledger.read.latest(['service.started'], '')?.entry.configuration;
  const { entries, unanchored, lastTime } = ledger.found;
  if (Date.parse(lastTime) > Date.now() + 60_000)
    log.warn(
      { newest: lastTime },
      'the newest entry is of a later time than the clock: entries bear that time until the clock is past it',
    );
  if (unanchored > 0 && entries > unanchored)
    log.warn({ entries, unanchored }, 'the ledger holds entries that were committed as it was last interrupted');
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
 * Puts on the ledger who governs what, and what of that is otherwise than before; now and once a day, so that every
 * report has it.
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
    // Another replica, or the process before, may just have said the same.
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
    void state().catch((thrown) => log.error({}, `the configuration could not be stated: ${messageOf(thrown)}`));
  const timer = setInterval(again, LOOK_MS);
  closing.push(() => clearInterval(timer));
}

const LOOK_MS = 3_600_000;

/** A time that an option gives. Throws `usage`. */
export function interval(text: string, option: string): number {
  const ms = parseDuration(text);
  if (ms !== undefined && ms >= 1000) return ms;
  throw new CountersignError('usage', `\`${text}\` is no time for ${option}`, {
    hint: 'a second or more, for example 10m',
  });
}

/** Says that the service is alive; where no such entry stands, it was away, and a report can tell for how long. */
export function beat(loops: readonly Reconciler[], { recorder, options, log, closing }: Serving<ServeOptions>): void {
  const every = interval(options.heartbeat, '--heartbeat');
  const timer = setInterval(() => {
    const environments = loops.map(({ status: { environment, revision, state } }) => ({
      name: environment,
      revision,
      state,
    }));
    recorder
      .record({ type: 'heartbeat', everySeconds: Math.round(every / 1000), environments }, [])
      .catch((thrown) => log.error({}, `the heartbeat could not be recorded: ${messageOf(thrown)}`));
  }, every);
  closing.push(() => clearInterval(timer));
}
