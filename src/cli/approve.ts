import { createInterface } from 'node:readline/promises';
import type { ProcessSettings } from '../config/index.ts';
import { version } from '../config/index.ts';
import { diffTrees, readCommit, redactUrl, signWithGitKey } from '../git/index.ts';
import { CountersignError, durationMs, NO_REVISION, parseDuration, subjectOf } from '../model/index.ts';
import { openCheckout } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import { approvalPath, approvalStatement, type Decision, encodeEnvelope, preAuthEncoding } from '../trust/index.ts';
import type { ApproveOptions } from './approval-commands.ts';
import { short } from './show-verdict.ts';

const DONE: Record<Decision, string> = {
  approve: 'approved',
  reject: 'rejected',
  revoke: 'revoked the statement on',
};

/**
 * Implements `countersign approve COMMIT`, `approvals reject` and `approvals revoke`: shows the change, signs a
 * statement bound to its base and tree, and pushes it.
 */
export async function approve(
  name: string,
  options: ApproveOptions,
  settings: ProcessSettings,
  io: Io,
  decision: Decision = 'approve',
): Promise<number> {
  const { user, repository } = await openCheckout(options.repo, settings);
  try {
    const commit = await user.commit(name);
    const parsed = await readCommit(repository, commit);
    const from = await baseOf(user, repository, options, commit, parsed.parents[0]);
    const url = options.repository ?? (await user.config(`remote.${options.remote}.url`));
    if (url === undefined)
      throw new CountersignError('usage', `there is no remote \`${options.remote}\` to determine the repository from`, {
        hint: 'use --repository with the address in the environment’s `spec.source.url`',
      });
    const paths = await diffTrees(repository, from, commit);
    io.err(
      `${paint(io, 'bold', `${short(from)}..${short(commit)}`)}  ${plain(subjectOf(parsed))}\n` +
        `${from === NO_REVISION ? `${paths.length} files, the first revision` : await user.summary(from, commit)}\n`,
    );
    if (!options.yes && io.terminal && !(await confirmed(decision)))
      throw new CountersignError('usage', 'nothing was signed', { hint: 'answer `yes`, or use --yes' });
    const lifetime = options.expires === undefined ? undefined : parseDuration(options.expires);
    if (options.expires !== undefined && lifetime === undefined)
      throw new CountersignError('usage', `\`${options.expires}\` is not a duration`, {
        hint: 'give for example --expires 7d',
      });
    const now = Date.now();
    const statement = approvalStatement({
      repository: url,
      ref: `refs/heads/${options.branch}`,
      from,
      commit,
      tree: parsed.tree,
      paths,
      environments: options.environment,
      issuedAt: new Date(now).toISOString(),
      ...(lifetime === undefined ? {} : { expiresAt: new Date(now + durationMs(options.expires ?? '')).toISOString() }),
      reason: options.reason,
      decision,
      rollback: options.rollback === true,
      windowOverride: options.override === true,
      client: `countersign ${version()}`,
    });
    const payload = Buffer.from(JSON.stringify(statement));
    const signature = await signWithGitKey(user, preAuthEncoding(payload), options.key);
    const envelope = encodeEnvelope(payload, signature.armored, signature.keyId.split('/').at(-1) ?? '');
    const path = approvalPath(statement, envelope);
    await user.publishApprovals([{ path, content: envelope }], options.push ? options.remote : undefined);
    if (options.output === 'json')
      io.out(`${JSON.stringify({ decision, from, commit, tree: parsed.tree, path, pushed: options.push }, null, 2)}\n`);
    else
      io.out(
        `${DONE[decision]} ${short(from)}..${short(commit)} on \`${options.branch}\` ` +
          `of ${redactUrl(url)}${options.push ? '' : '; not pushed'}\n`,
      );
    return EXIT.yes;
  } finally {
    repository.close();
  }
}

// A commit already on the branch is approved against its first parent, any other against the branch's tip.
export async function baseOf(
  user: { commit(name: string): Promise<string> },
  repository: { isAncestor(a: string, b: string): Promise<boolean> },
  options: Pick<ApproveOptions, 'base' | 'remote' | 'branch'> & { rollback?: boolean },
  commit: string,
  parent: string | undefined,
): Promise<string> {
  if (options.base !== undefined) return options.base === NO_REVISION ? NO_REVISION : user.commit(options.base);
  const tip = await user.commit(`${options.remote}/${options.branch}`).catch(() => undefined);
  if (options.rollback === true) {
    if (tip !== undefined && tip !== commit) return tip;
    throw new CountersignError('usage', 'cannot determine which revision to go back from', {
      hint: 'name the currently applied commit with --base',
    });
  }
  if (tip === undefined || (await repository.isAncestor(commit, tip))) return parent ?? NO_REVISION;
  if (await repository.isAncestor(tip, commit)) return tip;
  throw new CountersignError(
    'usage',
    `\`${short(commit)}\` does not contain the tip of \`${options.branch}\`, ` +
      'so the merged result would differ from this one',
    { hint: `rebase or merge \`${options.remote}/${options.branch}\` first, or name the base with --base` },
  );
}

async function confirmed(decision: Decision): Promise<boolean> {
  const ask = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await ask.question(`${decision} this change? [yes/no] `);
  ask.close();
  return /^y(es)?$/i.test(answer.trim());
}
