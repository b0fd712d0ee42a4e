import { createTwoFilesPatch } from 'diff';
import { LAST_APPLIED } from '../cluster/index.ts';
import { isStamp, type KubernetesObject, SERVER_FIELDS } from '../model/index.ts';
import { type Io, paint, plain } from '../terminal/index.ts';
import { printYaml } from '../yaml/index.ts';

/**
 * Returns a unified diff from a live object to the one of Git. Values of Secrets are hidden; only whether they differ
 * shows.
 */
export function objectDiff(name: string, live: KubernetesObject | undefined, wanted: KubernetesObject): string {
  const [before, after] = [live === undefined ? '' : masked(live, undefined), masked(wanted, live)];
  const text = createTwoFilesPatch(`live ${name}`, `git ${name}`, before, after, undefined, undefined, { context: 3 });
  return text.split('\n').slice(1).join('\n');
}

/** Prints a diff with its added and removed lines in colour. */
export function printDiff(text: string, io: Io): void {
  for (const line of text.split('\n').filter((l) => l !== ''))
    if (line.startsWith('+')) io.out(`${paint(io, 'green', plain(line))}\n`);
    else if (line.startsWith('-')) io.out(`${paint(io, 'red', plain(line))}\n`);
    else io.out(`${plain(line)}\n`);
}

// The object as people compare it: without fields written by the server or by us.
function masked(object: KubernetesObject, other: KubernetesObject | undefined): string {
  const { status: _, metadata, ...rest } = object;
  const kept = Object.entries(metadata)
    .filter(([key]) => !SERVER_FIELDS.has(key))
    .map(([key, value]) => [key, key === 'annotations' || key === 'labels' ? withoutStamps(value) : value] as const)
    .map(
      ([key, value]) => [key, object.kind === 'Secret' && key === 'annotations' ? withoutCopy(value) : value] as const,
    )
    .filter(([, value]) => value !== undefined);
  const whole = { ...rest, metadata: Object.fromEntries(kept) } as Record<string, unknown>;
  if (object.kind === 'Secret')
    for (const field of ['data', 'stringData'])
      if (whole[field] !== undefined) whole[field] = hidden(whole[field], other?.[field]);
  return printYaml(whole);
}

function withoutStamps(value: unknown): unknown {
  const kept = Object.entries((value ?? {}) as Record<string, unknown>).filter(([key]) => !isStamp(key));
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

// kubectl keeps a copy of all that it applied, with the values.
function withoutCopy(value: unknown): unknown {
  const annotations = value as Readonly<Record<string, string>> | undefined;
  return annotations?.[LAST_APPLIED] === undefined ? annotations : { ...annotations, [LAST_APPLIED]: '(hidden)' };
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
