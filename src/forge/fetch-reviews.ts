import { z } from 'zod';
import { CountersignError, canonicalJson } from '../model/index.ts';
import { ask, askAll } from './ask.ts';

/** The REST API a forge speaks. */
export type Forge = 'github' | 'gitlab' | 'gitea';

/** Where a pull or merge request is. `apiUrl` without a slash at its end. */
export type ForgeAddress = {
  readonly forge: Forge;
  readonly apiUrl: string;
  /** `owner/name`, or a GitLab project path. */
  readonly repository: string;
  readonly number: number;
  readonly token: string | undefined;
};

type Account = { readonly id: string; readonly login: string };

/** A pull or merge request with each reviewer's last word. */
export type ForgeRequest = {
  /** The forge's host, under which the TrustPolicy knows accounts. */
  readonly forge: string;
  readonly url: string;
  readonly head: string;
  readonly base: string;
  readonly openedBy: Account;
  readonly mergedBy: Account | undefined;
  readonly reviews: readonly {
    readonly id: string;
    readonly reviewer: Account;
    readonly state: 'approved' | 'rejected' | 'dismissed';
    /** The commit that was reviewed; undefined where the forge does not say. */
    readonly commit: string | undefined;
    readonly submittedAt: string | undefined;
  }[];
  /** The forge's own answers as canonical JSON: what the statement's digest is of. */
  readonly raw: string;
};

/** The API of the public forge, or where a self-hosted one keeps it. */
export function defaultApiUrl(forge: Forge, host: string): string {
  if (forge === 'github') return host === 'github.com' ? 'https://api.github.com' : `https://${host}/api/v3`;
  return `https://${host}/api/${forge === 'gitlab' ? 'v4' : 'v1'}`;
}

/** Reads a request and its reviews. Throws `forge-unreachable` and `forge-refused`. */
export async function fetchReviews(address: ForgeAddress): Promise<ForgeRequest> {
  switch (address.forge) {
    case 'github':
      return pullRequest(address, 'github');
    case 'gitea':
      return pullRequest(address, 'gitea');
    case 'gitlab':
      return mergeRequest(address);
  }
}

const id = z.int().nonnegative().transform(String);
const user = z.object({ id, login: z.string() });
const commitId = z.string().regex(/^([0-9a-f]{40}|[0-9a-f]{64})$/);
const time = z.string().transform((text) => new Date(text).toISOString());

// GitHub and Gitea/Forgejo share the shape; states have different names, and Gitea marks a dismissal beside the state.
const pullSchema = z.object({
  html_url: z.string(),
  user,
  head: z.object({ sha: commitId }),
  base: z.object({ ref: z.string() }),
  merged_by: user.nullish(),
});
const reviewsSchema = z.array(
  z.object({
    id,
    user: user.nullable(),
    state: z.string(),
    commit_id: commitId.nullish(),
    submitted_at: time.nullish(),
    dismissed: z.boolean().optional(),
    official: z.boolean().optional(),
    author_association: z.string().optional(),
  }),
);
const STATES: Record<string, 'approved' | 'rejected' | 'dismissed'> = {
  APPROVED: 'approved',
  CHANGES_REQUESTED: 'rejected',
  REQUEST_CHANGES: 'rejected',
  DISMISSED: 'dismissed',
};

async function pullRequest({ forge, apiUrl, repository, number, token }: ForgeAddress, kind: 'github' | 'gitea'): Promise<ForgeRequest> {
  const [owner, name] = repository.split('/').map(encodeURIComponent);
  if (owner === undefined || name === undefined) throw new CountersignError('usage', `\`${repository}\` is not \`owner/name\``);
  const headers = {
    accept: kind === 'github' ? 'application/vnd.github+json' : 'application/json',
    ...(kind === 'github' ? { 'x-github-api-version': '2022-11-28' } : {}),
    ...(token === undefined ? {} : { authorization: kind === 'github' ? `Bearer ${token}` : `token ${token}` }),
  };
  const at = `${apiUrl}/repos/${owner}/${name}/pulls/${number}`;
  const { value: pull } = await ask({ url: at, headers }, pullSchema);
  const reviews = await askAll({ url: `${at}/reviews?${kind === 'github' ? 'per_page' : 'limit'}=100`, headers }, reviewsSchema);
  // A reviewer's last word counts; a comment is none. Lists are oldest first.
  const last = new Map<string, ForgeRequest['reviews'][number]>();
  for (const review of reviews) {
    const state = review.dismissed === true ? 'dismissed' : STATES[review.state];
    if (state === undefined || review.user === null) continue;
    last.set(review.user.id, {
      id: review.id,
      reviewer: review.user,
      state,
      commit: review.commit_id ?? undefined,
      submittedAt: review.submitted_at ?? undefined,
    });
  }
  return {
    forge: new URL(pull.html_url).host,
    url: pull.html_url,
    head: pull.head.sha,
    base: pull.base.ref,
    openedBy: pull.user,
    mergedBy: pull.merged_by ?? undefined,
    reviews: [...last.values()],
    raw: canonicalJson({ forge, pull, reviews }),
  };
}

const gitlabUser = z.object({ id, username: z.string() }).transform(({ id: number, username }) => ({ id: number, login: username }));
const mergeRequestSchema = z.object({
  web_url: z.string(),
  sha: commitId,
  target_branch: z.string(),
  author: gitlabUser,
  merged_by: gitlabUser.nullish(),
});
const approvalsSchema = z.object({ approved_by: z.array(z.object({ user: gitlabUser, approved_at: time.nullish() })) });

// GitLab names who approved a merge request, and not which commit they looked at.
async function mergeRequest({ forge, apiUrl, repository, number, token }: ForgeAddress): Promise<ForgeRequest> {
  const headers = { accept: 'application/json', ...(token === undefined ? {} : { 'private-token': token }) };
  const at = `${apiUrl}/projects/${encodeURIComponent(repository)}/merge_requests/${number}`;
  const { value: request } = await ask({ url: at, headers }, mergeRequestSchema);
  const { value: approvals } = await ask({ url: `${at}/approvals`, headers }, approvalsSchema);
  return {
    forge: new URL(request.web_url).host,
    url: request.web_url,
    head: request.sha,
    base: request.target_branch,
    openedBy: request.author,
    mergedBy: request.merged_by ?? undefined,
    reviews: approvals.approved_by.map(({ user: reviewer, approved_at }) => ({
      id: `${number}-${reviewer.id}`,
      reviewer,
      state: 'approved' as const,
      commit: undefined,
      submittedAt: approved_at ?? undefined,
    })),
    raw: canonicalJson({ forge, request, approvals }),
  };
}
