import { createServer } from 'node:http';

/** What a forge answers at a path; `next` makes it a page with another behind it. */
export type ForgeAnswer = {
  readonly status?: number;
  readonly body: unknown;
  readonly next?: string;
  readonly link?: string;
  readonly raw?: string;
  readonly location?: string;
};
export type ForgeServer = {
  readonly url: string;
  readonly asked: readonly { path: string; headers: NodeJS.Dict<string | string[]> }[];
  readonly stop: () => Promise<void>;
};

/** A forge's REST API on loopback, with the answers it is given by path (for the host that it is). */
export async function startForge(
  answers: Readonly<Record<string, ForgeAnswer>> | ((host: string) => Readonly<Record<string, ForgeAnswer>>),
): Promise<ForgeServer> {
  const asked: { path: string; headers: NodeJS.Dict<string | string[]> }[] = [];
  let url = '';
  const server = createServer((request, response) => {
    asked.push({ path: request.url ?? '', headers: request.headers });
    const all = typeof answers === 'function' ? answers(new URL(url).host) : answers;
    const answer = all[request.url ?? ''] ?? { status: 404, body: { message: 'Not Found' } };
    response.statusCode = answer.status ?? 200;
    if (answer.next !== undefined)
      response.setHeader('link', `<${url}${answer.next}>; rel="next", <${url}/last>; rel="last"`);
    if (answer.link !== undefined) response.setHeader('link', answer.link);
    if (answer.location !== undefined) response.setHeader('location', answer.location);
    response.setHeader('content-type', 'application/json');
    response.end(answer.raw ?? JSON.stringify(answer.body));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  url = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  return {
    url,
    asked,
    stop: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

/** A pull request as GitHub and Gitea document it; the fields that nobody here reads are there too. */
export function pullRequest(head: string, options: { base?: string; host?: string; opener?: number } = {}): object {
  return {
    id: 1,
    number: 12,
    state: 'open',
    html_url: `http://${options.host ?? 'github.com'}/team/fleet/pull/12`,
    title: 'more replicas',
    user: { id: options.opener ?? 1, login: 'dana', type: 'User', site_admin: false },
    head: { label: 'team:feature', ref: 'feature', sha: head, repo: { id: 9 } },
    base: { label: 'team:main', ref: options.base ?? 'main', sha: '1'.repeat(40) },
    merged_by: null,
    mergeable: true,
  };
}

export function review(id: number, user: number, state: string, commit: string | null, more: object = {}): object {
  return {
    id,
    user: { id: user, login: `user-${user}`, type: 'User' },
    body: 'looks good',
    state,
    html_url: 'https://github.com/team/fleet/pull/12#pullrequestreview-80',
    submitted_at: `2026-11-${String(10 + id).padStart(2, '0')}T10:00:00Z`,
    commit_id: commit,
    author_association: 'MEMBER',
    ...more,
  };
}
