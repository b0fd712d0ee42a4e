import { z } from 'zod';
import { type Approval, digestOf, type PathChange, sha256 } from '../model/index.ts';
import type { TrustStore } from './trust-store.ts';
import { verifySignature } from './verify-signature.ts';

/** What a person states when approving; an in-toto Statement v1 whose predicate is ours (docs/approval-format.md). */
export type ApprovalStatement = z.infer<typeof statementSchema>;

const PAYLOAD_TYPE = 'application/vnd.in-toto+json';
const PREDICATE_TYPE = 'https://countersign.dev/change-approval/v1';
const MAX_ENVELOPE = 64 * 1024; // a statement is about 1 KiB, an RSA-16384 signature 6 KiB

const objectId = z.string().regex(/^([0-9a-f]{40}|[0-9a-f]{64})$/);
const statementSchema = z.strictObject({
  _type: z.literal('https://in-toto.io/Statement/v1'),
  subject: z.array(z.strictObject({ uri: z.string(), digest: z.strictObject({ gitCommit: objectId, gitTree: objectId }) })).length(1),
  predicateType: z.literal(PREDICATE_TYPE),
  predicate: z.strictObject({
    targetRef: z.string(),
    fromID: objectId,
    headID: objectId,
    targetID: objectId,
    changeDigest: z.strictObject({ sha256: z.string().regex(/^[0-9a-f]{64}$/) }),
    environments: z.array(z.string()),
    decision: z.literal('approve'),
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

/** An approval whose signature was verified, or why an envelope counts for nothing. */
export type ReadApproval =
  | { readonly kind: 'approval'; readonly approval: Approval; readonly statement: ApprovalStatement }
  | { readonly kind: 'refused'; readonly code: string; readonly reason: string };

/** The statement that approves the change `from` → `commit` of a ref. */
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
      decision: 'approve',
      issuedAt: change.issuedAt,
      ...(change.expiresAt === undefined ? {} : { expiresAt: change.expiresAt }),
      reason: change.reason,
    },
  };
}

/** SHA-256 over every changed path with its modes and blobs, before and after: survives a rebase, not a re-indented key. */
export function changeDigest(paths: readonly PathChange[]): string {
  return digestOf(paths.map((p) => [p.path, p.before?.mode ?? null, p.before?.blob ?? null, p.after?.mode ?? null, p.after?.blob ?? null]));
}

/** DSSE v1 pre-authentication encoding: the bytes that are signed. They can be mistaken for no commit and no tag. */
export function preAuthEncoding(payload: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `), payload]);
}

/** The DSSE envelope as it is stored. */
export function encodeEnvelope(payload: Uint8Array, armoredSignature: string, keyId: string): string {
  const envelope = {
    payloadType: PAYLOAD_TYPE,
    payload: Buffer.from(payload).toString('base64'),
    signatures: [{ keyid: keyId, sig: Buffer.from(armoredSignature).toString('base64') }],
  };
  return `${JSON.stringify(envelope, null, 1)}\n`;
}

/** Where an envelope is kept under `refs/countersign/approvals`; named for its content, so that pushes never conflict. */
export function approvalPath(statement: ApprovalStatement, envelope: string): string {
  const { targetRef, fromID, targetID } = statement.predicate;
  return `v1/${targetRef}/${fromID}-${targetID}/${sha256(envelope)}.json`;
}

/** Verifies one stored envelope. Never throws for what it holds. */
export async function readApproval(text: string, store: TrustStore, at: number): Promise<ReadApproval> {
  const refused = (code: string, reason: string): ReadApproval => ({ kind: 'refused', code, reason });
  if (text.length > MAX_ENVELOPE) return refused('approval-unreadable', 'it is larger than any approval');
  const envelope = envelopeSchema.safeParse(parseJson(text));
  if (!envelope.success) return refused('approval-unreadable', 'it is not a DSSE envelope with one signature');
  const payload = Buffer.from(envelope.data.payload, 'base64');
  const [signature] = envelope.data.signatures;
  const verdict = await verifySignature(store, preAuthEncoding(payload), Buffer.from(signature?.sig ?? '', 'base64').toString('utf8'), at);
  if (verdict.kind === 'bad') return refused(verdict.code, verdict.reason);
  const parsed = statementSchema.safeParse(parseJson(payload.toString('utf8')));
  if (!parsed.success) return refused('approval-unreadable', 'its statement is not a change approval');
  const statement = parsed.data;
  const { predicate } = statement;
  if (statement.subject[0]?.digest.gitTree !== predicate.targetID || statement.subject[0]?.digest.gitCommit !== predicate.headID)
    return refused('approval-unreadable', 'its subject is not what it approves');
  if (predicate.expiresAt !== undefined && Date.parse(predicate.expiresAt) <= at)
    return refused('approval-expired', `\`${verdict.signer.principal}\`’s approval ended ${predicate.expiresAt}`);
  if (verdict.signer.kind !== 'person')
    return refused('approval-by-platform', `\`${verdict.signer.principal}\` is a platform, and only people approve`);
  const approval: Approval = {
    principal: verdict.signer.principal,
    key: verdict.signer.key,
    from: predicate.fromID,
    commit: predicate.headID,
    tree: predicate.targetID,
    issuedAt: predicate.issuedAt,
    reason: predicate.reason,
    envelope: sha256(text),
  };
  return { kind: 'approval', approval, statement };
}

/** One spelling for an address that people write with and without user, scheme and `.git`. */
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
