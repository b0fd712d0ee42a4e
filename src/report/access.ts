import type { StatedConfiguration, TrustPolicy } from '../model/index.ts';
import type { ChangeFacts, ReadVerdict } from './changes.ts';
import type { AccessChange, AccessRecord } from './model.ts';
import { type ReportSource, unique } from './source.ts';

type Person = {
  kind: string;
  readonly roles: Set<string>;
  readonly keys: Map<string, { from: string; to: string }>;
  readonly signed: Set<string>;
  readonly approved: Set<string>;
  listed: { readonly from: string; readonly until: string };
  used: { readonly first: string; readonly last: string };
};

/**
 * A TrustPolicy as recorded on the ledger: by a change to the repository that contains it, or with the configuration.
 */
export type RecordedPolicy = {
  readonly index: number;
  readonly time: string;
  readonly environment: string;
  /** The entry of the verdict that allowed it; undefined for the configuration's. */
  readonly verdict: number | undefined;
  readonly policy: TrustPolicy;
};

/**
 * Returns recorded TrustPolicies, those of the configuration once per version. They are separate from those in
 * repositories: an environment with `trustPath` has both.
 */
export function recordedPolicies(
  source: ReportSource,
  isIn: (environment: string) => boolean,
): readonly RecordedPolicy[] {
  const digests = new Map<string, string>();
  const configured = source.of('config.stated').flatMap(({ index, entry: { time, evidence } }) => {
    const { environments, trustPolicies = [] } = source.evidence<StatedConfiguration>(evidence.sha256);
    return environments.flatMap(({ name: environment, trust, trustDigest }): RecordedPolicy[] => {
      const policy = trustPolicies.find((p) => p.metadata.name === trust);
      if (policy === undefined || !isIn(environment) || digests.get(environment) === trustDigest) return [];
      digests.set(environment, trustDigest);
      return [{ index, time, environment, verdict: undefined, policy }];
    });
  });
  const kept = source.of('trust.changed').map(
    ({ index, entry: { time, environment, verdict, evidence } }): RecordedPolicy => ({
      ...{ index, time, environment, verdict },
      policy: source.evidence<TrustPolicy>(evidence.sha256),
    }),
  );
  return [...configured, ...kept].sort((a, b) => a.index - b.index);
}

const NEVER = { first: '', last: '' };
const UNLISTED = { from: '', until: '' };

// Identifies a sequence of versions: of an environment's repository, or of its configuration.
function lineOf({ environment, verdict }: RecordedPolicy): string {
  return `${verdict === undefined ? 'configuration' : 'repository'} ${environment}`;
}

/**
 * Collects who signed, approved, and was allowed to, according to verdicts and recorded TrustPolicies. Verdicts must be
 * added in order.
 */
export function accessBook(
  source: ReportSource,
  policies: readonly RecordedPolicy[],
): { readonly see: (read: ReadVerdict) => void; readonly records: () => AccessRecord[] } {
  const people = new Map<string, Person>();
  const person = (name: string, kind: string): Person => {
    const known = people.get(name) ?? {
      kind,
      roles: new Set(),
      keys: new Map(),
      signed: new Set(),
      approved: new Set(),
      used: NEVER,
      listed: UNLISTED,
    };
    people.set(name, known);
    return known;
  };
  const newest = new Map<string, readonly string[]>();
  for (const recorded of policies) {
    const { spec } = recorded.policy;
    const names = spec.principals.map((p) => p.name);
    const gone = (newest.get(lineOf(recorded)) ?? []).filter((name) => !names.includes(name));
    newest.set(lineOf(recorded), names);
    const elsewhere = new Set([...newest.values()].flat());
    for (const name of gone) {
      const p = people.get(name);
      if (p !== undefined && !elsewhere.has(name)) p.listed = { ...p.listed, until: recorded.time };
    }
    for (const principal of spec.principals) {
      const p = person(principal.name, principal.kind);
      p.listed = { from: p.listed.from || recorded.time, until: '' };
      for (const group of spec.groups) if (group.members.includes(principal.name)) p.roles.add(group.name);
    }
  }
  const use = (p: Person, key: string, at: string) => {
    const known = p.keys.get(key);
    p.keys.set(key, {
      from: known === undefined || at < known.from ? at : known.from,
      to: known === undefined || at > known.to ? at : known.to,
    });
    p.used = { first: p.used.first || at, last: at }; // verdicts come in order of time
  };
  const see = ({ judged: { entry }, verdict }: ReadVerdict) => {
    for (const { commit, signer } of verdict.commits) {
      if (signer === undefined) continue;
      const p = person(signer.principal, signer.kind);
      p.roles.add('signer');
      p.signed.add(commit);
      use(p, signer.key, entry.time);
    }
    for (const approval of verdict.approvals) {
      const p = person(approval.principal, 'person');
      p.roles.add('approver');
      p.approved.add(approval.envelope);
      use(p, approval.key, entry.time);
    }
  };
  for (const { entry } of source.within('breakglass.used')) person(entry.user, 'account').roles.add('break-glass');
  for (const type of ['breakglass.opened', 'breakglass.approved'] as const)
    for (const { entry } of source.within(type)) person(entry.user, 'account').roles.add('break-glass');
  const records = () =>
    [...people]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([principal, p]) => ({
        principal,
        kind: p.kind,
        roles: [...p.roles].sort(),
        keys: [...p.keys].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, { from, to }]) => ({ key, from, to })),
        signed: p.signed.size,
        approved: p.approved.size,
        listedFrom: p.listed.from,
        listedUntil: p.listed.until,
        firstUse: p.used.first,
        lastUse: p.used.last,
      }));
  return { see, records };
}

/** Returns how each recorded change of the TrustPolicy affected who may sign and approve. */
export function accessChangesOf(
  source: ReportSource,
  changes: readonly ChangeFacts[],
  policies: readonly RecordedPolicy[],
): AccessChange[] {
  const before = new Map<string, TrustPolicy>();
  const byEntry = new Map(changes.map((c) => [c.entry, c.id]));
  return policies.flatMap((recorded): AccessChange[] => {
    const { index, time, environment, verdict, policy: now } = recorded;
    const line = lineOf(recorded);
    const was = before.get(line);
    before.set(line, now);
    // The configuration is recorded again each day: the first record of a period is not a change.
    if (!source.isWithin(time) || (was === undefined && verdict === undefined)) return [];
    const names = (policy: TrustPolicy | undefined) => (policy?.spec.principals ?? []).map((p) => p.name);
    const spelled = (policy: TrustPolicy | undefined, name: string) =>
      JSON.stringify([
        policy?.spec.principals.find((p) => p.name === name),
        policy?.spec.groups.filter((g) => g.members.includes(name)).map((g) => g.name),
      ]);
    const stayed = names(now).filter((name) => names(was).includes(name));
    return [
      {
        entry: index,
        time,
        environment,
        change: verdict === undefined ? '' : (byEntry.get(verdict) ?? ''),
        joined: was === undefined ? [] : names(now).filter((name) => !names(was).includes(name)),
        left: names(was).filter((name) => !names(now).includes(name)),
        otherwise: unique([
          ...stayed.filter((name) => spelled(was, name) !== spelled(now, name)),
          ...(was === undefined
            ? ['first recorded version']
            : JSON.stringify(was.spec.rules) === JSON.stringify(now.spec.rules)
              ? []
              : ['rules of approval']),
        ]),
      },
    ];
  });
}
