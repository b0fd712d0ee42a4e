import { randomBytes } from 'node:crypto';
import { templateDigest } from '../machinery/index.ts';
import {
  ANNOTATION,
  CountersignError,
  contentDigest,
  durationMs,
  type EntryOf,
  type Environment,
  messageOf,
  parseDuration,
  type Recorded,
  refKey,
  refText,
  standingUses,
  type Told,
} from '../model/index.ts';
import {
  type AdmissionDecision,
  type AdmissionRequest,
  annotationsOf,
  isIntoNode,
  namespaceOf,
} from './admission-request.ts';
import type { LedgerView, LiveGrants, LiveReason, SureRecorder } from './ports.ts';

/** Permission for members of the groups to act in namespaces of an environment, until a time. */
export type Grant = {
  readonly user: string;
  readonly reason: string;
  readonly ticket: string;
  readonly namespaces: readonly string[];
  /** ISO 8601. */
  readonly opened: string;
  readonly until: string;
  /** Number of approvals that it needs, and who gave one. */
  readonly approvals: number;
  readonly approver: string | undefined;
};

type Approval = Pick<Grant, 'user' | 'reason' | 'namespaces'> & { readonly at: string };

type UsedTemplate = { readonly object: string; readonly template: string; readonly until: string };

const KEYS: ReadonlySet<string> = new Set([
  ANNOTATION.breakGlass,
  ANNOTATION.breakGlassFor,
  ANNOTATION.breakGlassTicket,
  ANNOTATION.breakGlassApproved,
]);
const MAX_TEXT = 500;
const CONFIRM_MS = 10_000; // a write that was answered is stored by then

type Seen = LiveReason & { readonly at: number };

/**
 * Break-glass in one environment: open grants and their uses. Every use is recorded before it is allowed. A request to
 * the webhook can be forged by anyone who reaches it, so a grant stands only while the API server has its reason on the
 * Namespace, and a closing counts only once the reason is gone.
 */
export class BreakGlass {
  readonly #environment: Environment;
  readonly #ledger: LedgerView & SureRecorder;
  readonly #clock: () => Date;
  readonly #tell: (told: Told) => void;
  #known: { readonly index: number; readonly grants: readonly Grant[] } = { index: -2, grants: [] };
  #used: { readonly index: number; readonly uses: readonly UsedTemplate[] } = { index: -2, uses: [] };
  // Uses not yet on the ledger.
  #made: readonly UsedTemplate[] = [];
  // Grants and closures not yet on the ledger; they are in the write-ahead file.
  #beside: { readonly grant: Grant; readonly opened: boolean }[] = [];
  #approvedBeside: readonly Approval[] = [];
  readonly #live: LiveGrants;
  // Reasons on each Namespace when it was last read, and the time of reading.
  readonly #seen = new Map<string, Seen>();

  constructor(
    environment: Environment,
    ledger: LedgerView & SureRecorder,
    clock: () => Date,
    live: LiveGrants,
    tell: (told: Told) => void = () => {},
  ) {
    this.#live = live;
    this.#environment = environment;
    this.#ledger = ledger;
    this.#clock = clock;
    this.#tell = tell;
  }

  /** Tests whether a user is in one of the groups. */
  mayUse({ groups }: Pick<AdmissionRequest, 'groups'>): boolean {
    return mayUseBreakGlass(this.#environment, { groups });
  }

  /**
   * Decides a request that only opens, approves or closes a grant; returns undefined for any other request, or if it is
   * not allowed.
   */
  async decideGrant(request: AdmissionRequest): Promise<AdmissionDecision | undefined> {
    if (!this.mayUse(request) || !isOnlyGrant(request)) return undefined;
    const asked = this.#asked(request);
    if (approvalIn(request) !== undefined) return asked === undefined ? this.#approve(request) : undefined;
    if (asked !== undefined) return this.#open(request, asked);
    return ends(request) ? this.#close(request) : undefined;
  }

  /** Decides a request that break-glass allows, or returns undefined. Throws if it cannot be recorded anywhere. */
  async decide(request: AdmissionRequest): Promise<AdmissionDecision | undefined> {
    if (!this.mayUse(request) || isOnlyGrant(request)) return undefined;
    const alone = this.#approvals === 0 ? this.#asked(request) : undefined;
    const use = alone ?? (await this.#openFor(request));
    return use === undefined ? undefined : this.#use(request, use);
  }

  get #approvals(): number {
    return this.#environment.spec.admission.breakGlass.approvals;
  }

  /** Returns the current grants, including those not yet on the ledger, as far as the API server confirmed them. */
  open(): readonly Grant[] {
    const closed = this.#grants();
    const isConfirmed = (g: Grant) => {
      const seen = g.namespaces.map((n) => this.#seen.get(n));
      const isKnown = seen.every((s) => s !== undefined && s.at >= Date.parse(g.opened));
      return isKnown ? seen.some((s) => s?.reason === g.reason) : closed.some((c) => keyOf(c) === keyOf(g));
    };
    return this.#candidates().filter(isConfirmed);
  }

  /**
   * Reads from the API server what was announced by requests, and records what it does not have. Called now and then;
   * does nothing unless there are grants.
   */
  async confirm(): Promise<void> {
    const candidates = this.#candidates();
    const namespaces = new Set(candidates.flatMap((g) => g.namespaces));
    for (const namespace of namespaces) await this.#read(namespace);
    const name = this.#environment.metadata.name;
    const told = new Set(this.#ledger.all('breakglass.unconfirmed', name).map((r) => r.entry.of));
    const now = this.#clock().toISOString();
    const all = this.#ledger.all('breakglass.opened', name);
    for (const opened of all) {
      const { namespaces: of = [], reason, until } = opened.entry;
      // opened again since then, perhaps for the same reason
      if (all.some((a) => a.index > opened.index && a.entry.namespaces?.some((n) => of.includes(n)) === true)) continue;
      const isNew = this.#clock().getTime() - Date.parse(opened.entry.time) <= CONFIRM_MS;
      if (until <= now || told.has(opened.index) || isNew) continue;
      const later = this.#ledger.all('breakglass.closed', name).filter((c) => c.index > opened.index);
      const isThere = of.some((n) => this.#seen.get(n)?.reason === reason);
      if (isThere) this.#confirmed.add(opened.index);
      else if (later.length === 0 && !this.#confirmed.has(opened.index))
        await this.#recordUnconfirmed(opened.index, of);
      for (const { index, entry } of later)
        if (isThere && !told.has(index) && entry.namespaces.some((n) => of.includes(n)))
          await this.#recordUnconfirmed(index, entry.namespaces);
    }
    for (const { index, entry } of this.#ledger.all('breakglass.approved', name)) {
      const isNew = this.#clock().getTime() - Date.parse(entry.time) <= CONFIRM_MS;
      const stands = candidates.some((g) => isFor(entry, g));
      const isThere = entry.namespaces.some((n) => this.#seen.get(n)?.approved === entry.reason);
      if (isThere) this.#confirmed.add(index);
      else if (stands && !isNew && !told.has(index) && !this.#confirmed.has(index))
        await this.#recordUnconfirmed(index, entry.namespaces);
    }
  }

  readonly #confirmed = new Set<number>();

  async #recordUnconfirmed(of: number, namespaces: readonly string[]): Promise<void> {
    const environment = this.#environment.metadata.name;
    await this.#ledger.record({ type: 'breakglass.unconfirmed', environment, of, namespaces: [...namespaces] }, []);
  }

  async #read(namespace: string): Promise<Seen> {
    const { reason, approved } = await this.#live.reasonIn(namespace);
    const before = this.#seen.get(namespace);
    const seen = { reason: plain(reason), approved: plain(approved), at: this.#clock().getTime() };
    this.#seen.set(namespace, seen);
    if (before?.reason !== undefined && before.reason !== seen.reason) this.#live.ended();
    return seen;
  }

  // Everything that was opened and whose time is not over. Whether it was closed, the API server says.
  #candidates(): readonly Grant[] {
    const now = this.#clock().toISOString();
    const name = this.#environment.metadata.name;
    const beside = this.#beside.flatMap((b) => (b.opened ? [b.grant] : []));
    const standing = [...this.#opened(name), ...beside].filter((g) => g.until > now);
    // A grant from the write-ahead file appears on the ledger some time later.
    const all = new Map(standing.map((g) => [keyOf(g), g]));
    return [...all.values()].map((g) => approvedBy(g, this.#approvedBeside));
  }

  #opened(name: string): readonly Grant[] {
    const approvals = approvalsOf(this.#ledger, name);
    return this.#ledger.all('breakglass.opened', name).map(({ entry }) => approvedBy(grantOf(entry), approvals));
  }

  /** Returns the digests of templates that are in use through break-glass, by the `refKey` of their object. */
  templates(): ReadonlyMap<string, readonly string[]> {
    const name = this.#environment.metadata.name;
    const index = this.#ledger.latest(['breakglass.used', 'breakglass.refused'], name)?.index ?? -1;
    if (index !== this.#used.index)
      this.#used = {
        index,
        uses: usesOf(this.#ledger, name).flatMap(({ entry: { object, template, until } }) =>
          template === undefined ? [] : [{ object: refKey(object), template, until }],
        ),
      };
    const now = this.#clock().toISOString();
    const standing = [...this.#used.uses, ...this.#made].filter((u) => u.until > now);
    const byObject = Map.groupBy(standing, (u) => u.object);
    return new Map([...byObject].map(([object, uses]) => [object, uses.map((u) => u.template)]));
  }

  // A connection to a node reaches pods of any namespace, so any grant opens it.
  async #openFor(request: AdmissionRequest): Promise<Grant | undefined> {
    const namespace = namespaceOf(request);
    const isOpen = (g: Grant) => (namespace === '' ? isIntoNode(request) : g.namespaces.includes(namespace));
    const candidates = this.#candidates().filter(isOpen);
    for (const place of new Set(namespace === '' ? candidates.flatMap((g) => g.namespaces) : [namespace])) {
      const here = candidates.filter((g) => g.namespaces.includes(place));
      if (here.length === 0) continue;
      const { reason, approved } = await this.#read(place).catch((thrown) => {
        throw new CountersignError(
          'cluster-unreachable',
          `break-glass cannot be confirmed, because the API server does not answer the gate: ${messageOf(thrown)}`,
          { recover: 'retry' },
        );
      });
      const isApproved = (g: Grant) => this.#approvals === 0 || (g.approver !== undefined && approved === g.reason);
      const grant = here.findLast((g) => g.reason === reason && isApproved(g));
      if (grant !== undefined) return grant;
    }
    return undefined;
  }

  #grants(): readonly Grant[] {
    const name = this.#environment.metadata.name;
    const types = ['breakglass.opened', 'breakglass.approved', 'breakglass.closed'] as const;
    const index = this.#ledger.latest(types, name)?.index ?? -1;
    if (index !== this.#known.index) this.#known = { index, grants: grantsOf(this.#ledger, name) };
    let grants: readonly Grant[] = this.#known.grants;
    for (const { grant, opened } of this.#beside)
      grants = opened ? [...grants, grant] : without(grants, grant.namespaces);
    return grants;
  }

  // The reason must be new: one left on the object from last time does not count today.
  #asked(request: AdmissionRequest): Grant | undefined {
    const { object, oldObject, operation, user } = request;
    if (request.subresource !== '') return undefined;
    const now = annotationsOf(object ?? oldObject);
    const reason = now[ANNOTATION.breakGlass]?.trim() ?? '';
    const before = annotationsOf(oldObject);
    const isStale =
      operation === 'UPDATE' &&
      before[ANNOTATION.breakGlass]?.trim() === reason &&
      before[ANNOTATION.breakGlassFor] === now[ANNOTATION.breakGlassFor];
    if (reason === '' || isStale || this.#isUsedUp(request, reason)) return undefined;
    const { holdFor } = this.#environment.spec.admission.breakGlass;
    const asked = parseDuration(now[ANNOTATION.breakGlassFor] ?? '') ?? Number.POSITIVE_INFINITY;
    return {
      user,
      reason: reason.slice(0, MAX_TEXT).toWellFormed(),
      ticket: (now[ANNOTATION.breakGlassTicket] ?? '').trim().slice(0, MAX_TEXT).toWellFormed(),
      namespaces: [namespaceOf(request)],
      approvals: this.#approvals,
      approver: undefined,
      opened: this.#clock().toISOString(),
      until: new Date(this.#clock().getTime() + Math.min(asked, durationMs(holdFor))).toISOString(),
    };
  }

  // An object that is made or removed brings its reason along: it counts once.
  #isUsedUp({ operation, ref }: AdmissionRequest, reason: string): boolean {
    if (operation === 'UPDATE') return false;
    const key = refKey(ref);
    return usesOf(this.#ledger, this.#environment.metadata.name).some(
      ({ entry }) => entry.reason === reason.slice(0, MAX_TEXT).toWellFormed() && refKey(entry.object) === key,
    );
  }

  async #open(request: AdmissionRequest, grant: Grant): Promise<AdmissionDecision> {
    const name = this.#environment.metadata.name;
    if (!request.dryRun) {
      const { reason, ticket, until } = grant;
      const recorded = await this.#ledger.recordSurely(
        {
          type: 'breakglass.opened',
          environment: name,
          user: this.#ledger.subject(request.user),
          reason,
          ticket,
          until,
          namespaces: [...grant.namespaces],
          ...(grant.approvals === 0 ? {} : { approvals: grant.approvals }),
          uid: request.uid,
        },
        [],
      );
      if (recorded === undefined) this.#remember(grant, true);
      this.#soon();
      const waits = grant.approvals === 0 ? '' : ', once a second person approves it';
      this.#say(request, `break-glass is open in ${grant.namespaces.join(', ')} until ${until}${waits}: ${reason}`);
    }
    const where = `\`${grant.namespaces.join('`, `')}\` until ${grant.until}`;
    return letThrough(
      grant.approvals === 0
        ? `countersign: break-glass is open in ${where}; each use is recorded and will be in every report`
        : `countersign: break-glass is asked for in ${where}; it counts once a second member of the groups ` +
            'approves it with `countersign break-glass approve`',
    );
  }

  // The reason that was opened, written again by someone else.
  async #approve(request: AdmissionRequest): Promise<AdmissionDecision> {
    const reason = plain(annotationsOf(request.object)[ANNOTATION.breakGlass]);
    const namespaces = [namespaceOf(request)];
    const grant = this.#candidates().findLast((g) => g.reason === reason && g.namespaces.includes(namespaces[0] ?? ''));
    if (reason === undefined || reason !== approvalIn(request) || grant === undefined)
      return refused('there is no open break-glass with the reason that is approved');
    if ([request.user, this.#ledger.subject(request.user)].includes(grant.user))
      return refused('who opened break-glass cannot approve it: let another member of the groups do that');
    if (!request.dryRun) {
      const body = { type: 'breakglass.approved', environment: this.#environment.metadata.name, reason } as const;
      const user = this.#ledger.subject(request.user);
      const recorded = await this.#ledger.recordSurely({ ...body, user, namespaces, uid: request.uid }, []);
      const at = this.#clock().toISOString();
      if (recorded === undefined)
        this.#approvedBeside = [...this.#approvedBeside, { user: request.user, reason, namespaces, at }].slice(-100);
      this.#soon();
      this.#say(request, `break-glass in ${namespaces.join(', ')} is approved: ${reason}`);
    }
    return letThrough(
      `countersign: break-glass is approved in \`${namespaces.join('`, `')}\` until ${grant.until}: ${reason}`,
    );
  }

  async #close(request: AdmissionRequest): Promise<AdmissionDecision> {
    const namespaces = [namespaceOf(request)];
    if (!request.dryRun) {
      const body = {
        type: 'breakglass.closed',
        environment: this.#environment.metadata.name,
        user: this.#ledger.subject(request.user),
        namespaces,
        uid: request.uid,
      } as const;
      if ((await this.#ledger.recordSurely(body, [])) === undefined)
        this.#remember({ ...NO_GRANT, user: request.user, namespaces }, false);
      this.#soon();
      this.#say(request, `break-glass is closed in ${namespaces.join(', ')}`);
    }
    return letThrough(`countersign: break-glass is closed in \`${namespaces.join('`, `')}\``);
  }

  async #use(request: AdmissionRequest, { reason, until }: Grant): Promise<AdmissionDecision> {
    const use = randomBytes(16).toString('hex');
    if (!request.dryRun) {
      const { object, subresource } = request;
      const whole = subresource === '' ? object : undefined;
      const template = whole === undefined ? undefined : templateDigest(whole);
      const uid = whole?.metadata['uid'];
      const recorded = await this.#ledger
        .recordSurely(
          {
            type: 'breakglass.used',
            environment: this.#environment.metadata.name,
            user: this.#ledger.subject(request.user),
            operation: request.operation,
            object: request.ref,
            reason,
            until,
            groups: [...request.groups].slice(0, 50),
            uid: request.uid,
            use,
            ...(request.subresource === '' ? {} : { subresource: request.subresource }),
            ...(template === undefined ? {} : { template }),
            ...(whole === undefined ? {} : { content: contentDigest(whole) }),
            ...(request.operation === 'CREATE' && typeof uid === 'string' ? { made: uid } : {}),
          },
          [],
        )
        .catch((thrown) => {
          // It may be on the ledger all the same, if the database was lost during the commit.
          void this.refuse(request, use).catch(() => {});
          throw thrown;
        });
      if (recorded === undefined && template !== undefined)
        this.#made = [...this.#made, { object: refKey(request.ref), template, until }].slice(-100);
      this.#say(
        request,
        `break-glass: ${request.operation} ` +
          `${refText(request.ref)}${request.subresource === '' ? '' : `/${request.subresource}`}: ${reason}`,
      );
    }
    const decision = letThrough(
      `countersign: break-glass is recorded and will be in every report; Git takes over again at ${until}`,
    );
    return request.dryRun ? decision : { ...decision, use };
  }

  /** Records that a request was refused although its use is on record, because the answer did not arrive in time. */
  async refuse({ uid, ref }: Pick<AdmissionRequest, 'uid' | 'ref'>, use: string): Promise<void> {
    const environment = this.#environment.metadata.name;
    await this.#ledger.recordSurely({ type: 'breakglass.refused', environment, uid, use, object: ref }, []);
    this.#made = this.#made.filter((u) => u.object !== refKey(ref));
  }

  // The write is stored a moment after it was answered.
  #soon(): void {
    for (const ms of [500, CONFIRM_MS + 1000]) setTimeout(() => void this.confirm().catch(() => {}), ms).unref();
  }

  #remember(grant: Grant, opened: boolean): void {
    const now = this.#clock().toISOString();
    this.#beside = [...this.#beside.filter((b) => !b.opened || b.grant.until > now), { grant, opened }].slice(-100);
  }

  #say(request: AdmissionRequest, message: string): void {
    const revision = this.#ledger.latest(['apply.result'], this.#environment.metadata.name)?.entry.revision ?? '';
    this.#tell({
      environment: this.#environment.metadata.name,
      event: 'break-glass',
      revision,
      message: `${message} (by ${request.user})`,
      at: this.#clock().toISOString(),
      objects: [request.ref],
    });
  }
}

/** Returns the uses of break-glass in an environment, but for those of requests that were refused all the same. */
export function usesOf(
  ledger: Pick<LedgerView, 'all'>,
  environment: string,
): readonly Recorded<EntryOf<'breakglass.used'>>[] {
  return standingUses(ledger.all('breakglass.used', environment), ledger.all('breakglass.refused', environment));
}

/** Tests whether a user is in one of the groups that may use break-glass in an environment. */
export function mayUseBreakGlass({ spec }: Environment, { groups }: Pick<AdmissionRequest, 'groups'>): boolean {
  return spec.admission.breakGlass.groups.some((g) => groups.includes(g));
}

const NO_GRANT = { reason: '', ticket: '', opened: '', until: '', approvals: 0, approver: undefined };

/** Returns the grants of an environment on the ledger that were not returned, including expired ones. */
export function grantsOf(
  ledger: Pick<LedgerView, 'all'>,
  environment: string,
): readonly (Grant & { readonly entry: number })[] {
  const told: readonly Recorded<EntryOf<'breakglass.opened' | 'breakglass.closed'>>[] = [
    ...ledger.all('breakglass.opened', environment),
    ...ledger.all('breakglass.closed', environment),
  ].sort((a, b) => a.index - b.index);
  const approvals = approvalsOf(ledger, environment);
  let grants: (Grant & { readonly entry: number })[] = [];
  for (const { index, entry } of told) {
    if (entry.type === 'breakglass.closed') grants = without(grants, entry.namespaces);
    else grants.push({ entry: index, ...approvedBy(grantOf(entry), approvals) });
  }
  return grants;
}

function grantOf(entry: EntryOf<'breakglass.opened'>): Grant {
  const { namespaces = [], user, reason, ticket, until, approvals = 0 } = entry;
  return { namespaces, user, reason, ticket, opened: entry.at ?? entry.time, until, approvals, approver: undefined };
}

/** Returns the approvals of an environment on the ledger, but for those that the API server does not have. */
function approvalsOf(ledger: Pick<LedgerView, 'all'>, environment: string): readonly Approval[] {
  const unconfirmed = new Set(ledger.all('breakglass.unconfirmed', environment).map((r) => r.entry.of));
  return ledger
    .all('breakglass.approved', environment)
    .filter(({ index }) => !unconfirmed.has(index))
    .map(({ entry: { user, reason, namespaces, time, at = time } }) => ({ user, reason, namespaces, at }));
}

function approvedBy<G extends Grant>(grant: G, approvals: readonly Approval[]): G {
  const found = approvals.find((a) => isFor(a, grant) && a.user !== grant.user && a.at >= grant.opened);
  return found === undefined || grant.approver !== undefined ? grant : { ...grant, approver: found.user };
}

function isFor({ reason, namespaces }: Pick<Approval, 'reason' | 'namespaces'>, grant: Grant): boolean {
  return reason === grant.reason && namespaces.some((n) => grant.namespaces.includes(n));
}

function plain(text: string | undefined): string | undefined {
  return text?.trim().slice(0, MAX_TEXT).toWellFormed();
}

// The reason that a request approves: newly written beside the one that is there.
function approvalIn({ object, oldObject }: AdmissionRequest): string | undefined {
  const approved = annotationsOf(object)[ANNOTATION.breakGlassApproved];
  return approved === annotationsOf(oldObject)[ANNOTATION.breakGlassApproved] ? undefined : plain(approved);
}

function refused(message: string): AdmissionDecision {
  return { allowed: false, message, warnings: [], notes: { denied: message } };
}

function keyOf({ namespaces, until, user }: Grant): string {
  return JSON.stringify([namespaces, until, user]);
}

function without<G extends Grant>(grants: readonly G[], namespaces: readonly string[]): G[] {
  return grants.filter((g) => !g.namespaces.some((n) => namespaces.includes(n)));
}

// A Namespace in which only our annotations changed: this opens or closes a grant, and changes nothing else.
function isOnlyGrant({ ref, operation, object, oldObject, subresource }: AdmissionRequest): boolean {
  if (
    ref.kind !== 'Namespace' ||
    operation !== 'UPDATE' ||
    subresource !== '' ||
    object === undefined ||
    oldObject === undefined
  )
    return false;
  const plain = (o: NonNullable<typeof object>) => {
    const { annotations = {}, managedFields: _, resourceVersion: __, generation: ___, ...metadata } = o.metadata;
    return JSON.stringify([
      { ...o, metadata },
      Object.entries(annotations)
        .filter(([key]) => !KEYS.has(key))
        .sort(),
    ]);
  };
  return plain(object) === plain(oldObject);
}

function ends({ object, oldObject }: AdmissionRequest): boolean {
  return (
    annotationsOf(oldObject)[ANNOTATION.breakGlass] !== undefined &&
    annotationsOf(object)[ANNOTATION.breakGlass] === undefined
  );
}

function letThrough(warning: string): AdmissionDecision {
  return { allowed: true, message: '', warnings: [warning], notes: { 'allowed-as': 'break-glass' } };
}
