import { execFileSync } from 'node:child_process';
import { existsSync, renameSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const HERE = fileURLToPath(new URL('../../tools/verapdf/', import.meta.url));
const LIBRARIES = fileURLToPath(new URL('../../.tools/verapdf-1.30.2', import.meta.url));

/**
 * What veraPDF says of a PDF: for PDF/A-3a and PDF/UA-1 whether it conforms, how much was checked, and which rules it
 * breaks.
 */
export function veraPdf(file: string): readonly {
  readonly name: string;
  readonly conforms: boolean;
  readonly checks: number;
  readonly broken: string[];
}[] {
  if (!existsSync(LIBRARIES)) {
    const unfinished = `${LIBRARIES}.${process.pid}`;
    rmSync(unfinished, { recursive: true, force: true });
    const args = [
      '-q',
      '-B',
      '-f',
      `${HERE}pom.xml`,
      'dependency:copy-dependencies',
      `-DoutputDirectory=${unfinished}`,
    ];
    execFileSync('mvn', args, { stdio: ['ignore', 'ignore', 'inherit'], timeout: 300_000 });
    renameSync(unfinished, LIBRARIES);
  }
  const said = execFileSync('java', ['-cp', `${LIBRARIES}/*`, `${HERE}Check.java`, file], {
    encoding: 'utf8',
    timeout: 300_000,
  });
  return said
    .split(/\n(?=\S)/)
    .filter((part) => part.trim() !== '')
    .map((part) => {
      const [head = '', ...broken] = part.trimEnd().split('\n');
      const [name = '', conforms, checks] = head.split(' ');
      return { name, conforms: conforms === 'true', checks: Number(checks), broken };
    });
}
