import { createTwoFilesPatch } from 'diff';
import { Cluster, connect, differences } from '../cluster/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import { placementOf, renderedAt } from '../gate/index.ts';
import { sourceRepository } from '../git/index.ts';
import {
  CountersignError,
  inParallel,
  isStamp,
  type KubernetesObject,
  messageOf,
  refText,
  SERVER_FIELDS,
} from '../model/index.ts';
import {
  chooseEnvironment,
  gitProgram,
  openCheckout,
  openConfiguration,
  opener,
  openGate,
  openRendering,
} from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import { printYaml } from '../yaml/index.ts';
import type { DiffOptions } from './check-commands.ts';

type Difference = {
  readonly object: string;
  readonly action: 'create' | 'update' | 'refused';
  readonly fields: readonly string[];
  readonly text: string;
};

/**
 * Implements `countersign diff`: what a revision of a checkout would change in the cluster, by the API server's own dry
 * run. Exit code 0 for nothing, 1 for something, 2 if it could not be determined. Secret values are not shown, only
 * which of them differ.
 */
export async function diff(options: DiffOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const configuration = openConfiguration(options);
  const environment = chooseEnvironment(configuration, options.environment);
  const { target } = environment.spec;
  const { server, user } = await connect({
    kubeconfig: target.kubeconfig ?? options.kubeconfig ?? settings.kubeconfig,
    context: target.context ?? options.context,
    serviceAccount: target.serviceAccount,
    namedBy: target.kubeconfig === undefined ? 'operator' : 'document',
  });
  const checkout = await openCheckout(options.repo, settings);
  const cluster = new Cluster(server, user, '', { warn: () => {} });
  try {
    const commit = await checkout.user.commit(options.revision);
    const rendering = openRendering(settings);
    const { gate, close } = await openGate(
      configuration,
      environment,
      sourceRepository(checkout.repository),
      () => new Date(),
      {
        git: gitProgram(settings),
        ...rendering,
        untrusted: 'rendered',
      },
    );
    try {
      const { objects: all, violations } = await renderedAt(
        { ...gate, servedScope: (kind) => cluster.scopeOf(kind) },
        commit,
      );
      for (const v of violations) io.err(`${paint(io, 'yellow', 'warning:')} ${plain(v.message)}\n`);
      const objects = all.filter((o) => placementOf(o).hook === undefined);
      const hooks = all.filter((o) => !objects.includes(o)).map((o) => refText(o.ref));
      const open = opener(environment);
      const found: Difference[] = [];
      await inParallel(objects, async (rendered) => {
        const preview = async () =>
          cluster.preview(await open(rendered), environment.metadata.name, environment.spec.drift.ignore);
        const one = await preview().catch((thrown) => {
          if (
            !(thrown instanceof CountersignError) ||
            (thrown.recover !== 'wait' && thrown.code !== 'decryption-failed') ||
            thrown.code === 'cluster-forbidden'
          )
            throw thrown;
          return { refused: messageOf(thrown) };
        });
        const difference =
          'refused' in one
            ? { object: refText(rendered.ref), action: 'refused' as const, fields: [], text: `${one.refused}\n` }
            : described(refText(rendered.ref), one.live, one.wanted);
        if (difference !== undefined) found.push(difference);
      });
      found.sort((a, b) => (a.object < b.object ? -1 : 1));
      print(found, objects.length, hooks, options, io);
      return found.length === 0 ? EXIT.yes : EXIT.no;
    } finally {
      await close();
      rendering.close();
    }
  } finally {
    checkout.repository.close();
    cluster.close();
  }
}

function described(name: string, live: KubernetesObject | undefined, wanted: KubernetesObject): Difference | undefined {
  const fields = live === undefined ? [] : differences(live, wanted);
  if (live !== undefined && fields.length === 0) return undefined;
  const [before, after] = masked(live, wanted);
  const text = createTwoFilesPatch(`live ${name}`, `git ${name}`, before, after, undefined, undefined, { context: 3 });
  return {
    object: name,
    action: live === undefined ? 'create' : 'update',
    fields,
    text: text.split('\n').slice(1).join('\n'),
  };
}

// The object as people compare it: without fields written by the server or by us. Each Secret value becomes a mark that
// shows whether it changed.
function masked(live: KubernetesObject | undefined, wanted: KubernetesObject): [string, string] {
  const clean = (object: KubernetesObject, other: KubernetesObject | undefined): string => {
    const { status: _, metadata, ...rest } = object;
    const kept = Object.entries(metadata)
      .filter(([key]) => !SERVER_FIELDS.has(key))
      .map(([key, value]) => [key, key === 'annotations' || key === 'labels' ? withoutStamps(value) : value] as const)
      .filter(([, value]) => value !== undefined);
    const whole = { ...rest, metadata: Object.fromEntries(kept) } as Record<string, unknown>;
    if (object.kind === 'Secret')
      for (const field of ['data', 'stringData'])
        if (whole[field] !== undefined) whole[field] = hidden(whole[field], other?.[field]);
    return printYaml(whole);
  };
  return [live === undefined ? '' : clean(live, undefined), clean(wanted, live)];
}

function withoutStamps(value: unknown): unknown {
  const kept = Object.entries((value ?? {}) as Record<string, unknown>).filter(([key]) => !isStamp(key));
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

function hidden(values: unknown, other: unknown): Record<string, string> {
  const before = (other ?? {}) as Record<string, unknown>;
  return Object.fromEntries(
    Object.entries((values ?? {}) as Record<string, unknown>).map(([key, value]) => [
      key,
      other === undefined || before[key] === value ? '(hidden)' : '(hidden, different)',
    ]),
  );
}

function print(
  found: readonly Difference[],
  total: number,
  hooks: readonly string[],
  { output }: DiffOptions,
  io: Io,
): void {
  if (output === 'json') {
    io.out(`${JSON.stringify(found, null, 2)}\n`);
    return;
  }
  for (const { object, action, text } of found) {
    io.out(`${paint(io, 'bold', `${action} ${plain(object)}`)}\n`);
    for (const line of text.split('\n').filter((l) => l !== ''))
      if (line.startsWith('+')) io.out(`${paint(io, 'green', plain(line))}\n`);
      else if (line.startsWith('-')) io.out(`${paint(io, 'red', plain(line))}\n`);
      else io.out(`${plain(line)}\n`);
  }
  for (const hook of hooks) io.out(`hook ${plain(hook)}: not compared, runs with the next change\n`);
  io.out(
    found.length === 0
      ? `no difference: all ${total} objects match Git\n`
      : `${found.length} of ${total} objects differ\n`,
  );
}
