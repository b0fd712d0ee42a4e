import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { CountersignError } from '../model/index.ts';
import { type Instance, newInstance, openCheckpoint } from './checkpoint.ts';
import { accessTrouble, handToOwner, readData, refuseForeign } from './data-access.ts';
import { nextName } from './known-keys.ts';
import { LEDGER_FILES } from './ledger-files.ts';
import { LedgerReader } from './ledger-reader.ts';
import {
  createKey,
  parseVerifiers,
  programSigner,
  readSigner,
  type Signer,
  type Verifier,
  verifierText,
} from './note.ts';
import { historyOf, keepNewer, type NewEpoch, planEpoch } from './plan-epoch.ts';
import { replaceFile } from './replace-file.ts';
import { openReplicaKey } from './replica-key.ts';
import { type Found, type Sequenced, Sequencer, type SequencerOptions, type Waiting } from './sequencer.ts';
import type { SharedOptions } from './shared-sequencer.ts';
import { SqliteStore } from './sqlite-store.ts';
import { dropDamagedCopy, lostStore } from './store-trouble.ts';
import { takeLock } from './take-lock.ts';
import { type Rotation, removeDroppedKey, removeUnusedKeys, turnKeys } from './turn-keys.ts';

const FILES = LEDGER_FILES;

/**
 * Where the key is: PEM files, the current one first and then those that still sign beside it; or a program that signs.
 */
export type LedgerKey =
  | { readonly files: readonly string[] }
  | { readonly command: readonly string[]; readonly publicKey: string };

/** Where a ledger is stored and how it is signed. Sent to the writer thread. */
export type LedgerPlace = {
  readonly directory: string;
  /** Name for a new ledger; an existing one keeps its name. */
  readonly origin: string;
  readonly key?: LedgerKey | undefined;
  /** Address of a PostgreSQL database shared by several replicas. Without it, the ledger is a file in the directory. */
  readonly postgres?: string | undefined;
  readonly newEpoch?: NewEpoch | undefined;
  /** Change the key in the directory first: add a new one beside it, or drop the old one. */
  readonly rotation?: Rotation | undefined;
  /** The process that signs; created if not given. */
  readonly instance?: Instance | undefined;
  /** Longest duration of break-glass in milliseconds, by environment. */
  readonly holdFor?: { readonly [environment: string]: number } | undefined;
};

/** Something that records batches, one after the other. */
export type Appender = {
  readonly size: number;
  readonly found: Found;
  append(waiting: Waiting): Promise<Sequenced>;
};

/**
 * Takes the lock, opens store and keys, and reads everything back. Throws like `Sequencer.open`, and `ledger-held`
 * while another process holds the ledger.
 */
export async function openSequencer(
  place: LedgerPlace,
  ports: Pick<SequencerOptions, 'clock' | 'openedAt' | 'warn' | 'progress'> & Pick<SharedOptions, 'onSharing'>,
): Promise<{ readonly sequencer: Appender; readonly verifier: string; readonly close: () => Promise<void> }> {
  const { directory } = place;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  refuseForeign(directory);
  keepPrivate(directory, ports.warn);
  const lock = takeLock(join(directory, FILES.lock));
  let undo = () => {};
  try {
    const file = join(directory, FILES.store);
    const ownsKey = place.key === undefined && place.postgres === undefined && existsSync(file);
    if (ownsKey) removeUnusedKeys(directory, ports.warn);
    if (place.rotation !== undefined) undo = turnKeys(directory, place.rotation).undo;
    const verifiers = knownVerifiers(directory);
    // Made again from the key if its file is lost, for those that read the file.
    if (verifiers.length > 0) keepVerifiers(directory, [], verifiers);
    const isNew = verifiers.length === 0 || !existsSync(file);
    if (place.postgres === undefined) {
      const lost = lostStore(file);
      if (lost !== undefined) throw lost;
      // Before its public key: a public key without a store is then never that of a new ledger.
      if (!existsSync(file)) await new SqliteStore(file).close();
    }
    const newEpoch = place.postgres === undefined ? place.newEpoch : withKept(directory, place.newEpoch);
    // The database's entries are known only once the copy is up to date.
    const planned = newEpoch === undefined || place.postgres !== undefined ? undefined : planEpoch(directory, newEpoch);
    const signers = openSigners(place, originOf(place), isNew);
    // Runs before the first checkpoint under a name. A key that is refused is not added to the known ones.
    if (isNew || newEpoch !== undefined) keepVerifiers(directory, signers, verifiers);
    const options = {
      signers,
      verifiers,
      anchor: join(directory, FILES.anchor),
      instance: place.instance ?? newInstance(ports.clock()),
      ...(newEpoch === undefined
        ? {}
        : {
            newEpoch: {
              reason: newEpoch.reason,
              by: newEpoch.by,
              claimedLost: newEpoch.withoutCheckpoint,
              previous: () => (planned ?? planEpoch(directory, newEpoch)).previous,
            },
          }),
      ...ports,
    };
    const opened =
      place.postgres === undefined
        ? await openFile(file, options)
        : await openShared(place.postgres, file, place, options);
    keepPrivate(directory, () => {}); // covers the files just created
    const close = async () => {
      await opened.close();
      lock.close();
      handToOwner(directory);
    };
    const verifier = { publicKey: signers[0].publicKey, name: opened.origin ?? signers[0].name };
    keepVerifiers(directory, [verifier, ...signers], verifiers);
    if (ownsKey) removeDroppedKey(directory);
    handToOwner(directory);
    return { sequencer: opened.sequencer, verifier: verifierText(verifier), close };
  } catch (thrown) {
    undo();
    lock.close();
    handToOwner(directory);
    throw thrown;
  }
}

/**
 * Adds the checkpoint beside the copy to those a new epoch explains. It is replaced as soon as the copy follows the
 * restored database, so it is kept first: it may be all that is known of the lost entries.
 */
function withKept(directory: string, newEpoch: NewEpoch | undefined): NewEpoch | undefined {
  const anchor = join(directory, FILES.anchor);
  const note = existsSync(anchor) ? readData(anchor) : '';
  if (newEpoch === undefined || note.trim() === '') return newEpoch;
  keepNewer(directory, note);
  return { ...newEpoch, checkpoints: [...(newEpoch.checkpoints ?? []), note] };
}

/**
 * Restricts a data directory and its files to the account that runs the service, independent of the umask: they contain
 * names of people. SQLite gives its other files the mode of the store. Files that belong to another account are left to
 * that account.
 */
function keepPrivate(directory: string, warn: (message: string) => void): void {
  const isLoose = ({ uid, mode }: Stats) => uid === process.getuid?.() && (mode & 0o077) !== 0;
  if (isLoose(statSync(directory))) {
    chmodSync(directory, 0o700);
    warn(
      `other accounts could read the data directory \`${directory}\`; now only this account can enter it (mode 0700)`,
    );
  }
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    const stats = entry.isFile() ? statSync(path, { throwIfNoEntry: false }) : undefined;
    if (stats !== undefined && isLoose(stats)) chmodSync(path, stats.mode & 0o700);
  }
}

type Opened = { readonly sequencer: Appender; readonly origin?: string; readonly close: () => Promise<void> };
type Options = Omit<SequencerOptions, 'store' | 'name'> &
  Pick<SharedOptions, 'onSharing'> & { readonly instance: Instance };

async function openFile(file: string, options: Options): Promise<Opened> {
  const store = new SqliteStore(file);
  try {
    return { sequencer: await Sequencer.open({ ...options, store, name: `\`${file}\`` }), close: () => store.close() };
  } catch (thrown) {
    await store.close();
    throw thrown;
  }
}

async function openShared(
  url: string,
  copy: string,
  { directory, holdFor }: LedgerPlace,
  options: Options,
): Promise<Opened> {
  if (existsSync(copy)) dropDamagedCopy(copy, options.warn);
  const replica = openReplicaKey(directory);
  const { SharedSequencer } = await import('./shared-sequencer.ts'); // loaded on demand, with PostgreSQL's client
  const sequencer = await SharedSequencer.open({
    ...options,
    instance: newInstance(options.clock()),
    url,
    copy,
    replica,
    holdFor,
    name: 'the ledger’s database',
  });
  return { sequencer, origin: sequencer.origin, close: () => sequencer.close() };
}

/** Returns the keys of the ledger in a directory, newest first; empty if there is no ledger. */
function knownVerifiers(directory: string): readonly Verifier[] {
  const refused = accessTrouble(directory, 'read'); // its files would look as if they were missing
  if (refused !== undefined) throw refused;
  const file = join(directory, FILES.verifier);
  const text = existsSync(file) ? readData(file) : '';
  if (text.trim() === '') return signingVerifiers(directory);
  try {
    return parseVerifiers(text);
  } catch (cause) {
    throw new CountersignError('key-unusable', `\`${file}\` is damaged`, {
      cause,
      hint: 'remove it: the service writes it again, from its key and the ledger',
    });
  }
}

// The public keys can be made again from the private one, if that signed the store. Names and older keys are on the
// ledger.
function signingVerifiers(directory: string): readonly Verifier[] {
  const { note, origins, named } = namesIn(directory);
  const [name = ''] = note.split('\n');
  const own = [FILES.key, FILES.oldKey]
    .map((file) => join(directory, file))
    .filter((file) => existsSync(file))
    .map((file) => readSigner(name, readData(file)).publicKey);
  if (!own.some((publicKey) => openCheckpoint(note, { name, publicKey }) !== undefined)) return [];
  const keys = [...own, ...named.map(({ publicKey }) => publicKey)];
  return origins.toReversed().flatMap((origin) => keys.map((publicKey) => ({ name: origin, publicKey })));
}

/**
 * Returns the name of the ledger in a directory, or undefined. A ledger keeps its name. The store says it: the key of
 * an epoch is known before the epoch is recorded, and a process may end in between.
 */
export function ledgerName(directory: string): string | undefined {
  const verifiers = knownVerifiers(directory);
  return openCheckpoint(namesIn(directory).note, verifiers)?.origin ?? verifiers[0]?.name;
}

function namesIn(directory: string): {
  readonly note: string;
  readonly origins: readonly string[];
  readonly named: readonly Verifier[];
} {
  const file = join(directory, FILES.store);
  const none = { note: '', origins: [], named: [] };
  if (!existsSync(file)) return none;
  try {
    const reader = new LedgerReader(file);
    const history = historyOf(reader);
    const { origins, named } = history;
    const note = reader.latestCheckpoint() ?? '';
    reader.close();
    return { note, origins, named };
  } catch {
    return none; // opening the store tells why
  }
}

function originOf({ directory, origin, newEpoch }: LedgerPlace): string {
  const name = ledgerName(directory) ?? origin;
  return newEpoch === undefined ? name : nextName(name);
}

/** Returns the keys that sign a ledger under a name, the current one first. Throws `key-missing` and `key-unusable`. */
export function openSigners(place: LedgerPlace, name: string, isNew: boolean): [Signer, ...Signer[]] {
  const { directory, key } = place;
  if (key !== undefined && 'command' in key) {
    const [verifier] = parseVerifiers(readKey(key.publicKey));
    return [programSigner({ publicKey: (verifier as Verifier).publicKey, name }, key.command)];
  }
  const own = join(directory, FILES.key);
  if (key === undefined && place.postgres !== undefined && !existsSync(own))
    throw new CountersignError(
      'key-missing',
      'replicas that share a ledger sign with the same key, but no key is given',
      {
        hint: 'give every replica the same key with --ledger-key; `openssl genpkey -algorithm ed25519` makes one',
      },
    );
  if (key === undefined && isNew && !existsSync(own)) writeFileSync(own, createKey(), { mode: 0o600, flag: 'wx' });
  const old = join(directory, FILES.oldKey);
  const files = key?.files ?? [own, ...(existsSync(old) ? [old] : [])];
  return files.map((file) => readSigner(name, readKey(file))) as [Signer, ...Signer[]];
}

/** Returns the key that signs a ledger, to sign other documents. Throws `key-missing` and `key-unusable`. */
export function openSigner(directory: string, name: string, key: LedgerKey | undefined): Signer {
  return openSigners({ directory, origin: name, key }, name, false)[0];
}

function readKey(file: string): string {
  if (existsSync(file)) return readData(file);
  throw new CountersignError('key-missing', `the ledger’s key \`${file}\` is missing`, {
    recover: 'halt',
    hint: 'restore it from your backup; a new key cannot continue this ledger',
  });
}

function keepVerifiers(directory: string, signers: readonly Verifier[], known: readonly Verifier[]): void {
  const lines = new Set([...signers, ...known].map(verifierText));
  const [file, text] = [join(directory, FILES.verifier), [...lines].map((line) => `${line}\n`).join('')];
  if (!existsSync(file) || readFileSync(file, 'utf8') !== text) replaceFile(file, text);
}
