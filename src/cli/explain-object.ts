import { rememberedState } from '../gate/index.ts';
import { type LedgerReader, receipt } from '../ledger/index.ts';
import {
  CountersignError,
  type EntryOf,
  type OwnedObject,
  type Recorded,
  refText,
  resourceOf,
  type Verdict,
} from '../model/index.ts';
import { environmentsOf, readLedger, viewOf } from '../open/index.ts';
import { EXIT, type Io, plain } from '../terminal/index.ts';
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

/** Implements `countersign explain KIND/NAME`: uses only the ledger; no service needs to run. */
export function explainObject(what: string, options: ExplainOptions, io: Io): number {
  const [kind, name, ...rest] = what.split('/');
  if (kind === undefined || name === undefined || name === '' || rest.length > 0)
    throw new CountersignError('usage', `\`${what}\` is not \`KIND/NAME\``, {
      hint: 'give for example: countersign explain deployment/web -n shop',
    });
  const reader = readLedger(options.data);
  try {
    const found = environmentsOf(reader)
      .filter((e) => options.environment === undefined || options.environment === e)
      .flatMap((environment) => owned(reader, environment, kind, name, options.namespace));
    const [first] = found;
    if (first === undefined) {
      io.out(
        `no environment owns ${plain(what)}${options.namespace === undefined ? '' : ` in \`${options.namespace}\``}: ` +
          'nothing on the ledger created it\n',
      );
      return EXIT.no;
    }
    if (found.length > 1)
      throw new CountersignError(
        'usage',
        `there are ${found.length}: ${found.map((f) => refText(f.object.ref)).join(', ')}`,
        {
          hint: 'name the namespace with -n, or the environment with --environment',
        },
      );
    const explanation = explained(reader, first.environment, first.object);
    if (options.output === 'json') io.out(`${JSON.stringify(explanation, null, 2)}\n`);
    else print(explanation, options, io);
    return EXIT.yes;
  } finally {
    reader.close();
  }
}

function owned(reader: LedgerReader, environment: string, kind: string, name: string, namespace: string | undefined) {
  const wanted = kind.toLowerCase();
  const isKind = (k: string) => wanted === k.toLowerCase() || wanted === resourceOf(k);
  return [...rememberedState(viewOf(reader), environment)().owned.values()]
    .filter(
      ({ ref }) => isKind(ref.kind) && ref.name === name && (namespace === undefined || ref.namespace === namespace),
    )
    .map((object) => ({ environment, object }));
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
