import type { Change, ViolationCode } from '../model/index.ts';
import { readApproval, repositoryUri } from './approval.ts';
import type { ReadApproval, ReadStatement } from './statement.ts';
import type { TrustStore } from './trust-store.ts';

/** An approval as found in the repository. */
export type StoredEnvelope = { readonly path: string; readonly text: string };

/** Statements on a change that count, and the reasons why others do not. */
export type Statements = {
  readonly heard: readonly (ReadStatement & { readonly path: string })[];
  readonly discarded: readonly { readonly path: string; readonly code: ViolationCode; readonly message: string }[];
};

/** Returns the statements made for this repository, ref and environment. The others are returned with a reason. */
export async function readStatements(
  change: Pick<Change, 'repository' | 'ref' | 'environment'>,
  store: TrustStore,
  envelopes: readonly StoredEnvelope[],
  now: number,
): Promise<Statements> {
  const heard: (ReadStatement & { path: string })[] = [];
  const discarded: { path: string; code: ViolationCode; message: string }[] = [];
  for (const { path, text } of envelopes) {
    const read = await readApproval(text, store, now);
    const refusal =
      read.kind === 'refused'
        ? {
            code: read.code,
            message: `an approval (${path.split('/').at(-1)?.slice(0, 12)}) does not count: ${read.reason}`,
          }
        : elsewhere(read, change);
    if (refusal === undefined && read.kind === 'statement') heard.push({ ...read, path });
    else if (refusal !== undefined) discarded.push({ path, ...refusal });
  }
  return {
    heard: heard.sort((a, b) => a.at - b.at || (a.approval.envelope < b.approval.envelope ? -1 : 1)),
    discarded,
  };
}

function elsewhere(
  read: ReadApproval,
  change: Pick<Change, 'repository' | 'ref' | 'environment'>,
): { code: ViolationCode; message: string } | undefined {
  if (read.kind === 'refused') return undefined;
  const { uri, targetRef, environments } = read.binding;
  const here =
    uri === repositoryUri(change.repository) &&
    targetRef === change.ref &&
    (environments.length === 0 || environments.includes(change.environment));
  return here
    ? undefined
    : {
        code: 'approval-elsewhere',
        message: `\`${read.approval.principal}\`’s approval is for a different repository, branch or environment`,
      };
}
