import { type ArchivedPart, type Stub, StubTally } from './archived-entries.ts';
import type { LedgerReader } from './ledger-reader.ts';
import { leafHash } from './merkle.ts';
import type { StoredEntry } from './store.ts';

type Finding = { readonly message: string; readonly index?: number };

/** Archived entries of one file; `isRead` if their content was checked too. */
export type ArchivedContent = ArchivedPart & {
  readonly file: string;
  readonly place: string;
  readonly isRead: boolean;
};

/** A row of the store with its content, as far as that is at hand. */
type Completed = { readonly stub: Stub | undefined; readonly whole: StoredEntry | undefined };

/** Checks archived entries: their files, their content, and what stands in their place. */
export class ArchivedCheck {
  readonly #reader: LedgerReader;
  readonly #stubs = new StubTally();

  constructor(reader: LedgerReader) {
    this.#reader = reader;
  }

  /** Returns the first file that is not what was archived. Comes first: it is named, and not each entry in it. */
  files(): Finding | undefined {
    const rows = this.#reader.segmentRows();
    const altered = rows.find(({ leaf, body }) => !leafHash(body).equals(leaf))?.index;
    if (altered !== undefined)
      return { index: altered, message: `entry ${altered} was altered: its hash is not its leaf` };
    const archives = this.#reader.archives();
    const problems = rows.flatMap(({ index }) => archives.segment(index) ?? []).map((said) => archives.problem(said));
    const message = problems.find((problem) => problem !== undefined);
    return message === undefined ? undefined : { message };
  }

  /** Completes a row. Rows come in order. Its leaf is part of the root, whether its content is at hand or not. */
  complete(row: StoredEntry): Completed | Finding {
    const stub = this.#stubs.add(row);
    if (stub === undefined) return { stub, whole: row };
    const { index } = row;
    const archives = this.#reader.archives();
    const said = archives.segment(stub.segment);
    if (said === undefined)
      return { index, message: `the content of entry ${index} is gone, and no entry says that it was archived` };
    if (archives.fileOf(said) === undefined) return { stub, whole: undefined };
    const body = archives.body(stub.segment, index);
    if (body !== undefined && leafHash(body).equals(row.leaf)) return { stub, whole: { ...row, body } };
    const problem = body === undefined ? 'missing from' : 'altered in';
    return { index, message: `entry ${index} is ${problem} the archive \`${said.entry.file}\`` };
  }

  /** Returns the first difference between what the ledger says was archived and what stands in its place. */
  problem(): Finding | undefined {
    return this.#stubs.problem();
  }

  get content(): readonly ArchivedContent[] {
    const archives = this.#reader.archives();
    return this.#stubs.parts.map((part) => {
      const segment = archives.segment(part.segment);
      const { file = '', place = '' } = segment?.entry ?? {};
      return { ...part, file, place, isRead: segment !== undefined && archives.fileOf(segment) !== undefined };
    });
  }
}
