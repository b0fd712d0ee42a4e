/** Filter for entries. All given conditions must hold. */
export type EntryFilter = {
  readonly types?: readonly string[];
  readonly environment?: string;
  /** Start (inclusive) and end (exclusive) of the period; ISO 8601. */
  readonly since?: string;
  readonly until?: string;
  /** Texts the entry must contain: as a whole value, as the beginning of one, or as the field `name`. */
  readonly holds?: readonly { readonly text: string; readonly as: 'value' | 'prefix' | 'name' }[];
  readonly from?: number;
  readonly to?: number;
};

/** A filter as a condition of SQL and its values; and as a test for the bytes of an entry that are not in the store. */
export type Condition = {
  readonly sql: string;
  readonly values: readonly string[];
  readonly holdsIn: (body: string) => boolean;
};

/** Returns the condition of a filter, except for its limits. Archived entries pass, as far as the store shows them. */
export function conditionOf(
  { types = [], environment, holds = [] }: EntryFilter,
  commitmentsTo: (text: string) => readonly string[],
): Condition {
  const named = holds.map(({ text, as }) => [pattern(text, as), ...commitmentsTo(text)]);
  const wanted = [
    'seq >= ? AND seq < ?',
    ...(types.length === 0 ? [] : [`type IN (${types.map(() => '?').join(', ')})`]),
    ...(environment === undefined ? [] : ['environment = ?']),
    ...named.map((any) => `(${any.map(() => 'instr(body, ?)').join(' OR ')} OR body NOT LIKE '{%')`),
  ];
  return {
    sql: wanted.join(' AND '),
    values: [...types, ...(environment === undefined ? [] : [environment]), ...named.flat()],
    holdsIn: (body) => named.every((any) => any.some((text) => body.includes(text))),
  };
}

// Returns the text as it appears in canonical JSON.
function pattern(text: string, as: 'value' | 'prefix' | 'name'): string {
  const quoted = JSON.stringify(text);
  if (as === 'prefix') return quoted.slice(0, -1);
  return as === 'name' ? `"name":${quoted}` : quoted;
}
