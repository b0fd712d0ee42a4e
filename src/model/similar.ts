/**
 * Returns the one word of a list that was probably meant: it differs only in case, or by one edit (a letter more, fewer
 * or different, or two exchanged). Undefined if there is none, or more than one.
 */
export function similar(word: string, words: readonly string[]): string | undefined {
  const near = words.filter((other) => other !== word && isOneEdit(word.toLowerCase(), other.toLowerCase()));
  return near.length === 1 ? near[0] : undefined;
}

function isOneEdit(a: string, b: string): boolean {
  if (a === b) return true;
  let begin = 0;
  while (begin < a.length && a[begin] === b[begin]) begin++;
  const [restA, restB] = [a.slice(begin), b.slice(begin)];
  return (
    restA.slice(1) === restB.slice(1) ||
    restA === restB.slice(1) ||
    restA.slice(1) === restB ||
    (restA.slice(2) === restB.slice(2) && restA[0] === restB[1] && restA[1] === restB[0])
  );
}
