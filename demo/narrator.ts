/** What a scene says of itself. */
export type Scene = { readonly tried: string; readonly happened: string; readonly why: string; readonly more?: string };

const WIDTH = 78;

/** Tells the story: each scene with what was tried, what happened and why. */
export class Narrator {
  readonly #out: NodeJS.WriteStream;
  readonly #colour: boolean;
  #number = 0;
  #started = Date.now();

  constructor(out: NodeJS.WriteStream) {
    this.#out = out;
    this.#colour = out.isTTY === true && (process.env['NO_COLOR'] ?? '') === '';
  }

  title(text: string): void {
    this.#out.write(`\n${this.#paint(1, text)}\n`);
  }

  /** From here on time is counted: the programs are there. */
  begin(): void {
    this.#started = Date.now();
  }

  stage(lines: readonly string[]): void {
    this.#out.write(`\n${lines.map((line) => this.#paint(2, wrap(line, '  '))).join('\n')}\n`);
  }

  /** Lines to copy from: not wrapped. */
  addresses(lines: readonly string[]): void {
    this.#out.write(`\n${lines.map((line) => `  ${line}`).join('\n')}\n`);
  }

  async scene(title: string, play: () => Promise<Scene>): Promise<void> {
    this.#number++;
    const number = String(this.#number).padStart(2);
    this.#out.write(`\n${this.#paint(1, `${number}  ${title}`)}\n`);
    const { tried, happened, why, more } = await play();
    for (const [label, text] of [
      ['tried', tried],
      ['happened', happened],
      ['why', why],
      ['also', more],
    ] as const) {
      if (text !== undefined)
        this.#out.write(`    ${this.#paint(2, label.padEnd(9))} ${wrap(text, ' '.repeat(14)).trimStart()}\n`);
    }
    this.#out.write(`    ${this.#paint(32, 'as it should')}\n`);
  }

  end(report: string): void {
    this.#out.write(
      `\n${this.#paint(32, `${this.#number} scenes, all as they should, in ${((Date.now() - this.#started) / 1000).toFixed(1)} s`)}\nthe report: ${report}\n`,
    );
  }

  broken(thrown: unknown): void {
    this.#out.write(
      `    ${this.#paint(31, 'NOT as it should')}: ${thrown instanceof Error ? thrown.message : String(thrown)}\n`,
    );
  }

  #paint(code: number, text: string): string {
    return this.#colour ? `\u001b[${code}m${text}\u001b[0m` : text;
  }
}

function wrap(text: string, indent: string): string {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(' ')) {
    if (line.length + word.length > WIDTH && line.trim() !== '') {
      lines.push(line.trimEnd());
      line = indent;
    }
    line += `${word} `;
  }
  return [...lines, line.trimEnd()].join('\n');
}
