import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import PDFDocument from 'pdfkit';
import type { ChangeRow, ExceptionRow, ReportModel } from './build-report.ts';

const INK = '#1a1f2b';
const MUTED = '#5b6472';
const RULE = '#c9ced6';
const ACCENT = '#0b4f6c';
const BAND = '#f2f4f7';
const MARGIN = 48;
const FOOT = 40;
const ROW_GAP = 5;
const MAX_CELL = 600; // characters; the whole value is in report.json

type Column<Row> = { readonly title: string; readonly width: number; readonly mono?: boolean; readonly text: (row: Row) => string };

/** The report as a PDF, the same bytes for the same model. Fonts are embedded; what a font lacks is shown as its code point. */
export function renderPdf(model: ReportModel): Promise<Buffer> {
  const doc = new PDFDocument({
    size: 'A4',
    layout: 'landscape',
    margins: { top: MARGIN, bottom: MARGIN + FOOT, left: MARGIN, right: MARGIN },
    bufferPages: true,
    lang: 'en',
    displayTitle: true,
    info: {
      Title: `${model.title} ${model.period.from.slice(0, 10)} to ${model.period.to.slice(0, 10)}`,
      Author: model.ledger.origin,
      Creator: 'Countersign',
      Producer: 'Countersign',
      CreationDate: new Date(model.asOf),
      ModDate: new Date(model.asOf),
    },
  });
  const chunks: Buffer[] = [];
  const done = new Promise<Buffer>((resolve, reject) => {
    doc.on('data', (chunk: Buffer) => chunks.push(chunk));
    doc.on('end', () => resolve(Buffer.concat(chunks)));
    doc.on('error', reject);
  });
  const page = new Page(doc);
  cover(page, model);
  changes(page, model);
  exceptions(page, model);
  people(page, model);
  rules(page, model);
  proof(page, model);
  page.foot(`${model.title} · ${model.id}`);
  doc.end();
  return done;
}

function cover(page: Page, model: ReportModel): void {
  const { summary } = model;
  page.title(model.title);
  page.lead(`${day(model.period.from)} to ${day(model.period.to)} (UTC, end not included)`);
  page.pairs([
    ['Report', model.id],
    ['Ledger', `${model.ledger.origin}, entries ${model.ledger.first} to ${model.ledger.first + model.ledger.entries - 1}`],
    ['As of', model.asOf],
    ['Environments', model.environments.join(', ') || 'none'],
  ]);
  page.heading('Summary');
  page.figures([
    ['changes judged', summary.changes],
    ['applied', summary.applied],
    ['denied', summary.denied],
    ['failed', summary.failed],
    ['requests refused', summary.admissionsDenied],
    ['exceptions', summary.exceptions],
  ]);
  page.note(
    'Every change to the governed namespaces in the period is listed, not a sample. A denied change or a refused request is the control at work; an exception is something a reader should ask about.',
  );
  page.note('This report is evidence for an auditor to test. It draws no conclusion about the design or the operation of controls.');
}

function changes(page: Page, model: ReportModel): void {
  page.heading('Changes', true);
  const columns: Column<ChangeRow>[] = [
    { title: 'Entry', width: 32, text: (c) => String(c.entry) },
    { title: 'Judged (UTC)', width: 98, text: (c) => clock(c.time) },
    { title: 'Environment', width: 66, text: (c) => c.environment },
    { title: 'Revision', width: 76, mono: true, text: (c) => c.to.slice(0, 12) },
    { title: 'Subject', width: 128, text: (c) => c.subject },
    { title: 'Authors', width: 112, text: (c) => c.authors.join(', ') },
    { title: 'Signed by', width: 60, text: (c) => c.signers.join(', ') || 'nobody' },
    { title: 'Approved by', width: 64, text: (c) => c.approvers.join(', ') || 'nobody' },
    { title: 'Outcome', width: 110, text: (c) => (c.outcome === 'applied' ? `applied\n${clock(c.appliedAt)}` : c.outcome) },
  ];
  page.table(columns, model.changes, 'No change was judged in the period.');
  const denied = model.changes.filter((c) => c.reasons.length > 0);
  page.heading('Why changes were denied');
  page.table<ChangeRow>(
    [
      { title: 'Entry', width: 36, text: (c) => String(c.entry) },
      { title: 'Revision', width: 82, mono: true, text: (c) => c.to.slice(0, 12) },
      { title: 'Reasons', width: 628, text: (c) => c.reasons.join('\n') },
    ],
    denied,
    `None of ${model.changes.length} changes was denied.`,
  );
}

function exceptions(page: Page, model: ReportModel): void {
  const columns: Column<ExceptionRow>[] = [
    { title: 'Entry', width: 36, text: (e) => String(e.entry) },
    { title: 'Time (UTC)', width: 98, text: (e) => clock(e.time) },
    { title: 'Environment', width: 72, text: (e) => e.environment },
    { title: 'Type', width: 96, text: (e) => e.type },
    { title: 'Actor', width: 90, text: (e) => e.actor },
    { title: 'Subject', width: 150, text: (e) => e.subject },
    { title: 'Detail', width: 204, text: (e) => e.detail },
  ];
  page.heading('Exceptions', true);
  page.table(columns, model.exceptions, `None found in ${model.summary.changes} changes and ${model.ledger.entries} ledger entries.`);
  page.heading('Requests refused by the admission gate');
  page.table(columns, model.refused, 'No request was refused in the period.');
}

function people(page: Page, model: ReportModel): void {
  page.heading('Signers and approvers', true);
  page.table(
    [
      { title: 'Principal', width: 110, text: (p) => p.principal },
      { title: 'Kind', width: 70, text: (p) => p.kind },
      { title: 'Commits signed', width: 90, text: (p) => String(p.signed) },
      { title: 'Approvals', width: 70, text: (p) => String(p.approved) },
      { title: 'Keys', width: 406, mono: true, text: (p) => p.keys.join('\n') },
    ],
    model.people,
    'Nobody signed or approved anything in the period.',
  );
}

function rules(page: Page, model: ReportModel): void {
  page.heading('Rules that spoke');
  page.table(
    [
      { title: 'Rule', width: 300, text: (r) => (r.title === '' ? r.rule : `${r.rule}\n${r.title}`) },
      { title: 'Severity', width: 80, text: (r) => r.severity },
      { title: 'Controls', width: 120, text: (r) => r.controls.join(', ') },
      { title: 'Violations', width: 80, text: (r) => String(r.denied) },
      { title: 'Warnings', width: 80, text: (r) => String(r.warned) },
      { title: 'Waived', width: 80, text: (r) => String(r.waived) },
    ],
    model.rules,
    'No rule found anything in the period.',
  );
}

function proof(page: Page, model: ReportModel): void {
  page.heading('How to verify this report', true);
  page.note('1. `countersign verify report.pdf --key ledger.pub` checks everything below, offline, with the public key alone.');
  page.note(
    '2. By hand: `manifest.txt` is a signed note (C2SP signed-note, Ed25519) over the SHA-256 of report.pdf, report.json, entries.jsonl, evidence.jsonl and range.json.',
  );
  page.note(
    '3. SHA-256 over a zero byte followed by a line of entries.jsonl is a leaf; with the hashes in range.json the leaves give the root of the checkpoint (RFC 6962).',
  );
  page.note('4. Each number in report.json is counted from entries.jsonl and evidence.jsonl by the rules in docs/report-format.md.');
  page.heading('Checkpoint');
  page.mono(model.ledger.checkpoint);
}

// Lays text out from top to bottom, over pages; the only place that knows coordinates.
class Page {
  readonly #doc: PDFKit.PDFDocument;
  readonly #known = new Map<string, (code: number) => boolean>();

  constructor(doc: PDFKit.PDFDocument) {
    this.#doc = doc;
    for (const [name, file] of [
      ['sans', 'IBMPlexSans_400Regular.ttf'],
      ['bold', 'IBMPlexSans_600SemiBold.ttf'],
      ['mono', 'DejaVuSansMono.ttf'],
    ] as const) {
      doc.registerFont(
        name,
        readFileSync(fileURLToPath(new URL(`../../reports/fonts/${file}`, import.meta.url))) as unknown as ArrayBuffer,
      );
    }
  }

  title(text: string): void {
    this.#write(text, 'bold', 26, ACCENT, 4);
  }

  lead(text: string): void {
    this.#write(text, 'sans', 13, MUTED, 14);
  }

  heading(text: string, newPage = false): void {
    if (newPage) this.#doc.addPage();
    else if (this.#doc.y > this.#bottom() - 90) this.#doc.addPage();
    else this.#doc.y += 14;
    this.#doc.outline.addItem(text);
    this.#write(text, 'bold', 15, ACCENT, 6);
  }

  note(text: string): void {
    this.#write(text, 'sans', 10, INK, 5);
  }

  mono(text: string): void {
    this.#write(text, 'mono', 9, INK, 5);
  }

  pairs(rows: readonly (readonly [string, string])[]): void {
    for (const [name, value] of rows) {
      const top = this.#doc.y;
      this.#cell(name, 'sans', 10, MUTED, MARGIN, top, 100);
      this.#doc.y = top + this.#cell(value, 'sans', 10, INK, MARGIN + 100, top, 640) + 3;
    }
  }

  figures(items: readonly (readonly [string, number])[]): void {
    const width = (this.#doc.page.width - 2 * MARGIN) / items.length;
    const top = this.#doc.y + 4;
    items.forEach(([name, value], i) => {
      const left = MARGIN + i * width;
      this.#doc.rect(left, top, width - 8, 62).fill(BAND);
      this.#cell(String(value), 'bold', 24, INK, left + 10, top + 8, width - 28);
      this.#cell(name, 'sans', 9, MUTED, left + 10, top + 41, width - 28);
    });
    this.#doc.y = top + 74;
  }

  table<Row>(columns: readonly Column<Row>[], rows: readonly Row[], empty: string): void {
    if (rows.length === 0) {
      this.note(empty);
      return;
    }
    this.#tableHead(columns);
    rows.forEach((row, i) => {
      const cells = columns.map((c) => this.#clean(short(c.text(row)), c.mono === true ? 'mono' : 'sans'));
      const height = Math.max(...cells.map((text, j) => this.#height(text, columns[j] as Column<Row>)));
      if (this.#doc.y + height > this.#bottom()) {
        this.#doc.addPage();
        this.#tableHead(columns);
      }
      const top = this.#doc.y;
      if (i % 2 === 1) this.#doc.rect(MARGIN - 4, top - 2, this.#doc.page.width - 2 * MARGIN + 8, height + 4).fill(BAND);
      let left = MARGIN;
      columns.forEach((column, j) => {
        this.#cell(
          cells[j] ?? '',
          column.mono === true ? 'mono' : 'sans',
          column.mono === true ? 7.5 : 8.5,
          INK,
          left,
          top,
          column.width - 6,
        );
        left += column.width;
      });
      this.#doc.y = top + height + ROW_GAP;
    });
  }

  foot(text: string): void {
    const { count } = this.#doc.bufferedPageRange();
    for (let i = 0; i < count; i++) {
      this.#doc.switchToPage(i);
      const { height, width } = this.#doc.page;
      this.#doc.page.margins.bottom = 0; // text below the margin would begin a new page
      this.#doc.font('sans').fontSize(8).fillColor(MUTED);
      this.#doc.text(text, MARGIN, height - FOOT, { lineBreak: false });
      this.#doc.text(`page ${i + 1} of ${count}`, width - MARGIN - 100, height - FOOT, { width: 100, align: 'right', lineBreak: false });
    }
  }

  #tableHead<Row>(columns: readonly Column<Row>[]): void {
    const top = this.#doc.y;
    let left = MARGIN;
    for (const column of columns) {
      this.#cell(column.title, 'bold', 8.5, ACCENT, left, top, column.width - 6);
      left += column.width;
    }
    this.#doc.y = top + 15;
    this.#doc
      .moveTo(MARGIN, this.#doc.y - 2)
      .lineTo(this.#doc.page.width - MARGIN, this.#doc.y - 2)
      .lineWidth(0.7)
      .stroke(RULE);
    this.#doc.y += 3;
  }

  #height<Row>(text: string, column: Column<Row>): number {
    this.#doc.font(column.mono === true ? 'mono' : 'sans').fontSize(column.mono === true ? 7.5 : 8.5);
    return Math.min(this.#doc.heightOfString(text, { width: column.width - 6 }), 300);
  }

  #cell(text: string, font: string, size: number, colour: string, left: number, top: number, width: number): number {
    const clean = this.#clean(text, font);
    this.#doc.font(font).fontSize(size).fillColor(colour);
    const height = this.#doc.heightOfString(clean, { width });
    this.#doc.text(clean, left, top, { width, height: 300, ellipsis: true });
    return height;
  }

  #write(text: string, font: string, size: number, colour: string, gap: number): void {
    this.#doc
      .font(font)
      .fontSize(size)
      .fillColor(colour)
      .text(this.#clean(text, font), MARGIN, this.#doc.y, { width: this.#doc.page.width - 2 * MARGIN });
    this.#doc.y += gap;
  }

  #bottom(): number {
    return this.#doc.page.height - MARGIN - FOOT;
  }

  // Names and subjects come from commits: what the font lacks, controls and direction marks must not break the page or turn it round.
  #clean(text: string, font: string): string {
    const known = this.#knows(font);
    return [...text.normalize('NFC')]
      .map((char) => {
        const code = char.codePointAt(0) ?? 0;
        return char === '\n' || (known(code) && !/[\p{Cc}\p{Cf}]/u.test(char))
          ? char
          : `<U+${code.toString(16).toUpperCase().padStart(4, '0')}>`;
      })
      .join('');
  }

  #knows(font: string): (code: number) => boolean {
    const cached = this.#known.get(font);
    if (cached !== undefined) return cached;
    this.#doc.font(font);
    const face = (this.#doc as unknown as { _font: { font: { hasGlyphForCodePoint(code: number): boolean } } })._font.font;
    const known = (code: number) => face.hasGlyphForCodePoint(code);
    this.#known.set(font, known);
    return known;
  }
}

function short(text: string): string {
  return text.length > MAX_CELL ? `${text.slice(0, MAX_CELL)}…` : text;
}

function day(time: string): string {
  return time.slice(0, 10);
}

function clock(time: string): string {
  return time.slice(0, 19).replace('T', ' ');
}
