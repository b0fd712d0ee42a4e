import { APPROVALS_REF, diffTrees, NativeRepository, readCommit } from '../../src/git/index.ts';
import {
  type ApprovalStatement,
  approvalPath,
  approvalStatement,
  type Decision,
  encodeEnvelope,
  preAuthEncoding,
} from '../../src/trust/index.ts';
import type { Fleet, Person } from './fleet.ts';
import { signBytes } from './objects.ts';

export type ApprovalChanges = {
  readonly repository?: string;
  readonly ref?: string;
  readonly environments?: readonly string[];
  readonly expiresAt?: string;
  readonly issuedAt?: string;
  readonly decision?: Decision;
  readonly rollback?: boolean;
  readonly windowOverride?: boolean;
  readonly reason?: string;
  readonly statement?: (s: ApprovalStatement) => ApprovalStatement;
  readonly payload?: (p: Buffer) => Buffer;
};

/**
 * A really signed approval, pushed to the fleet's bare repository; `changes` make it what an attacker would make it.
 */
export async function approveAs(
  person: Person,
  fleet: Fleet,
  from: string,
  commit: string,
  changes: ApprovalChanges = {},
): Promise<void> {
  fleet.become(person);
  const repository = new NativeRepository(`${fleet.work}/.git`, { file: 'git', path: process.env['PATH'] ?? '' });
  const { tree } = await readCommit(repository, commit);
  const made = approvalStatement({
    repository: changes.repository ?? fleet.url,
    ref: changes.ref ?? 'refs/heads/main',
    from,
    commit,
    tree,
    paths: await diffTrees(repository, from, commit),
    environments: changes.environments ?? [],
    issuedAt: changes.issuedAt ?? new Date().toISOString(),
    decision: changes.decision ?? 'approve',
    rollback: changes.rollback ?? false,
    windowOverride: changes.windowOverride ?? false,
    ...(changes.expiresAt === undefined ? {} : { expiresAt: changes.expiresAt }),
    reason: changes.reason ?? 'reviewed',
  });
  const statement = changes.statement?.(made) ?? made;
  const signed = Buffer.from(JSON.stringify(statement));
  repository.close();
  const signature = signBytes(person, Buffer.from(preAuthEncoding(signed)));
  const envelope = encodeEnvelope(changes.payload?.(signed) ?? signed, `${signature}\n`, 'key');
  fleet.addTo(APPROVALS_REF, person, approvalPath(made, envelope), envelope);
}
