export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** The lowest and the highest. */
export function range(values: readonly number[]): string {
  return `${round0(Math.min(...values))} to ${round0(Math.max(...values))}`;
}

export function round0(value: number): string {
  return Math.round(value).toLocaleString('en-GB');
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
