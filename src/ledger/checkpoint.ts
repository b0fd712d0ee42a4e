import { randomBytes } from 'node:crypto';
import { openSigned, type Signer, signNote, type Verifier } from './note.ts';

/** Signed size and root of the tree (C2SP tlog-checkpoint). */
export type Checkpoint = {
  readonly origin: string;
  readonly size: number;
  readonly root: Buffer;
  /** The process that made it; undefined before version 0.1.0. */
  readonly instance?: Instance;
};

/**
 * A signing process: a random id and its start time (ISO 8601). Two processes that sign one ledger recognise each other
 * by it.
 */
export type Instance = { readonly id: string; readonly since: string };

/** Returns the checkpoint as a signed note. All signers carry the log's name. */
export function signCheckpoint(size: number, root: Buffer, ...signers: readonly [Signer, ...Signer[]]): string {
  return signNote(`${signers[0].name}\n${size}\n${root.toString('base64')}\n`, ...signers);
}

/** Does the same, with an extension line that names the process that made it. */
export function signCheckpointAs(
  instance: Instance,
  size: number,
  root: Buffer,
  ...signers: readonly [Signer, ...Signer[]]
): string {
  const lines = [signers[0].name, size, root.toString('base64'), `${INSTANCE} ${instance.id} ${instance.since}`];
  return signNote(lines.map((line) => `${line}\n`).join(''), ...signers);
}

const INSTANCE = 'countersign.dev/instance';

export function newInstance(now: Date): Instance {
  return { id: randomBytes(16).toString('hex'), since: now.toISOString() };
}

/**
 * Reads a checkpoint that at least one of the keys signed and whose origin is that key's name; `by` lists the keys that
 * signed. Returns undefined otherwise. Refuses numbers and base64 not spelled the way we write them.
 */
export function openCheckpoint(
  note: string,
  keys: Verifier | readonly Verifier[],
): (Checkpoint & { readonly by: readonly Verifier[] }) | undefined {
  const opened = openSigned(note, Array.isArray(keys) ? keys : [keys as Verifier]);
  if (opened === undefined) return undefined;
  const checkpoint = parseCheckpoint(opened.text);
  const by = opened.by.filter((verifier) => verifier.name === checkpoint?.origin);
  return checkpoint === undefined || by.length === 0 ? undefined : { ...checkpoint, by };
}

/** Parses the text of a checkpoint without checking signatures. */
export function parseCheckpoint(text: string): Checkpoint | undefined {
  const match = /^([^\n]+)\n(0|[1-9][0-9]{0,15})\n([A-Za-z0-9+/]{43}=)\n(?:[^\n]+\n)*$/.exec(text);
  const root = Buffer.from(match?.[3] ?? '', 'base64');
  if (match?.[1] === undefined || root.toString('base64') !== match[3] || !Number.isSafeInteger(Number(match[2])))
    return undefined;
  const [, id, since] = /\ncountersign\.dev\/instance ([0-9a-f]{32}) ([0-9T:.Z-]{24})\n/.exec(text) ?? [];
  const instance = id === undefined || since === undefined ? {} : { instance: { id, since } };
  return { origin: match[1], size: Number(match[2]), root, ...instance };
}
