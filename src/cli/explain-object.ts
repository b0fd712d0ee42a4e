import type { ProcessSettings } from '../config/index.ts';
import { rememberedState, viewOf } from '../gate/index.ts';
import { type LedgerReader, receipt } from '../ledger/index.ts';
import {
  CountersignError,
  type EntryOf,
  type ObjectRef,
  type OwnedObject,
  type Recorded,
  refKey,
  refText,
  type Verdict,
} from '../model/index.ts';
import { environmentsOf, readLedger } from '../open/index.ts';
import { EXIT, type Io, plain } from '../terminal/index.ts';
import { findOwners, isMadeByController } from './find-owner.ts';
import { isKind } from './kind-names.ts';
import type { ExplainOptions } from './operate-commands.ts';

/** Origin of one live object, according to the ledger. */
type Explanation = {
  readonly object: OwnedObject['ref'];
  readonly environment: string;
  readonly file: string;
  readonly line: number;
  readonly commit: string;
  readonly subject: string;
  readonly author: string;
  readonly signer: string;
  readonly approvals: readonly {
    readonly principal: string;
    readonly class: string;
    readonly reason: string;
    readonly at: string;
  }[];
  readonly rules: {
    readonly outcome: string;
    readonly warnings: number;
    readonly waived: number;
    readonly bundle: string;
  };
  /** Ledger indexes of the verdict, the intent and the result. */
  readonly verdict: number;
  readonly intent: number;
  readonly result: number;
  readonly applied: string;
  /** The proof that the verdict is on the ledger, as C2SP tlog-proof; empty if no checkpoint covers it yet. */
  readonly proof: string;
};

/**
 * Implements `countersign explain KIND/NAME`. The ledger alone answers, without a service. An object that a controller
 * made, such as a Pod, is looked up in the cluster, and its owner is explained. Exit codes: 0 explained, 1 in no
 * commit, 2 it could not be determined.
 */
export async function explainObject(
  what: string,
  options: ExplainOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const [kind, name, ...rest] = what.split('/');
  if (kind === undefined || name === undefined || name === '' || rest.length > 0)
    throw new CountersignError('usage', `\`${what}\` is not \`KIND/NAME\``, {
      hint: 'give for example: countersign explain deployment/web -n shop',
    });
  const reader = readLedger(options.data);
  try {
    const found =
      oneOf(ownedAs(reader, options, (ref) => isKind(kind, ref) && ref.name === name)) ??
      (isMadeByController(kind) ? await ownerOf(reader, { kind, name }, options, settings, io) : undefined);
    if (found === undefined) return notFound(what, reader, options, io);
    const explanation = explained(reader, found.environment, found.object);
    if (options.output === 'json') io.out(`${JSON.stringify(explanation, null, 2)}\n`);
    else print(explanation, options, io);
    return EXIT.yes;
  } finally {
    reader.close();
  }
}

type Owned = { readonly environment: string; readonly object: OwnedObject };

function ownedAs(reader: LedgerReader, options: ExplainOptions, matches: (ref: ObjectRef) => boolean): Owned[] {
  return environmentsOf(reader)
    .filter((e) => options.environment === undefined || options.environment === e)
    .flatMap((environment) =>
      [...rememberedState(viewOf(reader), environment)().owned.values()]
        .filter(({ ref }) => matches(ref) && (options.namespace === undefined || ref.namespace === options.namespace))
        .map((object) => ({ environment, object })),
    );
}

function oneOf(found: readonly Owned[]): Owned | undefined {
  if (found.length <= 1) return found[0];
  throw new CountersignError(
    'usage',
    `there are ${found.length}: ${found.map((f) => refText(f.object.ref)).join(', ')}`,
    { hint: 'name the namespace with -n, or the environment with --environment' },
  );
}

// Climbs from an object that a controller made to the first owner that a commit has.
async function ownerOf(
  reader: LedgerReader,
  { kind, name }: { readonly kind: string; readonly name: string },
  options: ExplainOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<Owned | undefined> {
  if (options.namespace === undefined)
    throw new CountersignError('usage', `\`${kind}/${name}\` is looked up in the cluster, in one namespace`, {
      hint: 'name it with -n',
    });
  const place = { kubeconfig: options.kubeconfig ?? settings.kubeconfig, context: options.context };
  const owners = await findOwners(kind, name, options.namespace, place);
  if (owners === undefined)
    throw new CountersignError('usage', `the cluster has no \`${kind}/${name}\` in \`${options.namespace}\``, {
      hint: 'it may be gone already; name the object that made it, such as its Deployment',
    });
  for (const owner of owners) {
    const found = oneOf(ownedAs(reader, options, (ref) => refKey(ref) === refKey(owner)));
    if (found === undefined) continue;
    if (options.output !== 'json')
      io.out(
        `${'made by'.padEnd(12)}${owners
          .slice(0, owners.indexOf(owner) + 1)
          .map(refText)
          .join(', of ')}\n`,
      );
    return found;
  }
  return undefined;
}

// Says only that it was not found, never that it came past the gate: a misspelled name looks the same.
function notFound(what: string, reader: LedgerReader, options: ExplainOptions, io: Io): number {
  const where = options.namespace === undefined ? '' : ` in \`${options.namespace}\``;
  const name = what.split('/')[1] ?? '';
  const alike = ownedAs(reader, options, (ref) => ref.name.includes(name) || name.includes(ref.name)).slice(0, 3);
  io.out(`not found: the ledger has no object ${plain(what)}${where}\n`);
  io.out(
    alike.length > 0
      ? `did you mean ${alike.map(({ object }) => refText(object.ref)).join(', ')}?\n`
      : 'next: `countersign admission scan` lists objects in governed namespaces that no commit has\n',
  );
  return EXIT.no;
}

function explained(reader: LedgerReader, environment: string, object: OwnedObject): Explanation {
  const judged = reader.entry(object.entry);
  if (judged?.entry.type !== 'change.judged')
    throw new CountersignError(
      'ledger-inconsistent',
      `entry ${object.entry}, which should allow ${refText(object.ref)}, is not a verdict`,
    );
  const verdict = reader.evidence(judged.entry.evidence) as Verdict;
  const tip = verdict.commits.find((c) => c.commit === object.revision);
  const intent = first(reader, 'apply.intent', environment, (e) => e.verdict === object.entry);
  const result =
    intent === undefined
      ? undefined
      : first(reader, 'apply.result', environment, (e) => e.intent >= intent.index && e.revision === object.revision);
  return {
    object: object.ref,
    environment,
    file: object.file,
    line: object.line,
    commit: object.revision,
    subject: tip?.subject ?? '',
    author: tip?.author ?? '',
    signer: tip?.signer?.principal ?? '',
    approvals: verdict.approvals.map((a) => ({
      principal: a.principal,
      class: a.class,
      reason: a.reason,
      at: a.issuedAt,
    })),
    rules: {
      outcome: verdict.outcome,
      warnings: verdict.warnings.length,
      waived: verdict.waived?.length ?? 0,
      bundle: verdict.consulted.bundleDigest,
    },
    verdict: object.entry,
    intent: intent?.index ?? -1,
    result: result?.index ?? -1,
    applied: result?.entry.time ?? '',
    proof: proofOf(reader, object.entry),
  };
}

function proofOf(reader: LedgerReader, index: number): string {
  const checkpoint = reader.latestCheckpoint();
  if (checkpoint === undefined) return '';
  const [, size] = checkpoint.split('\n');
  return Number(size) > index ? receipt(reader, index, checkpoint) : '';
}

function first<T extends 'apply.intent' | 'apply.result'>(
  reader: LedgerReader,
  type: T,
  environment: string,
  test: (entry: EntryOf<T>) => boolean,
): Recorded<EntryOf<T>> | undefined {
  return reader.all(type, environment).find((r) => test(r.entry));
}

function print(e: Explanation, options: ExplainOptions, io: Io): void {
  const line = (what: string, text: string) => io.out(`${what.padEnd(12)}${plain(text)}\n`);
  line('object', refText(e.object));
  line('environment', e.environment);
  line('from', `${e.file}:${e.line}`);
  line('commit', `${e.commit.slice(0, 12)} ${e.subject}`);
  line('author', e.author);
  line('signed by', e.signer);
  for (const a of e.approvals)
    line('approved by', `${a.principal} (class ${a.class})${a.reason === '' ? '' : `: ${a.reason}`}`);
  if (e.approvals.length === 0) line('approved by', 'no one: none was required');
  line(
    'rules',
    `${e.rules.outcome}, ${e.rules.warnings} warnings, ` +
      `${e.rules.waived} waived (bundle ${e.rules.bundle.slice(0, 12)})`,
  );
  line('applied', e.applied === '' ? 'not yet' : e.applied);
  line('ledger', `verdict ${e.verdict}, intent ${e.intent}, result ${e.result}`);
  const covered =
    e.proof === ''
      ? 'no checkpoint covers the verdict yet'
      : `${options.proof === true ? 'below' : '`--proof` prints it'}; ` +
        `\`countersign ledger prove ${e.verdict}\` writes it to files`;
  line('proof', covered);
  if (options.proof === true) io.out(e.proof);
}
