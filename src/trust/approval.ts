import { z } from 'zod';
import type { ViolationCode } from '../model/index.ts';
import { digestOf, durationMs, type PathChange, sha256 } from '../model/index.ts';
import { examineSignature } from './examine-signature.ts';
import { forgeReviewSchema, readForgeReview } from './forge-review.ts';
import { judgeSignature } from './judge-signature.ts';
import {
  type Binding,
  bindingOf,
  boundFields,
  DECISIONS,
  type Decision,
  digest,
  type ReadApproval,
  type Refused,
  subjectSchema,
} from './statement.ts';
import type { TrustStore } from './trust-store.ts';

/** Statement of an approval: an in-toto Statement v1 with our own predicate (docs/approval-format.md). */
export type ApprovalStatement = z.infer<typeof statementSchema>;

const PAYLOAD_TYPE = 'application/vnd.in-toto+json';
const PREDICATE_TYPE = 'https://countersign.dev/change-approval/v1';
const MAX_ENVELOPE = 64 * 1024; // a statement has about 1 KiB, an RSA-16384 signature 6 KiB

const statementSchema = z.strictObject({
  _type: z.literal('https://in-toto.io/Statement/v1'),
  subject: subjectSchema,
  predicateType: z.literal(PREDICATE_TYPE),
  predicate: z.strictObject({
    ...boundFields,
    decision: z.enum(DECISIONS),
    /**
     * The base descends from the head: the branch goes back. Counts only for a rollback, and a rollback accepts nothing
     * else.
     */
    rollback: z.literal(true).optional(),
    windowOverride: z.literal(true).optional(),
    objectFormat: z.enum(['sha1', 'sha256']).optional(),
    policyDigest: digest.optional(),
    client: z.string().max(100).optional(),
    issuedAt: z.iso.datetime(),
    expiresAt: z.iso.datetime().optional(),
    reason: z.string().max(2000),
  }),
});

const envelopeSchema = z.strictObject({
  payloadType: z.literal(PAYLOAD_TYPE),
  payload: z.base64(),
  signatures: z.array(z.strictObject({ keyid: z.string(), sig: z.base64() })).length(1),
});

/** Returns the statement that approves the change `from` → `commit` of a ref. */
export function approvalStatement(change: {
  repository: string;
  ref: string;
  from: string;
  commit: string;
  tree: string;
  paths: readonly PathChange[];
  environments: readonly string[];
  issuedAt: string;
  expiresAt?: string;
  reason: string;
  decision?: Decision;
  rollback?: boolean;
  windowOverride?: boolean;
  policyDigest?: string;
  client?: string;
}): ApprovalStatement {
  return {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ uri: repositoryUri(change.repository), digest: { gitCommit: change.commit, gitTree: change.tree } }],
    predicateType: PREDICATE_TYPE,
    predicate: {
      targetRef: change.ref,
      fromID: change.from,
      headID: change.commit,
      targetID: change.tree,
      changeDigest: { sha256: changeDigest(change.paths) },
      environments: [...change.environments],
      decision: change.decision ?? 'approve',
      ...(change.rollback === true ? { rollback: true as const } : {}),
      ...(change.windowOverride === true ? { windowOverride: true as const } : {}),
      objectFormat: change.commit.length === 64 ? 'sha256' : 'sha1',
      ...(change.policyDigest === undefined ? {} : { policyDigest: change.policyDigest }),
      ...(change.client === undefined ? {} : { client: change.client }),
      issuedAt: change.issuedAt,
      ...(change.expiresAt === undefined ? {} : { expiresAt: change.expiresAt }),
      reason: change.reason,
    },
  };
}

/**
 * Returns the SHA-256 over every changed path with its modes and blobs, before and after. It survives a rebase, but not
 * a re-indented key.
 */
export function changeDigest(paths: readonly PathChange[]): string {
  return digestOf(
    paths.map((p) => [
      p.path,
      p.before?.mode ?? null,
      p.before?.blob ?? null,
      p.after?.mode ?? null,
      p.after?.blob ?? null,
    ]),
  );
}

/**
 * Returns the bytes that are signed: DSSE v1 pre-authentication encoding. They cannot be mistaken for a commit or tag.
 */
export function preAuthEncoding(payload: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload]);
}

/** Returns the DSSE envelope as it is stored. */
export function encodeEnvelope(payload: Uint8Array, armoredSignature: string, keyId: string): string {
  const envelope = {
    payloadType: PAYLOAD_TYPE,
    payload: Buffer.from(payload).toString('base64'),
    signatures: [{ keyid: keyId, sig: Buffer.from(armoredSignature).toString('base64') }],
  };
  return `${JSON.stringify(envelope, null, 1)}\n`;
}

/**
 * Returns an envelope's path under `refs/countersign/approvals`. It is named for its content, so pushes never conflict.
 */
export function approvalPath(
  statement: { readonly predicate: Pick<Binding, 'targetRef' | 'fromID' | 'targetID'> },
  envelope: string,
): string {
  const { targetRef, fromID, targetID } = statement.predicate;
  return `v1/${targetRef}/${fromID}-${targetID}/${sha256(envelope)}.json`;
}

/** Verifies a stored envelope at time `now` (milliseconds). Never throws for any content of the envelope. */
export async function readApproval(text: string, store: TrustStore, now: number): Promise<ReadApproval> {
  const refused = (code: ViolationCode, reason: string): Refused => ({ kind: 'refused', code, reason });
  if (text.length > MAX_ENVELOPE) return refused('approval-unreadable', 'it is larger than any approval');
  const envelope = envelopeSchema.safeParse(parseJson(text));
  if (!envelope.success) return refused('approval-unreadable', 'it is not a DSSE envelope with one signature');
  const payload = Buffer.from(envelope.data.payload, 'base64');
  const [signature] = envelope.data.signatures;
  const fact = await examineSignature(
    store,
    preAuthEncoding(payload),
    Buffer.from(signature?.sig ?? '', 'base64').toString('utf8'),
  );
  if (fact.kind !== 'good')
    return refused(
      fact.kind === 'bad' ? fact.code : 'unsigned',
      fact.kind === 'bad' ? fact.reason : 'it is not signed',
    );
  const refusal = await judgeSignature(fact, store, { at: now, basis: 'now' }, fact.signedAt ?? now);
  if (refusal !== undefined) return refused(refusal.code, refusal.reason);
  const value = parseJson(payload.toString('utf8'));
  const signer = { principal: fact.principal, key: fact.key };
  const review = forgeReviewSchema.safeParse(value);
  const parsed = statementSchema.safeParse(value);
  const read = review.success
    ? readForgeReview(review.data, signer, store, sha256(text))
    : parsed.success
      ? readOwn(parsed.data, signer, fact.hardware, store, sha256(text), now)
      : refused('approval-unreadable', 'its statement is not a change approval');
  if (read.kind === 'refused') return read;
  if (read.at > now + durationMs(store.policy.spec.times.skew))
    return refused('approval-from-the-future', `\`${read.approval.principal}\`’s approval is dated in the future`);
  return read;
}

function readOwn(
  statement: ApprovalStatement,
  signer: { principal: string; key: string },
  hardware: { touched: boolean; verified: boolean } | undefined,
  store: TrustStore,
  envelope: string,
  now: number,
): ReadApproval {
  const refused = (code: ViolationCode, reason: string): Refused => ({ kind: 'refused', code, reason });
  const { predicate } = statement;
  const binding = bindingOf(statement);
  if (binding === undefined) return refused('approval-unreadable', 'its subject differs from the change it approves');
  if (predicate.expiresAt !== undefined && Date.parse(predicate.expiresAt) <= now && predicate.decision === 'approve')
    return refused('approval-expired', `\`${signer.principal}\`’s approval expired ${predicate.expiresAt}`);
  if (store.kindOf(signer.principal) !== 'person')
    return refused(
      'approval-by-platform',
      `\`${signer.principal}\` is a ${store.kindOf(signer.principal)}, and only people can approve`,
    );
  return {
    kind: 'statement',
    decision: predicate.decision,
    binding: { ...binding, rollback: predicate.rollback === true },
    at: Date.parse(predicate.issuedAt),
    makers: [],
    approval: {
      ...signer,
      from: predicate.fromID,
      commit: predicate.headID,
      tree: predicate.targetID,
      issuedAt: predicate.issuedAt,
      reason: predicate.reason,
      envelope,
      class: hardware?.touched === true || hardware?.verified === true ? 'A+' : 'A',
      ...(predicate.windowOverride === true ? { override: true as const } : {}),
    },
  };
}

/** Normalises a repository address, which people write with and without user, scheme and `.git`. */
export function repositoryUri(address: string): string {
  const scp = /^(?:[^@/]+@)?([^/:]+):(?!\/\/)(.+)$/.exec(address);
  const plain = scp === null ? address.replace(/^[a-z+]+:\/\/(?:[^@/]*@)?/i, '') : `${scp[1]}/${scp[2]}`;
  return `git+${plain
    .replace(/[?#].*$/, '')
    .replace(/\/+$/, '')
    .replace(/\.git$/, '')}`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
