import type { ChangeRecord, ExceptionRecord, ReportModel, SampleItem } from './model.ts';

/**
 * A cell in CSV and XLSX. Text that a spreadsheet would take for a formula gets a leading apostrophe; control
 * characters are removed.
 */
export type Cell = string | number;

/** Rows that can be iterated repeatedly, and need not be in memory all at once. */
export type TableRows = Iterable<readonly Cell[]> & { readonly length: number };

/** One table of a report: the same columns and rows in every format. */
export type Table = { readonly name: string; readonly columns: readonly string[]; readonly rows: TableRows };

type Column<Row> = readonly [string, (row: Row) => Cell];

function table<Row>(
  name: string,
  columns: readonly Column<Row>[],
  rows: Iterable<Row> & { readonly length: number },
): Table {
  const cells = function* () {
    for (const row of rows)
      yield columns.map(([, cell]) => {
        const value = cell(row);
        return typeof value === 'number' ? value : safeText(value);
      });
  };
  return { name, columns: columns.map(([title]) => title), rows: { length: rows.length, [Symbol.iterator]: cells } };
}

const LIST = '; ';

/** Returns the table of all changes, one row each. */
export function populationTable(model: ReportModel): Table {
  const byId = new Map(model.exceptions.map((e) => [e.id, e]));
  const columns: Column<ChangeRecord>[] = [
    ['change_id', (c) => c.id],
    ['ledger_index', (c) => c.entry],
    ['leaf_hash', (c) => c.leaf],
    ['environment', (c) => c.environment],
    ['ref', (c) => c.ref],
    ['from', (c) => c.from],
    ['commit', (c) => c.to],
    ['tree', (c) => c.tree],
    ['change_type', (c) => c.type],
    ['ticket', (c) => c.tickets.join(LIST)],
    ['title', (c) => c.subject],
    ['commits', (c) => c.commits.length],
    ['authors', (c) => distinct(c.commits.map((k) => k.author))],
    ['committers', (c) => distinct(c.commits.map((k) => k.committer))],
    ['committed_at', (c) => c.commits.at(-1)?.committedAt ?? ''],
    ['received_at', (c) => c.commits.at(-1)?.seen ?? ''],
    ['signature_scheme', (c) => distinct(c.commits.map((k) => k.scheme))],
    ['signer_keys', (c) => distinct(c.commits.map((k) => k.key))],
    ['signers', (c) => distinct(c.commits.map((k) => k.signer))],
    ['signature_status', (c) => distinct(c.commits.map((k) => k.status))],
    ['approvers', (c) => distinct(c.approvals.map((a) => a.principal))],
    ['approval_count', (c) => c.approvals.length],
    ['approval_classes', (c) => distinct(c.approvals.map((a) => a.class))],
    ['first_approved_at', (c) => sorted(c)[0] ?? ''],
    ['last_approved_at', (c) => sorted(c).at(-1) ?? ''],
    ['policy_set_digest', (c) => c.policy.bundle],
    ['policy_result', (c) => (c.policy.denied > 0 ? 'fail' : c.policy.waived > 0 ? 'pass with waiver' : 'pass')],
    ['policy_failures', (c) => c.policy.denied],
    ['overrides', (c) => c.policy.waived],
    ['judged_at', (c) => c.time],
    ['times_judged', (c) => c.judged],
    ['outcome', (c) => c.outcome],
    ['objects', (c) => c.objects],
    ['objects_written', (c) => c.written],
    ['objects_removed', (c) => c.removed],
    ['apply_started_at', (c) => c.applyStartedAt],
    ['applied_at', (c) => c.appliedAt],
    ['apply_entries', (c) => c.applyEntries.join(LIST)],
    ['health', (c) => (c.outcome !== 'applied' ? '' : c.healthy ? 'healthy' : 'not waited for')],
    ['error', (c) => c.error],
    ['exceptions', (c) => c.exceptions.join(LIST)],
    ['disposition', (c) => distinct(c.exceptions.map((id) => byId.get(id)?.disposition ?? ''))],
    ...(['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J'] as const).map(
      (a): Column<ChangeRecord> => [`attr_${a}`, (c) => c.attributes[a]],
    ),
  ];
  return table('population', columns, model.changes);
}

function exceptionsTable(model: ReportModel): Table {
  const columns: Column<ExceptionRecord>[] = [
    ['id', (e) => e.id],
    ['detected_at', (e) => e.time],
    ['type', (e) => e.type],
    ['severity', (e) => e.severity],
    ['environment', (e) => e.environment],
    ['change', (e) => e.change],
    ['object', (e) => e.object],
    ['actor', (e) => e.actor],
    ['cause', (e) => e.cause],
    ['exposed_seconds', (e) => e.exposed ?? 'cannot tell'],
    ['owner', (e) => e.owner],
    ['disposition', (e) => e.disposition],
    ['by', (e) => e.by],
    ['at', (e) => e.at],
    ['reason', (e) => e.reason],
    ['days', (e) => e.days],
    ['ticket', (e) => e.ticket],
    ['link', (e) => e.link],
    ['ledger_index', (e) => e.entry],
  ];
  return table('exceptions', columns, model.exceptions);
}

function accessTable(model: ReportModel): Table {
  const rows = model.access.flatMap((person) =>
    person.keys.length === 0
      ? [{ person, key: { key: '', from: '', to: '' } }]
      : person.keys.map((key) => ({ person, key })),
  );
  return table(
    'access',
    [
      ['principal', (r) => r.person.principal],
      ['kind', (r) => r.person.kind],
      ['roles', (r) => r.person.roles.join(LIST)],
      ['key', (r) => r.key.key],
      ['listed_from', (r) => r.person.listedFrom],
      ['listed_until', (r) => r.person.listedUntil],
      ['first_used', (r) => r.key.from],
      ['last_used', (r) => r.key.to],
      ['commits_signed', (r) => r.person.signed],
      ['approvals', (r) => r.person.approved],
    ],
    rows,
  );
}

/** Returns the auditor's sample, with empty columns to fill in. */
function sampleTable(model: ReportModel): Table {
  const rows = sampled(model);
  const letters = ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J'] as const;
  return table(
    'sample',
    [
      ['stratum', (r) => r.item.stratum],
      ['rank', (r) => r.item.rank],
      ['change_id', (r) => r.change.id],
      ['environment', (r) => r.change.environment],
      ['commit', (r) => r.change.to],
      ['applied_at', (r) => r.change.appliedAt],
      ['title', (r) => r.change.subject],
      ...letters.map((a): Column<(typeof rows)[number]> => [`attr_${a}`, (r) => r.change.attributes[a]]),
      ...letters.map((a): Column<(typeof rows)[number]> => [`auditor_${a}`, () => '']),
      ['auditor_note', () => ''],
    ],
    rows,
  );
}

/** Returns the sample with the record of each change. */
export function sampled({
  sample,
  changes,
}: ReportModel): readonly { readonly item: SampleItem; readonly change: ChangeRecord }[] {
  const items = sample?.items ?? [];
  const byId = new Map(changes.of(items.map((i) => i.change)).map((c) => [c.id, c]));
  return items.flatMap((item) => {
    const change = byId.get(item.change);
    return change === undefined ? [] : [{ item, change }];
  });
}

/** Returns every table of a report. */
export function tablesOf(model: ReportModel): Table[] {
  return [
    populationTable(model),
    exceptionsTable(model),
    accessTable(model),
    ...(model.sample === null ? [] : [sampleTable(model)]),
  ];
}

function sorted(change: ChangeRecord): string[] {
  return change.approvals.map((a) => a.issuedAt).sort();
}

function distinct(items: readonly string[]): string {
  return [...new Set(items.filter((i) => i !== ''))].join(LIST);
}

/** Yields RFC 4180 in UTF-8, line by line. */
export function* csvOf({ columns, rows }: Table): Generator<string> {
  yield csvLine(columns);
  for (const row of rows) yield csvLine(row);
}

/** Returns one line. */
export function csvLine(row: readonly Cell[]): string {
  return `${row.map(csvCell).join(',')}\r\n`;
}

function csvCell(value: Cell): string {
  if (typeof value === 'number') return String(value);
  return /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

// Makes text from outside safe for spreadsheets.
function safeText(value: string): string {
  const plain = value.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\ufffe\uffff]/g, '').toWellFormed();
  return /^[=+\-@\t\r]/.test(plain) ? `'${plain}` : plain;
}
