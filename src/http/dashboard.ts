import escapeHtml from 'escape-html';
import express, { type ErrorRequestHandler, type Express } from 'express';
import { isNoRevision } from '../model/index.ts';

/** Content of the dashboard at one moment. Texts contain no control characters. */
export type DashboardView = {
  /** ISO 8601. */
  readonly at: string;
  readonly ledger: { readonly name: string; readonly entries: number };
  readonly environments: readonly {
    readonly name: string;
    readonly state: string;
    readonly message: string;
    readonly revision: string;
    readonly tip: string;
    /** ISO 8601; empty before the first check. */
    readonly looked: string;
    readonly healthy: number;
    readonly objects: number;
    readonly trouble: readonly string[];
    readonly grants: readonly {
      readonly namespaces: readonly string[];
      readonly until: string;
      readonly user: string;
      readonly reason: string;
      readonly ticket: string;
    }[];
    /** Uses of break-glass not yet settled. */
    readonly unsettled: number;
  }[];
  /** The latest verdicts, newest first. */
  readonly changes: readonly {
    readonly entry: number;
    readonly time: string;
    readonly environment: string;
    readonly outcome: string;
    readonly revision: string;
    readonly violations: number;
  }[];
  /** Why older refusals are not shown, if there are some. */
  readonly refusedBefore?: string;
  /** The latest requests that were refused, or would have been, newest first. */
  readonly refused: readonly {
    readonly entry: number;
    readonly time: string;
    readonly environment: string;
    readonly user: string;
    readonly request: string;
    /** Without `enforce`, the request is reported but allowed. */
    readonly letThrough: boolean;
    readonly reason: string;
  }[];
};

export type DashboardParts = {
  readonly view: () => DashboardView;
  /** Host names it answers to, without port; undefined for any. */
  readonly hosts: readonly string[] | undefined;
};

const KEPT_MS = 2000; // more frequent requests get the same page
const REFRESH_S = 10;

/**
 * A read-only dashboard: environments, open break-glass, the latest verdicts and refusals. It changes nothing and runs
 * no script. It answers only to the configured host names: otherwise another website could read it through a user's
 * browser (DNS rebinding).
 */
export function createDashboard({ view, hosts }: DashboardParts): Express {
  const app = express();
  app.disable('x-powered-by');
  let kept: { readonly at: number; readonly page: string } | undefined;
  app.use((request, response, next) => {
    response.set({
      'content-security-policy':
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cache-control': 'no-store',
    });
    const host = (request.headers.host ?? '').replace(/:\d+$/, '').toLowerCase();
    if (hosts === undefined || hosts.includes(host)) return next();
    response
      .status(421)
      .type('text')
      .send('the dashboard does not answer to this host name: use the address it listens on\n');
  });
  app.get('/style.css', (_request, response) => {
    response.type('css').send(STYLE);
  });
  app.get('/', (_request, response) => {
    const now = performance.now();
    if (kept === undefined || now - kept.at > KEPT_MS) kept = { at: now, page: dashboardPage(view()) };
    response.type('html').send(kept.page);
  });
  app.use((_request, response) => {
    response.status(404).type('text').send('there is only one page: /\n');
  });
  const onError: ErrorRequestHandler = (_error, _request, response, _next) => {
    response.status(500).type('text').send('cannot show this page\n');
  };
  app.use(onError);
  return app;
}

/** Returns the page as HTML. */
export function dashboardPage({ at, ledger, environments, changes, refused, refusedBefore }: DashboardView): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="${REFRESH_S}">
<meta name="viewport" content="width=device-width">
<title>${environments.some((e) => e.grants.length > 0) ? 'BREAK-GLASS: ' : ''}Countersign</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
${environments.map(banner).join('')}
<header><h1>Countersign</h1>
<p>ledger <b>${escapeHtml(ledger.name)}</b>, ${ledger.entries} entries; as of ${moment(at)} UTC</p></header>
<main>
<section><h2>Environments</h2>
${table(
  ['Environment', 'State', 'Revision', 'Branch is at', 'Healthy', 'Looked at (UTC)'],
  environments.map((e) => [
    escapeHtml(e.name),
    badge(isFine(e), e.state) + (e.state === 'applied' ? '' : `<br>${escapeHtml(e.message)}`),
    revision(e.revision),
    revision(e.tip),
    `${e.healthy} of ${e.objects}${e.trouble.map((t) => `<br>${escapeHtml(t)}`).join('')}`,
    e.looked === '' ? 'never' : moment(e.looked),
  ]),
  'This service runs no environment.',
)}</section>
<section><h2>Newest verdicts</h2>
${table(
  ['Entry', 'Time (UTC)', 'Environment', 'Commit', 'Verdict'],
  changes.map((c) => [
    String(c.entry),
    moment(c.time),
    escapeHtml(c.environment),
    revision(c.revision),
    badge(c.outcome === 'allowed', c.outcome) + reasons(c.violations, c.entry),
  ]),
  'No change has been judged yet.',
)}</section>
<section><h2>Newest refusals, and what <code>enforce</code> would refuse</h2>
${table(
  ['Entry', 'Time (UTC)', 'Environment', 'Who', 'What', 'Why'],
  refused.map((r) => [
    String(r.entry),
    moment(r.time),
    escapeHtml(r.environment),
    escapeHtml(r.user),
    `${escapeHtml(r.request)}${r.letThrough ? ', allowed' : ''}`,
    escapeHtml(r.reason),
  ]),
  'No request has been refused yet.',
)}${refusedBefore === undefined ? '' : `<p>Older ones: ${escapeHtml(refusedBefore)}</p>`}</section>
</main>
</body>
</html>
`;
}

function banner({ name, grants, unsettled }: DashboardView['environments'][number]): string {
  const open = grants.map(
    ({ namespaces, until, user, reason, ticket }) =>
      `<p class="open" role="alert"><b>Break-glass is open</b> in ${escapeHtml(namespaces.join(', '))} ` +
      `(${escapeHtml(name)}) until ${moment(until)} UTC, by ${escapeHtml(user)}: ` +
      `${escapeHtml(reason)}${ticket === '' ? '' : ` (${escapeHtml(ticket)})`}</p>\n`,
  );
  const left =
    unsettled === 0
      ? ''
      : `<p class="left" role="status">${unsettled} ${unsettled === 1 ? 'use' : 'uses'} of ` +
        `break-glass in ${escapeHtml(name)} to settle: <code>countersign break-glass list</code></p>\n`;
  return open.join('') + left;
}

function isFine(e: DashboardView['environments'][number]): boolean {
  return e.state === 'applied' && e.healthy === e.objects;
}

function table(titles: readonly string[], rows: readonly (readonly string[])[], none: string): string {
  if (rows.length === 0) return `<p>${none}</p>`;
  const cells = (row: readonly string[]) => row.map((cell, i) => `<td data-title="${titles[i]}">${cell}</td>`).join('');
  return `<table><thead><tr>${titles.map((t) => `<th scope="col">${t}</th>`).join('')}</tr></thead><tbody>
${rows.map((row) => `<tr>${cells(row)}</tr>`).join('\n')}
</tbody></table>`;
}

function revision(id: string): string {
  return id === '' || isNoRevision(id)
    ? 'none'
    : `<code title="${escapeHtml(id)}">${escapeHtml(id.slice(0, 12))}</code>`;
}

function moment(time: string): string {
  return `<time datetime="${escapeHtml(time)}">${escapeHtml(time.slice(0, 19).replace('T', ' '))}</time>`;
}

const STYLE = `:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { margin: 0 }
header, main { margin: 0 auto; max-width: 76rem; padding: 0 1.2rem }
h1 { margin: 1rem 0 0; font-size: 1.5rem; color: light-dark(#0b4f6c, #7cc5e3) }
h2 { margin: 1.6rem 0 .4rem; font-size: 1.05rem }
p { margin: .3rem 0 }
.open, .left { margin: 0; padding: .7rem 1.2rem; overflow-wrap: anywhere }
.open { background: #a3220c; color: #fff; font-size: 1.1rem }
.left { background: #7a5200; color: #fff }
table { border-collapse: collapse; width: 100% }
th, td {
  text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0;
  border-bottom: 1px solid light-dark(#d8dde2, #3a4148); overflow-wrap: break-word
}
time, code[title] { white-space: nowrap }
th { font-weight: 600; white-space: nowrap }
td:last-child { min-width: 14rem; overflow-wrap: anywhere }
.state { font-weight: 600 }
.fine { color: light-dark(#0b5f3c, #6fd3a5) }
.not { color: light-dark(#a3220c, #ff9c85) }
code { font: .9em ui-monospace, monospace }
@media (max-width: 45rem) {
  thead { display: none }
  tr { display: block; border-bottom: 1px solid light-dark(#d8dde2, #3a4148); padding: .4rem 0 }
  td { display: block; border: 0; padding: .1rem 0 }
  td::before { content: attr(data-title) ': '; font-weight: 600 }
}
`;

function badge(isGood: boolean, text: string): string {
  return `<span class="state ${isGood ? 'fine' : 'not'}">${escapeHtml(text)}</span>`;
}

function reasons(count: number, entry: number): string {
  const text = count === 1 ? '1 reason' : `${count} reasons`;
  return count === 0 ? '' : `, ${text}: <code>countersign ledger show ${entry}</code>`;
}
