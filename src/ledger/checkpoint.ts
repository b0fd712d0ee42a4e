import { openNote, type Signer, signNote, type Verifier } from './note.ts';

/** The signed size and root of the tree (C2SP tlog-checkpoint). */
export type Checkpoint = { readonly origin: string; readonly size: number; readonly root: Buffer };

/** The checkpoint as a signed note. */
export function signCheckpoint(size: number, root: Buffer, signer: Signer): string {
  return signNote(`${signer.name}\n${size}\n${root.toString('base64')}\n`, signer);
}

/** Reads a checkpoint whose signature and origin are the verifier's; undefined otherwise. Refuses numbers we would not have written. */
export function openCheckpoint(note: string, verifier: Verifier): Checkpoint | undefined {
  const match = /^([^\n]+)\n(0|[1-9][0-9]{0,15})\n([A-Za-z0-9+/]{43}=)\n$/.exec(openNote(note, verifier) ?? '');
  if (match === null || match[1] !== verifier.name) return undefined;
  return { origin: verifier.name, size: Number(match[2]), root: Buffer.from(match[3] ?? '', 'base64') };
}
