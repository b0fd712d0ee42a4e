import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultApiUrl, type Forge, fetchReviews } from '../../src/forge/index.ts';
import { type CountersignError, httpAddress } from '../../src/model/index.ts';
import { type ForgeAnswer, pullRequest, review, startForge } from '../kit/forge-server.ts';

const HEAD = 'a'.repeat(40);
const OLD = 'b'.repeat(40);
const PULL = '/repos/team/fleet/pulls/12';

type Answers = Readonly<Record<string, ForgeAnswer>>;

async function reviewsFrom(forge: Forge, answers: Answers | ((host: string) => Answers), token?: string) {
  const server = await startForge(answers);
  try {
    const request = await fetchReviews({
      forge,
      api: httpAddress(server.url),
      repository: 'team/fleet',
      number: 12,
      token,
    });
    return { request, asked: server.asked, host: new URL(server.url).host };
  } finally {
    await server.stop();
  }
}

test('GitHub: each reviewer’s last word over all pages, comments left out', async () => {
  const { request, asked, host } = await reviewsFrom(
    'github',
    (host) => ({
      [PULL]: { body: pullRequest(HEAD, { host }) },
      [`${PULL}/reviews?per_page=100`]: {
        body: [review(1, 2, 'CHANGES_REQUESTED', OLD), review(2, 3, 'APPROVED', HEAD), review(3, 2, 'APPROVED', HEAD)],
        next: '/page2',
      },
      '/page2': {
        body: [
          review(4, 2, 'COMMENTED', HEAD),
          review(5, 3, 'DISMISSED', HEAD),
          review(6, 4, 'PENDING', HEAD, { submitted_at: null }),
          review(7, 5, 'CHANGES_REQUESTED', OLD),
          review(8, 6, 'APPROVED', HEAD, { user: null }),
        ],
      },
    }),
    'a-token',
  );
  assert.deepEqual(
    request.reviews.map((r) => [r.reviewer.id, r.state, r.commit]),
    [
      ['2', 'approved', HEAD],
      ['3', 'dismissed', HEAD],
      ['5', 'rejected', OLD],
    ],
  );
  assert.deepEqual(
    [request.forge, request.head, request.base, request.openedBy],
    [host, HEAD, 'main', { id: '1', login: 'dana' }],
  );
  assert.equal(asked[0]?.headers['authorization'], 'Bearer a-token');
  assert.equal(asked[0]?.headers['x-github-api-version'], '2022-11-28');
  assert.ok(!request.raw.includes('a-token'));
});

test('Gitea: its names for states, and a dismissal that stands beside the state', async () => {
  const { request, asked, host } = await reviewsFrom(
    'gitea',
    (host) => ({
      [PULL]: { body: pullRequest(HEAD, { host }) },
      [`${PULL}/reviews?limit=100`]: {
        body: [
          review(1, 2, 'REQUEST_CHANGES', HEAD, { stale: false, official: true, dismissed: false }),
          review(2, 3, 'APPROVED', HEAD, { stale: false, official: true, dismissed: true }),
          review(3, 4, 'APPROVED', OLD, { stale: true, official: false, dismissed: false }),
          review(4, 5, 'REQUEST_REVIEW', null),
        ],
      },
    }),
    'a-token',
  );
  assert.deepEqual(
    request.reviews.map((r) => [r.reviewer.id, r.state, r.commit]),
    [
      ['2', 'rejected', HEAD],
      ['3', 'dismissed', HEAD],
      ['4', 'approved', OLD],
    ],
  );
  assert.equal(request.forge, host);
  assert.equal(asked[0]?.headers['authorization'], 'token a-token');
});

test('GitLab: who approved, and no commit that they looked at', async () => {
  const at = '/projects/team%2Ffleet/merge_requests/12';
  const { request, asked } = await reviewsFrom(
    'gitlab',
    (host) => ({
      [at]: {
        body: {
          id: 5,
          iid: 12,
          sha: HEAD,
          target_branch: 'main',
          web_url: `http://${host}/team/fleet/-/merge_requests/12`,
          author: { id: 1, username: 'dana', state: 'active' },
          merged_by: null,
        },
      },
      [`${at}/approvals`]: {
        body: {
          id: 5,
          iid: 12,
          approved: true,
          approvals_left: 0,
          approved_by: [
            { user: { id: 2, username: 'lee' }, approved_at: '2026-11-20T10:00:00.000+01:00' },
            { user: { id: 3, username: 'kim' } },
          ],
        },
      },
    }),
    'a-token',
  );
  assert.deepEqual(
    request.reviews.map((r) => [r.reviewer.login, r.state, r.commit, r.submittedAt]),
    [
      ['lee', 'approved', undefined, '2026-11-20T09:00:00.000Z'],
      ['kim', 'approved', undefined, undefined],
    ],
  );
  assert.equal(asked[0]?.headers['private-token'], 'a-token');
});

for (const [what, answers, code, message] of [
  ['a request that is not there', {}, 'forge-refused', /answers 404$/],
  [
    'a token that may not',
    { [PULL]: { status: 403, body: { message: 'Resource not accessible' } } },
    'forge-refused',
    /answers 403$/,
  ],
  ['an answer of another shape', { [PULL]: { body: { hello: 1 } } }, 'forge-refused', /does not answer as documented/],
  ['no JSON', { [PULL]: { body: '', raw: '<html>' } }, 'forge-refused', /does not answer as documented/],
  ['a head that is no commit', { [PULL]: { body: pullRequest('main') } }, 'forge-refused', /head\.sha/],
  ['an answer without end', { [PULL]: { body: '', raw: `"${'x'.repeat(9_000_000)}"` } }, 'forge-refused', /more than/],
] as const) {
  test(`${what} is refused, and the token is not told`, async () => {
    await assert.rejects(
      reviewsFrom('github', answers as never, 'a-token'),
      (e: CountersignError) =>
        e.code === code && message.test(e.message) && !`${e.message}${e.hint}`.includes('a-token'),
    );
  });
}

test('a redirect is not followed: the token is for one server', async (t) => {
  const elsewhere = await startForge({ '/stolen': { body: pullRequest(HEAD) } });
  t.after(() => elsewhere.stop());
  await assert.rejects(
    reviewsFrom('github', { [PULL]: { status: 302, body: {}, location: `${elsewhere.url}/stolen` } }, 'a-token'),
    (e: CountersignError) => e.code === 'forge-unreachable' && !e.message.includes('a-token'),
  );
  assert.deepEqual(elsewhere.asked, []);
});

test('pages go on, but not for ever and not to another server', async () => {
  const endless = (host: string) => ({
    [PULL]: { body: pullRequest(HEAD, { host }) },
    [`${PULL}/reviews?per_page=100`]: { body: [], next: `${PULL}/reviews?per_page=100` },
  });
  await assert.rejects(reviewsFrom('github', endless), /more than 50 pages/);
  for (const link of [
    '<http://127.0.0.1:9/x>; rel="next"',
    '<http://[>; rel="next"',
    '<javascript:1>; rel="next"',
    '<//a@b/>; rel=next',
  ]) {
    const led = (host: string) => ({
      [PULL]: { body: pullRequest(HEAD, { host }) },
      [`${PULL}/reviews?per_page=100`]: { body: [], link },
    });
    await assert.rejects(reviewsFrom('github', led), {
      code: 'forge-refused',
      message: /^127\.0\.0\.1:\d+ names a next page on a different server$/,
    });
  }
});

test('the forge is the one that was asked, and a request’s page is there', async () => {
  for (const html_url of [
    'https://github.com/team/fleet/pull/12',
    'javascript://github.com/%0aalert(1)',
    'x',
    'http://a@b/',
    'file:///etc',
  ]) {
    const lying = (host: string) => ({
      [PULL]: { body: { ...pullRequest(HEAD, { host }), html_url } },
      [`${PULL}/reviews?per_page=100`]: { body: [review(1, 2, 'APPROVED', HEAD)] },
    });
    await assert.rejects(reviewsFrom('github', lying), {
      code: 'forge-refused',
      message: /^(127\.0\.0\.1:\d+) names a web page that is not on `\1`$/,
    });
  }
});

test('a reviewer’s last word is told by the times, whatever order the forge lists them in', async () => {
  const { request } = await reviewsFrom('github', (host) => ({
    [PULL]: { body: pullRequest(HEAD, { host }) },
    [`${PULL}/reviews?per_page=100`]: {
      body: [
        review(7, 2, 'DISMISSED', HEAD, { submitted_at: '2026-11-29T11:00:00Z' }),
        review(6, 2, 'APPROVED', HEAD, { submitted_at: '2026-11-29T09:00:00Z' }),
      ],
    },
  }));
  assert.deepEqual(
    request.reviews.map((r) => r.state),
    ['dismissed'],
  );
});

test('a project is OWNER/NAME and leads nowhere else', async () => {
  const api = httpAddress('http://127.0.0.1:9');
  for (const repository of ['..', '../..', 'a/..', 'a/./b', 'a%2Fb/c', 'a/b?x', 'a', '', 'a/b c'])
    for (const forge of ['github', 'gitlab'] as const)
      await assert.rejects(
        fetchReviews({ forge, api, repository, number: 1, token: undefined }),
        { code: 'config-invalid' },
        repository,
      );
});

test('trouble of the forge may be tried again', async () => {
  await assert.rejects(
    reviewsFrom('github', { [PULL]: { status: 502, body: {} } }),
    (e: CountersignError) => e.recover === 'retry',
  );
  await assert.rejects(
    fetchReviews({
      forge: 'github',
      api: httpAddress('http://127.0.0.1:9'),
      repository: 'a/b',
      number: 1,
      token: undefined,
    }),
    (e: CountersignError) => e.code === 'forge-unreachable' && e.recover === 'retry',
  );
});

test('where each forge keeps its API', () => {
  assert.equal(defaultApiUrl('github', 'github.com'), 'https://api.github.com');
  assert.equal(defaultApiUrl('github', 'ghe.example.test'), 'https://ghe.example.test/api/v3');
  assert.equal(defaultApiUrl('gitlab', 'gitlab.com'), 'https://gitlab.com/api/v4');
  assert.equal(defaultApiUrl('gitea', 'codeberg.org'), 'https://codeberg.org/api/v1');
});
