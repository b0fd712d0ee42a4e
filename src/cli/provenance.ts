import type { Configuration, ProcessSettings } from '../config/index.ts';
import { momentsOf } from '../gate/index.ts';
import { type NativeRepository, parseTag, sourceRepository, type UserRepository } from '../git/index.ts';
import { LedgerReader, ledgerFile } from '../ledger/index.ts';
import {
  type CommitFacts,
  type CommitVerdict,
  CountersignError,
  count,
  type Moment,
  NO_REVISION,
  type TrustPolicy,
} from '../model/index.ts';
import { chooseEnvironment, openCheckout, openConfiguration, openTrust, trustOf } from '../open/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';
import { examineHistory, judgeCommit, malformedVerdict, type TrustStore, verifyTag } from '../trust/index.ts';
import type { ProvenanceOptions } from './check-commands.ts';
import { commitRow } from './show-verdict.ts';

const MAX_TIMES = 100_000; // committer times kept for children that come later

/**
 * Implements `countersign provenance`: one verdict per commit of a range, based only on signatures; each is written as
 * soon as it is known.
 */
export async function provenance(
  range: string,
  options: ProvenanceOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const { configuration, policy, environment } = choosePolicy(options);
  const { user, repository } = await openCheckout(options.repo, settings);
  const writer = writerFor(options.output, io);
  try {
    const store = await openTrust(configuration, policy);
    const momentOf = momentsFor(options, environment);
    if (options.tag) writer.write(await tagVerdict(range, user, repository, store));
    else for await (const verdict of verdictsOf(range, user, repository, store, momentOf)) writer.write(verdict);
    return writer.end();
  } finally {
    repository.close();
  }
}

async function* verdictsOf(
  range: string,
  user: UserRepository,
  repository: NativeRepository,
  store: TrustStore,
  momentOf: (facts: Pick<CommitFacts, 'id' | 'committer'>) => Moment,
): AsyncGenerator<CommitVerdict> {
  const [a, b] = range.includes('..') ? range.split('..', 2) : [undefined, range];
  const to = await user.commit(b || 'HEAD');
  const from = a === undefined ? NO_REVISION : await user.commit(a || 'HEAD');
  const source = sourceRepository(repository);
  const times = new Map<string, number>();
  const started = await source.time(from);
  if (started !== undefined) times.set(from, started);
  for await (const examined of examineHistory({ ids: source.commitIds, read: source.commits }, { from, to }, store)) {
    if (examined.kind === 'malformed') {
      yield malformedVerdict(examined, momentOf({ id: examined.id, committer: { name: '', email: '', time: 0 } }));
      continue;
    }
    const { facts } = examined;
    const parents = facts.parents.map((p) => times.get(p)).filter((t) => t !== undefined);
    if (times.size >= MAX_TIMES) times.delete(times.keys().next().value as string);
    times.set(facts.id, facts.committer.time);
    const notBefore = parents.length === 0 ? undefined : Math.max(...parents);
    yield judgeCommit(facts, store, {
      environment: '',
      branch: '',
      paths: undefined,
      moment: momentOf(facts),
      notBefore,
    });
  }
}

async function tagVerdict(
  name: string,
  user: UserRepository,
  repository: NativeRepository,
  store: TrustStore,
): Promise<CommitVerdict> {
  const id = await user.tag(name);
  const object = await repository.read(id);
  const moment: Moment = { at: Date.now(), basis: 'now' };
  if (object.type !== 'tag')
    return malformedVerdict(
      {
        id,
        code: 'tag-lightweight',
        reason: `\`${name}\` is a lightweight tag: a name without a signature; make it with \`git tag -s\``,
      },
      moment,
    );
  const parsed = parseTag(object.bytes, id.length as 40 | 64);
  if (parsed.kind === 'malformed') return malformedVerdict({ id, code: parsed.code, reason: parsed.reason }, moment);
  return verifyTag(id, parsed.tag, name, store, moment);
}

type Chosen = { readonly configuration: Configuration; readonly policy: TrustPolicy; readonly environment: string };

function choosePolicy(options: ProvenanceOptions): Chosen {
  const configuration = openConfiguration({ config: options.trust === undefined ? options.config : [options.trust] });
  if (options.trust === undefined && configuration.environments.length > 0) {
    const environment = chooseEnvironment(configuration, options.environment);
    return { configuration, policy: trustOf(configuration, environment), environment: environment.metadata.name };
  }
  const [policy] = configuration.trustPolicies;
  if (policy === undefined)
    throw new CountersignError('usage', 'there is no TrustPolicy', {
      hint: 'name a file that contains one with --trust',
    });
  return { configuration, policy, environment: options.environment ?? '' };
}

// The service's ledger knows when a commit was first seen. Without it, a signature is judged as if first seen now.
function momentsFor(
  options: ProvenanceOptions,
  environment: string,
): (facts: Pick<CommitFacts, 'id' | 'committer'>) => Moment {
  const now = Date.now();
  if (options.data !== undefined) {
    if (environment === '')
      throw new CountersignError('usage', 'a ledger holds several environments', {
        hint: 'name one with --environment',
      });
    const reader = new LedgerReader(ledgerFile(options.data));
    const moments = momentsOf(reader, environment, now);
    reader.close();
    return moments;
  }
  return options.time === 'now'
    ? () => ({ at: now, basis: 'now' })
    : ({ committer }) => ({ at: committer.time * 1000, basis: 'claimed' });
}

function writerFor(output: ProvenanceOptions['output'], io: Io) {
  const codes = new Map<string, number>();
  const kept: object[] = [];
  return {
    write(v: CommitVerdict): void {
      codes.set(v.code, (codes.get(v.code) ?? 0) + 1);
      if (output === 'text') io.out(`${commitRow(v, io)}\n`);
      else if (output === 'jsonl') io.out(`${JSON.stringify(row(v))}\n`);
      else kept.push(row(v));
    },
    end(): number {
      const total = [...codes.values()].reduce((n, c) => n + c, 0);
      const refused = total - (codes.get('verified') ?? 0);
      const each = [...codes].filter(([code]) => code !== 'verified').map(([code, n]) => `${n} ${code}`);
      if (output === 'json') io.out(`${JSON.stringify(kept, null, 2)}\n`);
      if (output === 'text')
        io.out(`\n${count(total, 'commit')}, ${refused} refused${each.length === 0 ? '' : ` (${each.join(', ')})`}\n`);
      return refused === 0 ? EXIT.yes : EXIT.no;
    },
  };
}

function row(v: CommitVerdict): object {
  const { commit, outcome, code, signer, committedAt, signedAt, seen, basis, ...rest } = v;
  return {
    commit,
    verdict: outcome,
    code,
    ...(signer === undefined ? {} : { principal: signer.principal, kind: signer.kind }),
    ...rest,
    times: {
      committed: new Date(committedAt * 1000).toISOString(),
      ...(signedAt === undefined ? {} : { signed: new Date(signedAt * 1000).toISOString() }),
      seen,
      basis,
    },
  };
}
