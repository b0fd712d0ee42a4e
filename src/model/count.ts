/** Returns a number with its noun: `1 approval`, `2 approvals`. */
export function count(n: number, word: string, words = `${word}s`): string {
  return `${n} ${n === 1 ? word : words}`;
}
