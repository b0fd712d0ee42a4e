import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessSettings } from '../config/index.ts';
import { signWithGitKey } from '../git/index.ts';
import { type Forgotten, forgetOn, LEDGER_FILES } from '../ledger/index.ts';
import { CountersignError, count, sha256, type TrustPolicy } from '../model/index.ts';
import {
  askService,
  openCheckout,
  openConfiguration,
  openOwnLedger,
  readLedger,
  readVerifiers,
} from '../open/index.ts';
import { EXIT, type Io, plain } from '../terminal/index.ts';
import { openTrustStore, signedBytes, verifyDetached } from '../trust/index.ts';
import { openExceptionsOf } from './exceptions.ts';
import type { ForgetOptions } from './ledger-commands.ts';
import { localUser } from './operate.ts';

/** Statement a second person signs: the ledger, the commitments, the reason, and open exceptions about the person. */
type Erasure = {
  readonly origin: string;
  readonly digest: string;
  readonly reason: string;
  readonly exceptions: readonly string[];
};
type Approved = { readonly approvedBy: string; readonly approval: string };

/**
 * Implements `countersign ledger forget TEXT`: erases every text that contains a name or address from the table beside
 * the entries. It records the erasure, the reason, and who approved it. Refuses if open exceptions name the person,
 * unless someone else signed for it.
 */
export async function ledgerForget(
  asked: string,
  options: ForgetOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const reason = options.reason.trim();
  if (reason === '') throw new CountersignError('usage', 'a reason is needed', { hint: 'give it with --reason' });
  const name = asked.trim();
  if (name.length < SHORTEST)
    throw new CountersignError('usage', `\`${plain(name)}\` is too short: it would erase more than one person`, {
      hint: `give a name or address of at least ${SHORTEST} characters`,
    });
  const { texts, commitments, erasure } = erasureOf(name, reason, options);
  if ([name, ...texts].some((text) => reason.toLowerCase().includes(text.toLowerCase())))
    throw new CountersignError('usage', 'the reason contains the text to erase, and reasons are permanent', {
      hint: 'name a ticket instead',
    });
  if (commitments === 0) return told(name, { erased: 0, texts }, options, io);
  if (options.output === 'text')
    io.out(`${count(texts.length, 'stored text')} with it:\n${texts.map((t) => `  ${plain(t)}\n`).join('')}`);
  if (options.sign !== undefined) return sign(erasure, options.sign, options, settings, io);
  const approved = await approvalOf([name, ...texts], erasure, options);
  const { digest, exceptions } = erasure;
  const forgotten: Forgotten = {
    reason,
    commitments,
    digest,
    ...(exceptions.length === 0 ? {} : { exceptions }),
    ...approved,
  };
  const answer = await askService(options.data, 'forget', { ...forgotten, texts, user: localUser() });
  const erased =
    answer === undefined
      ? await forgetAlone(texts, forgotten, options)
      : Number((answer.result as { erased: number }).erased);
  return told(name, { erased, texts }, options, io);
}

const SHORTEST = 3;

type Done = { readonly erased: number; readonly texts: readonly string[] };

function told(name: string, done: Done, options: ForgetOptions, io: Io): number {
  const { erased } = done;
  if (options.output === 'json') io.out(`${JSON.stringify(done, null, 2)}\n`);
  else if (erased > 0) io.out(`erased; ${count(erased, 'commitment')} can no longer be opened\n`);
  else
    io.out(
      `no stored text contains \`${plain(name)}\`: texts are stored as recorded (\`NAME\`, ` +
        '`ADDRESS` or `NAME <ADDRESS>`), and an address matches every text that contains it\n',
    );
  return erased === 0 ? EXIT.no : EXIT.yes;
}

function erasureOf(
  name: string,
  reason: string,
  { data, archive }: Pick<ForgetOptions, 'data' | 'archive'>,
): { readonly texts: readonly string[]; readonly commitments: number; readonly erasure: Erasure } {
  const reader = readLedger(data, archive);
  try {
    const { texts, commitments } = reader.naming(name);
    const origin = readVerifiers(join(data, LEDGER_FILES.verifier))[0]?.name ?? '';
    const exceptions = commitments.length === 0 ? [] : openExceptionsOf(texts, reader, { data, archive });
    return {
      texts,
      commitments: commitments.length,
      erasure: { origin, digest: sha256(commitments.join('\n')), reason, exceptions },
    };
  } finally {
    reader.close();
  }
}

async function sign(
  erasure: Erasure,
  file: string,
  options: ForgetOptions,
  settings: ProcessSettings,
  io: Io,
): Promise<number> {
  const { user, repository } = await openCheckout(options.repo, settings);
  try {
    const { armored } = await signWithGitKey(user, signedBytes('erasure', erasure), options.key);
    writeFileSync(file, armored);
    io.out(`approved; nothing is erased yet: give \`${file}\` with --approved-by, and the same reason\n`);
    return EXIT.yes;
  } finally {
    repository.close();
  }
}

async function approvalOf(
  texts: readonly string[],
  erasure: Erasure,
  options: ForgetOptions,
): Promise<Approved | Record<string, never>> {
  const { exceptions } = erasure;
  if (options.approvedBy === undefined) {
    if (exceptions.length === 0) return {};
    const ids = exceptions.slice(0, 10).join(', ');
    throw new CountersignError(
      'usage',
      `${count(exceptions.length, 'exception')} that name them ${exceptions.length === 1 ? 'is' : 'are'} open: ${ids}`,
      {
        hint:
          'settle them first; or have someone else in the TrustPolicy run ' +
          'this with `--sign FILE`, and give the file with --approved-by',
      },
    );
  }
  const approval = readApproval(options.approvedBy);
  const refusals: string[] = [];
  for (const policy of openConfiguration({ config: options.config }).trustPolicies) {
    const signed = await verifyDetached('erasure', erasure, approval, await openTrustStore(policy), Date.now());
    if (signed.kind === 'refused') refusals.push(signed.reason);
    else if (isPerson(policy, signed.principal) && !texts.some((text) => isThem(policy, signed.principal, text)))
      return { approvedBy: signed.principal, approval };
    else refusals.push(`\`${signed.principal}\` is not a second person`);
  }
  throw new CountersignError(
    'usage',
    `the approval does not count: ${plain(refusals[0] ?? 'there is no TrustPolicy')}`,
    {
      hint:
        'someone else in the TrustPolicy must sign with `--sign FILE`, ' +
        'for the same text, reason and open exceptions',
    },
  );
}

function readApproval(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new CountersignError('usage', `the approval \`${file}\` cannot be read`, { cause });
  }
}

function isPerson({ spec }: TrustPolicy, name: string): boolean {
  return spec.principals.some((p) => p.name === name && p.kind === 'person');
}

// A name belongs to a principal if it, or one of their addresses or accounts, is in the text.
function isThem({ spec }: TrustPolicy, name: string, text: string): boolean {
  const them = spec.principals.find((p) => p.name === name);
  const names = [
    name,
    ...(them?.emails ?? []),
    ...(them?.forgeAccounts ?? []).flatMap(({ login }) => (login === undefined ? [] : [login])),
  ];
  return names.some((n) => text.toLowerCase().includes(n.toLowerCase()));
}

// Recorded first: if the process ends in between, the text is still there and the command can be repeated.
async function forgetAlone(texts: readonly string[], forgotten: Forgotten, options: ForgetOptions): Promise<number> {
  const ledger = await openOwnLedger(options);
  try {
    return await forgetOn(ledger, texts, forgotten, localUser(), options.ledger);
  } finally {
    await ledger.close();
  }
}
