import { type ControlResult, EXCEPTION_TYPES, type ReportModel } from './model.ts';

/** A drawing of rectangles and words, in points from its upper left corner; whatever draws it draws the same. `alt` says it in words. */
export type Scene = { readonly width: number; readonly height: number; readonly alt: string; readonly shapes: readonly Shape[] };
type Paint = { readonly fill: string; readonly stroke: string };
type Shape =
  | ({ readonly kind: 'rect'; readonly x: number; readonly y: number; readonly width: number; readonly height: number } & Paint)
  | { readonly kind: 'text'; readonly x: number; readonly y: number; readonly size: number; readonly fill: string; readonly text: string };

// Told apart in grey too: dark, middle with an edge, white with an edge.
const INK = '#1a1f2b';
const DARK: Paint = { fill: '#0b4f6c', stroke: '#0b4f6c' };
const MIDDLE: Paint = { fill: '#c2622d', stroke: INK };
const LIGHT: Paint = { fill: '#ffffff', stroke: INK };
const ROW = 18;
const LABEL = 250;
const BAR = 11;
const HEAD = 22;
const LEAST = 1; // points: what is there at all is seen

/** How many of each control's tests passed, did not, or could not be told. */
export function controlsChart(controls: readonly ControlResult[], width: number): Scene {
  const parts = [
    ['passed', DARK],
    ['not passed', MIDDLE],
    ['not determinable', LIGHT],
  ] as const;
  const rows = controls.map((c) => {
    const counts = [c.passed, c.tested - c.passed - c.undetermined, c.undetermined];
    return { label: `${c.id}  ${fitted(c.title)}`, counts, told: counts.join(' / ') };
  });
  const alt = controls.map((c) => `${c.id}: ${c.passed} of ${c.tested} passed, ${c.undetermined} not determinable`).join('; ');
  return bars(rows, parts, width, alt);
}

/** Exceptions by type, those that are open apart; undefined where there are none. */
export function exceptionsChart({ exceptions }: Pick<ReportModel, 'exceptions'>, width: number): Scene | undefined {
  const rows = EXCEPTION_TYPES.flatMap((label) => {
    const all = exceptions.filter((e) => e.type === label);
    const open = all.filter((e) => e.disposition === 'open').length;
    return all.length === 0 ? [] : [{ label, counts: [open, all.length - open], told: `${open} open of ${all.length}` }];
  });
  if (rows.length === 0) return undefined;
  const parts = [
    ['open', MIDDLE],
    ['dealt with, or prevented', DARK],
  ] as const;
  return bars(rows, parts, width, rows.map((r) => `${r.label}: ${r.told}`).join('; '));
}

type Row = { readonly label: string; readonly counts: readonly number[]; readonly told: string };

// One bar a row, its parts side by side, with a legend above and the numbers behind it.
function bars(rows: readonly Row[], parts: readonly (readonly [string, Paint])[], width: number, alt: string): Scene {
  const most = Math.max(1, ...rows.map((r) => r.counts.reduce((sum, n) => sum + n, 0)));
  const scale = (n: number) => Math.max(LEAST, (n / most) * (width - LABEL - 140));
  const word = (x: number, y: number, text: string): Shape => ({ kind: 'text', x, y, size: 8.5, fill: INK, text });
  const legend = parts.flatMap(([name, paint], i): Shape[] => [
    { kind: 'rect', x: LABEL + i * 100, y: 3, width: 9, height: 9, ...paint },
    word(LABEL + i * 100 + 14, 1, name),
  ]);
  const drawn = rows.flatMap(({ label, counts, told }, i): Shape[] => {
    const y = HEAD + i * ROW;
    const shapes: Shape[] = [word(0, y - 1, label)];
    let x = LABEL;
    parts.forEach(([, paint], part) => {
      const n = counts[part] ?? 0;
      if (n <= 0) return;
      shapes.push({ kind: 'rect', x, y, width: scale(n), height: BAR, ...paint });
      x += scale(n);
    });
    return [...shapes, word(x + 6, y - 1, told)];
  });
  return { width, height: HEAD + rows.length * ROW, alt, shapes: [...legend, ...drawn] };
}

function fitted(text: string): string {
  return text.length > 44 ? `${text.slice(0, 43)}…` : text;
}
