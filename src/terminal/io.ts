import { CountersignError, messageOf } from '../model/index.ts';

/** Output of a command: results on `out`, progress and errors on `err`. */
export type Io = {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** Whether `err` is a terminal that shows colour and redraws lines. */
  readonly terminal: boolean;
  readonly colour: boolean;
  readonly signal: AbortSignal;
};

export const EXIT = { yes: 0, no: 1, undecided: 2 } as const;

/** Prints one clear message with its fix; returns the exit code for "could not be judged". */
export function fail(thrown: unknown, io: Io): number {
  if (thrown instanceof CountersignError) {
    io.err(`${paint(io, 'red', 'error:')} ${thrown.message}\n`);
    if (thrown.hint !== undefined) io.err(`${paint(io, 'dim', 'fix:')} ${thrown.hint}\n`);
  } else {
    io.err(`${paint(io, 'red', 'error:')} ${messageOf(thrown)}\n`);
    if (thrown instanceof Error && thrown.stack !== undefined)
      io.err(`${paint(io, 'dim', thrown.stack.split('\n').slice(1, 6).join('\n'))}\n`);
    io.err('this is a defect in Countersign; please report it with the lines above\n');
  }
  return EXIT.undecided;
}

const CODES = { red: 31, green: 32, yellow: 33, dim: 2, bold: 1 } as const;

/** Colours text on a terminal; returns it unchanged elsewhere. */
export function paint(io: Pick<Io, 'colour'>, colour: keyof typeof CODES, text: string): string {
  return io.colour ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text;
}

/** Makes text from commits safe for a terminal: control characters and direction marks could forge our output. */
export function plain(text: string): string {
  return text.replaceAll(
    /[\p{Cc}\p{Cf}\u2028\u2029]/gu,
    (char) => `<U+${(char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}>`,
  );
}
