import { differences } from '../cluster/index.ts';
import type { ProcessSettings } from '../config/index.ts';
import { type KubernetesObject, refText } from '../model/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import type { DiffOptions } from './check-commands.ts';
import { objectDiff, printDiff } from './object-diff.ts';
import { withPreviews } from './previews.ts';

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
export function diff(options: DiffOptions, settings: ProcessSettings, io: Io): Promise<number> {
  return withPreviews(options, settings, io, async ({ objects, hooks }) => {
    const found = objects
      .map((one) =>
        'refused' in one
          ? { object: refText(one.rendered.ref), action: 'refused' as const, fields: [], text: `${one.refused}\n` }
          : described(refText(one.rendered.ref), one.live, one.wanted),
      )
      .filter((one) => one !== undefined);
    print(found, objects.length, hooks.map(refText), options, io);
    return found.length === 0 ? EXIT.yes : EXIT.no;
  });
}

function described(name: string, live: KubernetesObject | undefined, wanted: KubernetesObject): Difference | undefined {
  const fields = live === undefined ? [] : differences(live, wanted);
  if (live !== undefined && fields.length === 0) return undefined;
  const text = objectDiff(name, live, wanted);
  return { object: name, action: live === undefined ? 'create' : 'update', fields, text };
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
    printDiff(text, io);
  }
  for (const hook of hooks) io.out(`hook ${plain(hook)}: not compared, runs with the next change\n`);
  io.out(
    found.length === 0
      ? `no difference: all ${total} objects match Git\n`
      : `${found.length} of ${total} objects differ\n`,
  );
}
