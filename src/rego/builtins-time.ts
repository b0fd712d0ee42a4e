import { type Builtin, bigint, integer, text, Undefined } from './builtin.ts';
import {
  addDate,
  civil,
  difference,
  formatTime,
  LAYOUTS,
  parseDuration,
  parseTime,
  weekdayName,
  type ZonedTime,
} from './go-time.ts';
import { integerOf, type Value } from './value.ts';

/**
 * Time builtins. Nanoseconds are whole numbers of any size, never doubles. `now_ns` is the decision's single instant.
 */
export const TIME_BUILTINS: Readonly<Record<string, Builtin>> = {
  'time.now_ns': (_, { now }) => integerOf(now),
  'time.parse_ns': ([layout, value]) => instant(parseTime(LAYOUTS[text(layout)] ?? text(layout), text(value))),
  'time.parse_rfc3339_ns': ([value]) => instant(parseTime(LAYOUTS['RFC3339'] as string, text(value))),
  'time.parse_duration_ns': ([value]) => integerOf(parseDuration(text(value))),
  'time.format': ([value]) => {
    const { time, layout } = zoned(value);
    return formatTime(time, layout === '' ? (LAYOUTS['RFC3339Nano'] as string) : (LAYOUTS[layout] ?? layout));
  },
  'time.date': ([value]) => {
    const c = civil(zoned(value).time);
    return [c.year, c.month, c.day];
  },
  'time.clock': ([value]) => {
    const c = civil(zoned(value).time);
    return [c.hour, c.minute, c.second];
  },
  'time.weekday': ([value]) => weekdayName(civil(zoned(value).time).weekday),
  'time.add_date': ([value, years, months, days]) =>
    instant(addDate(zoned(value).time, integer(years), integer(months), integer(days))),
  'time.diff': ([a, b]) => difference(zoned(a).time, zoned(b).time),
};

function instant(ns: bigint): Value {
  if (ns < -(2n ** 63n) || ns >= 2n ** 63n) throw new Undefined('outside the years that nanoseconds can express');
  return integerOf(ns);
}

// Accepts a number, [number], [number, zone] or [number, zone, layout].
function zoned(value: Value | undefined): { time: ZonedTime; layout: string } {
  const [ns, zone = '', layout = ''] = Array.isArray(value) ? (value as Value[]) : [value];
  const at = bigint(ns);
  if (at < -(2n ** 63n) || at >= 2n ** 63n) throw new Undefined('timestamp too big');
  return { time: { ns: at, zone: text(zone) }, layout: text(layout) };
}
