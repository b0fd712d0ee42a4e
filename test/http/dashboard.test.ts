import assert from 'node:assert/strict';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { createDashboard, type DashboardView, dashboardPage } from '../../src/http/index.ts';

const HOSTILE = `<script>alert(1)</script>"'&`;
const quiet: DashboardView['environments'][number] = {
  name: 'production',
  state: 'applied',
  message: '',
  revision: 'a'.repeat(40),
  tip: 'b'.repeat(40),
  looked: '2026-06-01T12:00:00.000Z',
  healthy: 3,
  objects: 3,
  trouble: [],
  grants: [],
  unsettled: 0,
};
const view = (environment: Partial<typeof quiet>, more: Partial<DashboardView> = {}): DashboardView => ({
  at: '2026-06-01T12:00:10.000Z',
  ledger: { name: 'countersign.dev/x', entries: 7 },
  environments: [{ ...quiet, ...environment }],
  changes: [],
  refused: [],
  ...more,
});
const grant = {
  namespaces: ['shop', 'cart'],
  until: '2026-06-01T12:30:00.000Z',
  user: 'oncall',
  reason: 'down',
  ticket: 'INC-1',
};

test('while break-glass is open the page says so before everything else; without it there is no banner', () => {
  const open = dashboardPage(view({ grants: [grant], unsettled: 2 }));
  assert.match(open, /<title>BREAK-GLASS: /);
  assert.match(
    open,
    /<body>\n<p class="open" role="alert"><b>Break-glass is open<\/b> in shop, cart \(production\) until <time [^>]*>2026-06-01 12:30:00<\/time> UTC, by oncall: down \(INC-1\)<\/p>\n<p class="left" role="status">2 uses of break-glass in production to settle/,
  );
  assert.doesNotMatch(dashboardPage(view({})), /role="(alert|status)"|BREAK-GLASS/);
});

test('older refusals that are archived elsewhere are not passed over: the page says why they are not there', () => {
  const refusedBefore = `entry 7 is archived in \`segment.db\` ${HOSTILE}`;
  assert.match(dashboardPage(view({}, { refusedBefore })), /<p>Older ones: entry 7 is archived in [^<]*&lt;script/);
  assert.doesNotMatch(dashboardPage(view({})), /Older ones/);
});

test('nothing that somebody else wrote becomes part of the page', () => {
  const page = dashboardPage(
    view(
      {
        name: HOSTILE,
        state: HOSTILE,
        message: HOSTILE,
        revision: HOSTILE,
        tip: HOSTILE,
        looked: HOSTILE,
        trouble: [HOSTILE],
        grants: [{ namespaces: [HOSTILE], until: HOSTILE, user: HOSTILE, reason: HOSTILE, ticket: HOSTILE }],
      },
      {
        at: HOSTILE,
        ledger: { name: HOSTILE, entries: 1 },
        changes: [
          { entry: 1, time: HOSTILE, environment: HOSTILE, outcome: HOSTILE, revision: HOSTILE, violations: 1 },
        ],
        refused: [
          {
            entry: 1,
            time: HOSTILE,
            environment: HOSTILE,
            user: HOSTILE,
            request: HOSTILE,
            letThrough: true,
            reason: HOSTILE,
          },
        ],
      },
    ),
  );
  assert.doesNotMatch(page, /<script|"'&[^aqlg#]/);
  assert.ok(page.split('&lt;script').length > 20, 'all of it is there to read');
});

test('what was only told is not shown as refused', () => {
  const one = {
    entry: 1,
    time: '2026-06-01T12:00:00.000Z',
    environment: 'production',
    user: 'dev',
    request: 'DELETE Pod shop/a',
    reason: 'x',
  };
  const page = dashboardPage(
    view(
      {},
      {
        refused: [
          { ...one, letThrough: true },
          { ...one, letThrough: false },
        ],
      },
    ),
  );
  assert.deepEqual(page.match(/DELETE Pod shop\/a[^<]*/g), ['DELETE Pod shop/a, allowed', 'DELETE Pod shop/a']);
});

let port = 0;
let asked = 0;
const app = createDashboard({
  view: () => {
    asked++;
    return view({});
  },
  hosts: ['localhost', '127.0.0.1', '[::1]'],
});
const server = createServer(app);
before(async () => {
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  port = (server.address() as AddressInfo).port;
});
after(() => server.close());

const ask = (path: string, host: string, method = 'GET') =>
  new Promise<{ status: number; headers: Record<string, unknown>; body: string }>((resolve, reject) => {
    const sent = request({ port, path, method, headers: { host } }, (response) => {
      let body = '';
      response.on('data', (d) => (body += d));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    sent.on('error', reject);
    sent.end();
  });

test('it is answered to its own names only, without script, and changes nothing', async () => {
  for (const host of [`localhost:${port}`, `127.0.0.1:${port}`, `[::1]:${port}`, 'LOCALHOST']) {
    const { status, headers } = await ask('/', host);
    assert.equal(status, 200, host);
    assert.match(
      String(headers['content-security-policy']),
      /^default-src 'none'; style-src 'self'; .*frame-ancestors 'none'$/,
    );
    assert.equal(headers['cache-control'], 'no-store');
  }
  assert.equal(asked, 1, 'whoever asks often is shown the same');
  for (const host of ['rebound.example', `localhost.example:${port}`, '127.0.0.2']) {
    const { status, body } = await ask('/', host);
    assert.equal(status, 421, host);
    assert.doesNotMatch(body, /production/);
  }
  assert.equal((await ask('/style.css', 'localhost')).headers['content-type'], 'text/css; charset=utf-8');
  for (const [path, method] of [
    ['/', 'POST'],
    ['/', 'DELETE'],
    ['/metrics', 'GET'],
    ['/..%2f', 'GET'],
  ] as const)
    assert.equal((await ask(path, 'localhost', method)).status, 404, `${method} ${path}`);
});
