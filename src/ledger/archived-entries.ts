import { createHash, type Hash } from 'node:crypto';
import type { EntryOf, EntryType, Recorded } from '../model/index.ts';
import type { StoredEntry } from './store.ts';

/** Types whose old entries can be archived: bulky, and read by no decision and no register once they are old. */
export const ARCHIVED_TYPES = [
  'admission.allowed',
  'admission.proven',
  'admission.denied',
  'heartbeat',
] as const satisfies readonly EntryType[];

/** The entry that says where archived entries are. */
export type Segment = Recorded<EntryOf<'segment.archived'>>;

/** Stub in the store in place of an archived entry: its time, and the index of its `segment.archived`. */
export type Stub = { readonly time: string; readonly segment: number };

const STUB = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (0|[1-9]\d{0,14})$/;

/** Returns the stub if the body in the store is one; an entry begins with a brace. */
export function readStub(body: string): Stub | undefined {
  if (body.startsWith('{')) return undefined;
  const [, time, segment] = STUB.exec(body) ?? [];
  return time === undefined ? undefined : { time, segment: Number(segment) };
}

type Row = Pick<StoredEntry, 'index' | 'type' | 'environment' | 'body'>;

/** Hashes what stays in place of archived entries: a line for each, in order. */
export class StaysHash {
  readonly #hash: Hash = createHash('sha256');

  add({ index, type, environment }: Omit<Row, 'body'>, time: string): void {
    this.#hash.update(`${index} ${time} ${type} ${environment}\n`);
  }

  digest(): string {
    return this.#hash.digest('hex');
  }
}

/** Archived entries of one segment, as far as the store still shows them. */
export type ArchivedPart = {
  readonly segment: number;
  readonly entries: number;
  readonly first: number;
  /** Times of the first and the last of them. */
  readonly since: string;
  readonly until: string;
};

/**
 * Compares what stands in place of archived entries with what the ledger says was archived. Fed with every row, in
 * order. Content that is gone without such an entry was removed by someone else.
 */
export class StubTally {
  readonly #segments = new Map<number, EntryOf<'segment.archived'>>();
  readonly #parts = new Map<number, { part: ArchivedPart; readonly stays: StaysHash }>();

  /** Returns the stub if the row has one. */
  add(row: Row): Stub | undefined {
    if (row.type === 'segment.archived') this.#segments.set(row.index, JSON.parse(row.body));
    const stub = readStub(row.body);
    if (stub === undefined) return undefined;
    const { part, stays } = this.#parts.get(stub.segment) ?? {
      part: { segment: stub.segment, entries: 0, first: row.index, since: stub.time, until: stub.time },
      stays: new StaysHash(),
    };
    stays.add(row, stub.time);
    this.#parts.set(stub.segment, { part: { ...part, entries: part.entries + 1, until: stub.time }, stays });
    return stub;
  }

  /** Returns the archived entries by segment. */
  get parts(): readonly ArchivedPart[] {
    return [...this.#parts.values()].map(({ part }) => part);
  }

  /** Returns the first problem, once every row was added. Ends the tally. */
  problem(): { readonly index: number; readonly message: string } | undefined {
    for (const { part, stays } of this.#parts.values()) {
      const said = this.#segments.get(part.segment);
      const index = part.first;
      if (said === undefined)
        return { index, message: `the content of entry ${index} is gone, and no entry says that it was archived` };
      if (said.entries !== part.entries || said.stays !== stays.digest())
        return { index, message: `what stays in place of archived entries is not what entry ${part.segment} says` };
    }
    return undefined;
  }
}
