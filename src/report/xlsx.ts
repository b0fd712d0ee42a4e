import { crc32 } from 'node:zlib';
import { Zip, type ZipInputFile } from 'fflate';
import { Compressor } from './compressor.ts';
import type { Cell, Table } from './tables.ts';

const DEFLATED = 8; // APPNOTE.TXT, section 4.4.5
const MAX_CELL = 32_767; // Excel's limit, in characters
const LEVEL = 3; // of nine: half the time for a tenth more size
const XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n';
const MAIN = 'http://schemas.openxmlformats.org/spreadsheetml/2006/main';
const OFFICE = 'http://schemas.openxmlformats.org/officeDocument/2006/relationships';
const PACKAGE = 'http://schemas.openxmlformats.org/package/2006';
// local time, as in a zip: the same rows give the same bytes everywhere
const AT = new Date(1980, 0, 1);

/**
 * Writes tables as sheets of a workbook (ECMA-376, Office Open XML) with a frozen header row. The same tables give the
 * same bytes. Waits for `settle` every few hundred rows.
 */
export async function writeXlsx(
  tables: readonly Table[],
  write: (bytes: Uint8Array) => void,
  settle: () => Promise<void>,
): Promise<void> {
  const each = (make: (table: Table, n: number) => string) => tables.map((t, i) => make(t, i + 1)).join('');
  const sheetType = 'application/vnd.openxmlformats-officedocument.spreadsheetml';
  const zip = new Zip((error, chunk) => {
    if (error !== null) throw error;
    write(chunk);
  });
  const add = async (name: string, parts: Iterable<string>) => {
    const file: ZipInputFile = { filename: name, compression: DEFLATED, mtime: AT, size: 0, crc: 0 };
    zip.add(file);
    const compressor = new Compressor('raw', LEVEL, (bytes) => file.ondata?.(null, bytes, false));
    for (const part of parts) {
      const bytes = Buffer.from(part);
      file.size += bytes.length;
      file.crc = crc32(bytes, file.crc);
      compressor.write(bytes);
      await compressor.settle();
      await settle();
    }
    await compressor.end();
    file.ondata?.(null, new Uint8Array(), true);
  };
  const fixed = {
    '[Content_Types].xml':
      `<Types xmlns="${PACKAGE}/content-types"><Default Extension="rels" ` +
      'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ' +
      'ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ' +
      `ContentType="${sheetType}.sheet.main+xml"/>` +
      `${each((_, n) => `<Override PartName="/xl/worksheets/sheet${n}.xml" ContentType="${sheetType}.worksheet+xml"/>`)}` +
      '</Types>',
    '_rels/.rels':
      `<Relationships xmlns="${PACKAGE}/relationships"><Relationship Id="rId1" ` +
      `Type="${OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>`,
    'xl/workbook.xml':
      `<workbook xmlns="${MAIN}" ` +
      `xmlns:r="${OFFICE}"><sheets>` +
      `${each((t, n) => `<sheet name="${escaped(t.name)}" sheetId="${n}" r:id="rId${n}"/>`)}</sheets></workbook>`,
    'xl/_rels/workbook.xml.rels':
      '<Relationships ' +
      `xmlns="${PACKAGE}/relationships">` +
      `${each((_, n) => `<Relationship Id="rId${n}" Type="${OFFICE}/worksheet" Target="worksheets/sheet${n}.xml"/>`)}` +
      '</Relationships>',
  };
  for (const [name, xml] of Object.entries(fixed)) await add(name, [XML, xml]);
  for (const [i, table] of tables.entries()) await add(`xl/worksheets/sheet${i + 1}.xml`, sheet(table));
  zip.end();
}

const ROWS = 500; // rows per chunk, so that a large sheet is never entirely in memory

function* sheet({ columns, rows }: Table): Generator<string> {
  const names = columns.map((_, i) => letters(i));
  const row = (cells: readonly Cell[], r: number) =>
    `<row r="${r}">${cells.map((c, i) => cell(c, `${names[i]}${r}`)).join('')}</row>`;
  yield `${XML}<worksheet xmlns="${MAIN}"><sheetViews><sheetView ` +
    'workbookViewId="0"><pane ySplit="1" topLeftCell="A2" ' +
    `activePane="bottomLeft" state="frozen"/></sheetView></sheetViews><sheetData>${row(columns, 1)}`;
  let piece = '';
  let r = 1;
  for (const cells of rows) {
    piece += row(cells, ++r);
    if (r % ROWS !== 0) continue;
    yield piece;
    piece = '';
  }
  yield piece;
  yield '</sheetData></worksheet>';
}

const SPACED = /^\s|\s$|\s\s|[\n\t]/; // whitespace that a reader might drop

function cell(value: Cell, at: string): string {
  if (typeof value === 'number') return `<c r="${at}"><v>${value}</v></c>`;
  if (value === '') return '';
  const text = escaped(value.slice(0, MAX_CELL));
  return `<c r="${at}" t="inlineStr"><is><t${SPACED.test(text) ? ' xml:space="preserve"' : ''}>${text}</t></is></c>`;
}

const PLAIN = /^[\w ./:+-]*$/; // covers most texts

function letters(column: number): string {
  return column < 26
    ? String.fromCharCode(65 + column)
    : `${letters(Math.floor(column / 26) - 1)}${letters(column % 26)}`;
}

function escaped(text: string): string {
  if (PLAIN.test(text)) return text;
  return text
    .toWellFormed()
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}
