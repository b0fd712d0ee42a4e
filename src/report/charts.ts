import { scaleBand, scaleLinear, scaleLog, scaleUtc } from 'd3-scale';
import { type ControlResult, EXCEPTION_TYPES, type ReportModel } from './model.ts';

/**
 * A drawing of rectangles and texts, in points from its upper left corner; every output format looks the same. `alt`
 * describes it in words.
 */
export type Scene = {
  readonly width: number;
  readonly height: number;
  readonly alt: string;
  readonly shapes: readonly Shape[];
};
type Paint = { readonly fill: string; readonly stroke: string };
type Shape =
  | ({
      readonly kind: 'rect';
      readonly x: number;
      readonly y: number;
      readonly width: number;
      readonly height: number;
    } & Paint)
  | {
      readonly kind: 'text';
      readonly x: number;
      readonly y: number;
      readonly size: number;
      readonly fill: string;
      readonly text: string;
    };

// Distinguishable in grey too: dark, middle with an edge, white with an edge.
const INK = '#1a1f2b';
const DARK: Paint = { fill: '#0b4f6c', stroke: '#0b4f6c' };
const MIDDLE: Paint = { fill: '#c2622d', stroke: INK };
const LIGHT: Paint = { fill: '#ffffff', stroke: INK };
const ROW = 18;
const LABEL = 250;
const BAR = 11;
const HEAD = 22;
const LEAST = 1; // points: any non-zero value is visible

/** Draws how many of each control's tests passed, failed, or could not be determined. */
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
  const alt = controls
    .map((c) => `${c.id}: ${c.passed} of ${c.tested} passed, ${c.undetermined} not determinable`)
    .join('; ');
  return bars(rows, parts, width, alt);
}

/** Draws exceptions by type, with open ones separate; returns undefined if there are none. */
export function exceptionsChart({ exceptions }: Pick<ReportModel, 'exceptions'>, width: number): Scene | undefined {
  const rows = EXCEPTION_TYPES.flatMap((label) => {
    const all = exceptions.filter((e) => e.type === label);
    const open = all.filter((e) => e.disposition === 'open').length;
    return all.length === 0
      ? []
      : [{ label, counts: [open, all.length - open], told: `${open} open of ${all.length}` }];
  });
  if (rows.length === 0) return undefined;
  const parts = [
    ['open', MIDDLE],
    ['dealt with, or prevented', DARK],
  ] as const;
  return bars(rows, parts, width, rows.map((r) => `${r.label}: ${r.told}`).join('; '));
}

type Row = { readonly label: string; readonly counts: readonly number[]; readonly told: string };

// One bar per row, its parts side by side, with a legend above and the numbers after it.
function bars(rows: readonly Row[], parts: Parts, width: number, alt: string): Scene {
  const most = Math.max(1, ...rows.map((r) => r.counts.reduce((sum, n) => sum + n, 0)));
  const length = scaleLinear([0, most], [0, width - LABEL - 140]);
  const scale = (n: number) => Math.max(LEAST, length(n));
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
  return { width, height: HEAD + rows.length * ROW, alt, shapes: [...legend(parts, LABEL), ...drawn] };
}

type Parts = readonly (readonly [string, Paint])[];

function legend(parts: Parts, left: number): Shape[] {
  return parts.flatMap(([name, paint], i): Shape[] => [
    { kind: 'rect', x: left + i * 100, y: 3, width: 9, height: 9, ...paint },
    word(left + i * 100 + 14, 1, name),
  ]);
}

function word(x: number, y: number, text: string): Shape {
  return { kind: 'text', x, y, size: 8.5, fill: INK, text };
}

const LINE: Paint = { fill: '#c9ced6', stroke: '#c9ced6' };
const AXIS = 34; // points reserved for its numbers
const WIDEST = 40;
const UPRIGHT = { height: 110, head: HEAD, foot: 16 };

/** Draws changes per day, week or month of the period by outcome; returns undefined if there are none. */
export function flowChart({ flow }: Pick<ReportModel, 'flow'>, width: number): Scene | undefined {
  const { rows, unit } = flow;
  if (rows.length === 0) return undefined;
  const parts = [
    ['applied', DARK],
    ['not applied yet', LIGHT],
    ['denied or failed', MIDDLE],
  ] as const;
  const counts = rows.map((r) => [r.applied, r.allowed, r.denied + r.failed]);
  const sums = counts.map((c) => c.reduce((sum, n) => sum + n, 0));
  const { head, height, foot } = UPRIGHT;
  const y = scaleLinear([0, Math.max(1, ...sums)], [head + height, head]).nice(4);
  const x = scaleBand(
    rows.map((r) => r.from),
    [AXIS, width],
  ).padding(0.25);
  const ticks = y.ticks(4).filter(Number.isInteger);
  const thick = Math.min(x.bandwidth(), WIDEST);
  const left = (from: string) => (x(from) ?? 0) + (x.bandwidth() - thick) / 2;
  const grid = ticks.flatMap((t): Shape[] => [
    { kind: 'rect', x: AXIS, y: y(t), width: width - AXIS, height: 0.01, ...LINE },
    word(0, y(t) - 5, String(t)),
  ]);
  const each = Math.max(1, Math.ceil(rows.length / 12)); // number of dates that fit next to each other
  const drawn = rows.flatMap((row, i): Shape[] => {
    let base = 0;
    const stack = parts.flatMap(([, paint], part): Shape[] => {
      const n = counts[i]?.[part] ?? 0;
      if (n === 0) return [];
      const [top, bottom] = [y(base + n), y(base)];
      base += n;
      return [
        { kind: 'rect', x: left(row.from), y: top, width: thick, height: Math.max(LEAST, bottom - top), ...paint },
      ];
    });
    return i % each === 0 ? [...stack, word(left(row.from), head + height + 4, row.from)] : stack;
  });
  const alt = rows.map(
    (r, i) =>
      `${unit} from ${r.from}: ${sums[i]} changes, ${r.applied} applied, ${r.denied + r.failed} denied or failed`,
  );
  return {
    width,
    height: head + height + foot,
    alt: alt.join('; '),
    shapes: [...legend(parts, AXIS), ...grid, ...drawn],
  };
}

/** Upper limits, in days, of the age groups of open exceptions. */
const AGES = [7, 30, 90, Number.POSITIVE_INFINITY] as const;

/** Counts open exceptions by age, severe ones separately; one row for each of `AGES`. */
export function agesOf({ exceptions }: Pick<ReportModel, 'exceptions'>): readonly {
  readonly age: string;
  readonly grave: number;
  readonly other: number;
}[] {
  const open = exceptions.filter((e) => e.disposition === 'open');
  return AGES.map((most, i) => {
    const least = i === 0 ? 0 : (AGES[i - 1] ?? 0) + 1;
    const mine = open.filter((e) => e.days >= least && e.days <= most);
    const grave = mine.filter((e) => e.severity === 'critical' || e.severity === 'high').length;
    return {
      age: most === Number.POSITIVE_INFINITY ? `${least} days or more` : `${least} to ${most} days`,
      grave,
      other: mine.length - grave,
    };
  });
}

/** Draws the same as bars; returns undefined if nothing is open. */
export function agesChart(model: Pick<ReportModel, 'exceptions'>, width: number): Scene | undefined {
  const rows = agesOf(model).map(({ age, grave, other }) => ({
    label: age,
    counts: [grave, other],
    told: `${grave + other} open`,
  }));
  if (rows.every((r) => r.counts.every((n) => n === 0))) return undefined;
  const parts = [
    ['critical or high', MIDDLE],
    ['medium or low', DARK],
  ] as const;
  return bars(
    rows,
    parts,
    width,
    rows.map((r) => `${r.label}: ${r.told}, ${r.counts[0]} of them critical or high`).join('; '),
  );
}

/** Draws when the gate was away during the period; returns undefined without heartbeats, the only source for this. */
export function presenceChart(
  { exceptions, reconciliation, period, asOf, flow }: ReportModel,
  width: number,
): Scene | undefined {
  if (reconciliation.some((r) => r.id === 'R6' && r.status === 'not determinable')) return undefined;
  const from = flow.rows[0] !== undefined && flow.rows[0].from > period.from ? flow.rows[0].from : period.from;
  const to = asOf < period.to ? asOf : period.to;
  const away = exceptions
    .filter((e) => e.type === 'gate-outage')
    .map((e) => ({ from: new Date(Date.parse(e.time) - (e.exposed ?? 0) * 1000), to: new Date(e.time) }));
  const x = scaleUtc([new Date(from), new Date(to)], [AXIS, width - AXIS]).clamp(true);
  const [top, bar] = [HEAD, 14];
  const ticks = x.ticks(6);
  const isFine = Number(ticks[1] ?? 0) - Number(ticks[0] ?? 0) < 86_400_000;
  const shapes: Shape[] = [
    ...legend(
      [
        ['there', DARK],
        ['away', MIDDLE],
      ],
      AXIS,
    ),
    { kind: 'rect', x: AXIS, y: top, width: width - 2 * AXIS, height: bar, ...DARK },
    ...away.map(
      (a): Shape => ({
        kind: 'rect',
        x: x(a.from),
        y: top,
        width: Math.max(LEAST, x(a.to) - x(a.from)),
        height: bar,
        ...MIDDLE,
      }),
    ),
    ...ticks.map((t) =>
      word(
        x(t),
        top + bar + 3,
        t
          .toISOString()
          .slice(0, isFine ? 16 : 10)
          .replace('T', ' '),
      ),
    ),
  ];
  const alt =
    away.length === 0
      ? 'the gate was there throughout'
      : away.map((a) => `away from ${a.from.toISOString()} to ${a.to.toISOString()}`).join('; ');
  return { width, height: top + bar + 18, alt, shapes };
}

/**
 * Draws the lead time of each environment, median and 90th percentile, on a logarithmic scale; returns undefined if
 * nothing was deployed.
 */
export function leadTimeChart({ metrics }: Pick<ReportModel, 'metrics'>, width: number): Scene | undefined {
  const rows = metrics.flatMap(({ environment, leadTime: { median, p90 } }) =>
    median === undefined || p90 === undefined
      ? []
      : [{ environment, median: Math.max(60, median), p90: Math.max(60, p90) }],
  );
  if (rows.length === 0) return undefined;
  const marks = MARKS.filter(
    ([s], i) => i === 0 || rows.some((r) => r.p90 > (MARKS[i - 1]?.[0] ?? 0)) || s === MARKS[1]?.[0],
  );
  const x = scaleLog([60, Math.max(...rows.map((r) => r.p90), marks.at(-1)?.[0] ?? 3600)], [LABEL, width - 60]);
  const foot = HEAD + rows.length * ROW;
  const grid = marks.flatMap(([seconds, name]): Shape[] => [
    { kind: 'rect', x: x(seconds), y: HEAD - 4, width: 0.01, height: foot - HEAD + 4, ...LINE },
    word(x(seconds) - 8, foot + 2, name),
  ]);
  const drawn = rows.flatMap(({ environment, median, p90 }, i): Shape[] => {
    const y = HEAD + i * ROW;
    return [
      word(0, y - 1, fitted(environment)),
      { kind: 'rect', x: x(median), y: y + 4.5, width: Math.max(LEAST, x(p90) - x(median)), height: 1, ...DARK },
      { kind: 'rect', x: x(median) - 3, y: y + 2, width: 6, height: 6, ...DARK },
      { kind: 'rect', x: x(p90) - 3, y: y + 2, width: 6, height: 6, ...LIGHT },
    ];
  });
  const parts = [
    ['median', DARK],
    ['nine of ten are faster', LIGHT],
  ] as const;
  const alt = rows.map((r) => `${r.environment}: median ${r.median} s, nine of ten within ${r.p90} s`).join('; ');
  return { width, height: foot + 16, alt, shapes: [...legend(parts, LABEL), ...grid, ...drawn] };
}

const MARKS = [
  [60, '1 min'],
  [3600, '1 h'],
  [86_400, '1 day'],
  [604_800, '1 week'],
  [2_592_000, '30 days'],
] as const;

function fitted(text: string): string {
  return text.length > 44 ? `${text.slice(0, 43)}…` : text;
}
