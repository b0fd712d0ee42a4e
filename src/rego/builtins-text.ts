import { type RE2JS as Pattern, RE2JS } from 're2js';
import { array, type Builtin, collection, integer, object, text, Undefined } from './builtin.ts';
import { renderTemplate } from './go-template.ts';
import { sprintf } from './sprintf.ts';
import { print, RegoSet, type Value } from './value.ts';

/** Strings, regular expressions and globs. Patterns run on a port of RE2, so matching takes linear time. */
export const TEXT_BUILTINS: Readonly<Record<string, Builtin>> = {
  sprintf: ([format, values]) => sprintf(text(format), array(values)),
  'strings.any_prefix_match': ([strings, bases]) => affixes(strings, bases, (s, base) => s.startsWith(base)),
  'strings.any_suffix_match': ([strings, bases]) => affixes(strings, bases, (s, base) => s.endsWith(base)),
  'strings.count': ([search, part]) => occurrences(text(search), text(part)),
  'strings.split_n': ([value, separator, count]) => splitN(text(value), text(separator), integer(count)),
  'strings.render_template': ([template, values]) => renderTemplate(text(template), object(values)),
  indexof_n: ([value, part]) => positions(text(value), text(part)),
  'regex.split': ([pattern, value]) => splitByPattern(compile(text(pattern)), text(value)),
  'regex.find_n': ([pattern, value, count]) => findN(compile(text(pattern)), text(value), integer(count)),
  'regex.replace': ([value, pattern, by]) => replaceAll(text(value), compile(text(pattern)), text(by)),
  'regex.template_match': ([template, value, open, close]) =>
    templateMatch(text(template), text(value), text(open), text(close)),
  'regex.globs_match': ([a, b]) => globsIntersect(text(a), text(b)),
  'glob.quote_meta': ([pattern]) => text(pattern).replace(/[*?\\[\]{}]/g, '\\$&'),
  trace: ([message], { print: say }) => {
    say?.(text(message));
    return true;
  },
  print: (args, { print: say }) => {
    say?.(args.map((a) => (typeof a === 'string' ? a : print(a))).join(' '));
    return true;
  },
  'internal.print': ([operands], { print: say }) => {
    // Each operand is a set: empty if undefined, with several members if there are several bindings.
    const shown = array(operands).map((set) => collection(set).map((v) => (typeof v === 'string' ? v : print(v))));
    say?.(shown.map((values) => values.join(' ') || '<undefined>').join(' '));
    return true;
  },
  'internal.test_case': () => true,
};

function strings(value: Value | undefined): string[] {
  if (typeof value === 'string') return [value];
  if (value instanceof RegoSet || Array.isArray(value)) return collection(value).map(text);
  throw new Undefined('not a string, array or set');
}

function affixes(
  value: Value | undefined,
  bases: Value | undefined,
  matches: (s: string, base: string) => boolean,
): boolean {
  const wanted = strings(bases);
  return strings(value).some((s) => wanted.some((base) => matches(s, base)));
}

function occurrences(value: string, part: string): number {
  return part === '' ? [...value].length + 1 : value.split(part).length - 1;
}

// Returns the first `count` parts, or the last ones if `count` is negative.
function splitN(value: string, separator: string, count: number): string[] {
  const parts = separator === '' ? [...value] : value.split(separator);
  return count >= 0 ? parts.slice(0, count) : parts.slice(count);
}

// Positions count characters, not UTF-16 units.
function positions(value: string, part: string): number[] {
  if (part === '') throw new Undefined('empty search character');
  const [all, wanted] = [[...value], [...part]];
  return all.flatMap((_, i) => (wanted.every((c, j) => all[i + j] === c) ? [i] : []));
}

const patterns = new Map<string, Pattern>();
const MAX_PATTERNS = 256;
// enough for any pattern a person writes; a pattern built from input could otherwise fill all memory
const MAX_PATTERN = 64 * 1024;

/** Compiles an RE2 pattern and caches it. Throws `Undefined` if the pattern is invalid. */
export function compile(pattern: string): Pattern {
  const known = patterns.get(pattern);
  if (known !== undefined) return known;
  if (pattern.length > MAX_PATTERN) throw new Undefined('the pattern is too long');
  try {
    const made = RE2JS.compile(pattern);
    if (patterns.size >= MAX_PATTERNS) patterns.delete(patterns.keys().next().value as string);
    patterns.set(pattern, made);
    return made;
  } catch (thrown) {
    throw new Undefined(String(thrown));
  }
}

type Match = { readonly start: number; readonly end: number; readonly groups: readonly (string | null)[] };

// Finds all matches as Go does: an empty match right after a match does not count.
function matchesOf(pattern: Pattern, value: string, most = Number.POSITIVE_INFINITY): Match[] {
  const matcher = pattern.matcher(value);
  const found: Match[] = [];
  let lastEnd = -1;
  while (found.length < most && matcher.find()) {
    const match = {
      start: matcher.start(),
      end: matcher.end(),
      groups: Array.from({ length: matcher.groupCount() + 1 }, (_, i) => matcher.group(i)),
    };
    if (match.start === match.end && match.start === lastEnd) continue;
    lastEnd = match.end;
    found.push(match);
  }
  return found;
}

function findN(pattern: Pattern, value: string, count: number): string[] {
  return matchesOf(pattern, value, count < 0 ? undefined : count).map((m) => m.groups[0] ?? '');
}

function splitByPattern(pattern: Pattern, value: string): string[] {
  if (pattern.pattern() !== '' && value === '') return [''];
  const parts: string[] = [];
  let begin = 0;
  let end = 0;
  for (const match of matchesOf(pattern, value)) {
    end = match.start;
    if (match.end !== 0) parts.push(value.slice(begin, end));
    begin = match.end;
  }
  if (end !== value.length) parts.push(value.slice(begin));
  return parts;
}

// Expands `$1`, `${1}` and `${name}` like Go: a name extends as far as possible.
function replaceAll(value: string, pattern: Pattern, by: string): string {
  const names = pattern.namedGroups() as Record<string, number>;
  const expand = (match: Match) =>
    by.replace(/\$(\$|\w+|\{\w+\})/g, (_, raw: string) => {
      if (raw === '$') return '$';
      const name = raw.replace(/^\{|\}$/g, '');
      const index = /^\d+$/.test(name) ? Number(name) : names[name];
      return index === undefined ? '' : (match.groups[index] ?? '');
    });
  let out = '';
  let at = 0;
  for (const match of matchesOf(pattern, value)) {
    out += value.slice(at, match.start) + expand(match);
    at = match.end;
  }
  return out + value.slice(at);
}

// Matches text with patterns between delimiters, such as `urn:{.*}`. Delimiters may nest.
function templateMatch(template: string, value: string, open: string, close: string): boolean {
  if (Buffer.byteLength(open) !== 1 || Buffer.byteLength(close) !== 1)
    throw new Undefined('a delimiter must be one character');
  let pattern = '^';
  let level = 0;
  let from = 0;
  for (let i = 0; i < template.length; i++) {
    if (template[i] === open && level++ === 0) {
      pattern += RE2JS.quote(template.slice(from, i));
      from = i + 1;
    } else if (template[i] === close) {
      if (--level < 0) throw new Undefined('unbalanced delimiters');
      if (level > 0) continue;
      const part = template.slice(from, i);
      compile(`^${part}$`);
      pattern += `(${part})`;
      from = i + 1;
    }
  }
  if (level !== 0) throw new Undefined('unbalanced delimiters');
  return compile(`${pattern}${RE2JS.quote(template.slice(from))}$`)
    .matcher(value)
    .find();
}

type GlobToken = { readonly ranges: readonly (readonly [number, number])[]; readonly many: '' | '*' | '+' };

/**
 * Tests whether some text without line breaks matches both globs. Supported are `.`, `[a-z]`, `\x` and characters, each
 * with `*` or `+`.
 */
function globsIntersect(a: string, b: string): boolean {
  const [x, y] = [globTokens(a), globTokens(b)];
  // Each side becomes an automaton: a starred token may be skipped or repeated, a plus must match once.
  const expand = (tokens: GlobToken[]) =>
    tokens.flatMap((t) =>
      t.many === '+'
        ? [
            { ...t, many: '' as const },
            { ...t, many: '*' as const },
          ]
        : [t],
    );
  const [p, q] = [expand(x), expand(y)];
  const seen = new Set<string>();
  const open: [number, number][] = [[0, 0]];
  while (open.length > 0) {
    const [i, j] = open.pop() as [number, number];
    const id = `${i},${j}`;
    if (seen.has(id)) continue;
    seen.add(id);
    if (i === p.length && j === q.length) return true;
    const [s, t] = [p[i], q[j]];
    if (s?.many === '*') open.push([i + 1, j]);
    if (t?.many === '*') open.push([i, j + 1]);
    if (s !== undefined && t !== undefined && s.ranges.some(([l, h]) => t.ranges.some(([m, n]) => l <= n && m <= h)))
      open.push([s.many === '*' ? i : i + 1, t.many === '*' ? j : j + 1]);
  }
  return false;
}

function globTokens(glob: string): GlobToken[] {
  const tokens: GlobToken[] = [];
  const characters = [...glob];
  for (let i = 0; i < characters.length; i++) {
    const c = characters[i] as string;
    let ranges: [number, number][];
    if (c === '.') ranges = [[0, 0x10ffff]];
    else if (c === '[') {
      const close = characters.indexOf(']', i);
      if (close < 0) throw new Undefined('unbalanced brackets');
      ranges = classRanges(characters.slice(i + 1, close));
      i = close;
    } else if (c === '*' || c === '+' || c === ']') throw new Undefined(`\`${c}\` has nothing to repeat`);
    else {
      const literal = c === '\\' ? characters[++i] : c;
      if (literal === undefined) throw new Undefined('a backslash ends the glob');
      const code = literal.codePointAt(0) as number;
      ranges = [[code, code]];
    }
    const next = characters[i + 1];
    const many = next === '*' || next === '+' ? next : '';
    if (many !== '') i++;
    tokens.push({ ranges, many });
  }
  return tokens;
}

function classRanges(inside: string[]): [number, number][] {
  const ranges: [number, number][] = [];
  for (let i = 0; i < inside.length; i++) {
    const literal = inside[i] === '\\' ? inside[++i] : inside[i];
    if (literal === undefined) throw new Undefined('a backslash ends the class');
    const low = literal.codePointAt(0) as number;
    if (inside[i + 1] === '-' && inside[i + 2] !== undefined) {
      const high = (inside[i + 2] as string).codePointAt(0) as number;
      if (high < low) throw new Undefined('a range runs backwards');
      ranges.push([low, high]);
      i += 2;
    } else ranges.push([low, low]);
  }
  if (ranges.length === 0) throw new Undefined('an empty class');
  return ranges;
}
