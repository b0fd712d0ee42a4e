import { readFileSync } from 'node:fs';
import type { ProcessSettings } from '../config/index.ts';
import { defaultApiUrl, type ForgeAddress, type ForgeRequest, fetchReviews } from '../forge/index.ts';
import { assessTrust } from '../gate/index.ts';
import {
  diffTrees,
  type NativeRepository,
  readCommit,
  signWithGitKey,
  sourceRepository,
  type UserRepository,
} from '../git/index.ts';
import type { CommitCode } from '../model/index.ts';
import { CountersignError, count, httpAddress, NO_REVISION, sha256 } from '../model/index.ts';
import { chooseEnvironment, openCheckout, openConfiguration, openPolicy, openTrust, trustOf } from '../open/index.ts';
import { EXIT, type Io, paint, plain } from '../terminal/index.ts';
import {
  approvalPath,
  changeDigest,
  encodeEnvelope,
  FORGE_REVIEW,
  type ForgeReview,
  preAuthEncoding,
  readApproval,
  repositoryUri,
  type TrustStore,
} from '../trust/index.ts';
import type { ApprovalsImportOptions, ApprovalsListOptions, ApprovalsVerifyOptions } from './approval-commands.ts';
import { baseOf } from './approve.ts';
import { short, showFindings } from './show-verdict.ts';

/**
 * Implements `countersign approvals list`: every stored statement on the environment's branch, and whether it counts.
 */
export async function approvalsList(options: ApprovalsListOptions, settings: ProcessSettings, io: Io): Promise<number> {
  const configuration = openConfiguration(options);
  const environment = chooseEnvironment(configuration, options.environment);
  const { user, repository } = await openCheckout(options.repo, settings);
  try {
    await bringApprovals(user, options);
    const store = await openTrust(configuration, trustOf(configuration, environment));
    const rows = await readAll(repository, store, `refs/heads/${environment.spec.source.branch}`);
    if (options.output === 'json') io.out(`${JSON.stringify(rows, null, 2)}\n`);
    else if (options.output === 'jsonl') for (const row of rows) io.out(`${JSON.stringify(row)}\n`);
    else
      io.out(
        `${rows.map((row) => listRow(row, io)).join('\n')}` +
          `${rows.length === 0 ? '' : '\n\n'}${count(rows.length, 'statement')}\n`,
      );
    return EXIT.yes;
  } finally {
    repository.close();
  }
}

/**
 * Implements `countersign approvals verify COMMIT`: whether signatures and approvals let the change through, without
 * rendering or rules.
 */
export async function approvalsVerify(
  name: string,
  options: ApprovalsVerifyOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const configuration = openConfiguration(options);
  const environment = chooseEnvironment(configuration, options.environment);
  const { user, repository } = await openCheckout(options.repo, settings);
  try {
    await bringApprovals(user, options);
    const commit = await user.commit(name);
    const from = await baseOf(
      user,
      repository,
      { ...options, branch: environment.spec.source.branch },
      commit,
      (await readCommit(repository, commit)).parents[0],
    );
    const tree = (await readCommit(repository, commit)).tree;
    const trust = await openTrust(configuration, trustOf(configuration, environment));
    const source = sourceRepository(repository);
    const result = await assessTrust(
      {
        environment,
        repository: source,
        trust,
        recorder: undefined,
        clock: () => new Date(),
        openPolicy,
        untrusted: 'rendered',
      },
      from,
      commit,
      tree,
    );
    const { approvals, violations } = result;
    const good = violations.length === 0;
    if (options.output === 'json')
      io.out(`${JSON.stringify({ from, commit, approved: good, approvals, violations }, null, 2)}\n`);
    else {
      for (const a of approvals)
        io.out(
          `  ${paint(io, 'green', '✓')} approved by ${a.principal}  ` +
            `${paint(io, 'dim', `class ${a.class}, ${a.match}  ${plain(a.reason)}`)}\n`,
        );
      const findings = showFindings(violations, result.warnings, io);
      if (findings !== '') io.out(`\n${findings}\n`);
      io.out(
        `\n${good ? paint(io, 'green', 'approved') : paint(io, 'red', 'not approved')} ` +
          ` ${short(from)}..${short(commit)}\n`,
      );
    }
    return good ? EXIT.yes : EXIT.no;
  } finally {
    repository.close();
  }
}

/**
 * Implements `countersign approvals import`: imports a forge's reviews as statements signed by this bot, labelled as
 * imports.
 */
export async function approvalsImport(
  options: ApprovalsImportOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const { user, repository } = await openCheckout(options.repo, settings);
  try {
    const url = options.repository ?? (await user.config(`remote.${options.remote}.url`));
    if (url === undefined)
      throw new CountersignError('usage', `there is no remote \`${options.remote}\` to determine the repository from`, {
        hint: 'use --repository with the address in the environment’s `spec.source.url`',
      });
    const request = await fetchReviews({
      ...forgeOf(url, options),
      number: pullNumber(options.pull),
      token: options.tokenFile === undefined ? undefined : readToken(options.tokenFile),
    });
    if (request.base !== options.branch)
      throw new CountersignError('usage', `the request goes to \`${request.base}\`, not to \`${options.branch}\``, {
        hint: `use --branch ${request.base}`,
      });
    const head = await user.commit(request.head).catch(() => {
      throw new CountersignError(
        'git-ref-missing',
        `the reviewed commit ${short(request.head)} is not in this checkout`,
        {
          hint: 'fetch the request’s branch first',
        },
      );
    });
    const { tree, parents } = await readCommit(repository, head);
    const from = await baseOf(user, repository, options, head, parents[0]);
    const bound = {
      targetRef: `refs/heads/${options.branch}`,
      fromID: from,
      headID: head,
      targetID: tree,
      changeDigest: { sha256: changeDigest(await diffTrees(repository, from, head)) },
      environments: options.environment,
    };
    const files = [{ path: `raw/${sha256(request.raw)}.json`, content: request.raw }];
    for (const review of request.reviews) {
      const statement = reviewStatement(request, review, bound, repositoryUri(url));
      const payload = Buffer.from(JSON.stringify(statement));
      const signature = await signWithGitKey(user, preAuthEncoding(payload), options.key);
      const envelope = encodeEnvelope(payload, signature.armored, signature.keyId.split('/').at(-1) ?? '');
      files.push({ path: approvalPath(statement, envelope), content: envelope });
    }
    if (request.reviews.length > 0) await user.publishApprovals(files, options.push ? options.remote : undefined);
    tellImported(request, head, options, io);
    return EXIT.yes;
  } finally {
    repository.close();
  }
}

// The forge is determined by the given addresses, not by its answer.
function forgeOf(
  url: string,
  { forge, apiUrl, project }: ApprovalsImportOptions,
): Pick<ForgeAddress, 'forge' | 'api' | 'repository'> {
  const [place = '', ...path] = repositoryUri(url).slice('git+'.length).split('/');
  const host = /^https?:/i.test(url) ? place : place.replace(/:\d+$/, ''); // the SSH port is not the port of the API
  const api = httpAddress(apiUrl ?? defaultApiUrl(forge, host));
  // a forge that is not at the root of its host
  const [, prefix = ''] = /^\/(.*\/)?api\/v\d+\/?$/.exec(api.path) ?? [];
  const whole = path.join('/');
  const there = whole.startsWith(prefix) ? whole.slice(prefix.length) : whole;
  // The path of a local repository says nothing about a forge. Forges ignore the case of project names.
  if (place !== '' && there.toLowerCase() !== project.toLowerCase())
    throw new CountersignError('usage', `the project \`${plain(project)}\` is not the repository \`${plain(there)}\``, {
      hint: '--project and --repository must name the same project: reviews of a fork say nothing about it',
    });
  return { forge, api, repository: project };
}

function reviewStatement(
  request: ForgeRequest,
  review: ForgeRequest['reviews'][number],
  bound: Pick<
    ForgeReview['predicate'],
    'targetRef' | 'fromID' | 'headID' | 'targetID' | 'changeDigest' | 'environments'
  >,
  uri: string,
): ForgeReview {
  return {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ uri, digest: { gitCommit: bound.headID, gitTree: bound.targetID } }],
    predicateType: FORGE_REVIEW,
    predicate: {
      ...bound,
      forge: request.forge,
      request: request.url,
      review: review.id,
      reviewer: review.reviewer,
      state: review.state,
      ...(review.commit === undefined ? {} : { commit: review.commit }),
      ...(review.submittedAt === undefined ? {} : { submittedAt: review.submittedAt }),
      openedBy: request.openedBy,
      ...(request.mergedBy === undefined ? {} : { mergedBy: request.mergedBy }),
      raw: sha256(request.raw),
      importedAt: new Date().toISOString(),
      reason: request.url,
    },
  };
}

function tellImported(request: ForgeRequest, head: string, options: ApprovalsImportOptions, io: Io): void {
  if (options.output === 'json') {
    io.out(
      `${JSON.stringify({ request: request.url, head, reviews: request.reviews, pushed: options.push }, null, 2)}\n`,
    );
    return;
  }
  for (const r of request.reviews) {
    const same =
      r.commit === head
        ? 'for this commit (class B)'
        : r.commit === undefined
          ? 'for no named commit (class C)'
          : `for ${short(r.commit)}, an older state (class C)`;
    io.out(`  ${r.state.padEnd(9)}  ${plain(r.reviewer.login)} (${r.reviewer.id})  ${paint(io, 'dim', same)}\n`);
  }
  io.out(
    `imported ${count(request.reviews.length, 'review')} of ` +
      `${plain(request.url)}${options.push ? '' : '; not pushed'}\n`,
  );
}

type Row = {
  readonly path: string;
  readonly counts: boolean;
  readonly code: CommitCode;
  readonly reason: string;
  readonly decision?: string;
  readonly principal?: string;
  readonly class?: string;
  readonly from?: string;
  readonly commit?: string;
  readonly issuedAt?: string;
  readonly environments?: readonly string[];
};

async function readAll(repository: NativeRepository, store: TrustStore, ref: string): Promise<Row[]> {
  const rows: Row[] = [];
  for (const { path, text } of await sourceRepository(repository).approvals(ref, () => true)) {
    const read = await readApproval(text, store, Date.now());
    if (read.kind === 'refused') rows.push({ path, counts: false, code: read.code, reason: read.reason });
    else {
      const { principal, from, commit, issuedAt, reason, class: evidence } = read.approval;
      rows.push({
        path,
        counts: true,
        code: 'verified',
        reason,
        decision: read.decision,
        principal,
        class: evidence,
        from,
        commit,
        issuedAt,
        environments: read.binding.environments,
      });
    }
  }
  return rows.sort((a, b) => ((a.issuedAt ?? '') < (b.issuedAt ?? '') ? -1 : 1));
}

function listRow(row: Row, io: Io): string {
  if (!row.counts)
    return (
      `${paint(io, 'red', 'no count')}  ${row.code.padEnd(20)}  ` +
      `${plain(row.reason)}\n          ${paint(io, 'dim', row.path)}`
    );
  const range = `${short(row.from ?? NO_REVISION)}..${short(row.commit ?? '')}`;
  return (
    `${paint(io, row.decision === 'approve' ? 'green' : 'yellow', (row.decision ?? '').padEnd(8))}  ${range}  ` +
    `${(row.principal ?? '').padEnd(16)}  ${row.class ?? ''}  ` +
    `${row.issuedAt?.slice(0, 16) ?? ''}  ${plain(row.reason.slice(0, 60))}`
  );
}

async function bringApprovals(user: UserRepository, options: { fetch: boolean; remote: string }): Promise<void> {
  if (options.fetch && (await user.config(`remote.${options.remote}.url`)) !== undefined)
    await user.fetchApprovals(options.remote);
}

function pullNumber(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new CountersignError('usage', `\`${text}\` is not the number of a pull or merge request`);
  return Number(text);
}

function readToken(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (cause) {
    throw new CountersignError('key-missing', `the token file \`${file}\` cannot be read`, { cause });
  }
}
