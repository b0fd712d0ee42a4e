import pino from 'pino';
import type { ProcessSettings } from '../config/index.ts';
import { CountersignError, messageOf } from '../model/index.ts';
import { openConfiguration } from '../open/index.ts';
import type { ReconcilerStatus } from '../reconcile/index.ts';
import { keepStated, ofCluster, openClusters, openGates, openLoops, openServing, recordStart } from '../serve/index.ts';
import { EXIT, type Io, plain } from '../terminal/index.ts';
import type { ApplyOptions } from './serve-commands.ts';

/**
 * Implements `countersign apply`: one pass over the environments, with the same gate and records as the service. Exit
 * code 0 if everything is at its newest commit, 1 if the gate or the cluster says no, 2 if it could not be determined.
 */
export async function apply(options: ApplyOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const level = options.verbose ? settings.logLevel : 'error';
  const log = pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (l) => ({ level: l }) } },
    { write: io.err },
  );
  const whole = ofCluster(openConfiguration(options), options.cluster);
  const environments = whole.environments.filter(
    (e) => options.environment === undefined || e.metadata.name === options.environment,
  );
  if (environments.length === 0)
    throw new CountersignError('usage', `there is no environment \`${options.environment ?? ''}\``);
  const configuration = { ...whole, environments };
  const serving = await openServing(options, settings, configuration, log, () => []);
  const { ledger, closing } = serving;
  const signing = serving.signing?.keep(ledger);
  // after that, the ledger accepts nothing more
  const kept = signing?.run().catch((thrown: unknown) => log.error({}, messageOf(thrown)));
  closing.push(async () => {
    signing?.stop();
    await kept;
  });
  try {
    await recordStart(serving);
    await keepStated(serving);
    const loops = openLoops(serving, await openGates(serving), openClusters(serving.links, ledger, log), {});
    const done: ReconcilerStatus[] = [];
    // In dependency order, so that one pass is enough.
    for (const loop of inOrder(
      loops,
      (l) => environments.find((e) => e.metadata.name === l.name)?.spec.dependsOn ?? [],
    )) {
      io.err(`${loop.name}: looking\n`);
      await loop.pass();
      done.push(loop.status);
    }
    await ledger.record({ type: 'service.stopped', reason: 'one pass' });
    if (options.output === 'json') io.out(`${JSON.stringify(done, null, 2)}\n`);
    else for (const s of done) io.out(`${s.environment}: ${s.state}, ${plain(s.message)}\n`);
    return done.every((s) => s.state === 'applied') ? EXIT.yes : EXIT.no;
  } finally {
    for (const close of closing.reverse()) await close();
  }
}

function inOrder<T extends { readonly name: string }>(all: readonly T[], before: (one: T) => readonly string[]): T[] {
  const ordered: T[] = [];
  const take = (one: T) => {
    if (ordered.includes(one)) return;
    for (const name of before(one)) {
      const other = all.find((o) => o.name === name);
      if (other !== undefined) take(other);
    }
    ordered.push(one);
  };
  for (const one of all) take(one);
  return ordered;
}
