import type { PolicyBundle, RuleInfo } from '../bundle/index.ts';
import {
  digestOf,
  type ImageData,
  type Recent,
  type RenderedObject,
  refKey,
  refText,
  Turns,
  type VerifiedChange,
  type Violation,
} from '../model/index.ts';
import type { Finding, Judged, RequestFields, RunScope, Subject } from './judge-subject.ts';
import type { PolicyPool } from './policy-pool.ts';

/** Data every rule can read besides its subject, and the time it sees as now. */
export type PolicyScope = {
  readonly environment: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly now: Date;
  readonly trace?: boolean;
  /** Labels of known namespaces besides those among the objects. */
  readonly namespaces?: RunScope['namespaces'];
  /** Evidence about images; each subject gets the evidence for the digests it contains. */
  readonly images?: ImageData;
};

/** The change as rules see it. */
export type ChangeInput = {
  readonly from: string;
  readonly to: string;
  readonly ref: string;
  readonly commits: readonly {
    readonly id: string;
    readonly subject: string;
    readonly author: string;
    readonly committer: string;
    readonly signer: string;
  }[];
  readonly approvers: readonly string[];
  /**
   * `class` is A+, A, B or C, the strength of the evidence (docs/approval-format.md); `groups` are the approver's in
   * the TrustPolicy.
   */
  readonly approvals: readonly {
    readonly principal: string;
    readonly class: string;
    readonly match: string;
    readonly groups: readonly string[];
  }[];
  readonly rollback: boolean;
  readonly paths: readonly string[];
  /** Objects that are new, changed or removed, before and after. */
  readonly objects: readonly {
    readonly apiVersion: string;
    readonly kind: string;
    readonly namespace: string;
    readonly name: string;
    readonly file: string;
    readonly action: 'create' | 'update' | 'delete';
    readonly before: unknown;
    readonly after: unknown;
  }[];
  /** Time of the judgement: RFC 3339 in UTC, and its day of the week. */
  readonly time: string;
  readonly weekday: string;
};

/**
 * Findings of rules. `exempt` are those excluded by one of Conftest's `exception` rules; they are reported but do not
 * count.
 */
export type Found = {
  readonly violations: readonly Violation[];
  readonly warnings: readonly Violation[];
  readonly exempt: readonly Violation[];
  readonly trace: readonly string[];
};

/** Findings on objects from earlier runs, keyed by the rules and all their input. */
export type RuleMemory = Recent<readonly Finding[]>;

// Rules that read the time may judge the same object differently tomorrow. The compiled module contains the names of
// the builtins its rules call.
function readsTime(bundles: readonly PolicyBundle[]): boolean {
  return bundles.some((b) => {
    const known = timely.get(b) ?? Buffer.from(b.wasm).includes('time.now_ns');
    timely.set(b, known);
    return known;
  });
}

const timely = new WeakMap<PolicyBundle, boolean>();

/** Returns one digest for several bundles; a single bundle keeps its own. */
export function digestOfBundles(bundles: readonly PolicyBundle[]): string {
  return bundles.length === 1 ? (bundles[0] as PolicyBundle).digest : digestOf(bundles.map((b) => b.digest));
}

/** Returns the metadata of every rule of the bundles, by name. */
export function ruleInfos(bundles: readonly PolicyBundle[]): ReadonlyMap<string, RuleInfo> {
  const known = infosOf.get(bundles) ?? new Map(bundles.flatMap((b) => b.manifest.rules).map((r) => [r.id, r]));
  infosOf.set(bundles, known);
  return known;
}

const infosOf = new WeakMap<readonly PolicyBundle[], ReadonlyMap<string, RuleInfo>>();

/**
 * Runs the object rules on every object; `requests` has the additional fields of admission requests. Findings are
 * sorted, so the same input gives the same bytes.
 */
export async function evaluateObjects(
  pool: PolicyPool,
  objects: readonly RenderedObject[],
  scope: PolicyScope,
  request?: RequestFields,
  memory?: RuleMemory,
  turns = new Turns(),
): Promise<Found> {
  const run = runScope(scope, objects);
  // A caller that waits for an admission decision does not yield to others.
  const each = <T, R>(items: readonly T[], of: (item: T, i: number) => R) =>
    request === undefined ? turns.map(items, of) : items.map(of);
  const subject = (o: RenderedObject): Subject => ({
    kind: 'object',
    ...withImages(JSON.stringify(o.object), scope.images),
    file: o.source.file,
    ...(request === undefined ? {} : { request }),
  });
  const usable = request === undefined && scope.trace !== true && !readsTime(pool.bundles) ? memory : undefined;
  usable?.hold(objects.length * 3);
  const about =
    usable === undefined
      ? ''
      : digestOf([
          pool.bundles.map((b) => b.digest),
          run.environment,
          run.parameters,
          run.namespaces,
          scope.images?.digest ?? '',
        ]);
  const keys = objects.map((o) => `${about} ${o.digest} ${o.source.file}`);
  const known = keys.map((key) => usable?.get(key));
  const asked = objects.filter((_, i) => known[i] === undefined);
  const answers = (await pool.judge(await each(asked, subject), run))[Symbol.iterator]();
  const judged = known.map((findings, i): Judged => {
    if (findings !== undefined) return { findings, trace: [] };
    const answer = answers.next().value as Judged;
    // Running out of time or memory is not a property of the object.
    if (!answer.findings.some((f) => f.code.startsWith('policy-'))) usable?.set(keys[i] as string, answer.findings);
    return answer;
  });
  const infos = ruleInfos(pool.bundles);
  const told = await each(judged, ({ findings }, i) => {
    const o = objects[i] as RenderedObject;
    const hide = hidingValues(o);
    return sorted(findings).map((f) => ({
      finding: f,
      violation: {
        ...plain(f.hint === undefined ? f : { ...f, hint: hide(f.hint) }, infos),
        message: `${refText(o.ref)}: ${hide(f.message)}`,
        object: o.ref,
        source: { file: o.source.file, ...o.positionOf(f.path) },
      },
    }));
  });
  return gathered(
    told.flat(),
    judged.flatMap((j) => j.trace),
  );
}

/** Runs the change rules once. */
export async function evaluateChange(
  pool: PolicyPool,
  change: ChangeInput,
  scope: PolicyScope,
  turns = new Turns(),
): Promise<Found> {
  const { objects, ...about } = change;
  const spelled = await turns.map(objects, (o) => JSON.stringify(o));
  const json = `${JSON.stringify(about).slice(0, -1)},"objects":[${spelled.join(',')}]}`;
  const [judged] = await pool.judge([{ kind: 'change', ...withImages(json, scope.images) }], runScope(scope, []));
  const infos = ruleInfos(pool.bundles);
  return gathered(
    sorted(judged?.findings ?? []).map((f) => ({
      finding: f,
      violation: { ...plain(f, infos), message: f.message, commit: change.to },
    })),
    judged?.trace ?? [],
  );
}

/**
 * Evaluates a document that is not a Kubernetes object, or several together as with `--combine`. `place` says where a
 * finding is.
 */
export async function evaluateDocuments(
  pool: PolicyPool,
  documents: readonly {
    readonly value: unknown;
    readonly file: string;
    readonly positionOf: RenderedObject['positionOf'];
    readonly combined?: boolean;
  }[],
  scope: PolicyScope,
): Promise<Found> {
  const subjects = documents.map(
    ({ value, file, combined }): Subject =>
      combined === true
        ? { kind: 'combined', json: JSON.stringify(value) }
        : { kind: 'document', json: JSON.stringify(value), file },
  );
  const judged = await pool.judge(subjects, runScope(scope, []));
  const infos = ruleInfos(pool.bundles);
  return gathered(
    judged.flatMap(({ findings }, i) => {
      const d = documents[i] as (typeof documents)[number];
      return sorted(findings).map((f) => ({
        finding: f,
        violation: { ...plain(f, infos), message: f.message, source: { file: d.file, ...d.positionOf(f.path) } },
      }));
    }),
    judged.flatMap((j) => j.trace),
  );
}

// A digest in an object without image evidence is ignored.
function withImages(json: string, images: ImageData | undefined): { readonly json: string; readonly images?: string } {
  if (images === undefined || images.of.size === 0) return { json };
  const named = [...new Set([...json.matchAll(/@(sha256:[0-9a-f]{64})/g)].map(([, digest]) => digest as string))];
  const known = named.flatMap((digest) => {
    const evidence = images.of.get(digest);
    return evidence === undefined ? [] : [[digest, evidence] as const];
  });
  return known.length === 0 ? { json } : { json, images: JSON.stringify(Object.fromEntries(known)) };
}

function runScope(scope: PolicyScope, objects: readonly RenderedObject[]): RunScope {
  const among = objects
    .filter((o) => o.ref.kind === 'Namespace')
    .map((o) => [o.ref.name, o.object.metadata.labels ?? {}] as const);
  const namespaces = [...(scope.namespaces ?? []), ...among];
  const { environment, parameters, now, trace } = scope;
  return {
    environment,
    parameters,
    now: (BigInt(now.getTime()) * 1_000_000n).toString(),
    namespaces,
    ...(trace === undefined ? {} : { trace }),
  };
}

function sorted(findings: readonly Finding[]): Finding[] {
  const key = (f: Finding) => JSON.stringify([f.rule, f.code, f.message, f.path]);
  return [...findings].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
}

// METADATA provides the fields that the rule itself did not set.
function plain(f: Finding, infos: ReadonlyMap<string, RuleInfo>): Omit<Violation, 'message'> {
  const info = infos.get(f.rule);
  const [hint, severity] = [f.hint ?? info?.remediation, f.severity ?? info?.severity];
  return {
    code: f.code,
    rule: f.rule,
    ...(hint === undefined ? {} : { hint }),
    ...(severity === undefined ? {} : { severity }),
    ...(info?.controls === undefined ? {} : { controls: info.controls }),
    ...(info?.title === undefined ? {} : { title: info.title }),
  };
}

function gathered(
  all: readonly { readonly finding: Finding; readonly violation: Violation }[],
  trace: readonly string[],
): Found {
  const of = (...actions: Finding['action'][]) =>
    all.filter(({ finding }) => actions.includes(finding.action)).map(({ violation }) => violation);
  return { violations: of('deny'), warnings: of('warn', 'dryrun'), exempt: of('exempt'), trace };
}

/** Returns the objects of a change: each that is new, changed or removed. */
export async function changedObjects(
  before: readonly RenderedObject[],
  after: readonly RenderedObject[],
  turns = new Turns(),
): Promise<ChangeInput['objects']> {
  const was = new Map(before.map((o) => [refKey(o.ref), o]));
  const is = new Map(after.map((o) => [refKey(o.ref), o]));
  const found = await turns.map([...new Set([...was.keys(), ...is.keys()])].sort(), (key): ChangeInput['objects'] => {
    const [old, now] = [was.get(key), is.get(key)];
    if (old !== undefined && now !== undefined && old.digest === now.digest) return [];
    const one = (now ?? old) as RenderedObject;
    return [
      {
        ...one.ref,
        file: one.source.file,
        action: old === undefined ? 'create' : now === undefined ? 'delete' : 'update',
        before: redacted(old),
        after: redacted(now),
      },
    ];
  });
  return found.flat();
}

// A rule may quote its input; values of a Secret must not get into a verdict.
function hidingValues({ ref, object }: RenderedObject): (text: string) => string {
  if (ref.kind !== 'Secret') return (text) => text;
  const written = ['data', 'stringData'].flatMap((field) => texts(object[field]));
  const values = [...new Set(written.flatMap((v) => [v, Buffer.from(v, 'base64').toString('utf8')]))].filter(
    (v) => v.length > 3,
  );
  values.sort((a, b) => b.length - a.length);
  return (text) => values.reduce((shown, value) => shown.replaceAll(value, '(hidden)'), text);
}

function texts(value: unknown): string[] {
  if (typeof value === 'object' && value !== null) return Object.values(value).flatMap(texts);
  return value === null || value === undefined ? [] : [String(value)];
}

// Rules on a change see the keys of a Secret, never their values.
function redacted(o: RenderedObject | undefined): unknown {
  if (o === undefined) return null;
  if (o.ref.kind !== 'Secret') return o.object;
  const hide = (v: unknown) =>
    typeof v === 'object' && v !== null ? Object.fromEntries(Object.keys(v).map((k) => [k, '(hidden)'])) : '(hidden)';
  const { annotations, ...metadata } = o.object.metadata as { readonly annotations?: Record<string, unknown> };
  // a copy of the whole object
  const { 'kubectl.kubernetes.io/last-applied-configuration': _, ...kept } = annotations ?? {};
  return {
    ...o.object,
    metadata: annotations === undefined ? metadata : { ...metadata, annotations: kept },
    ...Object.fromEntries(
      ['data', 'stringData'].flatMap((k) => (o.object[k] === undefined ? [] : [[k, hide(o.object[k])]])),
    ),
  };
}

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];

/** Builds the input of change rules from the verified change. */
export function changeInput(
  change: VerifiedChange,
  signers: ReadonlyMap<string, string>,
  groupsOf: (principal: string) => readonly string[],
  paths: readonly string[],
  objects: ChangeInput['objects'],
  now: Date,
): ChangeInput {
  const person = (a: { name: string; email: string }) => `${a.name} <${a.email}>`;
  return {
    from: change.from,
    to: change.to,
    ref: change.ref,
    commits: change.commits.map((c) => ({
      id: c.id,
      subject: c.subject,
      author: person(c.author),
      committer: person(c.committer),
      signer: signers.get(c.id) ?? '',
    })),
    approvers: [...new Set(change.approvals.map((a) => a.principal))].sort(),
    approvals: change.approvals.map((a) => ({
      principal: a.principal,
      class: a.class,
      match: a.match,
      groups: groupsOf(a.principal),
    })),
    rollback: change.rollback,
    paths,
    objects,
    time: now.toISOString(),
    weekday: DAYS[now.getUTCDay()] as string,
  };
}
