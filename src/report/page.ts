import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Scene } from './charts.ts';

const INK = '#1a1f2b';
const MUTED = '#4a5362';
const RULE = '#c9ced6';
const ACCENT = '#0b4f6c';
const BAND = '#f2f4f7';
export const MARGIN = 48;
export const FOOT = 40;
const ROW_GAP = 5;
const MAX_CELL = 400; // characters; the whole value is in report.json
const MAX_HEIGHT = 300;

export type Column<Row> = {
  readonly title: string;
  readonly width: number;
  readonly mono?: boolean;
  readonly text: (row: Row) => string;
};

type Struct = PDFKit.PDFStructureElement;
type Font = 'sans' | 'bold' | 'mono';

/** Lays out tagged text, tables and charts from top to bottom over pages. No other code knows coordinates. */
export class Page {
  readonly #doc: PDFKit.PDFDocument;
  readonly #root: Struct;
  readonly #known = new Map<string, (code: number) => boolean>();
  readonly #contents: { readonly title: string; readonly page: number; readonly name: string }[] = [];
  #section: Struct;
  #toc: { readonly page: number; readonly top: number; readonly struct: Struct } | undefined;

  constructor(doc: PDFKit.PDFDocument) {
    this.#doc = doc;
    for (const [name, file] of [
      ['sans', 'IBMPlexSans_400Regular.ttf'],
      ['bold', 'IBMPlexSans_600SemiBold.ttf'],
      ['mono', 'DejaVuSansMono.ttf'],
    ] as const)
      doc.registerFont(
        name,
        readFileSync(fileURLToPath(new URL(`../../reports/fonts/${file}`, import.meta.url))) as unknown as ArrayBuffer,
      );
    doc.font('sans');
    this.#root = doc.struct('Document');
    doc.addStructure(this.#root);
    this.#section = this.#begin();
  }

  /** Inner width in points. */
  get width(): number {
    return this.#doc.page.width - 2 * MARGIN;
  }

  title(text: string): void {
    this.#write('H1', text, 'bold', 26, ACCENT, 4);
  }

  lead(text: string): void {
    this.#write('P', text, 'sans', 13, MUTED, 14);
  }

  /** Writes a section heading with an entry in the outline and in the contents. */
  heading(text: string, newPage = false): void {
    if (newPage) this.#doc.addPage();
    else this.#room(120);
    if (!newPage) this.#doc.y += 14;
    this.#section = this.#begin();
    const name = `s${this.#contents.length}`;
    this.#contents.push({ title: text, page: this.#doc.bufferedPageRange().count, name });
    this.#doc.outline.addItem(text);
    this.#doc.addNamedDestination(name, 'XYZ', MARGIN, this.#doc.y - 4, null);
    this.#write('H2', text, 'bold', 15, ACCENT, 6);
  }

  /** `room`: points needed on the same page for the heading and the following content. */
  subheading(text: string, room = 60): void {
    this.#room(room);
    this.#doc.y += 6;
    this.#write('H3', text, 'bold', 11, INK, 4);
  }

  note(text: string): void {
    this.#write('P', text, 'sans', 10, INK, 5);
  }

  mono(text: string): void {
    this.#write('P', text, 'mono', 9, INK, 5);
  }

  /** Leaves a page for the table of contents, which is written at the end. */
  contents(title: string): void {
    this.#doc.addPage();
    this.#section = this.#begin();
    this.#write('H2', title, 'bold', 15, ACCENT, 6);
    const struct = this.#doc.struct('TOC');
    this.#section.add(struct);
    this.#toc = { page: this.#doc.bufferedPageRange().count - 1, top: this.#doc.y, struct };
  }

  pairs(rows: readonly (readonly [string, string])[]): void {
    this.#tabled(
      rows.map(([name, value]) => ({ name, value })),
      [
        { title: 'Name', width: 130, text: (r) => r.name },
        { title: 'Value', width: this.width - 130, text: (r) => r.value },
      ],
      { head: false, size: 10 },
    );
  }

  figures(items: readonly (readonly [string, number])[]): void {
    const width = this.width / items.length;
    const top = this.#doc.y + 4;
    items.forEach(([name, value], i) => {
      const left = MARGIN + i * width;
      this.#artifact(() => this.#doc.rect(left, top, width - 8, 62).fill(BAND));
      this.#tag(this.#section, 'P', () => {
        this.#cell(`${value} `, 'bold', 24, INK, left + 10, top + 8, width - 28);
        this.#cell(name, 'sans', 9, MUTED, left + 10, top + 41, width - 28);
      });
    });
    this.#doc.y = top + 74;
  }

  table<Row>(columns: readonly Column<Row>[], rows: readonly Row[], empty: string): void {
    if (rows.length === 0) this.note(empty);
    else this.#tabled(rows, columns, { head: true, size: 8 });
  }

  /** Draws shapes with their description in words; a table next to it has the numbers. */
  chart(scene: Scene): void {
    this.#room(scene.height + 10);
    const [left, top] = [MARGIN, this.#doc.y];
    const bbox = [left, top, left + scene.width, top + scene.height];
    const figure = this.#doc.struct('Figure', { alt: this.#clean(scene.alt, 'sans'), bbox } as object, [
      () => {
        for (const shape of scene.shapes) {
          if (shape.kind === 'rect')
            this.#doc
              .rect(left + shape.x, top + shape.y, shape.width, shape.height)
              .lineWidth(0.7)
              .fillAndStroke(shape.fill, shape.stroke);
          else {
            this.#doc.font('sans').fontSize(shape.size).fillColor(shape.fill);
            this.#doc.text(this.#clean(shape.text, 'sans'), left + shape.x, top + shape.y, { lineBreak: false });
          }
        }
      },
    ]);
    this.#section.add(figure);
    figure.end();
    this.#doc.x = MARGIN;
    this.#doc.y = top + scene.height + 10;
  }

  /** Ends every page with a line, and writes the contents. */
  finish(text: string): void {
    const { count } = this.#doc.bufferedPageRange();
    this.#writeContents();
    for (let i = 0; i < count; i++) {
      this.#doc.switchToPage(i);
      const { height, width } = this.#doc.page;
      this.#doc.page.margins.bottom = 0; // text below the margin would begin a new page
      this.#doc.markContent('Artifact', { type: 'Pagination' } as never);
      this.#doc.font('sans').fontSize(8).fillColor(MUTED);
      this.#doc.text(this.#clean(text, 'sans'), MARGIN, height - FOOT, { lineBreak: false });
      this.#doc.text(`page ${i + 1} of ${count}`, width - MARGIN - 100, height - FOOT, {
        width: 100,
        align: 'right',
        lineBreak: false,
      });
      this.#doc.endMarkedContent();
    }
    this.#root.end();
  }

  #writeContents(): void {
    if (this.#toc === undefined) return;
    const { page, top, struct } = this.#toc;
    this.#doc.switchToPage(page);
    let y = top;
    for (const { title, page: on, name } of this.#contents) {
      const item = this.#doc.struct('TOCI');
      struct.add(item);
      const link = this.#doc.struct('Link');
      item.add(link);
      link.add(() => {
        this.#doc.font('sans').fontSize(10).fillColor(INK);
        this.#doc.text(`${this.#clean(title, 'sans')} `, MARGIN, y, { lineBreak: false });
        this.#doc.text(String(on), MARGIN + 300, y, { width: 40, align: 'right', lineBreak: false });
      });
      this.#doc.goTo(MARGIN, y, 340, 14, name, {
        structParent: link,
        Contents: new String(`${title}, page ${on}`),
      } as never);
      link.end();
      item.end();
      y += 17;
    }
  }

  #begin(): Struct {
    const section = this.#doc.struct('Sect');
    this.#root.add(section);
    return section;
  }

  #tag(parent: Struct, type: string, content: () => void, options: object = {}): void {
    const element = this.#doc.struct(type as never, options);
    parent.add(element);
    element.add(content);
    element.end();
  }

  #artifact(draw: () => void): void {
    this.#doc.markContent('Artifact', { type: 'Layout' } as never);
    draw();
    this.#doc.endMarkedContent();
  }

  // One table per page: pdfkit does not repeat a header, and screen readers treat each page's table separately.
  #tabled<Row>(
    rows: readonly Row[],
    columns: readonly Column<Row>[],
    { head, size }: { readonly head: boolean; readonly size: number },
  ): void {
    if (head) this.#room(70);
    let table = this.#openTable(columns, head, size);
    rows.forEach((row, i) => {
      const cells = columns.map((c) => this.#clean(short(c.text(row)), c.mono === true ? 'mono' : 'sans'));
      const height = Math.max(...cells.map((text, j) => this.#height(text, columns[j] as Column<Row>, size)));
      if (this.#doc.y + height > this.#bottom()) {
        table.end();
        this.#doc.addPage();
        table = this.#openTable(columns, head, size);
      }
      const top = this.#doc.y;
      if (head && i % 2 === 1)
        this.#artifact(() => this.#doc.rect(MARGIN - 4, top - 2, this.width + 8, height + 4).fill(BAND));
      const line = this.#doc.struct('TR');
      table.add(line);
      let left = MARGIN;
      columns.forEach((column, j) => {
        const isName = !head && j === 0;
        const font = column.mono === true ? 'mono' : 'sans';
        const text = cells[j] ?? '';
        const at = left;
        const draw = () =>
          this.#cell(text, font, font === 'mono' ? size - 1 : size, isName ? MUTED : INK, at, top, column.width - 6);
        this.#tag(line, isName ? 'TH' : 'TD', draw, isName ? { scope: 'Row' } : {});
        left += column.width;
      });
      line.end();
      this.#doc.y = top + height + ROW_GAP;
    });
    table.end();
    this.#doc.x = MARGIN;
  }

  #openTable<Row>(columns: readonly Column<Row>[], head: boolean, size: number): Struct {
    const table = this.#doc.struct('Table');
    this.#section.add(table);
    if (!head) return table;
    const top = this.#doc.y;
    const line = this.#doc.struct('TR');
    table.add(line);
    let left = MARGIN;
    let height = 0;
    for (const column of columns) {
      const at = left;
      this.#tag(
        line,
        'TH',
        () => (height = Math.max(height, this.#cell(column.title, 'bold', size, ACCENT, at, top, column.width - 6))),
        {
          scope: 'Column',
        },
      );
      left += column.width;
    }
    line.end();
    this.#doc.y = top + height + 4;
    const y = this.#doc.y - 2;
    this.#artifact(() =>
      this.#doc
        .moveTo(MARGIN, y)
        .lineTo(MARGIN + this.width, y)
        .lineWidth(0.7)
        .stroke(RULE),
    );
    this.#doc.y += 3;
    return table;
  }

  #room(height: number): void {
    if (this.#doc.y + height > this.#bottom()) this.#doc.addPage();
  }

  #height<Row>(text: string, column: Column<Row>, size: number): number {
    this.#doc.font(column.mono === true ? 'mono' : 'sans').fontSize(column.mono === true ? size - 1 : size);
    return Math.min(this.#doc.heightOfString(text, { width: column.width - 6 }), MAX_HEIGHT);
  }

  #cell(text: string, font: Font, size: number, colour: string, left: number, top: number, width: number): number {
    const clean = this.#clean(text, font);
    if (clean === '') return 0;
    this.#doc.font(font).fontSize(size).fillColor(colour);
    const height = this.#doc.heightOfString(clean, { width });
    this.#doc.text(clean, left, top, { width, height: MAX_HEIGHT, ellipsis: true });
    return height;
  }

  #write(type: string, text: string, font: Font, size: number, colour: string, gap: number): void {
    const clean = this.#clean(text, font);
    this.#doc.font(font).fontSize(size);
    this.#room(Math.min(this.#doc.heightOfString(clean, { width: this.width }), 200));
    this.#tag(this.#section, type, () => {
      this.#doc.font(font).fontSize(size).fillColor(colour).text(clean, MARGIN, this.#doc.y, { width: this.width });
    });
    this.#doc.y += gap;
  }

  #bottom(): number {
    return this.#doc.page.height - MARGIN - FOOT;
  }

  // Names and subjects come from commits. Missing glyphs, control characters and direction marks must not break or
  // reverse the page.
  #clean(text: string, font: Font): string {
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

  #knows(font: Font): (code: number) => boolean {
    const cached = this.#known.get(font);
    if (cached !== undefined) return cached;
    this.#doc.font(font);
    const face = (this.#doc as unknown as { _font: { font: { hasGlyphForCodePoint(code: number): boolean } } })._font
      .font;
    const seen = new Map<number, boolean>();
    const known = (code: number) => {
      const before = seen.get(code) ?? face.hasGlyphForCodePoint(code);
      seen.set(code, before);
      return before;
    };
    this.#known.set(font, known);
    return known;
  }
}

function short(text: string): string {
  return text.length > MAX_CELL ? `${text.slice(0, MAX_CELL)}…` : text;
}
