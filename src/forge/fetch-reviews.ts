import { z } from 'zod';
import {
  below,
  CountersignError,
  canonicalJson,
  type HttpAddress,
  hostText,
  parseHttpAddress,
  projectParts,
} from '../model/index.ts';
import type { Limits } from '../outgoing/index.ts';
import { ask, askAll } from './ask.ts';

/** The REST API of a forge. */
export type Forge = 'github' | 'gitlab' | 'gitea';

/** Location of a pull or merge request. */
export type ForgeAddress = {
  readonly forge: Forge;
  readonly api: HttpAddress;
  /** `owner/name`, or a GitLab project path. */
  readonly repository: string;
  readonly number: number;
  readonly token: string | undefined;
};

type Account = { readonly id: string; readonly login: string };

/** A pull or merge request with each reviewer's latest review. */
export type ForgeRequest = {
  /**
   * The forge's host, under which the TrustPolicy knows accounts: the host that was asked, not one named in the answer.
   */
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
    /** The reviewed commit; undefined if the forge does not say. */
    readonly commit: string | undefined;
    readonly submittedAt: string | undefined;
  }[];
  /** The forge's own answers as canonical JSON, which the statement's digest covers. */
  readonly raw: string;
};

/** Returns the API address of the public forge, or its usual place on a self-hosted one. */
export function defaultApiUrl(forge: Forge, host: string): string {
  if (forge === 'github') return host === 'github.com' ? 'https://api.github.com' : `https://${host}/api/v3`;
  return `https://${host}/api/${forge === 'gitlab' ? 'v4' : 'v1'}`;
}

/** Returns a forge's name by its API address: its host, except for github.com, whose API has a separate host. */
function forgeName(api: HttpAddress): string {
  const host = hostText(api);
  return /^api\.(github\.com|[a-z0-9-]+\.ghe\.com)$/.exec(host)?.[1] ?? host;
}

/** Reads a request and its reviews. Throws `forge-unreachable` and `forge-refused`. */
export async function fetchReviews(address: ForgeAddress, limits?: Limits): Promise<ForgeRequest> {
  switch (address.forge) {
    case 'github':
      return pullRequest(address, 'github', limits);
    case 'gitea':
      return pullRequest(address, 'gitea', limits);
    case 'gitlab':
      return mergeRequest(address, limits);
  }
}

// Returns the request's web page, for people: on the forge's own host, and never executable in a browser.
function pageOf(text: string, api: HttpAddress): string {
  const parsed = parseHttpAddress(text);
  if (parsed.kind === 'parsed' && hostText(parsed.value) === forgeName(api)) return text;
  throw new CountersignError(
    'forge-refused',
    `${hostText(api)} names a web page that is not on \`${forgeName(api)}\``,
    {
      hint: 'check --api-url: it must be the address that the forge itself uses',
    },
  );
}

const id = z.int().nonnegative().transform(String);
const user = z.object({ id, login: z.string() });
const commitId = z.string().regex(/^([0-9a-f]{40}|[0-9a-f]{64})$/);
const time = z.iso.datetime({ offset: true }).transform((text) => new Date(text).toISOString());

// GitHub and Gitea/Forgejo share the shape. State names differ, and Gitea marks a dismissal in a separate field.
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

async function pullRequest(
  address: ForgeAddress,
  kind: 'github' | 'gitea',
  limits: Limits | undefined,
): Promise<ForgeRequest> {
  const { forge, api, repository, number, token } = address;
  const [owner, name, more] = projectParts(repository);
  if (more !== undefined) throw new CountersignError('usage', `\`${repository}\` is not \`owner/name\``);
  const headers = {
    accept: kind === 'github' ? 'application/vnd.github+json' : 'application/json',
    ...(kind === 'github' ? { 'x-github-api-version': '2022-11-28' } : {}),
    ...(token === undefined ? {} : { authorization: kind === 'github' ? `Bearer ${token}` : `token ${token}` }),
  };
  const at = below(api, `/repos/${owner}/${name}/pulls/${number}`);
  const { value: pull } = await ask({ to: at, headers }, pullSchema, limits);
  const url = pageOf(pull.html_url, api);
  const pages = below(at, '/reviews', `${kind === 'github' ? 'per_page' : 'limit'}=100`);
  const listed = await askAll({ to: pages, headers }, reviewsSchema, limits);
  // A reviewer's latest review counts; comments do not. They are sorted by the forge's times, not by its listing order.
  const reviews = [...listed].sort((a, b) =>
    (a.submitted_at ?? '') < (b.submitted_at ?? '') ? -1 : (a.submitted_at ?? '') > (b.submitted_at ?? '') ? 1 : 0,
  );
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
    forge: forgeName(api),
    url,
    head: pull.head.sha,
    base: pull.base.ref,
    openedBy: pull.user,
    mergedBy: pull.merged_by ?? undefined,
    reviews: [...last.values()],
    raw: canonicalJson({ forge, pull, reviews }),
  };
}

const gitlabUser = z
  .object({ id, username: z.string() })
  .transform(({ id: number, username }) => ({ id: number, login: username }));
const mergeRequestSchema = z.object({
  web_url: z.string(),
  sha: commitId,
  target_branch: z.string(),
  author: gitlabUser,
  merged_by: gitlabUser.nullish(),
});
const approvalsSchema = z.object({ approved_by: z.array(z.object({ user: gitlabUser, approved_at: time.nullish() })) });

// GitLab names the approvers of a merge request, but not the commit they looked at.
async function mergeRequest(address: ForgeAddress, limits: Limits | undefined): Promise<ForgeRequest> {
  const { forge, api, repository, number, token } = address;
  const headers = { accept: 'application/json', ...(token === undefined ? {} : { 'private-token': token }) };
  const at = below(api, `/projects/${projectParts(repository).join('%2F')}/merge_requests/${number}`);
  const { value: request } = await ask({ to: at, headers }, mergeRequestSchema, limits);
  const url = pageOf(request.web_url, api);
  const { value: approvals } = await ask({ to: below(at, '/approvals'), headers }, approvalsSchema, limits);
  return {
    forge: forgeName(api),
    url,
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
