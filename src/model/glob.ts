/**
 * Tests whether a glob matches a whole path. `*` and `?` stay inside one segment, `**` spans segments; every other
 * character stands for itself. It does not use RegExp, so a pattern from outside takes at most pattern × path steps.
 */
export function globMatches(pattern: string, path: string): boolean {
  return segmentsMatch(pattern.split('/'), path.split('/'));
}

function segmentsMatch(pattern: readonly string[], path: readonly string[]): boolean {
  let reachable = new Set([0]);
  for (const segment of pattern) {
    const next = new Set<number>();
    for (const at of reachable) {
      if (segment === '**') for (let i = at; i <= path.length; i++) next.add(i);
      else if (at < path.length && wildcardMatches(segment, path[at] ?? '')) next.add(at + 1);
    }
    reachable = next;
  }
  return reachable.has(path.length);
}

/**
 * Tests whether a pattern with `*` (any characters) and `?` (one) matches the whole text, in at most pattern × text
 * steps.
 */
export function wildcardMatches(pattern: string, text: string): boolean {
  let p = 0;
  let t = 0;
  let star = -1;
  let mark = 0;
  while (t < text.length) {
    if (p < pattern.length && pattern[p] === '*') {
      star = p++;
      mark = t;
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === text[t])) {
      p++;
      t++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++mark;
    } else return false;
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}
