import { type ControlResult, EXCEPTION_TYPES, type ReportModel } from './model.ts';

/** A drawing of rectangles, lines and words, in points from its upper left corner; PDF and SVG draw the same. `alt` says it in words. */
export type Scene = { readonly width: number; readonly height: number; readonly alt: string; readonly shapes: readonly Shape[] };
type Shape =
  | {
      readonly kind: 'rect';
      readonly x: number;
      readonly y: number;
      readonly width: number;
      readonly height: number;
      readonly fill: string;
      readonly stroke?: string;
    }
  | { readonly kind: 'line'; readonly x1: number; readonly y1: number; readonly x2: number; readonly y2: number; readonly stroke: string }
  | {
      readonly kind: 'text';
      readonly x: number;
      readonly y: number;
      readonly size: number;
      readonly fill: string;
      readonly text: string;
      readonly anchor: 'start' | 'middle' | 'end';
    };

// Told apart in grey too: dark, middle with an edge, white with an edge.
const DARK = '#0b4f6c';
const MIDDLE = '#c2622d';
const EDGE = '#1a1f2b';
const LIGHT = '#ffffff';
const INK = '#1a1f2b';
const ROW = 18;
const LABEL = 250;
const BAR = 11;

/** How many of each control's tests passed, did not, or could not be told. */
export function controlsChart(controls: readonly ControlResult[], width: number): Scene {
  const most = Math.max(1, ...controls.map((c) => c.tested));
  const scale = (n: number) => (n / most) * (width - LABEL - 140);
  const shapes = controls.flatMap((c, i): Shape[] => {
    const y = 22 + i * ROW;
    const failed = c.tested - c.passed - c.undetermined;
    let x = LABEL;
    const bars = (
      [
        [c.passed, DARK, DARK],
        [failed, MIDDLE, EDGE],
        [c.undetermined, LIGHT, EDGE],
      ] as const
    ).flatMap(([n, fill, stroke]): Shape[] => {
      if (n <= 0) return [];
      const bar: Shape = { kind: 'rect', x, y, width: Math.max(1, scale(n)), height: BAR, fill, stroke };
      x += Math.max(1, scale(n));
      return [bar];
    });
    return [
      { kind: 'text', x: 0, y: y - 1, size: 8.5, fill: INK, text: `${c.id}  ${fitted(c.title)}`, anchor: 'start' },
      ...bars,
      { kind: 'text', x: x + 6, y: y - 1, size: 8.5, fill: INK, text: `${c.passed} / ${failed} / ${c.undetermined}`, anchor: 'start' },
    ];
  });
  const legend = (
    [
      ['passed', DARK, DARK],
      ['not passed', MIDDLE, EDGE],
      ['not determinable', LIGHT, EDGE],
    ] as const
  ).flatMap(([name, fill, stroke], i): Shape[] => [
    { kind: 'rect', x: LABEL + i * 100, y: 3, width: 9, height: 9, fill, stroke },
    { kind: 'text', x: LABEL + i * 100 + 14, y: 1, size: 8.5, fill: INK, text: name, anchor: 'start' },
  ]);
  const alt = controls.map((c) => `${c.id}: ${c.passed} of ${c.tested} passed, ${c.undetermined} not determinable`).join('; ');
  return { width, height: 22 + controls.length * ROW, alt, shapes: [...legend, ...shapes] };
}

/** Exceptions by type, those that are open apart; undefined where there are none. */
export function exceptionsChart({ exceptions }: Pick<ReportModel, 'exceptions'>, width: number): Scene | undefined {
  const counts = EXCEPTION_TYPES.flatMap((type) => {
    const all = exceptions.filter((e) => e.type === type);
    return all.length === 0 ? [] : [{ type, all: all.length, open: all.filter((e) => e.disposition === 'open').length }];
  });
  if (counts.length === 0) return undefined;
  const most = Math.max(...counts.map((c) => c.all));
  const scale = (n: number) => (n / most) * (width - LABEL - 140);
  const shapes = counts.flatMap(({ type, all, open }, i): Shape[] => {
    const y = 22 + i * ROW;
    const bars: Shape[] = [];
    if (open > 0) bars.push({ kind: 'rect', x: LABEL, y, width: scale(open), height: BAR, fill: MIDDLE, stroke: EDGE });
    if (all > open) bars.push({ kind: 'rect', x: LABEL + scale(open), y, width: scale(all - open), height: BAR, fill: DARK, stroke: DARK });
    return [
      { kind: 'text', x: 0, y: y - 1, size: 8.5, fill: INK, text: type, anchor: 'start' },
      ...bars,
      { kind: 'text', x: LABEL + scale(all) + 6, y: y - 1, size: 8.5, fill: INK, text: `${open} open of ${all}`, anchor: 'start' },
    ];
  });
  const legend = (
    [
      ['open', MIDDLE, EDGE],
      ['dealt with, or prevented', DARK, DARK],
    ] as const
  ).flatMap(([name, fill, stroke], i): Shape[] => [
    { kind: 'rect', x: LABEL + i * 100, y: 3, width: 9, height: 9, fill, stroke },
    { kind: 'text', x: LABEL + i * 100 + 14, y: 1, size: 8.5, fill: INK, text: name, anchor: 'start' },
  ]);
  return {
    width,
    height: 22 + counts.length * ROW,
    alt: counts.map((c) => `${c.type}: ${c.open} open of ${c.all}`).join('; '),
    shapes: [...legend, ...shapes],
  };
}

function fitted(text: string): string {
  return text.length > 44 ? `${text.slice(0, 43)}…` : text;
}
